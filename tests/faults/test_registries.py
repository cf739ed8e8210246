"""
Tests of the whole mirror in memory, with the embedded Hub and other registries: every kind of
registry, every way of addressing it, and the requests of every kind of client.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from typing import Any
from urllib.parse import quote

from hubmirror.config import Account, RegistryConfig
from hubmirror.testing import Authentication, EmbeddedRegistry, Image, RegistrySettings
from tests.faults.memory import FaultCase
from tests.wire.support import Message

#: Settings of a registry that differ from the Hub's, and the settings that the mirror needs for it.
KINDS: dict[str, tuple[RegistrySettings, dict[str, Any]]] = {
    "plain.test": (RegistrySettings(), {}),
    "realm.test": (RegistrySettings(realm="realm.test/v2/auth", service="other"), {}),
    "foreign.test": (
        RegistrySettings(realm="tokens.example/jwt"),
        {"auth_url": "https://tokens.example/jwt"},
    ),
    "long.test": (RegistrySettings(tokenSize=12 * 1024), {}),
    "open.test": (
        RegistrySettings(authentication=Authentication.NONE, redirectsManifests=True),
        {},
    ),
    "late.test": (RegistrySettings(challengesPing=False, redirectsBlobs=False), {}),
    "pages.test": (RegistrySettings(opaqueLinks=True, tagsPerPage=2), {}),
}
HUB = "docker.io"
NAME = "owner/app"
ALICE = b"Basic " + b64encode(b"alice:rabbit")


class RegistriesCase(FaultCase):
    """
    Several registries and a mirror of them.

    @ivar registries: the embedded registries, by name.
    @ivar images: the image C{owner/app:1} of each, all of which differ.
    """

    def configure(self, **options: Any) -> None:
        self.registries: dict[str, EmbeddedRegistry] = {}
        self.kinds = options.pop("kinds", KINDS)
        super().configure(
            **{
                "registries": [
                    RegistryConfig(
                        name=name, **{"hosts": [f"{name}.mirror.example"], **ofTheMirror}
                    )
                    for name, (_, ofTheMirror) in self.kinds.items()
                ],
                **options,
            }
        )
        self.registries = {HUB: self.hub}
        for name, (settings, _) in self.kinds.items():
            self.registries[name] = self.hub.addRegistry(name, settings)
        self.hub.addUser("alice", "rabbit")
        self.images: dict[str, Image] = {
            name: registry.addImage(NAME, "1", layers=[b"of " + name.encode()])
            for name, registry in self.registries.items()
        }

    def tearDown(self) -> None:
        """Check that no registry was sent another one's credentials."""
        self.assertEqual(self.hub.misdirected(), [])

    def ask(self, target: str, authorization: bytes = b"", **request: Any) -> Message:
        fields = ((b"Authorization", authorization),) if authorization else ()
        line = self.send(target.encode(), fields=fields, **request)
        self.move(1)
        return self.answered(line)

    def authorize(self, challenged: Message, scope: str, password: bytes = b"") -> bytes:
        """
        Get a token in accordance with a challenge.

        @param scope: the client's own scope; empty for the challenge's.
        @param password: the client's own C{Authorization}.
        """
        challenge = challenged.values(b"WWW-Authenticate")[0].decode()
        parameters = dict(re.findall(r'([a-z]+)="([^"]*)"', challenge))
        path = parameters["realm"].partition("://")[2].partition("/")[2]
        host = parameters["realm"].split("/")[2].encode()
        scopes = quote(scope or parameters["scope"], safe="")
        target = f"/{path}?service={quote(parameters['service'])}&scope={scopes}"
        got = self.ask(target, password, host=host)
        self.assertEqual(got.status, 200, got.body)
        return b"Bearer " + json.loads(got.body)["token"].encode()

    def pull(self, registry: str, where: str, query: str = "", **request: Any) -> None:
        """
        Pull as containerd does: it requests the manifest first, and then follows the challenge.

        @param where: the path of the repository.
        """
        image, authorization = self.images[registry], b""
        for path, expected in (
            ("manifests/1", image.manifest.body),
            (f"manifests/{image.digest}", image.manifest.body),
            *(
                (f"blobs/{blob.digest}", b"".join(blob.pieces(0, blob.size)))
                for blob in image.layers
            ),
        ):
            got = self.ask(f"{where}/{path}{query}", authorization, **request)
            if got.status == 401:
                authorization = self.authorize(got, "")
                got = self.ask(f"{where}/{path}{query}", authorization, **request)
            self.assertEqual((got.status, got.body), (200, expected), (registry, where))
            self.assertEqual(got.values(b"Location"), [])

    def pullAfterPing(self, registry: str, name: str, password: bytes, **request: Any) -> None:
        """
        Pull as dockerd and podman do, which use only the challenge of C{/v2/}.

        @param name: the name of the repository for the client.
        @param password: the client's credentials for this host.
        """
        image, authorization = self.images[registry], b""
        pinged = self.ask("/v2/", **request)
        self.assertIn(pinged.status, (200, 401))
        if pinged.status == 401:
            authorization = self.authorize(pinged, f"repository:{name}:pull", password)
        for path, expected in (
            ("manifests/1", image.manifest.body),
            (f"blobs/{image.layers[0].digest}", b"of " + registry.encode()),
        ):
            got = self.ask(f"/v2/{name}/{path}", authorization, **request)
            self.assertEqual((got.status, got.body), (200, expected), (registry, name))


