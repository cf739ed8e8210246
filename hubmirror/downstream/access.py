"""
The operator's rules about the clients and repositories that are served.  These rules depend only on
the request; rates, which depend on earlier requests, are in L{hubmirror.downstream.rates}.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hubmirror.config import MirrorConfig
from hubmirror.protocol.addressing import RegistryNames
from hubmirror.protocol.errors import Denied
from hubmirror.protocol.forwarded import Address, isIn
from hubmirror.protocol.target import Kind, Target, sourcesOf

_WILDCARDS = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
_COMPONENT = rb"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(_COMPONENT + rb"(?:/" + _COMPONENT + rb")*")
_LONGEST_NAME = 255


def compileGlobs(globs: Sequence[str]) -> re.Pattern[str] | None:
    """
    One regular expression for all globs; C{None} when there are none.  C{**} matches anything,
    C{*} and C{?} match anything but a slash.
    """
    if not globs:
        return None
    return re.compile("|".join(f"(?:{_translate(glob)})" for glob in globs))


def _translate(glob: str) -> str:
    parts = re.split(r"(\*\*|\*|\?)", glob)
    return "".join(_WILDCARDS.get(part) or re.escape(part) for part in parts)


class Access:
    """
    The rules of one configuration.  A rule that denies wins over one that allows.
    """

    def __init__(self, config: MirrorConfig) -> None:
        self._allowedClients = config.allow_client
        self._deniedClients = config.deny_client
        self._allowed = compileGlobs(config.allow_repository)
        self._denied = compileGlobs(config.deny_repository)
        self._deniedAt = {glob.partition("/")[0] for glob in config.deny_repository}

    def permitClient(self, address: Address | None) -> None:
        """
        @param address: the client's IP address.  It is C{None} for a client without one, which is
            in no network.
        @raise Denied: when the client is not served.
        """
        if self._deniedClients and isIn(address, self._deniedClients):
            raise Denied("your address is not served here", "deny-client")
        if self._allowedClients and not isIn(address, self._allowedClients):
            raise Denied("your address is not served here", "allow-client")

    def permitTarget(self, registry: RegistryNames, target: Target) -> None:
        """
        @param registry: the registry that the target is for.
        @param target: the target, with the name of the repository as the registry writes it.
        @raise Denied: when the target is not served.
        """
        if self._allowed is None and not self._deniesAt(registry.name.decode("ascii")):
            return
        rule = "deny-repository" if self._allowed is None else "allow-repository"
        if target.kind is Kind.OTHER or not target.isPlain:
            # The registry may find another repository in this target than the mirror.
            raise Denied("nothing but repositories is served here", rule)
        if target.repository is None:
            return
        for name in (target.repository, *sourcesOf(target)):
            isValid = len(name) <= _LONGEST_NAME and _NAME.fullmatch(name)
            if not isValid or registry.complete(name) != name:
                # A registry may correct such a name to that of another repository.  A name that is
                # still incomplete is written as no client does.
                raise Denied("this is no name of a repository", rule)
            self._permitRepository(b"/".join((registry.name, name)).decode("ascii"))

    def _deniesAt(self, registry: str) -> bool:
        return any(each == registry or re.search(r"[*?]", each) for each in self._deniedAt)

    def _permitRepository(self, name: str) -> None:
        if self._denied is not None and self._denied.fullmatch(name):
            raise Denied(f"{name} is not served here", "deny-repository")
        if self._allowed is not None and not self._allowed.fullmatch(name):
            raise Denied(f"{name} is not served here", "allow-repository")
