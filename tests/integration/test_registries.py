"""
Tests of dockerd, containerd, podman and skopeo: without access to three registries, they pull from
them through one mirror; and push, list and log in there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.integration.images import MIB, Image, Layer, Published, digestOf
from tests.integration.nginx import Log
from tests.integration.programs import CommandFailed
from tests.integration.registries import BOB, K8S, QUAY, TAGS
from tests.integration.several import several
from tests.integration.world import IntegrationTestCase

HUB = "docker.io"
#: An image of each registry; that of quay.test has the same name as one of the Hub.
IMAGES = {
    HUB: "library/one:latest",
    QUAY: "library/one:latest",
    K8S: "pause:1",
}


class RegistriesCase(IntegrationTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.several = several(self.world)
        self.address = self.several.mirror.address
        self._number = 0
        self.mark()
        self._start = self._marks

    def tearDown(self) -> None:
        """Check that no registry was sent another one's credentials."""
        for log, mark in self._start.items():
            strangers = list(self.several.witnesses.misdirected(log, log.since(mark)))
            self.assertEqual(strangers, [])

    def mark(self) -> None:
        """Note the present end of all logs."""
        self._marks = {log: log.mark() for log in self.several.witnesses.logs}

    def asked(self, registry: str) -> list[dict[str, str]]:
        """The requests to a registry since then, without those to its token service."""
        return self.seen(self.front(registry))

    def front(self, registry: str) -> Log:
        return {
            HUB: self.hub.front.log,
            QUAY: self.several.quay.front.log,
            K8S: self.several.k8s.front.log,
        }[registry]

    def image(self, registry: str) -> Published:
        images = {
            HUB: self.hub.images,
            QUAY: self.several.quay.images,
            K8S: self.several.k8s.images,
        }
        return images[registry][IMAGES[registry]]

    def unique(self, name: str) -> str:
        self._number += 1
        return f"{self.id()}-{self._number}-{name}"

    def assertPulls(self, registry: str, pull: Callable[[], str]) -> None:
        """
        Check that a pull yields the image of that registry, and that no other registry was asked.
        """
        self.mark()
        self.assertIn(self.image(registry).digest, pull())
        self.assertAsked(registry)

    def assertAsked(self, registry: str) -> None:
        """All of an image was asked of its registry in that one's own spelling, and of no other."""
        image = self.image(registry)
        repository = IMAGES[registry].partition(":")[0]
        for other in IMAGES:
            uris = [request["uri"] for request in self.asked(other)]
            below = [uri for uri in uris if uri != "/v2/"]
            if other != registry:
                self.assertEqual(below, [], f"{other} was asked too")
                continue
            for uri in below:
                self.assertTrue(uri.startswith(f"/v2/{repository}/"), uri)
                self.assertNotIn("ns=", uri)
            blobs = {uri.rpartition("/")[2] for uri in below if "/blobs/" in uri}
            self.assertEqual(blobs, set(image.blobs))
            self.assertTrue([uri for uri in below if "/manifests/" in uri])

    def assertPullsAll(self, pull: Callable[[str], str]) -> None:
        """
        Check the pulls from all registries.

        @param pull: pulls the image of a registry.
        """
        for registry in IMAGES:
            self.assertPulls(registry, lambda registry=registry: pull(registry))


class ContainerdTests(RegistriesCase):
    def pullWith(self, hosts: Mapping[str, str]) -> None:
        folder = self.several.certsD(self.unique("certs.d"), hosts)
        self.assertPullsAll(
            lambda registry: self.world.containerd.pullByName(
                f"{registry}/{IMAGES[registry]}", folder
            )
        )

    def test_namespace(self) -> None:
        """C{certs.d/NAME} leads to the mirror, and containerd adds C{ns}."""
        self.pullWith(dict.fromkeys(IMAGES, f"https://{self.address}"))

    def test_default(self) -> None:
        """C{certs.d/_default} is for all registries."""
        self.pullWith({"_default": f"https://{self.address}"})

    def test_pathBefore(self) -> None:
        """C{https://MIRROR/NAME}, which becomes C{/NAME/v2/}."""
        self.pullWith({name: f"https://{self.address}/{name}" for name in IMAGES})

    def test_pathAfter(self) -> None:
        """C{https://MIRROR/v2/NAME} with C{override_path}."""
        self.pullWith({name: f"https://{self.address}/v2/{name}" for name in IMAGES})

    def test_host(self) -> None:
        """A name of the mirror for each registry."""
        self.pullWith(
            {
                HUB: f"https://{self.address}",
                QUAY: f"https://quay.{self.address}",
                K8S: f"https://k8s.{self.address}",
            }
        )

    def test_notMirrored(self) -> None:
        """
        A registry that the operator has not configured is not reached, and no upstream is asked.
        """
        folder = self.several.certsD(
            self.unique("certs.d"), {"_default": f"https://{self.address}"}
        )
        failure = self.assertRaises(
            CommandFailed,
            self.world.containerd.pullByName,
            "other.test/library/one:latest",
            folder,
        )
        self.assertNotIn("library/one", "".join(map(str, self.asked(HUB))))
        self.assertEqual([self.asked(name) for name in IMAGES], [[], [], []])
        self.assertIn("other.test", failure.output)


