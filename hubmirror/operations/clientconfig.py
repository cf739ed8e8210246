"""
The settings with which each client pulls through a mirror, to be copied or written to files.

Clients differ in how they use a mirror's URL: some take the whole URL, others only host and port,
and the path is put before C{/v2/} by some clients and after it by others.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from hubmirror.config.known import HUB, known
from hubmirror.config.registries import registry
from hubmirror.protocol.url import splitURL

_HOSTS_FOLDERS = {
    "docker": "/etc/docker/certs.d",
    "containerd": "/etc/containerd/certs.d",
    "nerdctl": "/etc/containerd/certs.d",
}
"""
The folders in which clients look for C{hosts.toml}.
"""

_PATH = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")


class Unusable(ValueError):
    """
    There are no settings for this client and this URL.  The text is one line with the reason.
    """


@attrs.frozen
class MirrorURL:
    """
    A mirror's URL, split into the parts that the settings of clients need.

    @ivar scheme: C{http} or C{https}.
    @ivar authority: C{HOST[:PORT]}, without the port when it is the scheme's default.
    @ivar path: empty, or a path that begins with a slash and does not end with one.
    """

    scheme: str
    authority: str
    path: str

    @property
    def plain(self) -> bool:
        """
        Whether the mirror is used without TLS.
        """
        return self.scheme == "http"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


@attrs.frozen
class SettingsFile:
    """
    A configuration file of a client.

    @ivar path: the file's absolute name.
    @ivar text: the settings in it that are for the mirror.
    @ivar note: when the client uses the file, and how to make the client read it again.
    @ivar isWhole: whether C{text} is the whole file, so that an existing file may be replaced.
    """

    path: str
    text: str
    note: str
    isWhole: bool = False


def readURL(url: str) -> MirrorURL:
    """
    Split a mirror's URL.

    @raise Unusable: when no client could use it.  The text does not repeat the URL, which may
        contain a password.
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


def settingsFor(
    client: str, mirror: MirrorURL, registries: Sequence[str] = (HUB.name,)
) -> tuple[SettingsFile, ...]:
    """
    The configuration files for one of L{CLIENTS}.

    @param registries: the registries whose images the client will pull through the mirror.
    @raise Unusable: when the client is not known, or can't use this URL, or when something is not
        the name of a registry.
    """
    try:
        files = CLIENTS[client]
    except KeyError:
        raise Unusable(f"there are settings for {', '.join(CLIENTS)}, not for {client!r}") from None
    try:
        # The mirror may have stated the names, which become parts of paths.
        names = [registry(name).name for name in registries]
    except ValueError as error:
        raise Unusable(str(error)) from None
    return files(mirror, names)


def describe(client: str, mirror: MirrorURL, registries: Sequence[str] = (HUB.name,)) -> str:
    """
    Describe the configuration files for one of L{CLIENTS}, and what to do with them.

    @raise Unusable: as for L{settingsFor}.
    """
    files = settingsFor(client, mirror, registries)
    parts = [f"{file.path}\n\n{file.text}\n{file.note}\n" for file in files]
    if client == "docker" and (byName := _pullsByName(mirror, registries)) is not None:
        parts.append(byName)
    if client in _HOSTS_FOLDERS:
        parts.append(
            f"In place of a file for each registry, {_HOSTS_FOLDERS[client]}/_default/hosts.toml\n"
            "is for all that have no folder of their own. For those that it does not serve, the\n"
            f"mirror responds with 404, and {client} asks the registry itself:\n\n"
            f"{_hostTable(mirror)}"
        )
    if mirror.path:
        before, after = f"{mirror.path}/v2/...", f"/v2{mirror.path}/..."
        asked = after if client in _PATH_AFTER_VERSION else before
        if client == "docker":
            asked += f", its BuildKit for {after}"
        parts.append(
            f"{client} will ask for {asked}; start the mirror with\n"
            f'secret_path = "{mirror.path[1:]}", or with --public-url {mirror}\n'
            "where something before it takes the path away.\n"
        )
    return "\n".join(parts)


