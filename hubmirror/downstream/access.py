"""
Which clients are served, and which repositories: the rules of the operator's that need no memory.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hubmirror.config import MirrorConfig
from hubmirror.protocol.errors import Denied
from hubmirror.protocol.forwarded import Address, isIn
from hubmirror.protocol.target import Kind, Target, sourceOf

_WILDCARDS = {"**": ".*", "*": "[^/]*", "?": "[^/]"}


def compileGlobs(globs: Sequence[str]) -> re.Pattern[str] | None:
    """
    One pattern for all globs; C{None} when there are none.
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

    def permitClient(self, address: Address | None) -> None:
        """
        @param address: the client's; C{None} for a client without one, which no network contains.
        @raise Denied: when this client is not served.
        """
        if self._deniedClients and isIn(address, self._deniedClients):
            raise Denied("your address is not served here", "deny-client")
        if self._allowedClients and not isIn(address, self._allowedClients):
            raise Denied("your address is not served here", "allow-client")

    def permitTarget(self, registry: str, target: Target) -> None:
        """
        @param registry: the registry's name.
        @param target: with the repository's name as the registry knows it.
        @raise Denied: when this is not served.
        """
        if self._allowed is None and self._denied is None:
            return
        if target.kind is Kind.OTHER:
            # The registry might find a repository in it.
            raise Denied(
                "nothing but repositories is served here",
                "deny-repository" if self._allowed is None else "allow-repository",
            )
        names = [] if target.repository is None else [target.repository]
        if target.kind is Kind.UPLOAD and (source := sourceOf(target)) is not None:
            names.append(source)
        for name in names:
            self._permitRepository(f"{registry}/{name.decode('utf-8', 'backslashreplace')}")

    def _permitRepository(self, name: str) -> None:
        if self._denied is not None and self._denied.fullmatch(name):
            raise Denied(f"{name} is not served here", "deny-repository")
        if self._allowed is not None and not self._allowed.fullmatch(name):
            raise Denied(f"{name} is not served here", "allow-repository")
