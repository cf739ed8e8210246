"""
Tests of where the rest of a body is requested from, and of which bytes are verified.
"""

from __future__ import annotations

from twisted.logger import capturedLogs, formatEvent

from hubmirror.protocol.credentials import OWN_AUTHORIZATION
from hubmirror.protocol.errors import ConnectFailed
from hubmirror.upstream.policy import Service
from tests.upstream.broken import (
    BLOB,
    CDN,
    CDN2,
    DIGEST,
    HUB,
    PATH,
    SECOND,
    SIZE,
    TAG,
    ResumingCase,
)
from tests.upstream.support import Response


class WayTests(ResumingCase):
    """
    The order: the same URL, then the registry, then the next upstream.
    """

    def test_sameURL(self) -> None:
        first = self.begin()
        first.gives(BLOB[:300])
        asked = len(self.inner.asked)
        self.cut(first)
        self.assertEqual((len(self.inner.asked), self.uri), (asked + 1, CDN))
        self.assertEqual(self.field(b"Range"), [b"bytes=300-"])
        self.assertEqual(self.field(b"If-Range"), [TAG])
        self.assertIsNone(self.field(b"Authorization"))
        self.rest(300).gives(BLOB[300:])
        self.assertWhole()
        self.assertEqual((self.exchange.resumes, self.exchange.upstream), (1, "hub.example"))

    def test_withoutRedirect(self) -> None:
        """A registry that serves its blobs itself is sent the client's credentials."""
        first = self.begin(redirected=False)
        first.gives(BLOB[:300])
        self.cut(first)
        self.assertEqual((self.uri, self.field(b"Authorization")), (HUB, [b"Bearer x"]))
        self.rest(300).gives(BLOB[300:])
        self.assertWhole()

    def test_redirectedFurther(self) -> None:
        """The same URL may now redirect; from then on, the target is the same URL."""
        first = self.begin()
        first.gives(BLOB[:300])
        self.cut(first)
        self.redirect(CDN2)
        self.assertEqual((self.uri, self.field(b"Range")), (CDN2, [b"bytes=300-"]))
        second = self.rest(300)
        second.gives(BLOB[300:400])
        self.cut(second)
        self.assertEqual(self.uri, CDN2)

    def test_expiredLink(self) -> None:
        """If the URL has expired, the registry redirects to another, perhaps of another CDN."""
        first = self.begin()
        first.gives(BLOB[:300])
        self.cut(first)
        self.refuse(403)
        self.assertEqual((self.uri, self.field(b"Authorization")), (HUB, [b"Bearer x"]))
        self.assertEqual((self.field(b"Range"), self.field(b"If-Range")), ([b"bytes=300-"], None))
        self.redirect(CDN2)
        self.assertIsNone(self.field(b"Authorization"))
        second = self.rest(300, ETag=b'"of another store"')
        second.gives(BLOB[300:400])
        self.cut(second)
        self.assertEqual(self.uri, CDN2)
        self.rest(400, ETag=b'"of another store"').gives(BLOB[400:])
        self.assertWhole()

    def test_deadCDN(self) -> None:
        first = self.begin()
        first.gives(BLOB[:300])
        self.cut(first)
        self.inner.fail(ConnectFailed("refused"))
        self.assertEqual(self.uri, HUB)
        self.redirect(CDN2)
        self.rest(300).gives(BLOB[300:])
        self.assertWhole()

    def test_failingCDN(self) -> None:
        """
        A 500 of an object store is treated as temporary, like a 502: the registry may redirect to
        another one.
        """
        for status in (500, 502):
            self.setUp()
            first = self.begin()
            first.gives(BLOB[:300])
            asked = len(self.inner.asked)
            self.cut(first)
            self.refuse(status)
            self.redirect(CDN2)
            self.refuse(status)
            self.assertEqual(self.inner.uris[asked:], [CDN, HUB, CDN2, CDN2])
            self.rest(300).gives(BLOB[300:])
            self.assertWhole()

    def test_hangingCDN(self) -> None:
        """Each request has a timeout."""
        first = self.begin()
        first.gives(BLOB[:300])
        self.cut(first)
        self.clock.advance(9)
        self.assertEqual(self.inner.cancelled, [CDN])
        self.assertEqual(self.uri, HUB)
        self.redirect(CDN2)
        self.rest(300).gives(BLOB[300:])
        self.assertWhole()

    def test_nextUpstream(self) -> None:
        first = self.begin()
        first.gives(BLOB[:300])
        self.cut(first)
        self.refuse(403)
        self.refuse(503)
        self.assertEqual(self.uri, SECOND)
        self.assertEqual(self.field(b"Range"), [b"bytes=300-"])
        second = self.rest(300)
        second.gives(BLOB[300:400])
        self.assertEqual(self.exchange.upstream, "second.example")
        # The body is now the second upstream's, and the first is not asked again.
        self.cut(second)
        self.assertEqual(self.uri, SECOND)
        self.refuse(500)
        self.assertEqual(self.uri, SECOND)
        self.rest(400).gives(BLOB[400:])
        self.assertWhole()

    def test_password(self) -> None:
        """A password is not sent to the next upstream."""
        first = self.begin(Authorization=b"Basic x")
        first.gives(BLOB[:300])
        self.cut(first)
        self.refuse(403)
        self.assertEqual((self.uri, self.field(b"Authorization")), (HUB, [b"Basic x"]))
        self.refuse(503)
        self.assertEqual((self.uri, self.field(b"Authorization")), (SECOND, None))

    def test_login(self) -> None:
        """A fallback is not asked for a token that requires a password."""
        asking = self.ask(b"/token", service=Service.TOKEN, Authorization=b"Basic x")
        first = self.inner.answer(Response(200, 10))
        self.read(asking)
        for _ in range(20):
            self.cut(first, 10)
            if self.receiver.ended is not None:
                break
            first = self.inner.answer(Response(200, 10))
        self.assertEqual(set(self.inner.uris), {b"https://auth.example/token/token"})
        self.assertBroken()

    def test_sameURLIsNotForgotten(self) -> None:
        """After the other upstreams have refused, the same URL is requested in the next round."""
        first = self.begin()
        first.gives(BLOB[:300])
        self.cut(first)
        self.inner.fail(ConnectFailed("refused"))
        self.refuse(503)
        self.refuse(404)
        asked = len(self.inner.asked)
        self.clock.advance(0.5)
        for _ in range(2):
            self.refuse(503)
        self.assertEqual(self.inner.uris[asked:], [HUB, SECOND, CDN])
        self.rest(300).gives(BLOB[300:])
        self.assertWhole()

    def test_headWithoutABody(self) -> None:
        """If a URL responds but sends no byte, others are tried as well."""
        first = self.begin()
        first.gives(BLOB[:300])
        asked = len(self.inner.asked)
        self.cut(first)
        for _ in range(2):
            self.cut(self.rest(300), 8)
        self.assertEqual(self.inner.uris[asked:], [CDN, HUB, SECOND])
        self.rest(300).gives(BLOB[300:])
        self.assertWhole()

    def test_none(self) -> None:
        """After all attempts the body fails; it never ends properly."""
        self.options = {"resumes": 2}
        self.setUp()
        first = self.begin()
        first.gives(BLOB[:300])
        asked = len(self.inner.asked)
        self.cut(first)
        for _ in range(3):
            self.refuse(503)
        self.clock.advance(0.5)
        for _ in range(3):
            self.refuse(503)
        self.assertBroken()
        self.assertEqual(len(self.inner.asked) - asked, 6)

    def test_clientLeaves(self) -> None:
        for seconds, status in ((0, None), (0, 403), (0.5, 503)):
            self.setUp()
            first = self.begin()
            first.gives(BLOB[:300])
            self.cut(first)
            if status == 503:
                for _ in range(3):
                    self.refuse(503)
            elif status:
                self.refuse(status)
            self.clock.advance(seconds)
            self.answer.stopProducing()
            self.assertEqual(self.inner.cancelled, [self.uri])
            self.assertNothingLeft()
            self.assertIsNone(self.receiver.ended)