def _pullsByName(mirror: MirrorURL, registries: Sequence[str]) -> str | None:
    """
    How a dockerd pulls that has no setting for this mirror or for some of these registries; C{None}
    when there is no such registry, or it can't pull by name.
    """
    if mirror.path != mirror.path.lower():
        # In the name of an image there are no capital letters.
        return None
    names = [name for name in registries if mirror.path or name != HUB.name]
    if not names:
        return None
    reasons = "dockerd before 29 has mirrors for the Hub alone"
    if mirror.path:
        reasons = f"dockerd before 25 takes no path in registry-mirrors, and\n{reasons}"
    prefixes = ("" if name == HUB.name else f"{name}/" for name in names)
    commands = "".join(
        f"  docker pull {mirror.authority}{mirror.path}/{prefix}NAME\n" for prefix in prefixes
    )
    return f"{reasons}. It pulls by name:\n{commands}"


def write(client: str, mirror: MirrorURL, registries: Sequence[str], root: Path) -> Iterator[str]:
    """
    Write the configuration files for one of L{CLIENTS}.  JSON is merged with an existing file, in
    whose lists the new members come first.  The content before the first change is kept in a file
    C{*.before-hubmirror} beside it.  Other files that exist and may have further content are not
    changed.

    @param root: the folder that stands for C{/}.
    @return: a line about each file.
    @raise Unusable: as for L{settingsFor}, or when a file can't be read or written.
    """
    for file in settingsFor(client, mirror, registries):
        path = root / file.path.lstrip("/")
        try:
            line = _write(file, path)
        except OSError as error:
            raise Unusable(f"{error.filename or path}: {error.strerror}") from None
        yield line


def _write(file: SettingsFile, path: Path) -> str:
    text = file.text.encode()
    before = path.read_bytes() if path.exists() else None
    if before is not None and file.path.endswith(".json"):
        try:
            merged = _merged(json.loads(before), json.loads(text))
        except (ValueError, TypeError, AttributeError):
            return f"{path}: is no JSON object; left as it is"
        text = json.dumps(merged, indent=2).encode() + b"\n"
    elif before is not None and not file.isWhole:
        return f"{path}: is there already; add this yourself:\n{file.text}"
    if before == text:
        return f"{path}: is right already"
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = ""
    if before is not None:
        copy = path.with_name(f"{path.name}.before-hubmirror")
        if copy.exists():
            kept = f" (what was there at first is still in {copy.name})"
        else:
            shutil.copy2(path, copy)
            kept = f" (what was there is in {copy.name})"
    path.write_bytes(text)
    return f"{path}: written{kept}. {file.note}"


def _merged(before: dict[str, Any], settings: dict[str, list[str]]) -> dict[str, Any]:
    """
    @raise TypeError: when C{before} is not of this form; or L{AttributeError}.
    """
    lists = {
        name: values + [each for each in before.get(name) or [] if each not in values]
        for name, values in settings.items()
    }
    return {**before, **lists}


def _docker(mirror: MirrorURL, registries: Sequence[str]) -> tuple[SettingsFile, ...]:
    settings = {}
    if HUB.name in registries:
        settings["registry-mirrors"] = [str(mirror)]
    if mirror.plain:
        # This is needed for loopback addresses, too: from 29.10 on, dockerd does not allow plain
        # HTTP for them by itself once the list is set.
        settings["insecure-registries"] = [mirror.authority]
    note = "Join it with what is there already. Then: systemctl reload docker"
    if mirror.path:
        note += "\nDocker takes a path from 25 on."
    daemon = SettingsFile("/etc/docker/daemon.json", json.dumps(settings, indent=2) + "\n", note)
    return (
        *([daemon] if settings else []),
        *_hostsFiles(
            _HOSTS_FOLDERS["docker"],
            mirror,
            registries,
            "In place of the other from Docker 29 on, with its containerd image store. Read at"
            " every pull.",
        ),
    )


