"""
Tests of several registries: each has settings, tokens and hosts of its own.
"""

import re
from base64 import b64encode
from urllib.parse import urlencode

from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, readBody

from hubmirror.testing import (
    Authentication,
    Credential,
    EmbeddedHub,
    EmbeddedRegistry,
    Image,
    RegistrySettings,
)
from tests.testing.support import MemoryCase, Reply, trusting

QUAY = RegistrySettings(
    realm="quay.test/v2/auth", tokenSize=12 * 1024, tagsPerPage=2, opaqueLinks=True
)


def basic(name: str, password: str) -> str:
    return f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}"


class RegistriesCase(MemoryCase):
    def add(self, settings: RegistrySettings | None = None) -> tuple[EmbeddedRegistry, Image]:
        """
        Create a registry with the image C{owner/app:1}.
        """
        registry = self.hub.addRegistry("quay.test", settings)
        return registry, registry.addImage("owner/app", "1", layers=[b"one", b"two"])

    def get(self, url: str, method: str = "GET", **fields: str) -> Reply:
        return self.ask(method, url, fields)

    def pull(self, registry: EmbeddedRegistry, path: str, method: str = "GET") -> Reply:
        return self.ask(
            method, f"{registry.registryURL}/v2/{path}", token=registry.issueToken("owner/app")
        )

    def realm(self, registry: EmbeddedRegistry) -> str:
        challenge = self.get(f"{registry.registryURL}/v2/").field("WWW-Authenticate") or ""
        [realm] = re.findall(r'^Bearer realm="([^"]*)",service="quay.test"$', challenge)
        return realm


class RealmTests(RegistriesCase):
    def test_usual(self) -> None:
        """By default, the token service is another host of the registry's domain."""
        registry, _ = self.add()
        self.assertEqual(registry.authURL, "https://auth.quay.test/token")
        self.assertEqual(self.realm(registry), registry.authURL)
        self.assertEqual(self.get(registry.authURL).status, 200)
        self.assertEqual(registry.seen[-1].host, "auth.quay.test")

    def test_onItsOwnHost(self) -> None:
        """The token service can be a path on the registry's own host."""
        registry, _ = self.add(QUAY)
        self.assertEqual(self.realm(registry), "https://quay.test/v2/auth")
        url = f"{registry.authURL}?scope=repository:owner/app:pull"
        token = self.get(url).json()["token"]
        manifest = f"{registry.registryURL}/v2/owner/app/manifests/1"
        self.assertEqual(self.ask("GET", manifest, token=token).status, 200)
        self.assertIs(registry.token, registry.registry)
        self.assertEqual(registry.connections("token"), 3)
        self.assertEqual(registry.connections("registry"), 3)

    def test_anywhere(self) -> None:
        """The token service can be on a foreign host, like that of a malicious registry."""
        registry, _ = self.add(RegistrySettings(realm="evil.test/steal"))
        self.assertEqual(self.realm(registry), "https://evil.test/steal")
        self.get(registry.authURL, Authorization=basic("alice", "rabbit"))
        [seen] = registry.token.seen
        self.assertEqual((seen.registry, seen.host), ("quay.test", "evil.test"))
        self.assertEqual(seen.credentials, (Credential("basic", "alice:rabbit"),))

    def test_fallback(self) -> None:
        """The further mirror has its token service at /token in any case."""
        registry, image = self.add(QUAY)
        token = self.get(f"{registry.mirrorURL}/token?scope=repository:owner/app:pull").json()
        reply = self.ask(
            "GET", f"{registry.mirrorURL}/v2/owner/app/manifests/1", token=token["token"]
        )
        self.assertEqual(reply.body, image.manifest.body)

    def test_sameHost(self) -> None:
        """Two registries can't have the same host."""
        self.add()
        self.assertRaises(ValueError, self.add)
        settings = RegistrySettings(realm="auth.quay.test/token")
        self.assertRaises(ValueError, self.hub.addRegistry, "other.test", settings)
        # Nothing of a registry that could not be added is left.
        self.hub.addRegistry("other.test")