class ImageNameTests(RegistriesCase):
    """Images named C{MIRROR/NAME/owner/image}, which need no settings."""

    def test_dockerd(self) -> None:
        self.assertPullsAll(
            lambda registry: self.world.dockerd.pullByName(
                f"{self.address}/{registry}/{IMAGES[registry]}"
            )
        )

    def test_podman(self) -> None:
        self.assertPullsAll(
            lambda registry: self.world.podman.pullByName(
                f"{self.address}/{registry}/{IMAGES[registry]}"
            )
        )

    def test_skopeo(self) -> None:
        self.assertPullsAll(
            lambda registry: self.world.skopeo.pullByName(
                f"{self.address}/{registry}/{IMAGES[registry]}"
            )
        )

    def test_dockerdByHost(self) -> None:
        """Each registry has a name of the mirror."""
        for registry, host in ((QUAY, "quay"), (K8S, "k8s")):
            name = f"{host}.{self.address}/{IMAGES[registry]}"
            self.assertPulls(registry, lambda name=name: self.world.dockerd.pullByName(name))

    def test_dockerdLoggedIn(self) -> None:
        """
        A client that has logged in to the mirror, with an account of the Hub, can still pull from
        the others.
        """
        docker = self.world.dockerd
        self.addCleanup(docker.logout, self.address)
        docker.login(registry=self.address)
        self.assertPullsAll(
            lambda registry: docker.pullByName(f"{self.address}/{registry}/{IMAGES[registry]}")
        )


class RegistriesConfTests(RegistriesCase):
    def pullWith(self, locations: Mapping[str, str], authfile: Path | None = None) -> None:
        conf = self.several.registriesConf(self.unique("registries"), locations)
        for pull in (
            lambda reference: self.world.podman.pullByName(reference, conf, authfile),
            lambda reference: self.world.skopeo.pullByName(reference, conf),
        ):
            self.assertPullsAll(lambda registry, pull=pull: pull(f"{registry}/{IMAGES[registry]}"))

    def test_path(self) -> None:
        """A mirror at C{MIRROR/NAME}, which becomes C{/v2/NAME/}."""
        self.pullWith({name: f"{self.address}/{name}" for name in IMAGES})

    def test_host(self) -> None:
        """Each registry has a name of the mirror."""
        self.pullWith(
            {
                HUB: self.address,
                QUAY: f"quay.{self.address}",
                K8S: f"k8s.{self.address}",
            }
        )

    def test_loggedIn(self) -> None:
        """
        A client that has logged in to the mirror, with an account of the Hub, can still pull from
        the others.
        """
        authfile = self.several.folder / "alice.json"
        self.world.podman.login(self.address, authfile)
        self.pullWith({name: f"{self.address}/{name}" for name in IMAGES}, authfile)