class PullTests(RegistriesCase):
    def test_namespace(self) -> None:
        """Registries addressed by C{ns}."""
        for name in self.registries:
            self.pull(name, f"/v2/{NAME}", f"?ns={name}")

    def test_pathBefore(self) -> None:
        """Registries addressed by a path before C{/v2}, with C{ns} and without."""
        for name in self.registries:
            for query in ("", f"?ns={name}"):
                self.pull(name, f"/{name}/v2/{NAME}", query)

    def test_pathAfter(self) -> None:
        """Registries addressed by a path after C{/v2}."""
        for name in self.registries:
            self.pull(name, f"/v2/{name}/{NAME}")

    def test_host(self) -> None:
        """Registries addressed by C{Host}."""
        for name in self.kinds:
            self.pull(name, f"/v2/{NAME}", host=f"{name}.mirror.example".encode())

    def test_afterPing(self) -> None:
        """Registries addressed by the name of the image, with a login at the Hub and without."""
        for password in (b"", ALICE):
            for name in self.registries:
                self.pullAfterPing(name, f"{name}/{NAME}", password)

    def test_afterPingOfHost(self) -> None:
        """
        Registries addressed by C{Host}, where C{/v2/} is that registry's own.  A registry without a
        challenge there does not work with such clients, even without a mirror.
        """
        for name in self.kinds.keys() - {"late.test"}:
            self.pullAfterPing(name, NAME, b"", host=f"{name}.mirror.example".encode())

    def test_foreignCredentials(self) -> None:
        """A client sends the token of each registry to every other registry."""
        tokens = {
            name: self.authorize(self.ask(f"/v2/{NAME}/manifests/1?ns={name}"), "")
            for name in self.registries.keys() - {"open.test"}
        }
        for owner, authorization in tokens.items():
            for name in self.registries:
                got = self.ask(f"/v2/{NAME}/manifests/1?ns={name}", authorization)
                right = name in (owner, "open.test")
                self.assertEqual(got.status, 200 if right else 401, (owner, name))


class ListTests(RegistriesCase):
    def test_pages(self) -> None:
        """Opaque links lead from page to page of the same registry, in the client's spelling."""
        for tag in "2345":
            self.registries["pages.test"].addImage(NAME, tag, layers=[b"x"])
        for start, host in (
            (f"/v2/pages.test/{NAME}/tags/list", b"mirror.example"),
            (f"/pages.test/v2/{NAME}/tags/list", b"mirror.example"),
            (f"/v2/{NAME}/tags/list?ns=pages.test", b"mirror.example"),
            (f"/v2/{NAME}/tags/list", b"pages.test.mirror.example"),
        ):
            authorization = self.authorize(self.ask(start, host=host), "")
            target, tags = start, []
            while target:
                got = self.ask(target, authorization, host=host)
                tags += json.loads(got.body)["tags"]
                links = [link.decode() for link in got.values(b"Link")]
                [target] = re.findall("^<([^>]*)>", links[0]) if links else [""]
                self.assertEqual(
                    target.partition("?")[0] or start.partition("?")[0], start.partition("?")[0]
                )
            self.assertEqual(tags, ["1", "2", "3", "4", "5"], start)


