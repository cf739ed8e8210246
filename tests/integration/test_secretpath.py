"""
Every client that can have a path in the address of its mirror pulls from a mirror with
C{secret-path}, with the settings that C{client-config} prints for it.

dockerd does not start with a path in C{registry-mirrors} before Docker 25, and reads no
C{hosts.toml} with its own image store, which is the only one that Docker 20.10 has.  There the path
is part of the names of images.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from hubmirror.operations.clientconfig import readURL, settingsFor
from tests.integration.clients import Dockerd, Surroundings
from tests.integration.images import Published
from tests.integration.nginx import Log
from tests.integration.programs import CommandFailed, eventually, run, withHosts
from tests.integration.several import Several
from tests.integration.test_registries import HUB, IMAGES, RegistriesCase
from tests.integration.tokens import PASSWORD, USER

#: With a component that stands nowhere else.
WORD = "unguessable-7f3a"
PATH = f"k3/{WORD}"
#: At the Hub.
PRIVATE = "alice/secret:latest"


class Hidden:
    """
    A mirror of all three registries below a secret path.

    @ivar address: C{HOST:PORT/PATH}.
    @ivar log: its access log.
    @ivar numbers: none comes twice.
    """

    def __init__(self, several: Several) -> None:
        self._access = several.folder / "hidden-access.log"
        self.mirror = several.makeMirror(
            "hidden.test",
            f"--secret-path={PATH}",
            "--access-log=json",
            f"--access-log-file={self._access}",
        )
        self.address = f"{self.mirror.address}/{PATH}"
        self.log = Log(self._access, self._settle)
        self.numbers = count()

    def _settle(self) -> None:
        """Return when everything that is over is in the log, where this request comes after it."""
        identifier = f"settled-{next(self.numbers)}."
        self.mirror.ask(_SETTLE, {"X-Request-ID": identifier})
        eventually(lambda: identifier in self._access.read_text(), "a request in the access log")


_SETTLE = "/settled"


@cache
def hidden(several: Several) -> Hidden:
    return Hidden(several)


class SecretPathCase(RegistriesCase):
    @property
    def hidden(self) -> Hidden:
        return hidden(self.several)

    def setUp(self) -> None:
        super().setUp()
        self.address = self.hidden.address

    def mark(self) -> None:
        super().mark()
        self._served = self.hidden.log.mark()

    def served(self) -> list[dict[str, Any]]:
        """What the mirror has answered, by its access log."""
        entries: list[dict[str, Any]] = self.hidden.log.since(self._served)
        return [entry for entry in entries if entry["target"] != _SETTLE]

    def settings(self, client: str) -> tuple[Path, str]:
        """
        What C{client-config} says for the mirror and its path.  The mirror itself names its
        registries.

        @return: the folder that stands for C{/}, with the files, and all that is printed.
        """
        return self._settings(client, self.hidden.address)

    def settingsWithout(self, client: str) -> Path:
        """What it says for the mirror without its path, where no registries are named."""
        address = self.hidden.mirror.address
        return self._settings(client, address, *(f"--registry={name}" for name in IMAGES))[0]

    def _settings(self, client: str, address: str, *options: str) -> tuple[Path, str]:
        url = f"https://{address}"
        command = [sys.executable, "-m", "hubmirror", "client-config", url, client, *options]
        text = run(
            withHosts(self.world.clientHosts, command),
            env={"SSL_CERT_FILE": str(self.world.authority.bundle)},
        )
        folder = self.several.folder / self.unique(client)
        for file in settingsFor(client, readURL(url), list(IMAGES)):
            self.assertIn(f"{file.path}\n\n{file.text}\n", text)
            path = folder / file.path.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.text)
        return folder, text

    def assertPulls(self, registry: str, pull: Callable[[], str]) -> None:
        super().assertPulls(registry, pull)
        self.assertServed(self.image(registry))

    def assertPullsPrivate(self, pull: Callable[[], object]) -> None:
        """An image that the Hub gives to alice alone, who has logged in at the mirror."""
        self.mark()
        pull()
        self.assertServed(self.hub.images[PRIVATE])
        tokens = self.seen(self.hub.services)
        self.assertTrue([each for each in tokens if each["credentials"] or each.get("form")])

    def assertServed(self, image: Published) -> None:
        """All of an image came through the mirror, and the secret went no further."""
        ofMirror = {
            entry["target"].partition("?")[0] for entry in self.served() if entry["status"] == 200
        }
        self.assertTrue([target for target in ofMirror if "/manifests/" in target], ofMirror)
        blobs = {target.rpartition("/")[2] for target in ofMirror if "/blobs/" in target}
        self.assertEqual(blobs, set(image.blobs))
        self.assertTellsNobody()

    def assertRefused(self, pull: Callable[[], object]) -> None:
        """A client that does not know the path fails, and no registry hears of it."""
        self.mark()
        self.assertRaises(CommandFailed, pull)
        answered = {(entry["target"].partition("?")[0], entry["status"]) for entry in self.served()}
        statuses = {status for target, status in answered if target != "/v2/"}
        self.assertEqual(statuses, {404}, answered)
        self.assertTrue([target for target, _ in answered if "/manifests/" in target], answered)
        for log, mark in self._marks.items():
            self.assertEqual(log.since(mark), [])

    def assertUnauthorized(self, pull: Callable[[], object]) -> None:
        """A client that has logged in fails, since it does not send its login below the path."""
        self.mark()
        self.assertRaises(CommandFailed, pull)
        self.assertIn(401, [entry["status"] for entry in self.served()])
        self.assertTellsNobody()

    def assertTellsNobody(self) -> None:
        """
        Nothing that the mirror and the servers behind it have written has the secret in it.
        """
        for log in self.several.witnesses.logs:
            log.mark()
        folder = self.world.folder
        logs = {
            path.relative_to(folder): path.read_text(errors="replace")
            for pattern in ("*.log", "*.out")
            for path in folder.rglob(pattern)
        }
        for name in ("hidden.test/twistd.out", "several/hidden-access.log", "front/access.log"):
            self.assertTrue(logs[Path(name)])
        for path, text in logs.items():
            # The clients know it.
            if not path.parts[0].startswith(("dockerd", "containerd")):
                self.assertNotIn(WORD, text, str(path))


class DockerdTests(SecretPathCase):
    def reference(self, registry: str, text: str) -> str:
        """The name by which C{client-config} says that an image of a registry is pulled."""
        name = "" if registry == HUB else f"{registry}/"
        prefix = f"{self.hidden.address}/{name}"
        self.assertIn(f"docker pull {prefix}NAME\n", text)
        return f"{prefix}{IMAGES[registry]}"

    def test_imageName(self) -> None:
        _, text = self.settings("docker")
        docker = self.world.dockerd
        self.assertPullsAll(lambda registry: docker.pullByName(self.reference(registry, text)))
        for registry, image in IMAGES.items():
            name = f"{self.hidden.mirror.address}/{registry}/{image}"
            self.assertRefused(lambda name=name: docker.pullByName(name))

    def test_build(self) -> None:
        """The BuildKit in dockerd, with the same names in C{FROM}."""
        _, text = self.settings("docker")
        docker = self.world.dockerd
        for registry in IMAGES:
            self.assertBuilds(docker, registry, self.reference(registry, text))
        name = f"{self.hidden.mirror.address}/{IMAGES[HUB]}"
        self.assertRefused(lambda: docker.build(f"FROM {name}\n"))

    def test_private(self) -> None:
        """
        BuildKit learns where there are tokens from the answer for the image.  dockerd itself looks
        at C{/v2/} alone, where there is nothing to learn.
        """
        docker, mirror = self.world.dockerd, self.hidden.mirror.address
        self.addCleanup(docker.logout, mirror)
        docker.login(registry=mirror)
        name = f"{self.address}/{PRIVATE}"
        self.assertPullsPrivate(lambda: docker.build(f"FROM {name}\nLABEL built=1\n"))
        self.assertUnauthorized(lambda: docker.pullByName(name))

    def test_registryMirrors(self) -> None:
        """
        Where dockerd takes a path there, it pulls and builds with the Hub's images by their
        ordinary names.
        """
        folder, _ = self.settings("docker")
        docker = self.dockerd(folder)
        if self.version() < (25,):
            failure = self.assertRaises(AssertionError, docker.server.start)
            self.assertIn("invalid mirror: path", str(failure))
            return
        docker.server.start()
        self.addCleanup(docker.server.stop)
        self.assertPulls(HUB, lambda: docker.pull(IMAGES[HUB]))
        self.assertPullsPrivate(lambda: docker.pull(PRIVATE, private=True))
        self.assertBuilds(docker, HUB, IMAGES[HUB])
        docker.server.stop()
        without = self.dockerd(self.settingsWithout("docker"))
        without.server.start()
        self.addCleanup(without.server.stop)
        self.assertRefused(lambda: without.pull(IMAGES[HUB]))
        self.assertRefused(lambda: without.build(f"FROM {IMAGES[HUB]}\n"))

    def assertBuilds(self, docker: Dockerd, registry: str, name: str) -> None:
        """An image is fetched to be built upon."""
        self.mark()
        docker.build(f"FROM {name}\nLABEL built=1\n")
        self.assertAsked(registry)
        self.assertServed(self.image(registry))

    def dockerd(self, root: Path) -> Dockerd:
        settings = (root / "etc/docker/daemon.json").read_text()
        surroundings = Surroundings(
            self.world.clientHosts, self.world.authority.bundle, self.hidden.address
        )
        # Paths of sockets are short.
        folder = self.world.folder / f"dockerd-{next(self.hidden.numbers)}"
        return Dockerd(folder, surroundings, settings)

    def version(self) -> tuple[int, ...]:
        found = re.search(r"version (\d+)\.(\d+)", run(["dockerd", "--version"]))
        assert found is not None
        return int(found[1]), int(found[2])


class ContainerdTests(SecretPathCase):
    def pullWith(self, folder: Path) -> Callable[[str], str]:
        return lambda registry: self.world.containerd.pullByName(
            f"{registry}/{IMAGES[registry]}", folder
        )

    def test_private(self) -> None:
        folder, _ = self.settings("containerd")
        url = f"https://{self.hidden.mirror.address}/v2/{PATH}"
        for registries in (
            folder / "etc/containerd/certs.d",
            self.several.certsD(self.unique("certs.d"), {HUB: url}),
        ):
            self.assertPullsPrivate(
                lambda registries=registries: self.world.containerd.pullByName(
                    f"{HUB}/{PRIVATE}", registries, f"{USER}:{PASSWORD}"
                )
            )

    def test_pathBefore(self) -> None:
        """C{hosts.toml} as it is printed: C{/PATH/v2/}."""
        folder, _ = self.settings("containerd")
        self.assertPullsAll(self.pullWith(folder / "etc/containerd/certs.d"))
        without = self.pullWith(self.settingsWithout("containerd") / "etc/containerd/certs.d")
        for registry in IMAGES:
            self.assertRefused(lambda registry=registry: without(registry))

    def test_pathAfter(self) -> None:
        """C{https://MIRROR/v2/PATH} with C{override_path}: C{/v2/PATH/}."""
        url = f"https://{self.hidden.mirror.address}/v2"
        name = self.unique("certs.d")
        folder = self.several.certsD(name, dict.fromkeys(IMAGES, f"{url}/{PATH}"))
        self.assertPullsAll(self.pullWith(folder))
        without = self.several.certsD(self.unique("certs.d"), dict.fromkeys(IMAGES, url))
        for registry in IMAGES:
            self.assertRefused(lambda registry=registry: self.pullWith(without)(registry))


class RegistriesConfTests(SecretPathCase):
    """C{registries.conf} as it is printed: C{/v2/PATH/}, and C{/v2/PATH/NAME/} for others."""

    def assertClient(self, client: str, pull: Callable[[str, Path], str]) -> None:
        def pullWith(root: Path, registry: str) -> str:
            conf = root / "etc/containers/registries.conf.d/hubmirror.conf"
            return pull(f"{registry}/{IMAGES[registry]}", conf)

        folder, _ = self.settings(client)
        self.assertPullsAll(lambda registry: pullWith(folder, registry))
        without = self.settingsWithout(client)
        for registry in IMAGES:
            self.assertRefused(lambda registry=registry: pullWith(without, registry))

    def test_private(self) -> None:
        """Tokens are looked for at C{/v2/} alone here too, where there is nothing to learn."""
        world = self.world
        authfile = self.several.folder / self.unique("alice.json")
        world.podman.login(self.hidden.mirror.address, authfile)
        folder, _ = self.settings("skopeo")
        conf = folder / "etc/containers/registries.conf.d/hubmirror.conf"
        source, target = f"docker://{HUB}/{PRIVATE}", f"dir:{folder / 'pulled'}"
        self.assertUnauthorized(lambda: world.skopeo.copy(source, target, conf, authfile))

    def test_podman(self) -> None:
        self.assertClient("podman", self.world.podman.pullByName)

    def test_skopeo(self) -> None:
        self.assertClient("skopeo", self.world.skopeo.pullByName)
