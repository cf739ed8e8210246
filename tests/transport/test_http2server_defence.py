"""
Tests of HTTP/2 connections with clients that exceed their limits.
"""

import json

from h2.errors import ErrorCodes
from hyperframe.frame import ContinuationFrame, HeadersFrame, PingFrame, WindowUpdateFrame
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from hubmirror.downstream.site import MirrorSite
from tests.transport.http2client import IDLE, REQUEST, Client, HTTP2Case, Recorder

KiB = 1024


class DefenceTests(HTTP2Case):
    def test_malformed(self) -> None:
        """
        Requests that are invalid in HTTP/1.1, too, are refused on their stream, with a registry's
        error.
        """
        path = (b":path", b"/")
        method = (b":method", b"GET")
        authority = (b":authority", b"host")
        scheme = (b":scheme", b"https")
        good = [method, scheme, authority, path]
        table = [
            ([(b":method", b"GET /"), scheme, authority, path], 400),
            ([(b":method", b"G\xe9T"), scheme, authority, path], 400),
            ([(b":method", b""), scheme, authority, path], 400),
            ([method, scheme, authority, (b":path", b"/a b")], 400),
            ([method, scheme, authority, (b":path", b"/\xc3\xa4")], 400),
            ([method, scheme, authority, (b":path", b"/\x7f")], 400),
            ([method, scheme, authority, (b":path", b"v2/")], 400),
            ([method, scheme, authority, (b":path", b"http://host/v2/")], 400),
            ([method, scheme, authority, (b":path", b"/" + b"a" * 17_000)], 414),
            ([*good, (b"content-length", b"1"), (b"content-length", b"1")], 400),
            ([*good, (b"content-length", b"5")], 400),
            ([*good, (b"a(b)", b"c")], 400),
            ([*good, *[(b"a", b"b")] * 501], 431),
            ([(b":method", b"CONNECT"), (b"host", b"elsewhere:443")], 400),
        ]
        for fields, status in table:
            stream = self.client.askRaw(fields)
            answer = self.client.answers[stream]
            self.assertEqual(int(answer.status), status, fields)
            self.assertTrue(answer.ended)
            self.assertIn("errors", json.loads(answer.body))
        self.assertEqual([error.status for error in self.site.refusals], [row[1] for row in table])
        self.assertEqual(self.requests, [])
        self.client.ask()
        self.assertEqual(len(self.requests), 1)

    def test_head(self) -> None:
        """The response to an invalid HEAD has no body, either."""
        for path, status in ((b"/a b", b"400"), (b"/" + b"a" * 17_000, b"414")):
            stream = self.client.askRaw(
                [
                    (b":method", b"HEAD"),
                    (b":scheme", b"https"),
                    (b":authority", b"host"),
                    (b":path", path),
                ]
            )
            answer = self.client.answers[stream]
            self.assertEqual((answer.status, answer.frames), (status, []))
            self.assertTrue(answer.ended)

    def test_malformedFraming(self) -> None:
        """What violates HTTP/2 itself ends the connection."""
        for field in [
            (b"Upper", b"case"),
            (b"connection", b"close"),
            (b"transfer-encoding", b"chunked"),
            (b"a", b"b\r\nc: d"),
            (b"a\0", b"b"),
            (b"a", b"b\0"),
            (b":path", b"/"),
            (b":custom", b"a"),
            (b"host", b"another"),
            (b"content-length", b"-1"),
        ]:
            self.client = Client(self.site)
            self.client.ask(fields=[field])
            self.assertClosed(ErrorCodes.PROTOCOL_ERROR)
        self.assertEqual(self.requests, [])

    def largeHead(self, size: int) -> int:
        """Send a request with fields of so many bytes, which HPACK can't compress."""
        return self.client.ask(fields=[(b"%020d" % n, b"b" * 976) for n in range(size // 1000)])

    def test_largeHead(self) -> None:
        """
        The limit is the site's.  The response to a head above it is an error; one far above it ends
        the connection.
        """
        for most in (8_000, 65_000, 300_000):
            self.requests.clear()
            self.site.maxHead = most
            self.client = Client(self.site)
            self.assertEqual(self.client.h2.remote_settings.max_header_list_size, most)
            self.largeHead(most - 1000)
            self.assertEqual(len(self.requests), 1)
            stream = self.largeHead(most)
            self.assertEqual(self.client.answers[stream].status, b"431")
            self.largeHead(most + 70_000)
            self.assertClosed(ErrorCodes.ENHANCE_YOUR_CALM)
            self.assertEqual(len(self.requests), 1)

    def test_manyFields(self) -> None:
        """Many short fields are not a large head."""
        self.site.maxHead = 8 * KiB
        self.client = Client(self.site)
        self.client.ask(fields=[(b"a", b"b")] * 490)
        self.assertEqual(len(self.requests), 1)

    def test_slowHead(self) -> None:
        """A head that has begun must be complete in time, however it is split."""
        self.site.headTimeout = 10.0
        block = self.client.h2.encoder.encode(REQUEST)
        head = HeadersFrame(1, block[:1]).serialize()
        frames = b"".join(ContinuationFrame(1, bytes((byte,))).serialize() for byte in block[1:])
        for trickle in (head + frames, self.client.requestFrame(1)):
            self.client = Client(self.site)
            self.clock.advance(IDLE - 1)
            for at in range(10):
                self.client.protocol.dataReceived(trickle[at : at + 1])
                self.assertFalse(self.client.transport.disconnecting)
                self.clock.advance(1)
            self.client.exchange()
            self.assertClosed(ErrorCodes.NO_ERROR)
        self.assertEqual(self.requests, [])

    def test_everyHead(self) -> None:
        """Each head has a timeout of its own, and a response has none."""
        self.site.headTimeout = 10.0
        for number in range(3):
            frame = self.client.requestFrame(2 * number + 1)
            self.client.protocol.dataReceived(frame[:5])
            self.clock.advance(9)
            self.client.protocol.dataReceived(frame[5:])
            self.clock.advance(10 * IDLE)
            self.assertEqual(len(self.requests), number + 1)
            self.requests[-1].finish()
        self.clock.advance(IDLE - 1)
        self.assertFalse(self.client.transport.disconnecting)

    def test_slowHeadBeside(self) -> None:
        """The timeout of a head applies while other requests are in progress."""
        self.site.headTimeout = 10.0
        block = self.client.h2.encoder.encode(REQUEST)
        head = HeadersFrame(1, block[:1]).serialize()
        for trickle in (head, head[:5], head[:9], PingFrame(0, b"12345678").serialize()[:12]):
            self.client = Client(self.site)
            self.client.ask()
            trickle = trickle.replace(b"\0\0\0\1", b"\0\0\0\3")
            for at in range(len(trickle)):
                self.client.protocol.dataReceived(trickle[at : at + 1])
            self.clock.advance(9.9)
            self.assertFalse(self.client.transport.disconnecting)
            self.clock.advance(0.1)
            self.assertTrue(self.client.transport.disconnecting)

    def test_slowBody(self) -> None:
        """A DATA frame has no timeout here: another limit is for bodies."""
        self.site.headTimeout = 10.0
        stream = self.client.ask(ended=False)
        self.client.h2.send_data(stream, b"a" * 100)
        frame = self.client.h2.data_to_send()
        self.client.protocol.dataReceived(frame[:20])
        self.clock.advance(11)
        self.assertFalse(self.client.transport.disconnecting)
        self.client.protocol.dataReceived(frame[20:])
        self.assertEqual(self.requests[-1].content.received, 100)

    def test_largeBlock(self) -> None:
        """A header block that is too large ends the connection before it is complete."""
        self.site.maxHead = 8 * KiB
        self.client = Client(self.site)
        head = HeadersFrame(1, b"").serialize()
        self.client.protocol.dataReceived(head)
        sent = 0
        while not self.client.transport.disconnecting:
            self.client.protocol.dataReceived(ContinuationFrame(1, bytes(4 * KiB)).serialize())
            sent += 4 * KiB
        self.assertLessEqual(sent, 80 * KiB)
        self.client.exchange()
        self.assertClosed(ErrorCodes.ENHANCE_YOUR_CALM)

    def test_largeFrame(self) -> None:
        """A frame that is too large ends the connection before its payload is received."""
        for kind in (0, 1, 7, 200):
            self.client = Client(self.site)
            self.request()
            self.client.protocol.dataReceived(b"\xff\xff\xff%c" % kind + bytes(5))
            self.client.exchange()
            self.assertClosed(ErrorCodes.FRAME_SIZE_ERROR)

    def test_stuckUploads(self) -> None:
        """Uploads that are not consumed do not stop other ones."""
        for _ in range(99):
            stream = self.client.ask(ended=False)
            self.client.sendBody(stream, bytes(2**20))
            self.assertEqual(self.requests[-1].content.received, 64 * KiB)
        stream = self.client.ask(ended=False)
        received: list[int] = []
        body = self.requests[-1].content

        class Upstream:
            def registerProducer(self, producer: object, streaming: bool) -> None:
                pass

            def unregisterProducer(self) -> None:
                pass

            def write(self, data: bytes) -> None:
                received.append(len(data))

        body.startProducing(Upstream())
        self.client.exchange()
        self.assertEqual(self.client.sendBody(stream, bytes(2**20)), 2**20)
        self.assertEqual(sum(received), 2**20)

    def test_settings(self) -> None:
        """The limits are announced in the settings."""
        settings = self.client.h2.remote_settings
        self.assertEqual(settings.max_concurrent_streams, 100)
        self.assertEqual(settings.max_header_list_size, 64 * KiB)
        self.assertEqual(settings.initial_window_size, 64 * KiB)
        self.assertEqual(self.client.h2.outbound_flow_control_window, 1024 * KiB)

    def test_streams(self) -> None:
        """A request beyond the limit of streams ends the connection."""
        for _ in range(100):
            self.client.ask()
        self.assertEqual(len(self.requests), 100)
        self.client.protocol.dataReceived(self.client.requestFrame(201))
        self.assertEqual(len(self.requests), 100)
        self.assertTrue(self.client.transport.disconnecting)
        self.assertEqual(len(self.resource.ended), 100)

    def test_rapidReset(self) -> None:
        """A client that only cancels requests loses its connection."""
        for _ in range(101):
            self.assertFalse(self.client.transport.disconnecting)
            self.client.resetStream(self.client.ask())
        self.assertClosed(ErrorCodes.ENHANCE_YOUR_CALM)

    def test_resetAtOnce(self) -> None:
        """A request that is cancelled in the same read is not created."""
        for _ in range(101):
            stream = self.client.h2.get_next_available_stream_id()
            self.client.protocol.dataReceived(self.client.h2.data_to_send())
            self.client.h2.send_headers(stream, REQUEST, end_stream=True)
            self.client.h2.reset_stream(stream)
        self.client.exchange()
        self.assertEqual(self.requests, [])
        self.assertClosed(ErrorCodes.ENHANCE_YOUR_CALM)

    def test_patientResets(self) -> None:
        """A client that reads a part of each response may cancel as many as it likes."""
        for _ in range(300):
            stream, request = self.request()
            request.write(b"piece")
            self.client.resetStream(stream)
        self.assertFalse(self.client.transport.disconnecting)

    def test_savedUp(self) -> None:
        """Earlier good behaviour does not raise the limit."""
        for _ in range(200):
            _, request = self.request()
            request.finish()
        for _ in range(101):
            self.client.resetStream(self.client.ask())
        self.assertClosed(ErrorCodes.ENHANCE_YOUR_CALM)

    def test_provokedResets(self) -> None:
        """The limit also counts resets by the server that a client provokes."""
        for _ in range(101):
            stream = self.client.ask(ended=False)
            self.client.protocol.dataReceived(
                WindowUpdateFrame(stream, window_increment=2**31 - 1).serialize()
            )
        self.client.exchange()
        self.assertClosed(ErrorCodes.ENHANCE_YOUR_CALM)

    @given(st.lists(st.binary(max_size=60), max_size=5), st.booleans())
    def test_anything(self, pieces: list[bytes], framed: bool) -> None:
        """No input causes an unhandled error."""
        client = Client(MirrorSite(Recorder(), Clock(), IDLE))
        client.ask(ended=False)
        for piece in pieces:
            head = len(piece[10:]).to_bytes(3, "big") if framed else b""
            client.protocol.dataReceived(head + piece)