class BasicTests(RegistriesCase):
    """
    A registry that supports only Basic authentication.
    """

    def configure(self, **options: Any) -> None:
        basic = RegistrySettings(authentication=Authentication.BASIC)
        super().configure(
            kinds={
                "ours.test": (basic, {"pass_credentials": True}),
                "theirs.test": (basic, {}),
            },
            **options,
        )
        self.registries["ours.test"].addUser("bob", "hole")
        self.bob = b"Basic " + b64encode(b"bob:hole")

    def test_passed(self) -> None:
        """
        The challenge is passed on unchanged, and the password as well, if the operator allows it.
        """
        got = self.ask(f"/v2/{NAME}/manifests/1?ns=ours.test")
        self.assertEqual(got.status, 401)
        self.assertEqual(got.values(b"WWW-Authenticate"), [b'Basic realm="https://ours.test/"'])
        got = self.ask(f"/v2/{NAME}/manifests/1?ns=ours.test", self.bob)
        self.assertEqual(got.body, self.images["ours.test"].manifest.body)

    def test_notPassed(self) -> None:
        """Otherwise the password is not sent to any registry."""
        got = self.ask(f"/v2/{NAME}/manifests/1?ns=theirs.test", self.bob)
        self.assertEqual(got.status, 401)
        self.assertEqual(self.registries["theirs.test"].seen[-1].credentials, ())


class AccountTests(RegistriesCase):
    """
    The operator's accounts at a registry with tokens, and at one with Basic authentication.
    """

    def configure(self, **options: Any) -> None:
        accounts = []
        for name in ("first", "second"):
            path = self.mktemp()
            with open(path, "w") as file:
                file.write(f"password of {name}\n")
            accounts.append(Account(username=name, password_file=path))
        super().configure(
            kinds={
                "token.test": (
                    RegistrySettings(pulls=100, tokenSize=12 * 1024),
                    {"account": accounts},
                ),
                "basic.test": (
                    RegistrySettings(pulls=100, authentication=Authentication.BASIC),
                    {"account": accounts},
                ),
            },
            **options,
        )
        for name in self.kinds:
            registry = self.registries[name]
            registry.private.add(NAME)
            for account in ("first", "second"):
                registry.addUser(account, f"password of {account}", pull=[NAME])

    def test_everyWay(self) -> None:
        """Private images are pulled without a login, whatever credentials the client sends."""
        for name in self.kinds:
            for where, query, host in (
                (f"/v2/{NAME}", f"?ns={name}", b"mirror.example"),
                (f"/{name}/v2/{NAME}", "", b"mirror.example"),
                (f"/v2/{name}/{NAME}", "", b"mirror.example"),
                (f"/v2/{NAME}", "", f"{name}.mirror.example".encode()),
            ):
                self.pull(name, where, query, host=host)
            self.pullAfterPing(name, f"{name}/{NAME}", ALICE)
            # No client has been challenged.
            self.assertEqual(self.hub.token.seen, [])

    def test_mostPullsLeft(self) -> None:
        """The account with the most pulls left is used, according to the registry's count."""
        for name in self.kinds:
            left = self.registries[name].pullsLeft
            left["first"], left["second"] = 3, 5
            for _ in range(4):
                self.ask(f"/v2/{NAME}/manifests/1?ns={name}")
            self.assertLessEqual(abs(left["first"] - left["second"]), 1, dict(left))
            self.assertEqual(left["first"] + left["second"], 4)


class DeadTests(RegistriesCase):
    def test_oneDead(self) -> None:
        """A registry that is unavailable or limited does not affect the others."""
        self.registries["plain.test"].registry.stopListening()
        self.registries["long.test"].registry.fail(429)
        for _ in range(3):
            self.assertEqual(self.ask(f"/v2/{NAME}/manifests/1?ns=plain.test").status, 502)
            self.assertEqual(self.ask(f"/v2/{NAME}/manifests/1?ns=long.test").status, 429)
        for name in self.registries.keys() - {"plain.test", "long.test"}:
            self.pull(name, f"/v2/{NAME}", f"?ns={name}")
