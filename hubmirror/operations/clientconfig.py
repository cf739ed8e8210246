"""
The settings by which each client pulls from the Hub through a mirror, ready to copy.

What a client makes of a mirror's URL is its own affair: some take the whole of it, some only host
and port, and a path goes before C{/v2/} with some and after it with others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import attrs

from hubmirror.protocol.url import splitURL

_PATH = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")


class Unusable(ValueError):
    """
    There are no settings for this client and this URL.  The text is one line that says why.
    """


@attrs.frozen
class MirrorURL:
    """
    A mirror's URL, in the parts that clients want.

    @ivar scheme: C{http} or C{https}.
    @ivar authority: C{HOST[:PORT]}, the port only where it is not the scheme's own.
    @ivar path: empty, or begins with a slash and does not end with one.
    """

    scheme: str
    authority: str
    path: str

    @property
    def plain(self) -> bool:
        """
        Whether it goes without TLS.
        """
        return self.scheme == "http"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


@attrs.frozen
class SettingsFile:
    """
    A file that a client reads.

    @ivar path: where it goes.
    @ivar text: what is in it, for this purpose.
    @ivar note: when it counts, and what makes the client read it.
    """

    path: str
    text: str
    note: str


def readURL(url: str) -> MirrorURL:
    """
    Take a mirror's URL apart.

    @raise Unusable: when no client could use it.  The URL is not in the text: it may hold a
        password.
    """
    try:
        origin, target = splitURL(url.encode("ascii", "replace"))
        path = target.decode("ascii").rstrip("/")
        if "#" in url or not _PATH.fullmatch(path):
            raise ValueError("more than scheme, host, port and a plain path")
    except ValueError as error:
        raise Unusable(
            f"the mirror's URL is {error}; write https://HOST[:PORT][/PATH],"
            " without user information, query and fragment"
        ) from None
    return MirrorURL(origin.scheme.decode("ascii"), origin.authority.decode("ascii"), path)


def settingsFor(client: str, mirror: MirrorURL) -> tuple[SettingsFile, ...]:
    """
    The files for one of L{CLIENTS}.

    @raise Unusable: when there is no such client, or it can't use this URL.
    """
    try:
        files = CLIENTS[client]
    except KeyError:
        raise Unusable(f"there are settings for {', '.join(CLIENTS)}, not for {client!r}") from None
    return files(mirror)


def describe(client: str, mirror: MirrorURL) -> str:
    """
    The files for one of L{CLIENTS}, and what to do with them.

    @raise Unusable: as L{settingsFor}.
    """
    parts = [f"{file.path}\n\n{file.text}\n{file.note}\n" for file in settingsFor(client, mirror)]
    if mirror.path:
        asked = f"/v2{mirror.path}/" if client in _PATH_AFTER_VERSION else f"{mirror.path}/v2/"
        parts.append(
            f"{client} will ask for {asked}...; hubmirror itself knows no such path, so what\n"
            f"stands before it passes that on as /v2/..., and {mirror.path}/token as /token.\n"
            f"Start it with --public-url {mirror}\n"
        )
    return "\n".join(parts)


def _docker(mirror: MirrorURL) -> tuple[SettingsFile, ...]:
    settings = {"registry-mirrors": [str(mirror)]}
    if mirror.plain:
        # On loopback too: dockerd 29.10 takes that for insecure no longer once this list is set.
        settings["insecure-registries"] = [mirror.authority]
    note = "Join it with what is there already. Then: systemctl reload docker"
    if mirror.path:
        note += "\nDocker takes a path from 25 on."
    return (
        SettingsFile("/etc/docker/daemon.json", json.dumps(settings, indent=2) + "\n", note),
        SettingsFile(
            "/etc/docker/certs.d/docker.io/hosts.toml",
            _hostsTOML(mirror),
            "In place of the other from Docker 29 on, with its containerd image store. Read at"
            " every pull.",
        ),
    )


def _containerd(mirror: MirrorURL) -> tuple[SettingsFile, ...]:
    return (
        SettingsFile(
            "/etc/containerd/certs.d/docker.io/hosts.toml",
            _hostsTOML(mirror),
            "Read at every pull. ctr wants --hosts-dir /etc/containerd/certs.d with it.",
        ),
        SettingsFile(
            "/etc/containerd/config.toml",
            "# With version = 2 the table is"
            ' [plugins."io.containerd.grpc.v1.cri".registry].\n'
            "version = 3\n"
            '[plugins."io.containerd.cri.v1.images".registry]\n'
            'config_path = "/etc/containerd/certs.d"\n',
            "Only if it does not say so already. Then: systemctl restart containerd",
        ),
    )


def _hostsTOML(mirror: MirrorURL) -> str:
    return (
        'server = "https://registry-1.docker.io"\n\n'
        f'[host."{mirror}"]\n'
        'capabilities = ["pull", "resolve"]\n'
    )


def _podman(mirror: MirrorURL) -> tuple[SettingsFile, ...]:
    if mirror.path != mirror.path.lower():
        # There the path is part of a repository's name.
        raise Unusable("podman and skopeo take no capital letters in the path of a mirror's URL")
    text = (
        '[[registry]]\nlocation = "docker.io"\n\n'
        f'[[registry.mirror]]\nlocation = "{mirror.authority}{mirror.path}"\n'
    )
    if mirror.plain:
        text += "insecure = true\n"
    return (
        SettingsFile(
            "/etc/containers/registries.conf.d/hubmirror.conf", text, "Read at every pull."
        ),
    )


def _buildkit(mirror: MirrorURL) -> tuple[SettingsFile, ...]:
    text = f'[registry."docker.io"]\nmirrors = ["{mirror.authority}{mirror.path}"]\n'
    if mirror.plain:
        text += f'\n[registry."{mirror.authority}"]\nhttp = true\n'
    return (
        SettingsFile(
            "/etc/buildkit/buildkitd.toml",
            text,
            "Then: systemctl restart buildkit\n"
            "For buildx: docker buildx create --use --buildkitd-config THIS-FILE",
        ),
    )


def _k3s(mirror: MirrorURL) -> tuple[SettingsFile, ...]:
    # What has a path is taken as it is, without a /v2 of k3s's own.
    endpoint = f"{mirror}/v2" if mirror.path else str(mirror)
    return (
        SettingsFile(
            "/etc/rancher/k3s/registries.yaml",
            f'mirrors:\n  docker.io:\n    endpoint:\n      - "{endpoint}"\n',
            "On every node. Then: systemctl restart k3s (on agents: k3s-agent)",
        ),
    )


CLIENTS: dict[str, Callable[[MirrorURL], tuple[SettingsFile, ...]]] = {
    "docker": _docker,
    "containerd": _containerd,
    "podman": _podman,
    "skopeo": _podman,
    "buildkit": _buildkit,
    "k3s": _k3s,
}
"""
The clients that are known, and what makes each one's files.
"""

_PATH_AFTER_VERSION = frozenset(("podman", "skopeo", "buildkit"))
