"""The client's side of a pull, from a mirror and from what is no good one."""

import json
from collections.abc import Awaitable

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.web.http_headers import Headers

from hubmirror.operations.pulling import (
    Challenge,
    PullFailed,
    RegistryClient,
    choose,
    pull,
    read,
    readChallenge,
)
from hubmirror.testing import Answer, bytesAnswer
from tests.operations.support import PLATFORM, REPOSITORY, TAG, MirrorCase


class PullTests(MirrorCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.client = RegistryClient(reactor, self.trust)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.client.close()))

    async def failure(self, url: str) -> str:
        """Why a pull fails."""
        return await self.reason(pull(self.client, url, REPOSITORY, TAG, PLATFORM))

    async def reason(self, awaitable: Awaitable[object]) -> str:
        """Why something fails."""
        return str(await self.assertFailure(ensureDeferred(awaitable), PullFailed))

    async def test_pull(self) -> None:
        """An image comes through a mirror, for the platform that was asked for."""
        pulled = await pull(self.client, self.startMirror(), REPOSITORY, TAG, PLATFORM)
        blobs = (self.image.config, *self.image.layers)
        self.assertEqual(pulled.digest, self.image.digest)
        self.assertEqual(pulled.blobs, len(blobs))
        self.assertEqual(pulled.size, sum(blob.size for blob in blobs))
        # Challenge, token, index, manifest, and the blobs.
        self.assertEqual(self.client.requests, 4 + len(blobs))

    async def test_redirected(self) -> None:
        """The Hub itself is no mirror: its blobs lie elsewhere."""
        self.assertEqual(await self.failure(self.hub.registryURL), "answered 307, not 200")

    async def test_corrupt(self) -> None:
        """Bytes that are not those of the digest are found out."""
        self.hub.cdn.corrupt(5)
        reason = await self.failure(self.startMirror())
        self.assertIn(f"not those of {self.image.config.digest[:19]}", reason)

    async def test_cut(self) -> None:
        """So is an answer that ends before its end."""
        self.hub.mirror.cut(1000, when=lambda seen: b"/blobs/" in seen.target)
        self.assertEqual(await self.failure(self.hub.mirrorURL), "the answer was cut")

    async def test_noPlatform(self) -> None:
        """An index without the platform is told apart from one without anything."""
        index = {"manifests": [{"digest": "sha256:1", "platform": {"os": "linux"}}]}
        for value in ({}, index):
            self.assertRaises(PullFailed, choose, value, PLATFORM)

    async def test_noChallenge(self) -> None:
        """A 401 that leads nowhere is one, and so is a 200."""
        self.hub.mirror.fail(401, count=1)
        self.assertIn("without a Bearer challenge", await self.failure(self.hub.mirrorURL))
        self.hub.mirror.fail(200, count=1)
        self.assertEqual(await self.failure(self.hub.mirrorURL), "answered 200, not 401")

    async def test_noToken(self) -> None:
        """The token service has to give a token."""
        for body, reason in [
            (b"{}", "there is no token in the answer"),
            (b'{"token": 1}', "there is no token in the answer"),
            (b"[]", "the answer is not a JSON object"),
            (b"<html>", "the answer is not a JSON object"),
        ]:
            self.hub.token.restore()
            self.hub.token.fail(200, body)
            self.assertEqual(await self.failure(self.startMirror()), reason)

    async def test_tokenNames(self) -> None:
        """A token goes by either of two names."""
        for name in ("token", "access_token"):
            self.hub.token.restore()
            self.hub.token.fail(200, json.dumps({name: "it"}).encode())
            token = await self.client.token(Challenge(self.hub.authURL, "s"), REPOSITORY)
            self.assertEqual(token, "it")

    async def test_realmWithQuery(self) -> None:
        """What a realm asks already is kept."""
        await self.client.token(Challenge(f"{self.hub.authURL}?a=b", "s"), REPOSITORY)
        [seen] = self.hub.token.seen
        self.assertEqual(
            seen.target, b"/token?a=b&service=s&scope=repository%3Alibrary%2Falpine%3Apull"
        )

    async def test_following(self) -> None:
        """A redirect across origins is followed without the token, byte for byte."""
        url = f"{self.hub.registryURL}/v2/"
        challenge = await self.client.ask("GET", url)
        await read(challenge)
        token = await self.client.token(readChallenge(challenge), REPOSITORY)
        digest = self.image.config.digest
        response, origins = await self.client.askFollowing(
            f"{url}{REPOSITORY}/blobs/{digest}", token
        )
        self.assertEqual(await read(response), self.image.config.data)
        self.assertEqual(
            [str(origin) for origin in origins], [self.hub.registryURL, self.hub.cdnOrigin]
        )

    async def test_redirectLoop(self) -> None:
        """A redirect that leads round in a circle is followed no more than ten times."""
        self.hub.mirror.script(lambda request, serve: Answer(307, {"Location": "/round"}, 0))
        asking = self.client.askFollowing(f"{self.hub.mirrorURL}/round", None)
        self.assertEqual(await self.reason(asking), "more than 10 redirects, one after another")
        self.assertEqual(len(self.hub.mirror.seen), 11)

    async def test_tooLong(self) -> None:
        """An answer that should be small is read no further than that."""
        self.hub.mirror.script(lambda request, serve: bytesAnswer(200, "text/plain", b"x" * 100))
        response = await self.client.ask("GET", f"{self.hub.mirrorURL}/v2/")
        self.assertIn("too long", await self.reason(read(response, limit=99)))

    async def test_cancelled(self) -> None:
        """Whoever does not want to wait for a body any longer gets rid of its connection."""
        self.hub.mirror.stall(10, when=lambda seen: seen.target == b"/v2/")
        response = await self.client.ask("GET", f"{self.hub.mirrorURL}/v2/")
        reading = read(response)
        reading.cancel()
        await self.assertFailure(reading, CancelledError)


class ChallengeTests(MirrorCase):
    def test_read(self) -> None:
        """Realm and service of the Bearer challenge, whatever stands around it."""

        class Response:
            headers = Headers()

        for values, challenge in [
            (['Bearer realm="https://a/t",service="s"'], Challenge("https://a/t", "s")),
            (['bearer service="s", realm="https://a/t"'], Challenge("https://a/t", "s")),
            (['Basic realm="x"', 'Bearer realm="https://a/t"'], Challenge("https://a/t", "")),
        ]:
            Response.headers = Headers({"WWW-Authenticate": values})
            self.assertEqual(readChallenge(Response()), challenge)
        for values in ([], ['Basic realm="x"'], ["Bearer"], ['Bearer service="s"']):
            Response.headers = Headers({"WWW-Authenticate": values})
            self.assertRaises(PullFailed, readChallenge, Response())
