"""Tests of the doctor, with good and bad mirrors and with the Hub."""

import socket
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace

import attrs
from twisted.internet import reactor
from twisted.internet.task import Clock

from hubmirror.config import RegistryConfig
from hubmirror.operations.doctor import examine
from hubmirror.operations.examination import LIMIT, Examination
from hubmirror.operations.findings import Finding, Note, Wrong
from hubmirror.operations.subjects import PUBLIC_IMAGES, Subject, mirrorAt
from hubmirror.testing import Answer, Seen
from hubmirror.testing.answers import Serve
from hubmirror.testing.wire import HubRequest
from hubmirror.transport.connecting import loadTrust
from tests.operations.support import REPOSITORY, TAG, MirrorCase

CLIENTS = ["docker/28", "docker/29", "containerd/", "buildkit/", "containers/"]
PULL = ["name", "connection", "version", "clock", "token", "head", "manifest", "blob", "range"]


def gets(reference: str) -> Callable[[Seen], bool]:
    """The requests that GET a manifest."""
    target = f"/manifests/{reference}".encode()
    return lambda seen: seen.method == b"GET" and seen.target.endswith(target)


def without(field: str) -> Callable[[HubRequest, Serve], Answer]:
    """A fault: the response lacks a field."""

    def fault(request: HubRequest, serve: Serve) -> Answer:
        answer = serve(request)
        fields = {name: value for name, value in answer.fields.items() if name != field}
        length = None if field == "Content-Length" else answer.length
        return replace(answer, fields=fields, length=length)

    return fault


class ExaminationCase(MirrorCase):
    async def setUp(self) -> None:
        await super().setUp()
        hub = self.hub
        self.itself = Subject(hub.registryURL, hub.authURL, hub.searchURL, mirror=False)