class PrivateTests(RegistriesCase):
    """Pulls of C{bob/secret} of quay.test, which is private."""

    name = "bob/secret:1"

    def digest(self) -> str:
        return self.several.quay.images[self.name].digest

    def assertKnown(self) -> None:
        """Check that the token service of quay.test, and no other, has authenticated the client."""
        asked = self.seen(self.several.quay.services)
        self.assertTrue([each for each in asked if each["credentials"] or each.get("form")])

    def test_nobody(self) -> None:
        """Without a login, no client can pull it in any way: quay.test refuses it."""
        self.assertRaises(
            CommandFailed, self.world.dockerd.pullByName, f"{self.address}/{QUAY}/{self.name}"
        )
        self.assertRefused()
        folder = self.several.certsD(
            self.unique("certs.d"), {"_default": f"https://{self.address}"}
        )
        pull = self.world.containerd.pullByName
        self.mark()
        self.assertRaises(CommandFailed, pull, f"{QUAY}/{self.name}", folder)
        self.assertRefused()

    def assertRefused(self) -> None:
        asked = [each for each in self.asked(QUAY) if "/v2/bob/secret/" in each["uri"]]
        self.assertEqual({each["status"] for each in asked}, {"401"})

    def test_ofTheHub(self) -> None:
        """
        C{podman login} at the mirror is a login at the Hub, whatever other registries are mirrored.
        """
        podman, authfile = self.world.podman, self.several.folder / "private.json"
        podman.login(self.address, authfile)
        secret = "alice/secret:latest"
        for location in (self.address, f"{self.address}/{HUB}"):
            conf = self.several.registriesConf(self.unique("registries"), {HUB: location})
            pulled = podman.pullByName(f"{HUB}/{secret}", conf, authfile)
            self.assertIn(self.hub.images[secret].digest, pulled)

    def test_podmanLogin(self) -> None:
        """
        C{podman login} at the mirror's name for the registry works when passwords are passed on.
        """
        mirror = f"quay.{self.several.passing.address}"
        podman, authfile = self.world.podman, self.several.folder / "bob.json"
        self.mark()
        podman.login(mirror, authfile, BOB.user, BOB.password)
        conf = self.several.registriesConf(self.unique("registries"), {QUAY: mirror})
        self.assertIn(self.digest(), podman.pullByName(f"{QUAY}/{self.name}", conf, authfile))
        self.assertKnown()
        self.assertEqual(self.seen(self.hub.services), [])

    def test_dockerLogin(self) -> None:
        """C{docker login} there works, and then the image under that name."""
        mirror = f"quay.{self.several.passing.address}"
        docker = self.world.dockerd
        self.addCleanup(docker.logout, mirror)
        docker.login(BOB.password, user=BOB.user, registry=mirror)
        self.assertIn(self.digest(), docker.pullByName(f"{mirror}/{self.name}"))
        self.assertKnown()

    def test_containerdUser(self) -> None:
        """containerd has one user for a host, which here is for the registry in C{ns}."""
        folder = self.several.certsD(
            self.unique("certs.d"), {QUAY: f"https://{self.several.passing.address}"}
        )
        user = f"{BOB.user}:{BOB.password}"
        pulled = self.world.containerd.pullByName(f"{QUAY}/{self.name}", folder, user)
        self.assertIn(self.digest(), pulled)
        self.assertKnown()

    def test_passwordNotHandedOn(self) -> None:
        """
        Without C{pass_credentials} no password of a client is sent to quay.test, not even bob's.
        """
        folder = self.several.certsD(self.unique("certs.d"), {QUAY: f"https://{self.address}"})
        user = f"{BOB.user}:{BOB.password}"
        pull = self.world.containerd.pullByName
        self.assertRaises(CommandFailed, pull, f"{QUAY}/{self.name}", folder, user)
        told = [
            request
            for request in self.seen(self.several.quay.services)
            if request["credentials"] or request.get("form")
        ]
        self.assertEqual(told, [])

    def test_operatorsAccount(self) -> None:
        """With the operator's account, clients need no login, whichever program they are."""
        address = self.several.account.address
        folder = self.several.certsD(self.unique("certs.d"), {QUAY: f"https://{address}"})
        conf = self.several.registriesConf(self.unique("registries"), {QUAY: f"{address}/{QUAY}"})
        reference = f"{QUAY}/{self.name}"
        world = self.world
        for pull in (
            lambda: world.containerd.pullByName(reference, folder),
            lambda: world.podman.pullByName(reference, conf),
            lambda: world.skopeo.pullByName(reference, conf),
            lambda: world.dockerd.pullByName(f"{address}/{reference}"),
        ):
            self.assertIn(self.digest(), pull())
        self.assertKnown()

    def test_operatorsAccountAndLogin(self) -> None:
        """The clients' own credentials are sent only to the Hub by such a mirror."""
        address = self.several.account.address
        docker = self.world.dockerd
        self.addCleanup(docker.logout, address)
        docker.login(registry=address)
        self.assertIn(self.digest(), docker.pullByName(f"{address}/{QUAY}/{self.name}"))
        secret = "alice/secret:latest"
        pulled = docker.pullByName(f"{address}/{secret}")
        self.assertIn(self.hub.images[secret].digest, pulled)
        self.assertRaises(
            CommandFailed, docker.pushByName, f"{address}/{secret}", f"{address}/{QUAY}/bob/x:1"
        )


