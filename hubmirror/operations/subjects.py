"""
What the doctor can examine: Docker Hub, a mirror, or one of the registries of a mirror.
"""

from __future__ import annotations

import attrs

from hubmirror.config import MirrorConfig
from hubmirror.config.known import HUB as KNOWN_HUB


@attrs.frozen
class Subject:
    """
    The registry or mirror that is checked.

    @ivar url: the base URL, without C{/v2/}.
    @ivar tokens: a URL of the origin that the token service must have.
    @ivar search: the base URL of the index, without C{/v1/search}.
    @ivar mirror: whether it is a mirror.  The clients of a mirror must not have to use any other
        origin.
    @ivar name: the registry's name in the names of images.
    """

    url: str
    tokens: str
    search: str
    mirror: bool
    name: str = KNOWN_HUB.name


_DEFAULTS = MirrorConfig()
HUB = Subject(_DEFAULTS.registry_url, _DEFAULTS.auth_url, _DEFAULTS.search_url, mirror=False)
"""
Docker Hub.
"""


def mirrorAt(url: str) -> Subject:
    """
    A mirror, whose services are all on one origin.
    """
    return Subject(url, url, url, mirror=True)


PUBLIC_IMAGES = {
    "docker.io": ("library/alpine", "latest"),
    "ghcr.io": ("linuxcontainers/alpine", "latest"),
    "quay.io": ("prometheus/busybox", "latest"),
    "registry.k8s.io": ("pause", "3.10"),
    "gcr.io": ("distroless/static", "latest"),
    "mcr.microsoft.com": ("hello-world", "latest"),
    "public.ecr.aws": ("docker/library/alpine", "latest"),
}
"""
A public image of each registry: the repository and the tag.
"""


def registryAt(url: str, name: str) -> Subject:
    """
    One of the registries of a mirror.
    """
    return Subject(f"{url}/{name}", url, url, mirror=True, name=name)