class ExaminationTests(ExaminationCase):
    async def examine(self, subject: Subject | str, **options: object) -> list[str]:
        """The lines of an examination; the last one has the result."""
        if isinstance(subject, str):
            subject = mirrorAt(subject)
        examined = {
            "trust": self.trust,
            "repository": REPOSITORY,
            "tag": TAG,
            "direct": self.itself,
            "limit": 10,
            **options,
        }
        limit = examined.pop("limit")
        examination = Examination(reactor, subject, **examined)
        lines: list[str] = []

        def tell(finding: Finding) -> None:
            lines.extend(finding.lines())

        self.healthy = await examination.perform(tell, limit)
        return lines

    async def assertWrong(
        self, subject: Subject | str, check: str, text: str, **options: object
    ) -> list[str]:
        """Check that exactly one check fails, with this text."""
        lines = await self.examine(subject, **options)
        self.assertFalse(self.healthy)
        wrong = [line.split(None, 2)[1:] for line in lines if line.startswith("WRONG")]
        self.assertEqual([name for name, _ in wrong], [check], lines)
        self.assertIn(text, wrong[0][1])
        return lines

    def answerPing(self) -> None:
        """Make the embedded Hub's own mirror respond to the ping of C{docker search}."""
        self.hub.mirror.fail(200, when=lambda seen: seen.target == b"/v1/_ping")

    async def test_goodMirror(self) -> None:
        """Each check of a good mirror succeeds, with one line."""
        lines = await self.examine(self.startMirror())
        self.assertTrue(self.healthy, lines)
        words = [line.split(None, 2) for line in lines]
        self.assertEqual([word[0] for word in words], ["ok"] * 14)
        self.assertEqual(
            [word[1] for word in words], [*PULL, "clients", "path", "speed", "ping", "search"]
        )
        said = {word[1]: word[2] for word in words}
        self.assertIn("TLSv1.3", said["connection"])
        self.assertIn("99 of 100 pulls left in 6 h", said["manifest"])
        self.assertIn(self.image.digest[:19], said["manifest"])
        self.assertIn(f"{self.image.config.size} bytes", said["blob"])
        self.assertEqual(said["search"], "1 results for 'alpine'")

    async def test_goodPlainMirror(self) -> None:
        """A mirror without TLS is as good."""
        url = self.startMirror(port="tcp:0:interface=127.0.0.1").replace("https", "http")
        lines = await self.examine(url)
        self.assertTrue(self.healthy, lines)
        self.assertIn("without TLS", lines[1])

    async def test_hub(self) -> None:
        """The Hub has its services on separate origins, and no ping."""
        lines = await self.examine(self.itself)
        self.assertTrue(self.healthy, lines)
        self.assertEqual([line.split()[1] for line in lines], [*PULL, "search"])
        self.assertIn(f"from {self.hub.cdnOrigin}", lines[PULL.index("blob")])

    async def test_noCredential(self) -> None:
        """The output contains no token and no signed URL."""
        mirror = self.startMirror()
        lines = await self.examine(mirror)
        text = "\n".join(lines + await self.examine(self.itself))
        for seen in self.hub.seen:
            for value in seen.headers.getRawHeaders("Authorization", []):
                self.assertNotIn(value.split()[1], text)
        self.assertNotIn("Signature", text)

    async def test_noName(self) -> None:
        """A name that does not resolve ends the examination at once."""

        def fail(*args: object, **kwargs: object) -> None:
            raise socket.gaierror

        self.patch(socket, "getaddrinfo", fail)
        lines = await self.assertWrong("https://mirror.example", "name", "does not resolve")
        self.assertIn("--resolver", lines[1])
        self.assertEqual(len(lines), 2)

    async def test_dead(self) -> None:
        """No server listens on the port."""
        await self.hub.mirror.stopListening()
        lines = await self.assertWrong(self.hub.mirrorURL, "connection", "connection refused")
        self.assertIn("check whether the server listens", lines[-1])

    async def test_unknownCA(self) -> None:
        """The certificate is of an unknown CA, or for another name."""
        lines = await self.assertWrong(
            self.hub.mirrorURL, "connection", "does not verify", trust=loadTrust(None)
        )
        self.assertIn("--ca-file", lines[-1])
        url = self.hub.mirrorURL.replace("127.0.0.1", "127.0.0.2")
        await self.hub.mirror.stopListening()
        self.hub.mirror.listenWith(reactor, "0.0.0.0", self.hub.mirror._tls)
        await self.hub.mirror.startListening()
        await self.assertWrong(url, "connection", "for another name")

    async def test_notTLS(self) -> None:
        """The URL has https, but the mirror has no TLS."""
        url = self.startMirror(port="tcp:0:interface=127.0.0.1")
        lines = await self.assertWrong(url, "connection", "TLS failed (wrong version number)")
        self.assertIn("with TLS or without", lines[-1])

    async def test_silent(self) -> None:
        """A check ends after its time limit."""
        clock = Clock()

        def arrives(seen: Seen) -> bool:
            reactor.callLater(0, clock.advance, LIMIT)
            return True

        self.hub.mirror.hang(when=arrives)
        examination = Examination(
            reactor, mirrorAt(self.hub.mirrorURL), self.trust, REPOSITORY, TAG
        )
        examination._reactor = clock
        found: list[Finding] = []
        self.assertFalse(await examination.performFurther(found.append, pulls=True))
        [line, _] = [line for each in found for line in each.lines()]
        self.assertEqual(line, f"WRONG  version     no response within {LIMIT:g} s")

    async def test_wrongRealm(self) -> None:
        """
        The realm has another origin, for instance because the scheme or port of a TLS terminator
        was lost.
        """
        mirror = self.startMirror(public_url="http://127.0.0.1")
        lines = await self.assertWrong(
            mirror, "version", f"sends clients to http://127.0.0.1 for tokens, not to {mirror}"
        )
        self.assertIn("--public-url", lines[3])
        self.assertEqual(self.hub.token.seen, [])

    async def test_noRealm(self) -> None:
        """The realm is not a URL, or missing."""
        fields = {"WWW-Authenticate": 'Bearer realm="/token"'}
        self.hub.mirror.fail(401, fields=fields, count=1)
        subject = mirrorAt(self.hub.mirrorURL)
        await self.assertRealm(subject, "(realm) is not an absolute URL")
        self.hub.mirror.fail(401, count=1)
        await self.assertRealm(subject, "without a Bearer challenge")

    async def assertRealm(self, subject: Subject, text: str) -> None:
        lines = await self.examine(subject)
        self.assertIn(text, lines[2])
        self.assertFalse(self.healthy)

    async def test_open(self) -> None:
        """A mirror that requires no token is as good."""

        def authorized(request: HubRequest, serve: Serve) -> Answer:
            token = self.hub.tokens.issue("", {REPOSITORY: frozenset({"pull"})})
            request.requestHeaders.setRawHeaders("Authorization", [f"Bearer {token}"])
            return serve(request)

        self.hub.registry.script(authorized)
        lines = await self.examine(self.startMirror())
        self.assertTrue(self.healthy, lines)
        self.assertIn("no token is needed", lines[PULL.index("token")])

    async def test_limited(self) -> None:
        """The Hub's 429 is reported, with advice."""
        self.hub.registry.fail(429, when=lambda seen: b"/manifests/" in seen.target)
        lines = await self.assertWrong(self.startMirror(), "head", "429")
        self.assertIn("--fallback", "".join(lines))

    async def test_unavailable(self) -> None:
        """The mirror can't reach the Hub."""
        await self.hub.registry.stopListening()
        await self.assertWrong(self.startMirror(), "version", "response is 502")

    async def test_noImage(self) -> None:
        """The image does not exist."""
        lines = await self.assertWrong(self.startMirror(), "head", "returned 404", tag="none")
        self.assertIn("--tag", "".join(lines))

    async def test_noLength(self) -> None:
        """The response to HEAD of a manifest lacks fields that clients use."""
        for field in ("Docker-Content-Digest", "Content-Length"):
            self.hub.mirror.restore()
            self.hub.mirror.script(without(field), when=lambda seen: seen.method == b"HEAD")
            lines = await self.examine(self.hub.mirrorURL)
            self.assertIn(f"has no {field}", lines[PULL.index("head")])

    async def test_wrongManifest(self) -> None:
        """The content of a manifest, requested by tag or by digest, does not match its digest."""
        for reference in (TAG, self.image.digest):
            self.hub.registry.restore()
            self.hub.registry.corrupt(3, when=gets(reference))
            await self.assertWrong(self.startMirror(), "manifest", "not match sha256:")

    async def test_notManifest(self) -> None:
        """The content of a manifest is other JSON."""
        self.hub.registry.fail(
            200,
            b'{"layers": []}',
            {"Docker-Content-Digest": "sha256:0"},
            when=gets(TAG),
        )
        await self.assertWrong(self.startMirror(), "manifest", "not match sha256:0")
        self.hub.registry.restore()
        self.hub.registry.fail(200, b'{"layers": []}', when=gets(TAG))
        await self.assertWrong(self.startMirror(), "manifest", "not what a registry sends")

    async def test_corruptBlob(self) -> None:
        """The content of a blob does not match its digest."""
        self.hub.cdn.corrupt(3)
        await self.assertWrong(self.startMirror(), "blob", "not match sha256:")

    async def test_lostLength(self) -> None:
        """A blob has no Content-Length."""
        self.hub.cdn.script(without("Content-Length"))
        await self.assertWrong(self.startMirror(), "blob", "without Content-Length")

    async def test_redirectLoop(self) -> None:
        """A blob is redirected in a loop."""
        self.hub.mirror.script(
            lambda request, serve: Answer(307, {"Location": request.uri.decode()}, 0),
            when=lambda seen: b"/blobs/" in seen.target,
        )
        lines = await self.examine(self.hub.mirrorURL)
        self.assertIn("more than 10 redirects", lines[PULL.index("blob")])

    async def test_redirectToClient(self) -> None:
        """The mirror redirects its clients to the CDN."""
        subject = Subject(self.hub.registryURL, self.hub.authURL, self.hub.searchURL, mirror=True)
        lines = await self.examine(subject)
        self.assertIn(f"redirected to {self.hub.cdnOrigin}", lines[PULL.index("blob")])

    async def test_noRange(self) -> None:
        """A Range is ignored, or the response has another part."""
        self.hub.cdn.ignoreRange()
        await self.assertWrong(self.startMirror(), "range", "returned 200, not 206")
        self.hub.cdn.restore()

        def shifted(request: HubRequest, serve: Serve) -> Answer:
            if request.requestHeaders.hasHeader("Range"):
                request.requestHeaders.setRawHeaders("Range", ["bytes=1-"])
            return serve(request)

        self.hub.cdn.script(shifted)
        await self.assertWrong(self.startMirror(), "range", "another part")

    async def test_noPing(self) -> None:
        """
        The mirror does not respond to the ping of docker search; the other checks are performed all
        the same.
        """
        lines = await self.assertWrong(self.hub.mirrorURL, "ping", "GET /v1/_ping returned 404")
        self.assertEqual([line.split()[1] for line in lines[: len(PULL)]], PULL)

    async def test_clock(self) -> None:
        """The clocks differ by more than the life of a token, or the response has no Date."""
        examination = Examination(
            reactor, mirrorAt(self.hub.mirrorURL), self.trust, REPOSITORY, TAG
        )
        self.addCleanup(examination._client.close)
        examination._date = "Mon, 01 Jan 2024 00:00:00 GMT"
        with self.assertRaisesRegex(Wrong, "differ by"):
            await examination.clock()
        for none in ("", "now"):
            examination._date = none
            with self.assertRaisesRegex(Note, "has no Date"):
                await examination.clock()

    async def test_limitedAddress(self) -> None:
        """A 429 that is not a registry's: the network limits the address."""
        self.answerPing()
        fields = {"Content-Type": "text/plain"}
        self.hub.mirror.fail(429, b"slow down", fields, when=lambda seen: seen.method == b"HEAD")
        lines = await self.assertWrong(self.hub.mirrorURL, "head", "not a registry's")
        self.assertIn("--fallback", "".join(lines))

    async def test_sharedQuota(self) -> None:
        """The Hub counts an IPv6 /64 as one client."""
        self.hub.registry.script(
            lambda request, serve: replace(
                (answer := serve(request)),
                fields={**answer.fields, "docker-ratelimit-source": "2001:db8:1:2::"},
            )
        )
        lines = await self.examine(self.startMirror())
        self.assertIn("shared by a whole IPv6 /64", lines[PULL.index("manifest")])

    async def test_quotaWithoutWindow(self) -> None:
        """A quota whose response states no window is reported without one."""
        quota = {"ratelimit-limit": "100", "ratelimit-remaining": "98"}
        self.hub.registry.script(
            lambda request, serve: replace(
                (answer := serve(request)), fields={**answer.fields, **quota}
            )
        )
        lines = await self.examine(self.startMirror())
        self.assertTrue(lines[PULL.index("manifest")].endswith("98 of 100 pulls left"), lines)

    async def test_blockedCDN(self) -> None:
        """The Hub can be reached from here, but its CDN can't."""
        await self.hub.cdn.stopListening()
        lines = await self.assertWrong(
            self.itself, "blob", "a blob can't be downloaded: connection refused"
        )
        self.assertIn("the CDN", "".join(lines))

    async def test_refusedClient(self) -> None:
        """A server in front of the mirror refuses one kind of client."""
        for agent in CLIENTS:
            self.hub.mirror.restore()
            self.answerPing()
            self.hub.mirror.fail(
                403,
                when=lambda seen, agent=agent: (
                    agent.encode()  # type: ignore[misc]
                    in b"".join(seen.headers.getRawHeaders(b"User-Agent", []))
                ),
            )
            await self.assertWrong(self.hub.mirrorURL, "clients", "returned 403")

    async def test_differentManifests(self) -> None:
        """The query that containerd adds leads to another image."""
        self.answerPing()
        self.hub.mirror.script(
            lambda request, serve: Answer(200, {"Docker-Content-Digest": "sha256:0"}, 0),
            when=lambda seen: b"?ns=" in seen.target,
        )
        await self.assertWrong(self.hub.mirrorURL, "clients", "different manifests")

    async def test_path(self) -> None:
        """The path of a mirror's address works where podman puts it, or does not."""
        mirror = self.startMirror(secret_path="k3yk3yk3yk3yk3yk3yk3y")
        lines = await self.examine(f"{mirror}/k3yk3yk3yk3yk3yk3yk3y")
        self.assertTrue(self.healthy, lines)
        self.assertIn("before and after /v2", "".join(lines))
        examination = Examination(reactor, mirrorAt(f"{mirror}/other"), self.trust, REPOSITORY, TAG)
        self.addCleanup(examination._client.close)
        with self.assertRaises(Wrong) as caught:
            await examination.path()
        self.assertEqual(str(caught.exception), "a request for /v2/o.../... returned 404")

    async def test_speed(self) -> None:
        """The speed of a layer is measured from the mirror and from the registry."""
        said = "".join(await self.examine(self.startMirror()))
        self.assertRegex(said, r"[0-9.]+ MB/s from the mirror, [0-9.]+ MB/s from the registry")
        nobody = attrs.evolve(self.itself, url="https://127.0.0.1:1")
        said = "".join(await self.examine(self.startMirror(), direct=nobody))
        self.assertIn("from the mirror; the registry itself: connection refused", said)

    async def test_noSearch(self) -> None:
        """The response of the index is not that of an index."""
        self.hub.search.fail(200, b"<html>")
        await self.assertWrong(self.startMirror(), "search", "not a JSON object")