class TokenTests(RegistriesCase):
    def test_veryLong(self) -> None:
        """A token may be longer than most servers accept."""
        registry, _ = self.add(RegistrySettings(tokenSize=256 * 1024))
        self.assertEqual(self.pull(registry, "owner/app/manifests/1").status, 200)
        [seen] = registry.seen
        self.assertGreater(len(seen.field("Authorization") or ""), 256 * 1024)

    def test_ofOneRegistry(self) -> None:
        """A token is valid at the registry that issued it, and at no other."""
        registry, _ = self.add()
        self.hub.addImage("owner/app", "1", layers=[b"one"])
        for issuer, other in ((registry, self.hub), (self.hub, registry)):
            token = issuer.issueToken("owner/app")
            for asked, status in ((issuer, 200), (other, 401)):
                url = f"{asked.registryURL}/v2/owner/app/manifests/1"
                self.assertEqual(self.ask("GET", url, token=token).status, status)

    def test_refreshToken(self) -> None:
        """A refresh token yields only tokens of its own registry."""
        registry, _ = self.add()
        for each in (registry, self.hub):
            each.addUser("alice", "rabbit")
        query = f"{self.hub.authURL}?offline_token=true"
        refresh = self.get(query, Authorization=basic("alice", "rabbit")).json()["refresh_token"]
        body = urlencode({"grant_type": "refresh_token", "refresh_token": refresh}).encode()
        self.assertEqual(self.ask("POST", self.hub.authURL, body=body).status, 200)
        self.assertEqual(self.ask("POST", registry.authURL, body=body).status, 401)

    def test_long(self) -> None:
        """Tokens can be as long as those of ACR and GitLab."""
        registry, _ = self.add(QUAY)
        url = f"{registry.authURL}?scope=repository:owner/app:pull"
        for token in (self.get(url).json()["token"], registry.issueToken("owner/app")):
            self.assertTrue(12 * 1024 <= len(token) < 12 * 1024 + 64, len(token))
            manifest = f"{registry.registryURL}/v2/owner/app/manifests/1"
            self.assertEqual(self.ask("GET", manifest, token=token).status, 200)


class AuthenticationTests(RegistriesCase):
    def test_none(self) -> None:
        """A registry without authentication never sends a challenge."""
        registry, _ = self.add(RegistrySettings(authentication=Authentication.NONE))
        base = f"{registry.registryURL}/v2/"
        for path in ("", "_catalog", "owner/app/manifests/1"):
            self.assertEqual(self.get(base + path).status, 200, path)
        self.assertEqual(self.get(f"{base}owner/other/manifests/1").error, "NAME_UNKNOWN")
        self.assertEqual(self.get(f"{base}owner/app/blobs/uploads/", "POST").status, 202)
        self.assertEqual(registry.token.seen, [])

    def test_basic(self) -> None:
        """A registry with Basic authentication requires it in each request."""
        registry, _ = self.add(RegistrySettings(authentication=Authentication.BASIC))
        registry.addUser("alice", "rabbit", push=["alice/*"])
        base = f"{registry.registryURL}/v2/"
        alice = basic("alice", "rabbit")
        for path in ("", "owner/app/manifests/1"):
            for fields in ({}, {"Authorization": basic("alice", "hole")}):
                reply = self.get(base + path, **fields)
                self.assertEqual((reply.status, reply.error), (401, "UNAUTHORIZED"))
                self.assertEqual(
                    reply.field("WWW-Authenticate"), 'Basic realm="https://quay.test/"'
                )
            self.assertEqual(self.get(base + path, Authorization=alice).status, 200)
        reply = self.get(f"{base}owner/app/blobs/uploads/", "POST", Authorization=alice)
        self.assertEqual((reply.status, reply.error), (403, "DENIED"))
        reply = self.get(f"{base}alice/app/blobs/uploads/", "POST", Authorization=alice)
        self.assertEqual(reply.status, 202)

    def test_challengeOnRealRequestsOnly(self) -> None:
        """A registry can allow pings without a token, and require one for other requests."""
        registry, _ = self.add(RegistrySettings(challengesPing=False))
        self.assertEqual(self.get(f"{registry.registryURL}/v2/").status, 200)
        reply = self.get(f"{registry.registryURL}/v2/owner/app/manifests/1")
        self.assertEqual(reply.status, 401)
        self.assertIn('scope="repository:owner/app:pull"', reply.field("WWW-Authenticate") or "")

    def test_mount(self) -> None:
        """A blob is mounted if the client may pull it, with any kind of authentication."""
        registry, image = self.add(RegistrySettings(authentication=Authentication.BASIC))
        registry.addUser("alice", "rabbit", push=["alice/*"])
        registry.addUser("bob", "hole", push=["bob/*"])
        registry.addImage("alice/secret", "1", layers=[b"secret"])
        registry.private.add("alice/secret")
        digest = image.layers[0].digest
        for source, status in (("owner/app", 201), ("alice/secret", 202)):
            target = f"bob/app/blobs/uploads/?mount={digest}&from={source}"
            reply = self.get(
                f"{registry.registryURL}/v2/{target}", "POST", Authorization=basic("bob", "hole")
            )
            self.assertEqual(reply.status, status)


