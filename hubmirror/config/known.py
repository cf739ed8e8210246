"""
The public registries whose settings are built in, so that the name of one is enough to mirror it.

The values are from the documentation or the challenges of the registries.  The mirror learns the
token service of any other registry from that registry's challenge (C{upstream/realms}).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple


class KnownRegistry(NamedTuple):
    """
    A registry whose settings are built in.

    @ivar name: the registry's name in the names of images.
    @ivar url: the registry's URL.
    @ivar auth_url: the URL of its token service; C{None} when it requires no tokens.
    @ivar service: the C{service} in its challenges; C{None} when it is not known.
    @ivar search_url: the URL of its search index; C{None} when it has none.
    @ivar aliases: other names that clients send for it in C{ns}.
    @ivar implicitNamespace: the namespace of repositories whose name has only one component.
    @ivar dottedNamespaces: whether the first component of a repository name may have a dot.
    """

    name: str
    url: str
    auth_url: str | None
    service: str | None = None
    search_url: str | None = None
    aliases: tuple[str, ...] = ()
    implicitNamespace: str | None = None
    dottedNamespaces: bool = True


HUB = KnownRegistry(
    "docker.io",
    "https://registry-1.docker.io",
    "https://auth.docker.io/token",
    "registry.docker.io",
    search_url="https://index.docker.io",
    aliases=("registry-1.docker.io", "index.docker.io"),
    implicitNamespace="library",
    dottedNamespaces=False,
)
"""
Docker Hub, the default registry.
"""

_TABLE = (
    HUB,
    KnownRegistry("ghcr.io", "https://ghcr.io", "https://ghcr.io/token", "ghcr.io"),
    KnownRegistry("quay.io", "https://quay.io", "https://quay.io/v2/auth", "quay.io"),
    KnownRegistry("registry.k8s.io", "https://registry.k8s.io", None),
    KnownRegistry("mcr.microsoft.com", "https://mcr.microsoft.com", None),
    KnownRegistry(
        "public.ecr.aws",
        "https://public.ecr.aws",
        "https://public.ecr.aws/token/",
        "public.ecr.aws",
    ),
    KnownRegistry("nvcr.io", "https://nvcr.io", "https://nvcr.io/proxy_auth"),
    KnownRegistry(
        "docker.elastic.co",
        "https://docker.elastic.co",
        "https://docker-auth.elastic.co/auth",
        "token-service",
    ),
    KnownRegistry(
        "registry.gitlab.com",
        "https://registry.gitlab.com",
        "https://gitlab.com/jwt/auth",
        "container_registry",
    ),
)
_KNOWN = {each.name: each for each in _TABLE}
_GOOGLE = re.compile(r"(?:[a-z]+\.)?gcr\.io\Z|[a-z0-9-]+-docker\.pkg\.dev\Z")


def known(name: str) -> KnownRegistry | None:
    """
    Find the built-in settings of a registry; C{None} when there are none.
    """
    if _GOOGLE.match(name):
        return KnownRegistry(name, f"https://{name}", f"https://{name}/v2/token", name)
    return _KNOWN.get(name)


def knownNames() -> Iterable[str]:
    """
    The names of the registries in the table.  Those of Google match a pattern instead, and are not
    included.
    """
    return _KNOWN