class TokenTests(ResumingCase):
    """
    Tests of tokens, which are valid for five minutes, while a large layer takes longer.
    """

    CHALLENGE = (
        b'Bearer realm="https://evil.example/token",service="registry.docker.io",'
        b'scope="repository:library/x:pull",error="invalid_token"'
    )

    def expire(self) -> None:
        """Let the URL and the token expire."""
        first = self.begin()
        first.gives(BLOB[:300])
        self.cut(first)
        self.refuse(403)
        self.challenge()

    def challenge(self) -> None:
        """Challenge the request with the client's token and the one without."""
        self.assertIsNotNone(self.field(b"Authorization"))
        for _ in range(2):
            self.inner.answer(Response(401, 0, b"", WWW_Authenticate=self.CHALLENGE))

    def give(self, body: bytes, status: int = 200) -> None:
        self.inner.answer(Response(status, len(body), body))

    def test_anonymous(self) -> None:
        """
        A new anonymous token is requested from the configured token service, whatever realm the
        registry sends.
        """
        self.expire()
        self.assertEqual(
            self.uri,
            b"https://auth.example/token?service=registry.docker.io"
            b"&scope=repository%3Alibrary%2Fx%3Apull",
        )
        self.assertIsNone(self.field(b"Authorization"))
        self.give(b'{"token":"fresh"}')
        self.assertEqual((self.uri, self.field(b"Authorization")), (HUB, [b"Bearer fresh"]))
        self.assertEqual(self.field(b"Range"), [b"bytes=300-"])
        self.redirect(CDN2)
        self.assertIsNone(self.field(b"Authorization"))
        second = self.rest(300)
        second.gives(BLOB[300:400])
        self.cut(second)
        self.assertEqual(self.uri, CDN2)
        # The token is kept for the next time.
        self.refuse(403)
        self.inner.answer(Response(401, 0, b"", WWW_Authenticate=self.CHALLENGE))
        self.assertEqual((self.uri, self.field(b"Authorization")), (HUB, [b"Bearer fresh"]))
        self.rest(400).gives(BLOB[400:])
        self.assertWhole()

    def test_ownToken(self) -> None:
        """A token of the mirror's own has been renewed already."""
        first = self.begin(Authorization=OWN_AUTHORIZATION)
        first.gives(BLOB[:300])
        self.cut(first)
        self.refuse(403)
        self.inner.answer(Response(401, 0, b"", WWW_Authenticate=self.CHALLENGE))
        self.give(b'{"token":"fresh"}')
        self.inner.answer(Response(401, 0, b"", WWW_Authenticate=self.CHALLENGE))
        self.assertEqual(self.uri, SECOND)

    def test_otherName(self) -> None:
        self.expire()
        self.give(b'{"access_token":"fresh"}')
        self.assertEqual(self.field(b"Authorization"), [b"Bearer fresh"])

    def test_private(self) -> None:
        """What requires the client's own credentials can't be resumed with an anonymous token."""
        self.expire()
        self.give(b'{"token":"fresh"}')
        self.inner.answer(Response(401, 0, b"", WWW_Authenticate=self.CHALLENGE))
        self.assertEqual(self.uri, SECOND)

    def test_secondUpstream(self) -> None:
        """Each upstream has its own token service."""
        self.expire()
        self.refuse(503)
        self.assertEqual(self.uri, SECOND)
        self.challenge()
        self.assertTrue(self.uri.startswith(b"https://second.example/token?service="), self.uri)

    def test_noChallenge(self) -> None:
        """Without a challenge, there is nothing to request a token for."""
        first = self.begin()
        first.gives(BLOB[:300])
        self.cut(first)
        self.refuse(403)
        for _ in range(2):
            self.inner.answer(Response(401, 0, b""))
        self.assertEqual(self.uri, SECOND)

    def test_noToken(self) -> None:
        """Any failure of the token service only makes this attempt fail."""
        for body in (
            b"",
            b"<html>",
            b"[]",
            b"7",
            b"{}",
            b'{"token":7}',
            b'{"token":null}',
            b'{"token":"\\u00e9"}',
            b"[" * 50_000,
            b"\xff\xfe",
        ):
            self.setUp()
            self.expire()
            self.give(body)
            self.assertEqual(self.uri, SECOND, body[:20])
            self.rest(300).gives(BLOB[300:])
            self.assertWhole()

    def test_hangs(self) -> None:
        self.expire()
        self.clock.advance(9)
        self.assertEqual(self.uri, SECOND)

    def test_stalls(self) -> None:
        """A response of the token service that never ends only makes this attempt fail, too."""
        self.expire()
        stalled = self.inner.answer(Response(200, 100))
        self.clock.advance(9)
        self.assertEqual((stalled.state, self.uri), ("stopped", SECOND))

    def test_notForOthers(self) -> None:
        """Anything but a blob is requested only with the client's token."""
        asking = self.ask(b"/v2/library/x/manifests/latest", Authorization=b"Bearer x")
        first = self.inner.answer(Response(200, 10))
        self.read(asking)
        self.cut(first)
        for _ in range(2):
            self.inner.answer(Response(401, 0, b"", WWW_Authenticate=self.CHALLENGE))
        self.assertTrue(self.uri.startswith(b"https://second.example/v2/"), self.uri)