class RedirectTests(RegistriesCase):
    def test_manifests(self) -> None:
        """Manifests can be on another host, too, which requires no token and tolerates one."""
        registry, image = self.add(RegistrySettings(redirectsManifests=True))
        for reference in ("1", image.digest):
            for method in ("GET", "HEAD"):
                reply = self.pull(registry, f"owner/app/manifests/{reference}", method)
                self.assertEqual((reply.status, reply.body), (307, b""))
                location = reply.field("Location") or ""
                self.assertTrue(location.startswith("https://cdn.quay.test/"), location)
            reply = self.get(location)
            self.assertEqual(reply.body, image.manifest.body)
            self.assertEqual(reply.field("Docker-Content-Digest"), image.digest)
            self.assertIsNone(reply.field("ratelimit-remaining"))
        self.assertEqual(self.get(location, Authorization="Bearer x").status, 400)
        self.assertEqual(self.get(location.replace(image.digest, "2")).error, "MANIFEST_UNKNOWN")

    def test_notWithoutToken(self) -> None:
        """A client that may not pull is not redirected."""
        registry, _ = self.add(RegistrySettings(redirectsManifests=True))
        self.assertEqual(self.get(f"{registry.registryURL}/v2/owner/app/manifests/1").status, 401)

    def test_blobs(self) -> None:
        """Blobs are served by the registry's own CDN, or by the registry itself."""
        for name, settings in (
            ("one.test", RegistrySettings()),
            ("two.test", RegistrySettings(redirectsBlobs=False)),
        ):
            registry = self.hub.addRegistry(name, settings)
            image = registry.addImage("owner/app", "1", layers=[b"one"])
            reply = self.pull(registry, f"owner/app/blobs/{image.layers[0].digest}")
            if settings.redirectsBlobs:
                self.assertEqual(reply.status, 307)
                self.assertEqual(registry.cdnOrigin, "https://cdn.one.test")
                reply = self.get(reply.field("Location") or "")
            self.assertEqual((reply.status, reply.body), (200, b"one"))


class LinkTests(RegistriesCase):
    def setUp(self) -> None:
        super().setUp()
        self.quay, _ = self.add(QUAY)
        for tag in ("2", "3", "4", "5"):
            self.quay.addImage("owner/app", tag, layers=[b"one"])

    def next(self, reply: Reply) -> str:
        link = reply.field("Link") or ""
        [target] = re.findall('^</v2/(.+)>; rel="next"$', link)
        return target

    def test_opaque(self) -> None:
        """Clients can't construct an opaque link, and it leads through all pages."""
        reply = self.pull(self.quay, "owner/app/tags/list")
        tags = reply.json()["tags"]
        while reply.field("Link"):
            target = self.next(reply)
            self.assertRegex(target, r"^owner/app/tags/list\?next_page=[^&=]+%3D&n=2$")
            self.assertNotIn("last=", target)
            reply = self.pull(self.quay, target)
            tags += reply.json()["tags"]
        self.assertEqual(tags, ["1", "2", "3", "4", "5"])

    def test_madeUp(self) -> None:
        """
        The response to a link that was changed, or belongs to another repository, is 405, as at
        ECR.
        """
        target = self.next(self.pull(self.quay, "owner/app/tags/list"))
        self.quay.addImage("owner/other", "1", layers=[b"one"])
        token = self.quay.issueToken("owner/other")
        other = target.replace("owner/app", "owner/other")
        reply = self.ask("GET", f"{self.quay.registryURL}/v2/{other}", token=token)
        self.assertEqual((reply.status, reply.error), (405, "UNSUPPORTED"))
        for changed in ("owner/app/tags/list?next_page=1", target.replace("%3D", "", 1)):
            self.assertEqual(self.pull(self.quay, changed).status, 405, changed)


