"""
Tests of the operator's rules: refused requests reach no upstream, and the responses have what a
client needs.
"""

from __future__ import annotations

from twisted.logger import capturedLogs, formatEvent

from hubmirror.exchange import Outcome
from tests.wire.support import Line, MemoryCase, answer

MANIFEST = b"/v2/library/a/manifests/1"
#: Two addresses of one IPv6 /64, and one that is outside of it.
FIRST, SECOND, OUTSIDE = "2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1"


class AccessTests(MemoryCase):
    options = {
        "deny_client": ["198.51.100.0/24"],
        "allow_repository": ["docker.io/library/*"],
        "trusted_proxy": ["192.0.2.7"],
    }

    def test_client(self) -> None:
        """
        A denied client is refused whatever it requests.  Behind a trusted proxy, the client is the
        one in the proxy's fields.
        """
        named = ((b"X-Forwarded-For", b"198.51.100.9"),)
        for target in (MANIFEST, b"/v2/", b"/token", b"/v1/search?q=a", b"/x"):
            got = self.local(target, fields=named)
            self.assertEqual((got.status, got.error), (403, "DENIED"))
            exchange = self.exchanges[-1]
            self.assertEqual((exchange.outcome, exchange.rule), (Outcome.REFUSED, "deny-client"))
        self.exchange(MANIFEST, answer(200, b"{}"))
        self.assertIsNone(self.exchanges[-1].rule)

    def test_repository(self) -> None:
        for target in (b"/v2/other/a/manifests/1", b"/v2/library/a/%2e%2e/%2e%2e/o/a/tags/list"):
            got = self.local(target)
            self.assertEqual((got.status, got.error), (403, "DENIED"))
            self.assertEqual(self.exchanges[-1].rule, "allow-repository")
        # The name is completed before it is compared.
        asked, got = self.exchange(b"/v2/a/manifests/1", answer(200, b"{}"))
        self.assertEqual((asked.target, got.status), (MANIFEST, 200))

    def test_push(self) -> None:
        """
        Neither can a blob be mounted from a denied repository.
        """
        got = self.local(
            b"/v2/library/a/blobs/uploads/?mount=sha256:0&from=private/b", method=b"POST", body=b""
        )
        self.assertEqual((got.status, got.error), (403, "DENIED"))


class DeniedTests(MemoryCase):
    options = {"deny_repository": ["docker.io/library/alpine"]}

    def test_notCompleted(self) -> None:
        """A name is denied in the spellings in which it is not completed, too."""
        for name in (b"/v2/alpine", b"/v2//alpine", b"/v2/%61lpine", b"/%76%32/alpine"):
            got = self.local(name + b"/manifests/1")
            self.assertEqual((got.status, got.error), (403, "DENIED"), name)
        self.exchange(b"/v2/debian/manifests/1", answer(200, b"{}"))
        for mount in (b"from=alpine", b"fro%6d=alpine", b"from=%61lpine"):
            target = b"/v2/me/a/blobs/uploads/?mount=sha256:0&" + mount
            got = self.local(target, method=b"POST", body=b"")
            self.assertEqual((got.status, got.error), (403, "DENIED"), mount)


