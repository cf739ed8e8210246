"""
How the targets of one registry are written for a server that serves several registries: with a path
before C{/v2}, with a name after C{/v2/}, or with C{ns} in the query.

Clients write targets like this in requests to the mirror, and the mirror does in requests to a
fallback that mirrors several registries itself.
"""

from __future__ import annotations

from typing import NamedTuple

_VERSION = b"/v2/"


class Spelling(NamedTuple):
    """
    A way to write the targets of a registry.  Each part is empty when it is not used.

    @ivar before: the path before C{/v2}, such as C{b"/ghcr.io"}.
    @ivar after: the name after C{/v2/}, such as C{b"ghcr.io/"}.
    @ivar namespace: the value of C{ns} in every target.
    @ivar short: the name that this spelling has for the repository C{full}, such as C{b"alpine"}.
    @ivar full: the repository's name at the registry, such as C{b"library/alpine"}.
    @ivar elsewhere: the spelling of targets that are not below C{/v2/}; C{None} when it is this
        one.  Some registries have their uploads there.
    """

    before: bytes = b""
    after: bytes = b""
    namespace: bytes = b""
    short: bytes = b""
    full: bytes = b""
    elsewhere: Spelling | None = None

    def write(self, target: bytes) -> bytes:
        """
        Convert a target of the registry to this spelling.

        @param target: path and query.
        """
        if target.startswith(_VERSION):
            rest = target[len(_VERSION) :]
            if self.full and rest.startswith(self.full + b"/"):
                rest = self.short + rest[len(self.full) :]
            target = _VERSION + self.after + rest
        elif self.elsewhere is not None:
            return self.elsewhere.write(target)
        return self.before + self.withNamespace(target)

    def read(self, target: bytes) -> bytes:
        """
        Convert a target in this spelling to the registry's own; any other stays as it is.
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
        Add C{ns} to a target or relative reference, if this spelling has it.
        """
        if not self.namespace:
            return target
        path, _, query = target.partition(b"?")
        return path + b"?" + (query + b"&" if query else b"") + b"ns=" + self.namespace

    def writeName(self, name: bytes) -> bytes:
        """
        Convert a repository's name in a token's scope to this spelling.
        """
        return self.after + (self.short if self.full and name == self.full else name)

    def readName(self, name: bytes) -> bytes:
        """
        Convert a repository's name in this spelling to the registry's own; any other stays as it
        is.
        """
        return name.removeprefix(self.after)
