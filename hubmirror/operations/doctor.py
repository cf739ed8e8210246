"""
C{python -m hubmirror doctor [URL]}: checks a mirror, or the connection to Docker Hub.

With a URL, it sends the requests of clients to that mirror, and checks the settings of the clients
on this machine.  Without one, it sends the requests of a mirror to the Hub.  For each check it
reports whether it succeeded, and otherwise what to do.
"""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import attrs
from twisted.internet.task import react

from hubmirror.config.known import HUB as KNOWN_HUB
from hubmirror.operations.clientconfig import Unusable, readURL
from hubmirror.operations.clientmachine import ClientMachine, dockerVersion
from hubmirror.operations.examination import Examination
from hubmirror.operations.findings import Finding
from hubmirror.operations.subjects import HUB, PUBLIC_IMAGES, Subject, mirrorAt, registryAt
from hubmirror.transport.connecting import loadTrust


class _Report:
    """
    Prints each finding at once, or all findings as JSON at the end.

    @ivar isRight: whether no check has failed.
    """

    def __init__(self, asJSON: bool) -> None:
        self._asJSON = asJSON
        self._findings: list[Finding] = []
        self.isRight = True

    def tell(self, finding: Finding) -> None:
        """
        Add a finding.
        """
        before = self._findings[-1].registry if self._findings else finding.registry
        self._findings.append(finding)
        self.isRight = self.isRight and finding.state != "WRONG"
        if not self._asJSON:
            if finding.registry != before:
                print(f"\n{finding.registry or 'this machine'}:")
            for line in finding.lines():
                print(line)

    def end(self, url: str) -> None:
        """
        Print the JSON, if that was asked for.

        @param url: the URL that was checked.
        """
        if self._asJSON:
            findings = [attrs.asdict(each) for each in self._findings]
            print(json.dumps({"url": url, "ok": self.isRight, "findings": findings}, indent=2))


async def examine(
    reactor: Any,
    subject: Subject,
    trust: Any,
    arguments: Namespace,
    tell: Callable[[Finding], None],
    direct: Subject = HUB,
) -> None:
    """
    Check a mirror or registry, and for a mirror, each further registry that it serves.

    @param subject: what to check.
    @param trust: the certificate authorities with which certificates are verified.
    @param arguments: C{repository} and C{tag} name the image that is pulled; C{registry} has the
        names of the further registries; when there are none, they are those that the mirror names.
    @param tell: called with each finding.
    @param direct: the registry itself, whose speed is compared with the mirror's.
    """
    examination = Examination(reactor, subject, trust, arguments.repository, arguments.tag, direct)
    await examination.perform(tell)
    if not subject.mirror:
        return
    for name in arguments.registry or examination.registries:
        if name == KNOWN_HUB.name:
            continue
        repository, tag = PUBLIC_IMAGES.get(name, ("", ""))
        further = Examination(reactor, registryAt(subject.url, name), trust, repository, tag)
        await further.performFurther(tell, pulls=bool(repository))


def run(arguments: Namespace) -> NoReturn:
    """
    Run the command.

    @raise SystemExit: always; the status is 0 when no check has failed, and 1 otherwise.
    @raise Unusable: when an argument is invalid.
    """
    subject = HUB if arguments.url is None else mirrorAt(str(readURL(arguments.url)))
    try:
        trust = loadTrust(arguments.ca_file)
    except ValueError as error:
        raise Unusable(f"--ca-file: {error}") from None

    async def main(reactor: Any) -> None:
        report = _Report(arguments.json)
        await examine(reactor, subject, trust, arguments, report.tell)
        if subject.mirror:
            machine = ClientMachine(Path("/"), os.environ, dockerVersion())
            for finding in machine.examine(subject.url):
                report.tell(finding)
        report.end(subject.url)
        if not report.isRight:
            raise SystemExit(1)

    react(main)