class PushTests(RegistriesCase):
    def write(self, name: str) -> tuple[Path, Image]:
        """Create an image with two layers that no registry has."""
        image = Image.make([Layer.make(f"{name}/{n}", 2 * MIB) for n in range(2)])
        folder = self.several.folder / self.unique(name)
        image.write(folder)
        return folder, image

    def created(self, registry: str) -> list[str]:
        """What was uploaded to a registry, without the queries."""
        return [
            request["uri"].partition("?")[0]
            for request in self.asked(registry)
            if request["status"] == "201"
        ]

    def test_skopeo(self) -> None:
        """C{skopeo copy} to C{MIRROR/NAME/...} uploads to that registry, and to no other."""
        folder, image = self.write("skopeo")
        target = f"docker://{self.address}/{K8S}/pushed/skopeo:1"
        digest = self.world.skopeo.copy(f"dir:{folder}", target)
        self.assertEqual(digest, digestOf(image.manifest))
        created = self.created(K8S)
        self.assertEqual(len(created), 4, created)
        self.assertEqual(created[-1], "/v2/pushed/skopeo/manifests/1")
        for other in (HUB, QUAY):
            self.assertEqual([r["uri"] for r in self.asked(other) if r["uri"] != "/v2/"], [])

    def test_skopeoMounts(self) -> None:
        """A layer that another repository of the registry has is mounted."""
        folder, _ = self.write("mounts")
        skopeo = self.world.skopeo
        first, second = (f"docker://{self.address}/{K8S}/mounts/{each}:1" for each in "ab")
        skopeo.copy(f"dir:{folder}", first)
        self.mark()
        skopeo.copy(first, second)
        mounted = [
            request["uri"]
            for request in self.asked(K8S)
            if "mount=" in request["uri"] and request["status"] == "201"
        ]
        self.assertEqual(len(mounted), 2, mounted)
        for uri in mounted:
            self.assertRegex(uri, r"^/v2/mounts/b/blobs/uploads/\?.*from=mounts(/|%2F)a(&|$)")

    def test_dockerMounts(self) -> None:
        """
        docker tries to mount from the repository that it has pulled from.  One of the same registry
        works; one of another does not, and the layer is uploaded.
        """
        docker = self.world.dockerd
        pulled = f"{self.address}/{K8S}/{IMAGES[K8S]}"
        docker.pullByName(pulled)
        docker.pushByName(pulled, f"{self.address}/{K8S}/mounts/docker:1")
        self.assertTrue([uri for uri in self.uris(K8S) if "from=pause" in uri], self.uris(K8S))
        pulled = f"{self.address}/{QUAY}/{IMAGES[QUAY]}"
        docker.pullByName(pulled)
        self.mark()
        docker.pushByName(pulled, f"{self.address}/{K8S}/mounts/other:1")
        self.assertEqual([uri for uri in self.uris(K8S) if "mount=" in uri or "from=" in uri], [])
        self.assertIn("/v2/mounts/other/manifests/1", self.created(K8S))

    def uris(self, registry: str) -> list[str]:
        return [request["uri"] for request in self.asked(registry)]

    def test_login(self) -> None:
        """A login that is passed on works, by name and by C{Host}."""
        mirror = self.several.passing.address
        podman, skopeo = self.world.podman, self.world.skopeo
        folder, image = self.write("login")
        authfile = self.several.folder / "pusher.json"
        podman.login(f"quay.{mirror}", authfile, BOB.user, BOB.password)
        target = f"docker://quay.{mirror}/bob/pushed:1"
        digest = skopeo.copy(f"dir:{folder}", target, authfile=authfile)
        self.assertEqual(digest, digestOf(image.manifest))
        self.assertEqual(self.created(QUAY)[-1], "/v2/bob/pushed/manifests/1")


class ListTests(RegistriesCase):
    def test_tags(self) -> None:
        """A list of tags over three pages is requested from the registry of the first page."""
        for name in (f"{self.address}/{QUAY}", f"quay.{self.address}"):
            self.mark()
            tags = self.world.skopeo.tags(f"{name}/library/one")
            self.assertEqual(tags, list(itertools.chain(*TAGS)))
            lists = [uri for uri in self.uris(QUAY) if "/tags/list" in uri]
            self.assertEqual(len(lists), len(TAGS), lists)
            self.assertEqual([uri for uri in self.uris(HUB) if uri != "/v2/"], [])

    def uris(self, registry: str) -> list[str]:
        return [r["uri"] for r in self.asked(registry) if r["status"] == "200"]
