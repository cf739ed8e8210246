"""
How the targets of one registry are written at a server that serves several: with a path before
C{/v2}, with a name after C{/v2/}, or with C{ns} in the query.

The mirror's clients write so to the mirror, and the mirror to a fallback that is a mirror of many.
"""

from __future__ import annotations

from typing import NamedTuple

_VERSION = b"/v2/"


class Spelling(NamedTuple):
    """
    @ivar before: the path before C{/v2}, such as C{b"/ghcr.io"}.
    @ivar after: what follows C{/v2/}, such as C{b"ghcr.io/"}.
    @ivar namespace: the value of C{ns} that goes with every target.
    @ivar short: the name that is written here for C{full}, when they differ.
    @ivar full: the repository as its registry knows it.
    """

    before: bytes = b""
    after: bytes = b""
    namespace: bytes = b""
    short: bytes = b""
    full: bytes = b""

    def write(self, target: bytes) -> bytes:
        """
        Write a target of the registry as it is written here.

        @param target: path and query.
        """
        if target.startswith(_VERSION):
            rest = target[len(_VERSION) :]
            if self.full and rest.startswith(self.full + b"/"):
                rest = self.short + rest[len(self.full) :]
            target = _VERSION + self.after + rest
        return self.before + self.withNamespace(target)

    def read(self, target: bytes) -> bytes:
        """
        Read a target that is written as here; any other is left as it is.
        """
        if self.before and target.startswith(self.before + b"/"):
            target = target[len(self.before) :]
        if self.after and target.startswith(_VERSION + self.after):
            target = _VERSION + target[len(_VERSION + self.after) :]
        if self.namespace:
            path, _mark, query = target.partition(b"?")
            pairs = [pair for pair in query.split(b"&") if pair != b"ns=" + self.namespace]
            target = path + (b"?" + b"&".join(pairs) if any(pairs) else b"")
        return target

    def withNamespace(self, target: bytes) -> bytes:
        """
        Add C{ns} to a target or relative reference, where it belongs to this spelling.
        """
        if not self.namespace:
            return target
        path, _, query = target.partition(b"?")
        return path + b"?" + (query + b"&" if query else b"") + b"ns=" + self.namespace

    def writeName(self, name: bytes) -> bytes:
        """
        Write a repository's name, as it stands in a token's scope.
        """
        return self.after + (self.short if self.full and name == self.full else name)