class RateTests(MemoryCase):
    options = {"client_requests": "3/1m", "client_pulls": "1/1h"}

    def test_requests(self) -> None:
        """
        Requests are counted for each client, and Retry-After is correct.
        """
        for _ in range(3):
            self.exchange(b"/v2/", answer(401))
        got = self.local(b"/v2/")
        self.assertEqual((got.status, got.error), (429, "TOOMANYREQUESTS"))
        self.assertEqual(self.exchanges[-1].rule, "client-requests")
        [seconds] = got.values(b"Retry-After")
        self.clock.advance(int(seconds) - 1)
        self.assertEqual(self.local(b"/v2/").status, 429)
        self.clock.advance(1)
        self.assertEqual(self.exchange(b"/v2/", answer(401))[1].status, 401)
        other = self.connect(peer="192.0.2.8")
        self.assertEqual(self.exchange(b"/v2/", answer(401), line=other)[1].status, 401)

    def test_pulls(self) -> None:
        """
        Only GET requests for manifests count.
        """
        self.exchange(MANIFEST, answer(200), method=b"HEAD")
        self.exchange(MANIFEST, answer(200, b"{}"))
        got = self.local(MANIFEST)
        self.assertEqual((got.status, got.values(b"Retry-After")), (429, [b"3600"]))
        self.assertEqual(self.exchanges[-1].rule, "client-pulls")

    def test_prefix(self) -> None:
        """
        An IPv6 /64 is one client.
        """
        for target, rule, allowed in (
            (b"/v2/", "client-requests", 3),
            (MANIFEST, "client-pulls", 1),
        ):
            self.setUp()
            for _ in range(allowed):
                line = self.connect(peer=FIRST)
                self.assertEqual(self.exchange(target, answer(200), line=line)[1].status, 200)
            got = self.local(target, line=self.connect(peer=SECOND))
            self.assertEqual((got.status, self.exchanges[-1].rule), (429, rule))
            line = self.connect(peer=OUTSIDE)
            self.assertEqual(self.exchange(target, answer(200), line=line)[1].status, 200)

    def test_reload(self) -> None:
        """
        The counts are kept when the configuration is read again.
        """
        self.exchange(MANIFEST, answer(200, b"{}"))
        config = self.mirror.service._mirror.settings.config
        self.mirror.service.reload(config)
        self.assertEqual(self.local(MANIFEST).status, 429)


class StreamTests(MemoryCase):
    options = {"client_streams": 2}

    def test_streams(self) -> None:
        """
        A third response waits for its turn, and is refused after a while.
        """
        lines = [self.send(b"/v2/library/a/blobs/sha256:%d" % number) for number in range(3)]
        self.assertEqual(len(self.network.lines), 2)
        # Responses without a body do not count.
        self.exchange(MANIFEST, answer(200), method=b"HEAD")
        self.network.lines[0].says(answer(200, b"x"))
        self.clock.advance(0)
        heard = b"".join(line.hears() for line in self.network.lines)
        self.assertIn(b"GET /v2/library/a/blobs/sha256:2 ", heard)
        last = self.send(b"/v2/library/a/blobs/sha256:9")
        self.clock.advance(4.9)
        self.assertEqual(last.hears(), b"")
        with capturedLogs() as events:
            self.clock.advance(0.2)
        self.assertEqual(
            [formatEvent(event) for event in events],
            ["too many responses to clients (2, 2 from 192.0.2.7): refusing more"],
        )
        got = self.answered(last)
        self.assertEqual((got.status, got.error), (429, "TOOMANYREQUESTS"))
        self.assertIn(b"too many responses to your address are in progress", got.body)
        self.assertTrue(got.values(b"Retry-After"))
        self.assertEqual(self.exchanges[-1].rule, "client-streams")
        self.assertEqual(len(lines), 3)

    def test_others(self) -> None:
        """
        Another client does not wait.
        """
        for number in range(2):
            self.send(b"/v2/library/a/blobs/sha256:%d" % number)
        other = self.connect(peer="192.0.2.8")
        self.assertEqual(self.exchange(MANIFEST, answer(200, b"{}"), line=other)[1].status, 200)


