"""
Tests of the end of a request, which happens once for both connections, for the record and for the
timers.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from hubmirror import HubMirror, MirrorConfig
from hubmirror.exchange import Outcome
from hubmirror.protocol.errors import ConnectFailed
from tests.wire.support import Line, MemoryCase, answer


class EndCase(MemoryCase):
    def begin(self, target: bytes = b"/v2/a", **request: object) -> tuple[Line, Line]:
        """
        Begin a request.

        @return: the connections of client and upstream.
        """
        client = self.send(target, **request)
        return client, self.network.lines[-1]

    def assertEnded(self, outcome: Outcome, status: int) -> None:
        """Check that the request was recorded once, and nothing of it is left."""
        self.clock.advance(0)
        self.assertEqual(
            [(exchange.outcome, exchange.status) for exchange in self.exchanges],
            [(outcome, status)],
        )
        # Late events do not record it again.
        self.clock.pump([100] * 10)
        self.assertEqual(len(self.exchanges), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class WholeTests(EndCase):
    def test_whole(self) -> None:
        client, upstream = self.begin()
        upstream.says(answer(200, b"12345"))
        self.assertEqual(self.answered(client).body, b"12345")
        self.assertEqual((client.ended, upstream.ended), ("", ""))
        self.assertEnded(Outcome.COMPLETE, 200)
        [exchange] = self.exchanges
        self.assertEqual((exchange.sent, exchange.upstream), (5, "hub.example"))

    def test_head(self) -> None:
        client, upstream = self.begin(method=b"HEAD")
        upstream.says(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n")
        got = self.answered(client)
        self.assertEqual((got.values(b"Content-Length"), got.body), ([b"12345"], b""))
        self.assertEqual((client.ended, upstream.ended), ("", ""))
        self.assertEnded(Outcome.COMPLETE, 200)

    def test_notModified(self) -> None:
        """A 304 keeps the length of the body that was not sent."""
        client, upstream = self.begin()
        upstream.says(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 12345\r\nETag: x\r\n\r\n")
        got = self.answered(client)
        self.assertEqual((got.values(b"Content-Length"), got.body), ([b"12345"], b""))
        self.assertEqual((client.ended, upstream.ended), ("", ""))
        self.assertEnded(Outcome.COMPLETE, 304)

    def test_headWithoutLength(self) -> None:
        """No length and no transfer coding are added."""
        for status, method in ((200, b"HEAD"), (304, b"GET")):
            self.setUp()
            client, upstream = self.begin(method=method)
            upstream.says(b"HTTP/1.1 %d Status\r\nETag: x\r\n\r\n" % status)
            got = self.answered(client)
            self.assertEqual(got.values(b"Content-Length"), [])
            self.assertEqual(got.values(b"Transfer-Encoding"), [])
            self.assertEqual(got.body, b"")
            self.assertEnded(Outcome.COMPLETE, status)

    def test_empty(self) -> None:
        client, upstream = self.begin()
        upstream.says(answer(200))
        got = self.answered(client)
        self.assertEqual((got.values(b"Content-Length"), got.body), ([b"0"], b""))
        self.assertEqual(got.values(b"Transfer-Encoding"), [])
        self.assertEnded(Outcome.COMPLETE, 200)

    def test_chunked(self) -> None:
        """A chunked response stays chunked, and no other becomes so."""
        client, upstream = self.begin()
        upstream.says(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3;x=y\r\nabc\r\n0\r\nX: y\r\n\r\n"
        )
        got = self.answered(client)
        self.assertEqual(got.values(b"Transfer-Encoding"), [b"chunked"])
        self.assertEqual(got.body, b"3\r\nabc\r\n0\r\n\r\n")
        self.assertEnded(Outcome.COMPLETE, 200)

    def test_untilClose(self) -> None:
        client, upstream = self.begin()
        upstream.says(b"HTTP/1.0 200 OK\r\n\r\nabc")
        upstream.leaves()
        got = self.answered(client)
        self.assertEqual(got.body, b"3\r\nabc\r\n0\r\n\r\n")
        self.assertEnded(Outcome.COMPLETE, 200)

    def test_firstByteAtOnce(self) -> None:
        """The head is sent before the first byte of the body, and each byte when it is received."""
        client, upstream = self.begin()
        upstream.says(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
        self.assertEqual(self.answered(client).body, b"")
        for byte in (b"a", b"b", b"c"):
            upstream.says(byte)
            self.assertEqual(client.hears(), byte)

    def test_keptAlive(self) -> None:
        """Both connections can be used for the next request."""
        client, upstream = self.begin()
        upstream.says(answer(200, b"1"))
        self.answered(client)
        upstream.hears()
        self.send(b"/v2/b", line=client)
        self.assertEqual(self.asked(0).target, b"/v2/b")
        upstream.says(answer(200, b"2"))
        self.assertEqual(self.answered(client).body, b"2")
        self.assertEqual(len(self.network.lines), 1)

    def test_pushed(self) -> None:
        client, upstream = self.begin(method=b"PUT", body=b"12345")
        self.assertEqual(self.asked().body, b"12345")
        upstream.says(answer(201))
        self.answered(client)
        self.assertEnded(Outcome.COMPLETE, 201)
        self.assertEqual(self.exchanges[0].received, 5)


class BrokenTests(EndCase):
    """
    A broken response is never ended properly, because the client would take the part for the whole.
    """

    def begin(self, target: bytes = b"/v2/a", **request: object) -> tuple[Line, Line]:
        """Begin a request that no other upstream can serve."""
        begun = super().begin(target, **request)
        self.network.refuses.add(b"hub.example")
        return begun

    def assertBroken(self, client: Line, upstream: Line) -> None:
        self.clock.pump([1] * 60)
        self.assertEqual(client.ended, "aborted")
        self.assertNotEqual(upstream.ended, "")
        self.assertFalse(client.value().endswith(b"0\r\n\r\n"))
        self.assertEnded(Outcome.BROKEN, 200)

    def test_cut(self) -> None:
        client, upstream = self.begin()
        upstream.says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        upstream.leaves()
        self.assertBroken(client, upstream)

    def test_cutChunked(self) -> None:
        client, upstream = self.begin()
        upstream.says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n")
        upstream.leaves()
        self.assertBroken(client, upstream)

    def test_malformedChunk(self) -> None:
        client, upstream = self.begin()
        upstream.says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n")
        self.assertBroken(client, upstream)

    def test_untilReset(self) -> None:
        """A body without a length is complete only if its connection was closed properly."""
        client, upstream = self.begin()
        upstream.says(b"HTTP/1.0 200 OK\r\n\r\nabc")
        upstream.abortConnection()
        self.assertBroken(client, upstream)

    def test_stall(self) -> None:
        client, upstream = self.begin()
        upstream.says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        self.clock.pump([5, 5, 4])
        self.assertEqual((client.ended, upstream.ended), ("", ""))
        self.clock.advance(1)
        self.assertEqual(upstream.ended, "aborted")
        self.assertBroken(client, upstream)

    def test_slowIsNoStall(self) -> None:
        client, upstream = self.begin()
        piece = b"x" * 100_000
        upstream.says(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        for _ in range(10):
            self.clock.advance(14)
            upstream.says(piece)
        self.assertEqual(self.answered(client).body, piece * 10)
        self.assertEnded(Outcome.COMPLETE, 200)

    def test_slowClientIsNoStall(self) -> None:
        """A client that accepts nothing for minutes does not make the upstream stalled."""
        client, upstream = self.begin()
        upstream.says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        client.producer.pauseProducing()
        self.assertEqual(upstream.producerState, "paused")
        self.clock.pump([10] * 25)
        client.producer.resumeProducing()
        self.assertEqual(upstream.producerState, "producing")
        self.clock.advance(14)
        self.assertEqual((client.ended, upstream.ended), ("", ""))
        upstream.says(b"67890")
        self.assertEqual(self.answered(client).body, b"1234567890")
        self.assertEnded(Outcome.COMPLETE, 200)


class FailedTests(EndCase):
    def test_refused(self) -> None:
        self.network.refuses.add(b"hub.example")
        client = self.send(b"/v2/a")
        got = self.answered(client)
        self.assertEqual((got.status, got.error), (502, "UNAVAILABLE"))
        self.assertIn(b"hub.example: connection refused", got.body)
        self.assertEqual(client.ended, "")
        self.assertEnded(Outcome.FAILED, 502)
        self.assertEqual(self.exchanges[0].failures, [("hub.example", "connection refused")])

    def test_noHead(self) -> None:
        client, upstream = self.begin()
        self.clock.advance(9)
        got = self.answered(client)
        self.assertEqual((got.status, got.error), (504, "UNAVAILABLE"))
        self.assertIn(b"hub.example: no response head within 9 s", got.body)
        self.assertEqual(upstream.ended, "aborted")
        self.assertEnded(Outcome.FAILED, 504)

    def test_closedBeforeHead(self) -> None:
        """If the connection is closed before the head is complete, a GET is repeated once."""
        client, _upstream = self.begin()
        for _ in range(2):
            self.network.lines[-1].says(b"HTTP/1.1 200")
            self.network.lines[-1].leaves()
            self.clock.advance(0)
        self.assertEqual(len(self.network.lines), 2)
        self.assertEqual(self.answered(client).status, 502)
        self.assertEnded(Outcome.FAILED, 502)

    def test_noHTTP(self) -> None:
        for reply in (
            b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
            b"HTTP/2 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
        ):
            self.setUp()
            client, upstream = self.begin()
            upstream.says(reply)
            got = self.answered(client)
            self.assertEqual((got.status, got.error), (502, "UNAVAILABLE"), reply[:80])
            self.assertEqual(upstream.ended, "aborted")
            self.assertEnded(Outcome.FAILED, 502)

    def test_coding(self) -> None:
        """
        A response with a content coding is refused, because its bytes do not match the digest.
        """
        client, upstream = self.begin()
        upstream.says(answer(200, b"12345", ((b"Content-Encoding", b"gzip"),)))
        got = self.answered(client)
        self.assertEqual((got.status, got.error), (502, "UNAVAILABLE"))
        self.assertEqual(upstream.ended, "", "a connection was lost over a short body")
        self.assertEnded(Outcome.FAILED, 502)

    def test_codingOfError(self) -> None:
        """A 429 is passed on, even if its body has a content coding."""
        client, upstream = self.begin()
        coding = (b"Content-Encoding", b"gzip")
        upstream.says(answer(429, b"12345", (coding, (b"Retry-After", b"7"))))
        got = self.answered(client)
        self.assertEqual((got.status, got.body), (429, b"12345"))
        self.assertEqual(got.values(b"Content-Encoding"), [b"gzip"])

    def test_redirectThatMustNotBeFollowed(self) -> None:
        client, upstream = self.begin()
        upstream.says(answer(302, b"", ((b"Location", b"http://cdn.example/secret?signature"),)))
        got = self.answered(client)
        self.assertEqual((got.status, got.error), (502, "UNAVAILABLE"))
        self.assertEqual(got.values(b"Location"), [])
        self.assertNotIn(b"secret", got.body)
        self.assertEnded(Outcome.FAILED, 502)

    def test_head(self) -> None:
        self.network.refuses.add(b"hub.example")
        got = self.answered(self.send(b"/v2/a", method=b"HEAD"))
        self.assertEqual((got.status, got.body), (502, b""))
        self.assertEnded(Outcome.FAILED, 502)

    def test_pushThatFails(self) -> None:
        """The error response is sent although the request body has not ended."""
        self.network.refuses.add(b"hub.example")
        client = self.connect()
        client.says(b"PUT /v2/a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
        self.assertEqual(self.answered(client).status, 502)
        self.assertEnded(Outcome.FAILED, 502)


class BrokenRequestTests(EndCase):
    def test_badChunk(self) -> None:
        """A malformed body ends its request, and does not keep the mirror from stopping."""
        for body in (b"zz\r\n", b"1\r\nx\r\n0\r\nno trailer\r\n\r\n"):
            self.setUp()
            client = self.connect()
            head = b"PUT /v2/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            client.says(head + body)
            self.assertEqual(self.answered(client).status, 400)
            self.clock.advance(0)
            self.assertEqual([each.outcome for each in self.exchanges], [Outcome.CLIENT_LEFT])
            self.assertStops()

    def test_agentWithWordsOfItsOwn(self) -> None:
        """
        This also holds for a client that has left, whatever error a custom agent has for being
        cancelled.
        """

        class Agent:
            def request(self, *_: object) -> Deferred[object]:
                return Deferred(lambda asked: asked.errback(ConnectFailed("no such name")))

        self.mirror = HubMirror(
            self.clock, MirrorConfig(port=()), Agent(), listeners=(self.exchanges.append,)
        )
        self.site = self.mirror.site
        client = self.send(b"/v2/a")
        client.leaves()
        self.assertEnded(Outcome.CLIENT_LEFT, 0)
        self.assertStops()

    def assertStops(self) -> None:
        stopping = self.mirror.service.stopService()
        self.clock.pump([0] * 5)
        self.successResultOf(stopping)


class ClientLeftTests(EndCase):
    """
    When a client leaves, its upstream's connection is closed at once.
    """

    def leave(self, client: Line, stopped: bool) -> None:
        """Close the client's connection; its channel may or may not stop the producer before."""
        if not stopped:
            client.producer = None
        client.leaves()
        self.clock.advance(0)

    def test_beforeHead(self) -> None:
        for stopped in (False, True):
            self.setUp()
            client, upstream = self.begin()
            self.leave(client, stopped)
            self.assertEqual(upstream.ended, "aborted")
            self.assertEnded(Outcome.CLIENT_LEFT, 0)

    def test_beforeBody(self) -> None:
        for stopped in (False, True):
            self.setUp()
            client, upstream = self.begin()
            upstream.says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
            self.leave(client, stopped)
            self.assertEqual(upstream.ended, "aborted")
            self.assertEnded(Outcome.CLIENT_LEFT, 200)

    def test_inBody(self) -> None:
        for stopped in (False, True):
            self.setUp()
            client, upstream = self.begin()
            upstream.says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
            self.leave(client, stopped)
            self.assertEqual(upstream.ended, "aborted")
            self.assertEnded(Outcome.CLIENT_LEFT, 200)
            self.assertEqual(self.exchanges[0].sent, 5)

    def test_paused(self) -> None:
        for stopped in (False, True):
            self.setUp()
            client, upstream = self.begin()
            upstream.says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
            client.producer.pauseProducing()
            self.leave(client, stopped)
            self.assertEqual(upstream.ended, "aborted")
            self.assertEnded(Outcome.CLIENT_LEFT, 200)

    def test_inFailover(self) -> None:
        """Both the response that was kept and the request in progress end."""
        self.configure(fallback=("https://second.example",))
        client, first = self.begin()
        first.says(b"HTTP/1.1 503 Status\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 100_000)
        second = self.network.lines[1]
        self.leave(client, True)
        self.assertEqual((first.ended, second.ended), ("aborted", "aborted"))
        self.assertEnded(Outcome.CLIENT_LEFT, 0)

    def test_inUpload(self) -> None:
        for stopped in (False, True):
            self.setUp()
            client = self.connect()
            client.says(b"PUT /v2/a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
            self.assertEqual(self.asked().body, b"12345")
            self.leave(client, stopped)
            self.assertEqual(self.network.lines[0].ended, "aborted")
            self.assertEnded(Outcome.CLIENT_LEFT, 0)
            self.assertEqual(self.exchanges[0].received, 5)

    def test_bothAtOnce(self) -> None:
        """If a client leaves while its response is to be resumed, only that it left counts."""
        for clientFirst in (False, True):
            self.setUp()
            client, upstream = self.begin()
            upstream.says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
            for line in (client, upstream) if clientFirst else (upstream, client):
                line.leaves()
            self.clock.advance(0)
            self.assertEnded(Outcome.CLIENT_LEFT, 200)


class RefusedTests(EndCase):
    def test_refused(self) -> None:
        self.local(b"/v2/_catalog")
        self.assertEnded(Outcome.REFUSED, 404)

    def test_answeredHere(self) -> None:
        self.local(b"/v1/_ping")
        self.assertEnded(Outcome.COMPLETE, 200)