class FurtherTests(ExaminationCase):
    """The further registries of a mirror.  Here the Hub stands for all of them."""

    async def setUp(self) -> None:
        await super().setUp()
        repository, tag = PUBLIC_IMAGES["quay.io"]
        self.quay = self.hub.addImage(repository, tag, sizes=[1000])
        self.mirror = self.startMirror(
            registries=[
                RegistryConfig(name=name, url=self.hub.registryURL, auth_url=self.hub.authURL)
                for name in ("quay.io", "registry.example")
            ]
        )

    async def further(self, *registries: str) -> dict[str, list[tuple[str, str]]]:
        """The checks of each registry, with the state of each."""
        found: dict[str, list[tuple[str, str]]] = {}
        self.texts: dict[tuple[str, str], str] = {}

        def tell(finding: Finding) -> None:
            found.setdefault(finding.registry, []).append((finding.check, finding.state))
            self.texts[finding.registry, finding.check] = finding.text

        await examine(
            reactor,
            mirrorAt(self.mirror),
            self.trust,
            Namespace(repository=REPOSITORY, tag=TAG, registry=list(registries)),
            tell,
            direct=self.itself,
        )
        return found

    async def test_named(self) -> None:
        """
        By default, all registries that the mirror names are checked; an image is pulled from those
        that have a known one.
        """
        found = await self.further()
        self.assertEqual(list(found), ["docker.io", "quay.io", "registry.example"])
        pull = ["version", "token", "head", "manifest", "blob", "range", "clients", "path"]
        self.assertEqual(found["quay.io"], [(check, "ok") for check in pull])
        self.assertEqual(found["registry.example"], [("version", "ok")])
        self.assertIn(self.quay.digest[:19], self.texts["quay.io", "manifest"])

    async def test_chosen(self) -> None:
        """C{--registry} chooses which are checked, and finds one that is not mirrored."""
        found = await self.further("docker.io", "registry.example", "ghcr.io")
        self.assertEqual(list(found), ["docker.io", "registry.example", "ghcr.io"])
        self.assertEqual(found["ghcr.io"], [("version", "WRONG")])
        # The Hub was already checked as the mirror's default registry.
        self.assertEqual(found["docker.io"].count(("version", "ok")), 1)

    async def test_hub(self) -> None:
        """The Hub itself has no further registries."""
        found: list[Finding] = []
        arguments = Namespace(repository=REPOSITORY, tag=TAG, registry=["quay.io"])
        await examine(reactor, self.itself, self.trust, arguments, found.append)
        self.assertEqual({each.registry for each in found}, {"docker.io"})