class BandwidthTests(MemoryCase):
    options = {"client_bandwidth": "1k"}

    def begin(self, number: int, peer: str | None = None) -> tuple[Line, Line]:
        """
        Begin a response with a blob.

        @return: the client's connection, and the upstream's.
        """
        client = self.send(b"/v2/library/a/blobs/sha256:%d" % number, line=self.connect(peer=peer))
        upstream = self.network.lines[-1]
        upstream.says(b"HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n")
        client.hears()
        return client, upstream

    def test_paced(self) -> None:
        """
        The upstream is paused until the client's bandwidth allows more; all of its responses count
        together.
        """
        (client, upstream), (_, second) = self.begin(1), self.begin(2)
        upstream.says(b"x" * 512)
        self.assertEqual(upstream.producerState, "paused")
        self.assertEqual(client.hears(), b"x" * 512)
        second.says(b"x" * 512)
        self.clock.advance(0.49)
        self.assertEqual(upstream.producerState, "paused")
        self.clock.advance(0.02)
        self.assertEqual(upstream.producerState, "producing")
        self.assertEqual(second.producerState, "paused")
        self.clock.advance(0.5)
        self.assertEqual(second.producerState, "producing")
        upstream.says(b"x" * 3584)
        self.clock.pump([1] * 4)
        self.assertEqual(self.exchanges[-1].outcome, Outcome.COMPLETE)

    def test_prefix(self) -> None:
        """
        An IPv6 /64 is one client.
        """
        upstreams = [
            self.begin(number, peer)[1] for number, peer in enumerate((FIRST, SECOND, OUTSIDE))
        ]
        for upstream in upstreams:
            upstream.says(b"x" * 512)
        self.clock.advance(0.51)
        states = [upstream.producerState for upstream in upstreams]
        self.assertEqual(states, ["producing", "paused", "producing"])
        self.clock.advance(0.5)
        self.assertEqual(upstreams[1].producerState, "producing")

    def test_clientPauses(self) -> None:
        """
        The upstream is resumed when both the client's pause and that for the bandwidth have ended.
        """
        client, upstream = self.begin(1)
        upstream.says(b"x" * 512)
        assert client.producer is not None
        client.producer.pauseProducing()
        self.clock.advance(1)
        self.assertEqual(upstream.producerState, "paused")
        client.producer.resumeProducing()
        self.assertEqual(upstream.producerState, "producing")
        upstream.says(b"x" * 512)
        client.producer.pauseProducing()
        client.producer.resumeProducing()
        self.assertEqual(upstream.producerState, "paused")
        self.clock.advance(1)
        self.assertEqual(upstream.producerState, "producing")

    def test_clientLeaves(self) -> None:
        client, upstream = self.begin(1)
        upstream.says(b"x" * 512)
        client.leaves()
        self.clock.advance(0)
        self.assertEqual(self.exchanges[-1].outcome, Outcome.CLIENT_LEFT)
        self.clock.advance(100)
        self.assertEqual(upstream.ended, "aborted")


class RequestIDTests(MemoryCase):
    def test_taken(self) -> None:
        """
        The client's request ID is sent upstream and in the response, and the upstream's does not
        replace it.
        """
        asked, got = self.exchange(
            MANIFEST,
            answer(200, b"{}", ((b"X-Request-ID", b"theirs"),)),
            fields=((b"X-Request-ID", b"abc-1"),),
        )
        self.assertEqual(asked.values(b"X-Request-ID"), [b"abc-1"])
        self.assertEqual(got.values(b"X-Request-ID"), [b"abc-1"])
        self.assertEqual(self.exchanges[-1].requestID, "abc-1")

    def test_made(self) -> None:
        """
        A request ID that could harm a log is replaced, and every response has one.
        """
        for value in (b"a b", b"x" * 200, b'"', b""):
            _, got = self.exchange(MANIFEST, answer(200, b"{}"), fields=((b"X-Request-ID", value),))
            self.assertRegex(got.values(b"X-Request-ID")[0], rb"\A[0-9a-f]{16}\Z")
        for target in (b"/v2/_catalog", b"/v1/_ping", b"/\x00"):
            got = self.local(target)
            self.assertRegex(got.values(b"X-Request-ID")[0], rb"\A[0-9a-f]{16}\Z")
            self.assertEqual(got.values(b"X-Request-ID"), [self.exchanges[-1].requestID.encode()])
