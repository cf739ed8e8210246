"""
Tests of HTTP/2 connections: flow control, cost, and end.
"""

from typing import Any

from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame, GoAwayFrame, WindowUpdateFrame
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.downstream.site import MirrorSite
from hubmirror.transport.closingports import FIRST_REQUEST
from tests.transport.http2client import IDLE, Client, Greedy, HTTP2Case, Recorder

KiB = 1024


class SendingTests(HTTP2Case):
    def stalled(self) -> tuple[int, Any]:
        """
        A request on a connection whose transport is full.
        """
        stream, request = self.request()
        request.write(b"")
        self.client.full(True)
        return stream, request

    def test_windows(self) -> None:
        """No more is sent than the stream's window allows, and the rest when it opens."""
        self.client = Client(self.site, wide=False)
        stream, request = self.request()
        body = bytes(range(250)) * 800
        request.write(body)
        request.finish()
        self.client.exchange()
        answer = self.client.answers[stream]
        self.assertEqual(answer.body, body[:65535])
        self.client.h2.increment_flow_control_window(WINDOW := 10_000, stream)
        self.client.exchange()
        self.assertEqual(answer.body, body[:65535])
        self.assertNotIn(b"", answer.frames)
        self.client.h2.increment_flow_control_window(WINDOW)
        self.client.exchange()
        self.assertEqual(answer.body, body[: 65535 + WINDOW])
        self.assertFalse(answer.ended)
        self.client.h2.increment_flow_control_window(len(body))
        self.client.h2.increment_flow_control_window(len(body), stream)
        self.client.exchange()
        self.assertEqual(answer.body, body)
        self.assertTrue(answer.ended)

    def test_settingsWake(self) -> None:
        """A larger initial window enlarges the window of each stream."""
        self.client = Client(self.site, wide=False)
        self.client.setWindow(1000)
        self.client.exchange()
        stream, request = self.request()
        request.write(bytes(5000))
        self.client.exchange()
        self.assertEqual(len(self.client.answers[stream].body), 1000)
        self.client.setWindow(4000)
        self.client.exchange()
        self.assertEqual(len(self.client.answers[stream].body), 4000)

    def test_negativeWindow(self) -> None:
        """A window may become negative (RFC 9113 6.9.2)."""
        self.client = Client(self.site, wide=False)
        stream, request = self.request()
        request.write(bytes(60_000))
        self.client.setWindow(1000)
        self.client.exchange()
        request.write(bytes(60_000))
        self.client.exchange()
        self.assertEqual(len(self.client.answers[stream].body), 60_000)

    def test_frames(self) -> None:
        """Frames have the largest size that the client accepts."""
        for size in (16 * KiB, 32 * KiB):
            self.client.h2.update_settings({SettingCodes.MAX_FRAME_SIZE: size})
            self.client.exchange()
            stream, request = self.request()
            request.write(bytes(64 * KiB))
            self.client.exchange()
            frames = self.client.answers[stream].frames
            self.assertEqual([len(frame) for frame in frames], [size] * (64 * KiB // size))

    def test_fair(self) -> None:
        """Streams take turns, whatever their order and the length of their bodies."""
        streams = []
        self.client.full(True)
        for length in (384 * KiB, 192 * KiB, 96 * KiB):
            stream, request = self.request()
            request.write(bytes(length))
            streams.append(stream)
        self.client.full(False)
        self.client.exchange()
        # A turn is two frames.
        self.assertEqual(self.client.order[::2], streams * 3 + streams[:2] * 3 + streams[:1] * 6)

    def test_full(self) -> None:
        """Nothing is written to a full transport, and everything when it is no longer full."""
        stream, request = self.stalled()
        request.write(b"body")
        self.client.exchange()
        self.assertEqual(self.client.answers[stream].body, b"")
        self.client.full(False)
        self.client.exchange()
        self.assertEqual(self.client.answers[stream].body, b"body")

    def test_fullInBetween(self) -> None:
        """If the transport becomes full in the middle, only the batch in progress is written."""
        self.client.h2.update_settings({SettingCodes.MAX_FRAME_SIZE: 1024 * KiB})
        self.client.exchange()
        _, request = self.stalled()
        request.write(bytes(300 * KiB))
        transport = self.client.transport

        def write(data: bytes) -> None:
            StringTransport.write(transport, data)
            self.client.full(True)

        transport.write = write
        self.client.full(False)
        self.assertLess(len(transport.value()), 193 * KiB)
        self.assertGreater(len(transport.value()), 160 * KiB)

    def test_stalledReader(self) -> None:
        """The cost of a client that does not read does not depend on its window."""
        transport = self.client.transport

        def write(data: bytes) -> None:
            StringTransport.write(transport, data)
            if len(transport.value()) > 64 * KiB:
                self.client.full(True)

        transport.write = write
        producers = [Greedy(self.request()[1]) for _ in range(3)]
        for producer in producers:
            self.assertLessEqual(producer.written, 3 * 64 * KiB)
        self.assertLessEqual(len(transport.value()), 3 * 64 * KiB)

    def flood(self, pings: int) -> None:
        for _ in range(pings):
            self.client.h2.ping(b"12345678")
        self.client.protocol.dataReceived(self.client.h2.data_to_send())

    def test_floodUnread(self) -> None:
        """A client that causes many responses without reading them loses its connection soon."""
        self.client.full(True)
        for _ in range(32):
            self.flood(1000)
        self.assertTrue(self.client.transport.disconnecting)
        # Only the frames of the first read have been responded to.
        self.assertLess(len(self.client.transport.value()), 32 * KiB)

    def test_floodRead(self) -> None:
        """The same applies to a client that reads them, at a rate that no proper client needs."""
        self.flood(990)
        self.assertFalse(self.client.transport.disconnecting)
        self.flood(20)
        self.client.exchange()
        self.assertClosed(ErrorCodes.ENHANCE_YOUR_CALM)

    def test_alive(self) -> None:
        """A client may send PING as often as proper clients do."""
        self.request()
        for _ in range(300):
            self.flood(10)
            self.clock.advance(1)
        self.assertFalse(self.client.transport.disconnecting)

    def test_windowUpdates(self) -> None:
        """A client that reads much may send many WINDOW_UPDATE frames."""
        _stream, request = self.request()
        for _ in range(100):
            request.write(bytes(96 * KiB))
            self.client.exchange()
            for _ in range(30):
                self.client.h2.increment_flow_control_window(1)
            self.client.exchange()
        self.assertFalse(self.client.transport.disconnecting)

    def test_smallReads(self) -> None:
        """
        So does one that reads little at a time, in two frames for each read: for the data that it
        gets, and for the rest that is already on its way when the response has ended.
        """
        stream, request = self.request()
        onItsWay = 4096 * KiB
        for sent in range(0, 32 * 1024 * KiB, 32 * KiB):
            request.write(bytes(32 * KiB))
            if sent >= onItsWay:
                self.returnWindow(stream, 32 * KiB)
            self.client.exchange()
        request.finish()
        self.client.transport.clear()
        self.returnWindow(stream, onItsWay)
        self.assertFalse(self.client.transport.disconnecting)

    def returnWindow(self, stream: int, size: int) -> None:
        updates = [
            WindowUpdateFrame(number, window_increment=4 * KiB).serialize()
            for number in (0, stream)
        ]
        self.client.protocol.dataReceived(b"".join(updates * (size // (4 * KiB))))

    def test_pingsForData(self) -> None:
        """A client can't save up the right to send any number of frames."""
        _, request = self.request()
        request.write(bytes(64 * 1024 * KiB))
        self.client.exchange()
        with capturedLogs() as events:
            self.flood(5000)
            self.assertFalse(self.client.transport.disconnecting)
            self.flood(100)
        self.client.exchange()
        self.assertClosed(ErrorCodes.ENHANCE_YOUR_CALM)
        self.assertIn("192.168.1.1", formatEvent(events[0]))


class Interleaving:
    """
    Streams that are written to while windows open and the transport is full or not, in any order.
    """

    def __init__(self, streams: int) -> None:
        self.clock = Clock()
        resource = Recorder()
        self.client = Client(MirrorSite(resource, self.clock, IDLE), wide=False)
        self.client.setWindow(0)
        self.client.exchange()
        self.streams = [self.client.ask() for _ in range(streams)]
        self.requests = resource.requests
        self.written = [b""] * streams
        self.full = False

    def write(self, index: int, size: int) -> None:
        data = bytes((index * 50 + n) % 251 for n in range(len(self.written[index]), size))
        self.written[index] += data
        self.requests[index].write(data)

    def step(self, action: str, index: int, size: int) -> None:
        if action == "write":
            self.write(index, len(self.written[index]) + size)
        elif action == "connection":
            self.client.h2.increment_flow_control_window(size)
        elif action == "stream":
            self.client.h2.increment_flow_control_window(size, self.streams[index])
        else:
            self.full = not self.full
            self.client.full(self.full)
        self.client.exchange()

    def end(self) -> None:
        for request in self.requests:
            request.finish()
        if self.full:
            self.client.full(False)
        self.client.h2.increment_flow_control_window(2**30)
        for stream in self.streams:
            self.client.h2.increment_flow_control_window(2**30, stream)
        self.client.exchange()


class InterleavingTests(SynchronousTestCase):
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["write", "write", "connection", "stream", "full"]),
                st.integers(0, 2),
                st.integers(1, 40_000),
            ),
            max_size=30,
        )
    )
    def test_completeAndInOrder(self, steps: list[tuple[str, int, int]]) -> None:
        """At any time the client has a prefix of each body, and in the end all of it."""
        case = Interleaving(3)
        for step in steps:
            case.step(*step)
            for stream, written in zip(case.streams, case.written, strict=True):
                self.assertTrue(written.startswith(case.client.answers[stream].body))
        case.end()
        for stream, written in zip(case.streams, case.written, strict=True):
            self.assertEqual(case.client.answers[stream].body, written)
            self.assertTrue(case.client.answers[stream].ended)


class EndTests(HTTP2Case):
    def test_clientLeaves(self) -> None:
        """All requests of a connection are notified of its end."""
        self.request()
        self.request()
        self.client.leave()
        self.assertEqual(len(self.resource.ended), 2)
        self.assertNotIn(None, self.resource.ended)
        self.assertIsNone(self.client.transport.producer)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_clientSaysGoodbye(self) -> None:
        """After a client's GOAWAY, its requests are completed; then the connection is closed."""
        stream, request = self.request(ended=False)
        goaway = GoAwayFrame(additional_data=b"bye").serialize()
        for byte in goaway * 2:
            self.client.protocol.dataReceived(bytes((byte,)))
        body = DataFrame(stream, b"body", flags=["END_STREAM"]).serialize()
        self.client.protocol.dataReceived(body)
        self.assertEqual(request.content.received, 4)
        request.write(b"whole")
        self.assertFalse(self.client.transport.disconnecting)
        request.finish()
        self.assertEqual(self.resource.ended, [None])
        self.assertIn(b"whole", self.client.transport.value())
        self.assertTrue(self.client.transport.disconnecting)

    def test_goodbyeAfterAResponse(self) -> None:
        """Without a request in progress, this happens at once."""
        self.request()[1].finish()
        self.client.protocol.dataReceived(GoAwayFrame().serialize())
        self.client.exchange()
        self.assertClosed(ErrorCodes.NO_ERROR)

    def test_goodbyeBeforeARequest(self) -> None:
        """A connection that has not had a request is closed at once, too."""
        self.client.protocol.dataReceived(GoAwayFrame().serialize())
        self.client.exchange()
        self.assertClosed(ErrorCodes.NO_ERROR)

    def test_goodbyeWithAnError(self) -> None:
        """After a GOAWAY with an error, or a malformed one, the client waits for nothing."""
        for goaway in (
            GoAwayFrame(error_code=ErrorCodes.INTERNAL_ERROR).serialize(),
            b"\0\0\x08\7\0\0\0\0\1" + bytes(8),
            b"\0\0\x04\7\0\0\0\0\0" + bytes(4),
        ):
            self.resource.ended.clear()
            self.client = Client(self.site)
            self.request()
            self.client.protocol.dataReceived(goaway)
            self.assertEqual(len(self.resource.ended), 1)
            self.assertTrue(self.client.transport.disconnecting)

    def test_idle(self) -> None:
        """An idle connection is closed, after GOAWAY."""
        self.clock.advance(IDLE - 1)
        self.assertFalse(self.client.transport.disconnecting)
        self.clock.advance(1)
        self.client.exchange()
        self.assertClosed(ErrorCodes.NO_ERROR)

    def test_idleAgain(self) -> None:
        """It is also closed after a request, but not during one."""
        _, request = self.request()
        self.clock.advance(10 * IDLE)
        request.finish()
        self.clock.advance(IDLE - 1)
        self.assertFalse(self.client.transport.disconnecting)
        self.clock.advance(1)
        self.client.exchange()
        self.assertClosed(ErrorCodes.NO_ERROR)

    def test_pingsAreIdle(self) -> None:
        for _ in range(3):
            self.clock.advance(IDLE / 3)
            self.client.h2.ping(b"12345678")
            self.client.exchange()
        self.assertClosed(ErrorCodes.NO_ERROR)

    def test_split(self) -> None:
        """Nor do frames that are received in two pieces keep a connection open."""
        for _ in range(3):
            self.clock.advance(IDLE / 3 - 1)
            self.client.h2.ping(b"12345678")
            frame = self.client.h2.data_to_send()
            self.client.protocol.dataReceived(frame[:5])
            self.clock.advance(1)
            self.assertFalse(self.client.transport.disconnecting)
            self.client.protocol.dataReceived(frame[5:])
        self.client.exchange()
        self.assertClosed(ErrorCodes.NO_ERROR)

    def unread(self) -> tuple[int, Any]:
        """A response that is complete on this side, but not sent."""
        stream, request = self.request()
        request.write(bytes(100_000))
        request.finish()
        self.client.exchange()
        return stream, request

    def test_stillReading(self) -> None:
        """A response that is done keeps its connection open while the client accepts some of it."""
        self.client = Client(self.site, wide=False)
        stream, _ = self.unread()
        for _ in range(3):
            self.clock.advance(self.site.clientTimeout - 1)
            self.client.h2.increment_flow_control_window(1000)
            self.client.h2.increment_flow_control_window(1000, stream)
            self.client.exchange()
        self.assertIsNone(self.client.answers[stream].reset)
        self.assertEqual(len(self.client.answers[stream].body), 65_535 + 3000)
        self.clock.advance(self.site.clientTimeout)
        self.clock.advance(0)
        self.client.exchange()
        self.assertEqual(self.client.answers[stream].reset, ErrorCodes.INTERNAL_ERROR)
        self.clock.advance(IDLE - 1)
        self.assertFalse(self.client.transport.disconnecting)
        self.clock.advance(1)
        self.assertTrue(self.client.transport.disconnecting)

    def test_neverRead(self) -> None:
        """The time for it does not depend on what else the client does."""
        self.client = Client(self.site, wide=False)
        self.client.setWindow(0)
        self.client.exchange()
        streams = [self.unread()[0] for _ in range(3)]
        for _ in range(11):
            self.clock.advance(self.site.clientTimeout / 10)
            self.request(method=b"HEAD")[1].finish()
            self.client.exchange()
        for stream in streams:
            self.assertEqual(self.client.answers[stream].reset, ErrorCodes.INTERNAL_ERROR)

    def test_lostUnread(self) -> None:
        self.client.leave()
        self.client = Client(self.site, wide=False)
        self.unread()
        self.client.leave()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closingTakesTooLong(self) -> None:
        self.clock.advance(IDLE)
        self.clock.advance(self.site.clientTimeout - 1)
        self.assertFalse(self.client.transport.transport.disconnecting)
        self.clock.advance(1)
        self.assertTrue(self.client.transport.transport.disconnecting)
        self.clock.advance(self.site.clientTimeout)
        self.assertTrue(self.client.transport.aborted)

    def test_closeWhenIdle(self) -> None:
        """
        Requests in progress are completed, others are refused, and then the connection is closed.
        """
        stream, request = self.request()
        gone = self.site.close()
        self.client.protocol.dataReceived(self.client.requestFrame(stream + 2))
        self.assertEqual(len(self.requests), 1)
        self.assertFalse(self.client.transport.disconnecting)
        request.write(b"whole")
        request.finish()
        seen = self.client.transport.value()
        self.assertIn(b"whole", seen)
        # GOAWAY with NO_ERROR is sent twice, with the last stream that was served.
        self.assertEqual(seen.count(b"\7\0\0\0\0\0\0\0\0\1\0\0\0\0"), 2)
        self.assertTrue(self.client.transport.disconnecting)
        self.assertNoResult(gone)
        self.client.leave()
        self.successResultOf(gone)

    def test_closeIdle(self) -> None:
        _, request = self.request()
        request.finish()
        self.site.close()
        self.client.exchange()
        self.assertClosed(ErrorCodes.NO_ERROR)

    def test_closeUnused(self) -> None:
        self.site.close()
        self.clock.advance(FIRST_REQUEST - 0.1)
        self.assertFalse(self.client.transport.disconnecting)
        self.clock.advance(0.1)
        self.client.exchange()
        self.assertClosed(ErrorCodes.NO_ERROR)

    def test_firstRequestWhileClosing(self) -> None:
        """The first request of a connection is served, and GOAWAY tells that it is the last."""
        self.site.close()
        stream, request = self.request()
        self.assertEqual(self.client.goaway, (ErrorCodes.NO_ERROR, stream))
        self.client.protocol.dataReceived(self.client.requestFrame(stream + 2))
        self.assertEqual(len(self.requests), 1)
        request.write(b"whole")
        request.finish()
        self.assertIn(b"whole", self.client.transport.value())
        self.assertTrue(self.client.transport.disconnecting)

    def test_abort(self) -> None:
        self.request()
        self.site.abort()
        self.assertTrue(self.client.transport.aborted)
