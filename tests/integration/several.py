"""
The mirrors of all three registries, and the settings of their clients.  They are started when a
test first needs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from tests.integration.mirror import Mirror
from tests.integration.registries import BOB, K8S, QUAY, REGISTRIES, K8s, Quay, Witnesses
from tests.integration.world import World


class Several:
    """
    The mirrors.

    @ivar mirror: the mirror of the Hub, C{quay.test} and C{k8s.test}, without accounts of its own.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.folder = world.folder / "several"
        self.folder.mkdir()
        self.quay = Quay(self.folder / QUAY, world.authority)
        self.k8s = K8s(self.folder / K8S, world.authority)
        self.witnesses = Witnesses(world.hub, self.quay, self.k8s)
        self._hosts = world.hostsFile(
            "several", f"{world.hub.hosts}127.0.0.1 {' '.join(REGISTRIES)}\n"
        )
        self.mirror = self.makeMirror("many.test")

    @cached_property
    def passing(self) -> Mirror:
        """A mirror that passes its clients' passwords on to the token service of quay.test."""
        return self.makeMirror("passing.test", pass_credentials=True)

    @cached_property
    def account(self) -> Mirror:
        """A mirror that uses bob's account at quay.test."""
        path = self.folder / "password"
        path.write_text(f"{BOB.password}\n")
        return self.makeMirror("account.test", username=BOB.user, password_file=str(path))

    def makeMirror(self, name: str, *options: str, **ofQuay: Any) -> Mirror:
        """
        Start a mirror of all three.

        @param options: of its command line.
        @param ofQuay: further settings of quay.test.
        """
        registries = {
            QUAY: {
                "url": self.quay.url,
                "auth_url": self.quay.tokenUrl,
                "hosts": [f"quay.{name}"],
                **ofQuay,
            },
            K8S: {"url": self.k8s.url, "hosts": [f"k8s.{name}"]},
        }
        mirror = self._world.makeMirror(
            name,
            self._hosts,
            self._world.hub.registryUrl,
            f"--allow-redirects-to={self.k8s.regionUrl}",
            *options,
            registries=registries,
        )
        mirror.server.start()
        return mirror

    def certsD(self, name: str, hosts: Mapping[str, str]) -> Path:
        """
        Write a folder in the format of containerd's C{certs.d}.

        @param name: the name of the folder.
        @param hosts: the URL of the mirror, by the folder in C{certs.d}; a URL with C{/v2} in it is
            used without changes.
        """
        folder = self.folder / "certs.d" / name
        for registry, url in hosts.items():
            (folder / registry).mkdir(parents=True)
            override = "  override_path = true\n" if "/v2" in url else ""
            (folder / registry / "hosts.toml").write_text(
                f'[host."{url}"]\n'
                '  capabilities = ["pull", "resolve"]\n'
                f'  ca = "{self._world.authority.bundle}"\n{override}'
            )
        return folder

    def registriesConf(self, name: str, locations: Mapping[str, str]) -> Path:
        """
        Write a file in the format of podman's and skopeo's C{registries.conf}.

        @param name: the name of the file.
        @param locations: the location of the mirror, by the prefix of images.
        """
        path = self.folder / f"{name}.conf"
        path.write_text(
            "".join(
                f'[[registry]]\nprefix = "{prefix}"\nlocation = "{prefix}"\n'
                f'[[registry.mirror]]\nlocation = "{location}"\n'
                for prefix, location in locations.items()
            )
        )
        return path


@cache
def several(world: World) -> Several:
    return Several(world)