class VerifyTests(ResumingCase):
    """
    Tests of whose bytes are verified.
    """

    WRONG = bytes([BLOB[0] ^ 1]) + BLOB[1:]

    def configure(self, verify: str) -> None:
        self.options = {"verify": verify}
        self.setUp()

    def serve(self, data: bytes, fallback: bool, **fields: bytes) -> None:
        """Serve the whole blob from the first upstream, or from the second."""
        asking = self.ask(**fields)
        if fallback:
            self.inner.fail(ConnectFailed("refused"))
        transfer = self.inner.answer(Response(200, SIZE))
        self.read(asking)
        transfer.gives(data[:1000])
        transfer.gives(data[1000:])

    def test_when(self) -> None:
        for verify, fallback, checked in (
            ("never", False, False),
            ("never", True, False),
            ("fallback", False, False),
            ("fallback", True, True),
            ("always", False, True),
            ("always", True, True),
        ):
            self.configure(verify)
            self.serve(BLOB, fallback)
            self.assertWhole()
            self.configure(verify)
            with capturedLogs() as events:
                self.serve(self.WRONG, fallback)
            if not checked:
                self.assertWhole(self.WRONG)
                continue
            self.assertBroken()
            self.assertEqual(self.receiver.data, self.WRONG[:1000])
            upstream = "second.example" if fallback else "hub.example"
            lines = [formatEvent(event) for event in events]
            self.assertIn(f"{upstream} sent bytes that do not match {DIGEST.decode()}", lines)
            self.assertIn(f"{upstream} (blobs) is marked down: it sent wrong bytes", lines)

    def test_fromSeveral(self) -> None:
        """Only the upstream that sent all bytes of a wrong body is marked down."""
        for received, names in ((0, "second.example"), (300, "hub.example and second.example")):
            self.configure("always")
            first = self.begin(Response(200, SIZE))
            if received:
                first.gives(self.WRONG[:received])
            self.cut(first)
            self.refuse(403)
            self.refuse(503)
            self.assertEqual(self.uri, SECOND)
            with capturedLogs() as events:
                if received:
                    self.rest(received).gives(self.WRONG[received:])
                else:
                    self.inner.answer(Response(200, SIZE)).gives(self.WRONG)
            self.assertBroken()
            lines = [formatEvent(event) for event in events]
            self.assertIn(f"{names} sent bytes that do not match {DIGEST.decode()}", lines)
            marked = "second.example (blobs) is marked down: it sent wrong bytes" in lines
            self.assertIs(marked, received == 0)

    def test_marked(self) -> None:
        """Then the next upstream serves blobs for a minute; manifests are not affected."""
        self.configure("always")
        self.serve(self.WRONG, False)
        for path, seconds, uri in (
            (PATH, 0, SECOND),
            (b"/v2/library/x/manifests/latest", 0, b"https://hub.example/"),
            (PATH, 59.9, SECOND),
            (PATH, 0.1, HUB),
        ):
            self.clock.advance(seconds)
            asking = self.ask(path)
            self.assertTrue(self.uri.startswith(uri), self.uri)
            self.inner.answer(Response(404))
            asking.addErrback(lambda _: None)

    def test_others(self) -> None:
        """Parts of blobs, other content, and digests of unknown algorithms are not verified."""
        self.configure("always")
        for path, status in (
            (b"/v2/library/x/manifests/" + DIGEST, 200),
            (b"/v2/library/x/blobs/md5:0123", 200),
        ):
            asking = self.ask(path)
            transfer = self.inner.answer(Response(status, 5))
            self.read(asking)
            transfer.gives(b"12345")
            transfer.ends()
            self.assertWhole(b"12345")

    def test_part(self) -> None:
        self.configure("always")
        asking = self.ask(Range=b"bytes=1-5")
        transfer = self.inner.answer(Response(206, 5, Content_Range=b"bytes 1-5/1024"))
        self.read(asking)
        transfer.gives(b"12345")
        self.assertWhole(b"12345")
