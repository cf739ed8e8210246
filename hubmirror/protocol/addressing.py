"""
Finds the registry that a request addresses, and how its client writes that registry's targets.

A registry is named by C{ns} in the query (containerd, buildkit, dockerd 29), by a name before
C{/v2} or after C{/v2/}, or by the C{Host}; the first of these that is present counts, in this
order.  A request with none of them is for the default registry.  Only registries that the operator
has configured can be addressed.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from hubmirror.protocol.errors import InvalidName, NothingHere, UnknownName
from hubmirror.protocol.spelling import Spelling
from hubmirror.protocol.target import Kind, Target, readTarget

_LABEL = rb"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_REGISTRY = (
    rb"((?:localhost|" + _LABEL + rb"(?:\." + _LABEL + rb")+)(?::[0-9]{1,5})?"
    rb"|" + _LABEL + rb":[0-9]{1,5})"
)
_AFTER = re.compile(rb"/v2/" + _REGISTRY + rb"(?:/|(?=\?)|\Z)")
_BEFORE = re.compile(rb"/" + _REGISTRY + rb"(?=/(?:v2|v1|token)(?:[/?]|\Z))")
_TOKEN_OF = re.compile(rb"/token/" + _REGISTRY + rb"/?(?=\?|\Z)")
_FIRST = re.compile(_REGISTRY + rb"/")


class RegistryNames(NamedTuple):
    """
    The names by which a request can address a registry.

    @ivar name: the registry's name.
    @ivar aliases: further names by which C{ns} may address it.
    @ivar hosts: hosts of the mirror that stand for this registry.
    @ivar implicitNamespace: the namespace of repositories whose name has only one component, such
        as C{b"library"}; may be empty.
    @ivar dottedNamespaces: whether the first component of a repository name may have a dot.
    """

    name: bytes
    aliases: tuple[bytes, ...] = ()
    hosts: tuple[bytes, ...] = ()
    implicitNamespace: bytes = b""
    dottedNamespaces: bool = True

    def complete(self, repository: bytes) -> bytes:
        """
        The repository's full name, with the implicit namespace where one applies.
        """
        if self.implicitNamespace and b"/" not in repository:
            return self.implicitNamespace + b"/" + repository
        return repository


class Addressed(NamedTuple):
    """
    A request's registry, and its target at that registry.

    @ivar registry: the registry that the request addresses.
    @ivar hosted: the registry that the request would address if it had no C{ns} and no name in its
        path: that of the C{Host}, or the default registry.
    @ivar isExplicit: whether the request itself names the registry, by C{ns}, path or C{Host}.
    @ivar target: the target as the registry itself would receive it.
    @ivar spelling: how the client writes this registry's targets.
    @ivar tokenPath: the path of the registry's token service on this mirror.
    """

    registry: RegistryNames
    hosted: RegistryNames
    isExplicit: bool
    target: Target
    spelling: Spelling
    tokenPath: bytes


class Addressing:
    """
    Finds the registry that a request addresses.
    """

    def __init__(self, registries: Iterable[RegistryNames], secretPath: bytes = b"") -> None:
        """
        @param registries: the registries that are mirrored, the default one first.
        @param secretPath: the path component that every request must have; empty for none.
        """
        known = tuple(registries)
        self._default = known[0]
        self._names = {each.name: each for each in known}
        self._aliases = {alias: each for each in known for alias in (*each.aliases, each.name)}
        self._hosts = {host: each for each in known for host in each.hosts}
        self._secret = secretPath
        self._secretWritten = _spellings(secretPath)
        # Clients repeat the same few targets.
        self.find = lru_cache(maxsize=64)(self._find)
        self.kindOf = lru_cache(maxsize=64)(self._kindOf)

    def shown(self, raw: bytes) -> bytes:
        """
        A request target as it may be logged: without the secret path.  That stands in the names
        of repositories too, in C{scope} and C{from}, where its slashes are often percent-encoded.
        """
        return self._secretWritten.sub(b"", raw) if self._secret else raw

    @property
    def isSecret(self) -> bool:
        """
        Whether there is a secret path.
        """
        return bool(self._secret)

    def _kindOf(self, raw: bytes) -> Kind:
        """
        The kind of a target, wherever the registry's name stands in it.

        @raise BadRequest: as L{readTarget}.
        """
        try:
            raw, _, _ = self._withoutSecret(raw)
        except NothingHere:
            return Kind.OTHER
        return readTarget(_prefix(raw)[3]).kind

    def _find(self, target: Target, host: bytes) -> Addressed:
        """
        Find the registry of a request.

        @param host: the authority that the client used.
        @raise UnknownName: when the request names a registry that is not mirrored.
        @raise InvalidName: when it names two registries.
        @raise NothingHere: when the target lacks the secret path.
        """
        raw, secretBefore, secretAfter = self._withoutSecret(target.raw)
        byHost = self._hosts.get(host.rpartition(b":")[0] or host) or self._hosts.get(host)
        byNamespace = self._named(target.namespaces)
        before, after, name, raw = _prefix(raw)
        byPath = self._names.get(name.lower())
        if byPath is None and name:
            owner = byNamespace or byHost
            if not after or owner is None or not owner.dottedNamespaces:
                raise _notMirrored(name)
            # This registry allows dots in a namespace, so the name is part of the repository's.
            raw, after = b"/v2/" + after + raw[len(b"/v2/") :], b""
        elif byPath is None and self._hides(readTarget(raw).path):
            # The path names a registry only once it is decoded, which no client writes.
            raise UnknownName("there is no such repository here")
        if byPath is not None and byNamespace not in (None, byPath):
            raise InvalidName(
                f"ns names another registry than the path, which names {byPath.name.decode()}"
            )
        hosted = byHost or self._default
        registry = byNamespace or byPath or hosted
        root = b"/" + self._secret if self._secret else b""
        spelling = Spelling(
            secretBefore + before,
            secretAfter + after,
            b"" if (byPath or hosted) is registry else registry.name,
            # Only ns can name a registry in a target whose path is not known.
            elsewhere=Spelling(root, namespace=b"" if hosted is registry else registry.name),
        )
        own, spelling = self._completed(registry, readTarget(raw), spelling)
        tokenPath = root + b"/token"
        if registry is not self._default or byHost not in (None, registry):
            tokenPath += b"/" + registry.name
        isExplicit = bool(byNamespace or byPath or byHost)
        return Addressed(registry, hosted, isExplicit, own, spelling, tokenPath)

    def _withoutSecret(self, raw: bytes) -> tuple[bytes, bytes, bytes]:
        """
        Split the secret path off a target.

        @return: the target without it, and the secret path as it stood before C{/v2} and after
            C{/v2/}, one of them empty.
        @raise NothingHere: when the target lacks it.
        """
        secret = self._secret
        if not secret:
            return raw, b"", b""
        path, mark, query = raw.partition(b"?")
        # The secret path may be the last component, without a slash after it.
        slashed = path if path.endswith(b"/") else path + b"/"
        for start in (b"/", b"/v2/"):
            whole = start + secret + b"/"
            # Compared in constant time, so that the secret can't be guessed byte by byte.
            if hmac.compare_digest(slashed[: len(whole)].ljust(len(whole)), whole):
                rest = start + path[len(whole) :]
                isBefore = start == b"/"
                return (
                    rest + mark + query,
                    b"/" + secret if isBefore else b"",
                    b"" if isBefore else secret + b"/",
                )
        raise NothingHere()

    def _named(self, namespaces: Iterable[bytes]) -> RegistryNames | None:
        found: RegistryNames | None = None
        for namespace in namespaces:
            registry = self._aliases.get(namespace)
            if registry is None:
                raise _notMirrored(namespace)
            if found not in (None, registry):
                raise InvalidName("ns names two registries")
            found = registry
        return found

    def _hides(self, path: bytes) -> bool:
        name = _prefix(path)[2]
        return name.lower() in self._names

    def _completed(
        self, registry: RegistryNames, target: Target, spelling: Spelling
    ) -> tuple[Target, Spelling]:
        """
        Complete the names of the repositories in a target.
        """
        raw, repository = target.raw, target.repository
        if target.kind is Kind.UPLOAD and b"from=" in raw:
            raw = self._mounted(registry, spelling, raw)
        if repository is not None:
            full = registry.complete(repository)
            if full != repository and raw.startswith(b"/v2/" + repository + b"/"):
                raw = b"/v2/" + full + raw[len(b"/v2/" + repository) :]
                spelling = spelling._replace(short=repository, full=full)
        return (target if raw is target.raw else readTarget(raw)), spelling

    def _mounted(self, registry: RegistryNames, spelling: Spelling, raw: bytes) -> bytes:
        """
        Complete the name of the source in a cross-repository mount (OCI distribution spec,
        "Mounting a blob from another repository").  A blob of another registry can't be mounted:
        C{from} and C{mount} are removed then, which makes the request begin an ordinary upload.
        """
        path, _, query = raw.partition(b"?")
        isAfter = spelling.after not in (b"", self._secret + b"/")
        kept: list[bytes] = []
        foreign = False
        for pair in query.split(b"&"):
            if pair.startswith(b"from="):
                source = pair[len(b"from=") :].replace(b"%2F", b"/").replace(b"%2f", b"/")
                source = source.replace(b"%3A", b":").replace(b"%3a", b":")
                name = self.nameAt(registry, source, unprefixed=not isAfter)
                foreign = foreign or name is None
                if name is not None and name != source:
                    pair = b"from=" + name
            kept.append(pair)
        if foreign:
            kept = [pair for pair in kept if not pair.startswith((b"from=", b"mount="))]
        return path + (b"?" + b"&".join(kept) if kept else b"")

    def nameAt(
        self, registry: RegistryNames, name: bytes, *, unprefixed: bool = True
    ) -> bytes | None:
        """
        The full name of a repository that a client has named in a parameter.

        @param registry: the registry that the request addresses.
        @param unprefixed: whether a name that does not begin with a registry's name belongs to this
            registry.
        @return: C{None} when the repository belongs to another registry.
        """
        owner, rest = self.split(name)
        if owner is None:
            isForeign = not unprefixed or (
                not registry.dottedNamespaces and _FIRST.match(rest) is not None
            )
            return None if isForeign else registry.complete(rest)
        return registry.complete(rest) if owner is registry else None

    def split(self, name: bytes) -> tuple[RegistryNames | None, bytes]:
        """
        Split a mirrored registry's name off the front of a repository's name.

        @return: the registry and the rest; C{None} and the whole name where there is none.
        """
        if self._secret:
            name = name.removeprefix(self._secret + b"/")
        match = _FIRST.match(name)
        owner = None if match is None else self._names.get(match[1].lower())
        return owner, name if match is None or owner is None else name[match.end() :]


def _prefix(raw: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """
    Find a registry's name in a path.

    @return: the name as it stands before C{/v2}, the name as it stands after C{/v2/}, the name
        itself (these are empty where they do not apply), and the target without it.
    """
    if match := _AFTER.match(raw):
        return b"", match[1] + b"/", match[1], b"/v2/" + raw[match.end() :]
    if match := _TOKEN_OF.match(raw):
        return b"", b"", match[1], b"/token" + raw[match.end() :]
    if match := _BEFORE.match(raw):
        return b"/" + match[1], b"", match[1], raw[match.end() :]
    return b"", b"", b"", raw


def _spellings(secret: bytes) -> re.Pattern[bytes]:
    """
    All ways to write the secret path in a target (RFC 3986, section 2.1), with one of the slashes
    around it.
    """
    slash, *others = (
        b"(?:%b|%%(?i:%02x))" % (re.escape(character), ord(character))
        for character in (b"/", *(secret[i : i + 1] for i in range(len(secret))))
    )
    written = b"".join(others)
    return re.compile(b"%b%b|%b%b?" % (slash, written, written, slash))


def _notMirrored(name: bytes) -> UnknownName:
    return UnknownName(f"{name.decode('ascii', 'backslashreplace')} is not mirrored here")


def forbidCatalog(target: Target) -> None:
    """
    @raise UnknownName: when the target is the catalog, which a mirror does not serve.
    """
    if target.kind is Kind.CATALOG:
        raise UnknownName("the catalog of a mirror is not available")
