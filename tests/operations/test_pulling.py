"""Tests of the client's side of a pull, from good and bad mirrors."""

import json
from collections.abc import Awaitable
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from hubmirror.operations.pulling import (
    Challenge,
    PullFailed,
    RegistryClient,
    choose,
    pull,
    read,
    readChallenge,
    readJSON,
)
from hubmirror.testing import Answer, bytesAnswer
from tests.operations.support import PLATFORM, REPOSITORY, TAG, MirrorCase


class PullTests(MirrorCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.client = RegistryClient(reactor, self.trust)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.client.close()))

    async def failure(self, url: str) -> str:
        """The reason why a pull fails."""
        return await self.reason(pull(self.client, url, REPOSITORY, TAG, PLATFORM))

    async def reason(self, awaitable: Awaitable[object]) -> str:
        """The reason why a coroutine fails."""
        return str(await self.assertFailure(ensureDeferred(awaitable), PullFailed))

    async def test_pull(self) -> None:
        """An image is pulled through a mirror, for the requested platform."""
        pulled = await pull(self.client, self.startMirror(), REPOSITORY, TAG, PLATFORM)
        blobs = (self.image.config, *self.image.layers)
        self.assertEqual(pulled.digest, self.image.digest)
        self.assertEqual(pulled.blobs, len(blobs))
        self.assertEqual(pulled.size, sum(blob.size for blob in blobs))
        # The requests: challenge, token, index, manifest, and the blobs.
        self.assertEqual(self.client.requests, 4 + len(blobs))

    async def test_redirected(self) -> None:
        """The Hub itself redirects requests for its blobs."""
        self.assertEqual(await self.failure(self.hub.registryURL), "the response is 307, not 200")

    async def test_corrupt(self) -> None:
        """Bytes that do not match the digest are detected."""
        self.hub.cdn.corrupt(5)
        reason = await self.failure(self.startMirror())
        self.assertIn(f"not match {self.image.config.digest[:19]}", reason)

    async def test_cut(self) -> None:
        """A response that ends early is detected."""
        self.hub.mirror.cut(1000, when=lambda seen: b"/blobs/" in seen.target)
        self.assertEqual(await self.failure(self.hub.mirrorURL), "the response was cut off")

    async def test_noPlatform(self) -> None:
        """An index without the platform, and one without any manifests, have different errors."""
        index = {"manifests": [{"digest": "sha256:1", "platform": {"os": "linux"}}]}
        for value in ({}, index):
            self.assertRaises(PullFailed, choose, value, PLATFORM)

    async def test_noChallenge(self) -> None:
        """A 401 without a usable challenge is an error, and so is a 200."""
        self.hub.mirror.fail(401, count=1)
        self.assertIn("without a Bearer challenge", await self.failure(self.hub.mirrorURL))
        self.hub.mirror.fail(200, count=1)
        self.assertEqual(await self.failure(self.hub.mirrorURL), "the response is 200, not 401")

    async def test_noToken(self) -> None:
        """The token service's response must have a token."""
        for body, reason in [
            (b"{}", "the token service's response has no token"),
            (b'{"token": 1}', "the token service's response has no token"),
            (b"[]", "the response is not a JSON object"),
            (b"<html>", "the response is not a JSON object"),
        ]:
            self.hub.token.restore()
            self.hub.token.fail(200, body)
            self.assertEqual(await self.failure(self.startMirror()), reason)

    async def test_tokenNames(self) -> None:
        """The token may have either of two names in the response."""
        for name in ("token", "access_token"):
            self.hub.token.restore()
            self.hub.token.fail(200, json.dumps({name: "it"}).encode())
            token = await self.client.token(Challenge(self.hub.authURL, "s"), REPOSITORY)
            self.assertEqual(token, "it")

    async def test_realmWithQuery(self) -> None:
        """The query of a realm is kept."""
        await self.client.token(Challenge(f"{self.hub.authURL}?a=b", "s"), REPOSITORY)
        [seen] = self.hub.token.seen
        self.assertEqual(
            seen.target, b"/token?a=b&service=s&scope=repository%3Alibrary%2Falpine%3Apull"
        )

    async def test_following(self) -> None:
        """A redirect to another origin is followed without the token, byte for byte."""
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
        """A redirect loop is followed at most ten times."""
        self.hub.mirror.script(lambda request, serve: Answer(307, {"Location": "/round"}, 0))
        asking = self.client.askFollowing(f"{self.hub.mirrorURL}/round", None)
        self.assertEqual(await self.reason(asking), "more than 10 redirects, one after another")
        self.assertEqual(len(self.hub.mirror.seen), 11)

    async def test_tooLong(self) -> None:
        """A response that should be small is not read beyond the limit."""
        self.hub.mirror.script(lambda request, serve: bytesAnswer(200, "text/plain", b"x" * 100))
        response = await self.client.ask("GET", f"{self.hub.mirrorURL}/v2/")
        self.assertIn("too long", await self.reason(read(response, limit=99)))

    async def test_cancelled(self) -> None:
        """Cancelling the Deferred of a body closes the connection."""
        self.hub.mirror.stall(10, when=lambda seen: seen.target == b"/v2/")
        response = await self.client.ask("GET", f"{self.hub.mirrorURL}/v2/")
        reading = read(response)
        reading.cancel()
        await self.assertFailure(reading, CancelledError)


class Response(NamedTuple):
    code: int
    headers: Headers


class ChallengeTests(MirrorCase):
    def test_read(self) -> None:
        """
        The realm and service of the Bearer challenge are found among other schemes and parameters.
        """

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


class ForeignTests(SynchronousTestCase):
    @given(
        st.lists(
            st.binary()
            | st.lists(
                st.sampled_from(b'Bearer |Basic |realm=|service=|"|,| |\xe9|https://a'.split(b"|"))
            ).map(b"".join)
        )
    )
    def test_foreign(self, values: list[bytes]) -> None:
        """Whatever the fields are, there is a challenge or none."""
        response = Response(401, Headers({b"WWW-Authenticate": values}))
        try:
            challenge = readChallenge(response)  # type: ignore[arg-type]
        except PullFailed:
            return
        self.assertIn(b"bearer ", b"".join(values).lower())
        self.assertNotIn('"', challenge.realm)

    @given(st.binary() | st.integers(0, 100_000).map(lambda depth: b'{"x":' + b"[" * depth))
    def test_json(self, body: bytes) -> None:
        try:
            self.assertIsInstance(readJSON(body), dict)
        except PullFailed as error:
            self.assertEqual(str(error), "the response is not a JSON object")
