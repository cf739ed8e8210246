"""
The checks of the doctor that concern the machine it runs on: whether the settings of dockerd there
make it use the mirror.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hubmirror.operations.findings import Finding
from hubmirror.protocol.addresses import hostAddress

_HUB_LOGIN = "https://index.docker.io/v1/"
_HOSTS_WIN = (29, 0)
"""
The first version of Docker in which C{hosts.toml} overrides C{registry-mirrors}.
"""
_LOOPBACK_IS_SECURE = (29, 10)
"""
The first version of Docker that does not allow plain HTTP on loopback by itself when
C{insecure-registries} is set.
"""


def dockerVersion() -> tuple[int, ...] | None:
    """
    The version of this machine's dockerd; C{None} when none responds.
    """
    try:
        done = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.match(r"(\d+)\.(\d+)", done.stdout)
    return None if found is None else (int(found[1]), int(found[2]))


class ClientMachine:
    """
    Finds settings that keep dockerd from using a mirror.
    """

    def __init__(
        self, root: Path, environment: Mapping[str, str], docker: tuple[int, ...] | None
    ) -> None:
        """
        @param root: the folder that stands for C{/}.
        @param environment: the environment variables of the user.
        @param docker: the version of dockerd; C{None} when it is not known.
        """
        self._root = root
        self._environment = environment
        self._docker = docker

    def examine(self, url: str) -> Iterator[Finding]:
        """
        Perform the checks.  There are no findings when the machine has neither dockerd nor settings
        for it.

        @param url: the mirror's URL.
        """
        daemonFile = self._root / "etc/docker/daemon.json"
        daemon = _readJSON(daemonFile)
        hostsFile = self._root / "etc/docker/certs.d/docker.io/hosts.toml"
        if daemon is None and not hostsFile.exists() and self._docker is None:
            return
        yield self._mirrors(url, daemon or {}, hostsFile)
        login = self._login()
        if login is not None:
            yield Finding(
                "login",
                "note",
                f"docker is logged in to Docker Hub ({login})",
                "dockerd sends this login to the token service that the mirror names, and some"
                " versions do not use the mirror then: docker logout, unless you pull private"
                " images",
            )
        if _isPlainLoopback(url):
            yield self._insecure(url, daemon or {})

    def _mirrors(self, url: str, daemon: Mapping[str, Any], hostsFile: Path) -> Finding:
        named = [str(each).rstrip("/") for each in daemon.get("registry-mirrors") or ()]
        hosts = _readText(hostsFile)
        hides = self._docker is None or self._docker >= _HOSTS_WIN
        if hosts is not None and hides:
            if re.search(rf"""["']{re.escape(url)}/?["']""", hosts):
                return Finding("settings", "ok", f"{hostsFile} names the mirror")
            return Finding(
                "settings",
                "WRONG",
                f"{hostsFile} does not name the mirror, and overrides registry-mirrors in"
                " daemon.json with Docker 29 and later",
                f"python -m hubmirror client-config {url} docker",
            )
        if url in named:
            return Finding("settings", "ok", "registry-mirrors in daemon.json names the mirror")
        near = [each for each in named if urlsplit(each).netloc == urlsplit(url).netloc]
        text = "registry-mirrors in daemon.json does not name the mirror"
        if near:
            text = f"registry-mirrors in daemon.json has {near[0]}, which is another URL"
        return Finding("settings", "WRONG", text, f"python -m hubmirror client-config {url} docker")

    def _login(self) -> Path | None:
        """
        The file that has a login for Docker Hub; C{None} when there is no login.
        """
        folder = self._environment.get("DOCKER_CONFIG")
        home = self._environment.get("HOME", "/root")
        file = Path(folder) if folder else self._root / home.lstrip("/") / ".docker"
        config = _readJSON(file / "config.json") or {}
        auths = config.get("auths")
        return file / "config.json" if isinstance(auths, dict) and _HUB_LOGIN in auths else None

    def _insecure(self, url: str, daemon: Mapping[str, Any]) -> Finding:
        insecure = [str(each) for each in daemon.get("insecure-registries") or ()]
        isNamed = urlsplit(url).netloc in insecure
        if insecure and not isNamed and (self._docker or (0,)) >= _LOOPBACK_IS_SECURE:
            return Finding(
                "insecure",
                "WRONG",
                "this version of dockerd uses plain HTTP on loopback only if insecure-registries in"
                " daemon.json is empty or names it",
                f'add "{urlsplit(url).netloc}" to insecure-registries in daemon.json',
            )
        return Finding("insecure", "ok", "dockerd uses plain HTTP on loopback")


def _isPlainLoopback(url: str) -> bool:
    parts = urlsplit(url)
    address = hostAddress((parts.hostname or "").encode("ascii"))
    return parts.scheme == "http" and address is not None and address.is_loopback


def _readText(file: Path) -> str | None:
    try:
        return file.read_text()
    except (OSError, ValueError):
        return None


def _readJSON(file: Path) -> dict[str, Any] | None:
    text = _readText(file)
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
