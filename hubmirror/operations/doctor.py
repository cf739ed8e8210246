"""
C{python -m hubmirror doctor [URL]}: sends the requests of clients to a mirror, or those of a mirror
to the Hub, looks at the settings of the clients on this machine, and reports for each step whether
it works and otherwise what to do.
"""

from __future__ import annotations

import json
import os
from argparse import Namespace
from pathlib import Path
from typing import Any, NoReturn

import attrs
from twisted.internet.task import react

from hubmirror.config.known import HUB as KNOWN_HUB
from hubmirror.operations.clientconfig import Unusable, readURL
from hubmirror.operations.clientmachine import ClientMachine, dockerVersion
from hubmirror.operations.examination import (
    HUB,
    PUBLIC_IMAGES,
    Examination,
    mirrorAt,
    registryAt,
)
from hubmirror.operations.findings import Finding
from hubmirror.transport.connecting import loadTrust


class _Report:
    """
    Shows findings: each as it comes, or all at the end as JSON.

    @ivar isRight: nothing is wrong.
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
        Show what was not shown yet.
        """
        if self._asJSON:
            findings = [attrs.asdict(each) for each in self._findings]
            print(json.dumps({"url": url, "ok": self.isRight, "findings": findings}, indent=2))


def run(arguments: Namespace) -> NoReturn:
    """
    The command.

    @raise SystemExit: at the end, with 0 when all is well, else 1.
    @raise Unusable: when the arguments are of no use.
    """
    subject = HUB if arguments.url is None else mirrorAt(str(readURL(arguments.url)))
    try:
        trust = loadTrust(arguments.ca_file)
    except ValueError as error:
        raise Unusable(f"--ca-file: {error}") from None

    async def main(reactor: Any) -> None:
        report = _Report(arguments.json)
        examination = Examination(
            reactor,
            subject,
            trust,
            arguments.repository,
            arguments.tag,
            direct=HUB if subject.mirror else None,
        )
        await examination.perform(report.tell)
        if subject.mirror:
            for name in arguments.registry or examination.registries:
                if name == KNOWN_HUB.name:
                    continue
                repository, tag = PUBLIC_IMAGES.get(name, ("", ""))
                further = Examination(
                    reactor, registryAt(subject.url, name), trust, repository, tag
                )
                await further.performFurther(report.tell, pulls=bool(repository))
            machine = ClientMachine(Path("/"), os.environ, dockerVersion())
            for finding in machine.examine(subject.url):
                report.tell(finding)
        report.end(subject.url)
        if not report.isRight:
            raise SystemExit(1)

    react(main)