class NameTests(RegistriesCase):
    def test_elsewhere(self) -> None:
        """Other registries have repositories whose name has one component."""
        registry, _ = self.add()
        image = registry.addImage("pause", "1", layers=[b"one"])
        url = f"{registry.registryURL}/v2/pause/manifests/1"
        reply = self.ask("GET", url, token=registry.issueToken("pause"))
        self.assertEqual(reply.body, image.manifest.body)

    def test_atTheHub(self) -> None:
        """The Hub has none: alpine is library/alpine there, for pulls and pushes."""
        self.hub.addImage("library/alpine", "1", layers=[b"one"])
        self.assertRaises(ValueError, self.hub.addImage, "alpine", "1", layers=[b"one"])
        self.assertRaises(ValueError, self.hub.addBlob, "alpine", 1)
        base = f"{self.hub.registryURL}/v2/alpine/"
        public = self.token("repository:alpine:pull")
        self.assertEqual(self.ask("GET", f"{base}manifests/1", token=public).status, 401)
        token = self.hub.issueToken("alpine", "pull", "push")
        for method, path in (("GET", "manifests/1"), ("POST", "blobs/uploads/")):
            reply = self.ask(method, base + path, token=token)
            self.assertEqual((reply.status, reply.error), (404, "NAME_UNKNOWN"))


class PullsTests(RegistriesCase):
    def test_eachAccount(self) -> None:
        """Pulls are counted for each account, and the number can be set."""
        registry, _ = self.add(RegistrySettings(authentication=Authentication.BASIC, pulls=200))
        registry.addUser("alice", "rabbit")
        registry.addUser("bob", "hole")
        registry.pullsLeft["bob"] = 7
        url = f"{registry.registryURL}/v2/owner/app/manifests/1"
        for account, password, left in (
            ("alice", "rabbit", 199),
            ("alice", "rabbit", 198),
            ("bob", "hole", 6),
        ):
            reply = self.get(url, Authorization=basic(account, password))
            self.assertEqual(reply.field("ratelimit-limit"), "200;w=21600")
            self.assertEqual(reply.field("ratelimit-remaining"), f"{left};w=21600")
            self.assertEqual(reply.field("docker-ratelimit-source"), account)

    def test_notCounted(self) -> None:
        """Most registries send no fields about pulls."""
        registry, _ = self.add()
        reply = self.pull(registry, "owner/app/manifests/1")
        self.assertEqual((reply.status, reply.field("ratelimit-limit")), (200, None))