def _containerd(mirror: MirrorURL, registries: Sequence[str]) -> tuple[SettingsFile, ...]:
    return (
        *_hostsFiles(
            _HOSTS_FOLDERS["containerd"],
            mirror,
            registries,
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


def _hostsFiles(
    folder: str, mirror: MirrorURL, registries: Sequence[str], note: str
) -> Iterator[SettingsFile]:
    """
    One C{hosts.toml} for each registry.  All of them name the same mirror, because the client sends
    the registry's name in C{ns}.
    """
    for name in registries:
        row = known(name)
        server = f"https://{name}" if row is None else row.url
        text = f'server = "{server}"\n\n{_hostTable(mirror)}'
        yield SettingsFile(f"{folder}/{_folder(name)}/hosts.toml", text, note, True)


def _hostTable(mirror: MirrorURL) -> str:
    return f'[host."{mirror}"]\ncapabilities = ["pull", "resolve"]\n'


def _folder(name: str) -> str:
    """
    The name of a registry's folder, in which containerd replaces the colon (C{hostDirectory} in
    containerd's C{remotes/docker/config}).
    """
    host, colon, port = name.partition(":")
    return f"{host}_{port}_" if colon else host


def _podman(mirror: MirrorURL, registries: Sequence[str]) -> tuple[SettingsFile, ...]:
    if mirror.path != mirror.path.lower():
        # These clients make the path part of a repository's name.
        raise Unusable("podman and skopeo take no capital letters in the path of a mirror's URL")
    tables = []
    for name in registries:
        # The name of a registry that is not the default one follows /v2/.
        suffix = "" if name == HUB.name else f"/{name}"
        table = (
            f'[[registry]]\nlocation = "{name}"\n\n'
            f'[[registry.mirror]]\nlocation = "{mirror.authority}{mirror.path}{suffix}"\n'
        )
        tables.append(table + "insecure = true\n" if mirror.plain else table)
    return (
        SettingsFile(
            "/etc/containers/registries.conf.d/hubmirror.conf",
            "\n".join(tables),
            "Read at every pull.",
            True,
        ),
    )


def _crio(mirror: MirrorURL, registries: Sequence[str]) -> tuple[SettingsFile, ...]:
    [file] = _podman(mirror, registries)
    return (attrs.evolve(file, note="Then: systemctl reload crio"),)


def _buildkit(mirror: MirrorURL, registries: Sequence[str]) -> tuple[SettingsFile, ...]:
    tables = [
        f'[registry."{name}"]\nmirrors = ["{mirror.authority}{mirror.path}"]\n'
        for name in registries
    ]
    if mirror.plain:
        tables.append(f'[registry."{mirror.authority}"]\nhttp = true\n')
    return (
        SettingsFile(
            "/etc/buildkit/buildkitd.toml",
            "\n".join(tables),
            "Then: systemctl restart buildkit\n"
            "For buildx: docker buildx create --use --buildkitd-config THIS-FILE",
        ),
    )


def _k3s(mirror: MirrorURL, registries: Sequence[str]) -> tuple[SettingsFile, ...]:
    # k3s adds /v2 only to an endpoint without a path.
    endpoint = f"{mirror}/v2" if mirror.path else str(mirror)
    entries = [f'  {_yaml(name)}:\n    endpoint:\n      - "{endpoint}"\n' for name in registries]
    return (
        SettingsFile(
            "/etc/rancher/k3s/registries.yaml",
            "mirrors:\n" + "".join(entries),
            "On every node. Then: systemctl restart k3s (on agents: k3s-agent)",
        ),
    )


def _yaml(name: str) -> str:
    return f'"{name}"' if ":" in name else name


Files = Callable[[MirrorURL, Sequence[str]], tuple[SettingsFile, ...]]

CLIENTS: dict[str, Files] = {
    "docker": _docker,
    "containerd": _containerd,
    "podman": _podman,
    "skopeo": _podman,
    "buildkit": _buildkit,
    "k3s": _k3s,
    "nerdctl": _containerd,
    "cri-o": _crio,
}
"""
The clients for which there are settings, each with the function that creates its files.
"""

_PATH_AFTER_VERSION = frozenset(("podman", "skopeo", "buildkit", "cri-o"))