class SeenTests(RegistriesCase):
    def setUp(self) -> None:
        super().setUp()
        self.quay, _ = self.add()
        self.quay.addUser("alice", "rabbit")
        self.hub.addUser("alice", "of the Hub")

    def test_whoWasAsked(self) -> None:
        """Requests are recorded for each registry, and for all of them together."""
        self.get(f"{self.hub.registryURL}/v2/")
        self.get(f"{self.quay.registryURL}/v2/")
        self.get(self.quay.authURL)
        self.assertEqual([seen.service for seen in self.hub.seen], ["registry"])
        self.assertEqual([seen.service for seen in self.quay.seen], ["registry", "token"])
        for one in (self.hub, self.quay):
            self.assertEqual(
                [(seen.registry, seen.host) for seen in one.seenByAll],
                [
                    ("docker.io", "registry.hub.test"),
                    ("quay.test", "quay.test"),
                    ("quay.test", "auth.quay.test"),
                ],
            )
        self.assertEqual(self.quay.connections("token"), 1)
        self.assertEqual(self.hub.connections("token"), 0)

    def test_credentials(self) -> None:
        """Credentials are found in fields and in forms; their C{repr} does not show them."""
        self.get(self.quay.authURL, Authorization=basic("alice", "rabbit"), Cookie="a=b")
        form = {"grant_type": "password", "username": "alice", "password": "rabbit"}
        self.ask("POST", self.quay.authURL, body=urlencode(form).encode())
        form = {"grant_type": "refresh_token", "refresh_token": "x"}
        self.ask("POST", self.quay.authURL, body=urlencode(form).encode())
        self.get(f"{self.quay.registryURL}/v2/", Authorization="Bearer y")
        self.assertEqual(
            [seen.credentials for seen in self.quay.seen],
            [
                (Credential("basic", "alice:rabbit"), Credential("cookie", "a=b")),
                (Credential("password", "alice:rabbit"),),
                (Credential("refresh_token", "x"),),
                (Credential("bearer", "y"),),
            ],
        )
        self.assertNotIn("rabbit", repr(self.quay.seen[0].credentials))

    def test_nothingMisdirected(self) -> None:
        """
        A credential that a registry has issued, even if expired, may be sent to it and its token
        service.
        """
        query = f"{self.quay.authURL}?offline_token=true&scope=repository:owner/app:pull"
        given = self.get(query, Authorization=basic("alice", "rabbit")).json()
        form = {"grant_type": "refresh_token", "refresh_token": given["refresh_token"]}
        self.ask("POST", self.quay.authURL, body=urlencode(form).encode())
        form = {"grant_type": "password", "username": "alice", "password": "rabbit"}
        self.ask("POST", f"{self.quay.mirrorURL}/token", body=urlencode(form).encode())
        self.clock.advance(self.quay.tokens.lifetime)
        self.ask("GET", f"{self.quay.registryURL}/v2/", token=given["token"])
        self.assertTrue(all(seen.credentials for seen in self.quay.seen))
        self.assertEqual(self.quay.misdirected(), [])

    def test_misdirected(self) -> None:
        """
        Reported are another registry's token or password, a credential for a CDN or an index, a
        cookie, and invented credentials, from any of the registries.
        """
        form = {"grant_type": "password", "username": "alice", "password": "of the Hub"}
        self.ask("POST", self.quay.authURL, body=urlencode(form).encode())
        own = f"Bearer {self.quay.issueToken('owner/app')}"
        for url, fields in (
            (self.quay.authURL, {"Authorization": basic("alice", "of the Hub")}),
            (self.quay.registryURL, {"Authorization": f"Bearer {self.hub.issueToken('a/b')}"}),
            (self.hub.registryURL, {"Authorization": own}),
            (self.hub.mirrorURL, {"Authorization": own}),
            (self.quay.cdnOrigin, {"Authorization": own}),
            (self.quay.searchURL, {"Authorization": basic("alice", "rabbit")}),
            (self.quay.registryURL, {"Cookie": "a=b"}),
            (self.quay.registryURL, {"Authorization": "Bearer nonsense"}),
            (self.quay.registryURL, {"Authorization": "Basic nonsense"}),
            (self.quay.registryURL, {"Authorization": "Negotiate nonsense"}),
        ):
            self.get(url, **fields)
        self.get(self.quay.registryURL, Authorization=own)
        self.assertEqual(self.hub.misdirected(), self.hub.seenByAll[:-1])
        self.assertEqual(self.quay.misdirected(), self.hub.seenByAll[:-1])


class AloneTests(MemoryCase):
    def test_withoutTheHub(self) -> None:
        """A registry can be used without the Hub."""
        registry = EmbeddedRegistry(Clock(), "quay.test")
        self.agent = registry.agent()
        self.assertEqual(self.ask("GET", f"{registry.registryURL}/v2/").status, 401)


class LoopbackTests(TestCase):
    """Registries on loopback, with one CA."""

    timeout = 30

    async def test_addedLater(self) -> None:
        """
        A registry that is added later listens after another start, which does not affect the
        others.
        """
        hub = EmbeddedHub(reactor)
        first = hub.addRegistry("one.test", RegistrySettings(realm="one.test/auth"))
        await hub.start()
        self.addCleanup(first.stop)
        url = first.registryURL
        second = hub.addRegistry("two.test")
        await second.start()
        self.assertEqual(first.registryURL, url)
        self.assertEqual(hub.caFile, second.caFile)
        agent = Agent(reactor, trusting(hub))
        for registry in (hub, first, second):
            response = await agent.request(b"GET", f"{registry.registryURL}/v2/".encode())
            await readBody(response)
            [challenge] = response.headers.getRawHeaders("WWW-Authenticate")
            self.assertIn(f'realm="{registry.authURL}"', challenge)
            response = await agent.request(b"GET", registry.authURL.encode())
            self.assertEqual(response.code, 200)
            await readBody(response)
        hosts = [seen.host for seen in hub.seenByAll]
        self.assertEqual(hosts[2:], ["one.test", "one.test", "two.test", "auth.two.test"])
