"""
An HTTP/2 client in memory, connected to a real site.
"""

from collections import defaultdict
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from hyperframe.frame import HeadersFrame
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import INegotiated
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from hubmirror.downstream.site import MirrorSite
from hubmirror.protocol.errors import RequestRefused

IDLE = 75.0
WIDE = 2**30
REQUEST = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"host"),
    (b":path", b"/"),
]


@implementer(INegotiated)
class TLSTransport(StringTransport):
    """
    A transport whose TLS handshake is complete.

    @ivar transport: the transport below TLS.
    """

    def __init__(self, protocol: bytes | None) -> None:
        super().__init__(lenient=True)
        self.transport = StringTransport()
        self.negotiatedProtocol = protocol

    def unregisterProducer(self) -> None:
        """
        Unregister the producer; as with a real transport, this may be repeated.
        """
        self.producer = None

    @property
    def aborted(self) -> bool:
        return self.disconnected


class Recorder(Resource):
    """
    A resource that keeps every request, and leaves the response to the test.
    """

    isLeaf = True
    streamsBody = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Any] = []
        self.ended: list[Failure | None] = []

    def render(self, request: Any) -> int:
        self.requests.append(request)
        request.notifyFinish().addBoth(self.ended.append)
        return NOT_DONE_YET


class RecordingSite(MirrorSite):
    refusals: list[RequestRefused]

    def refused(self, channel: Any, error: RequestRefused) -> None:
        self.refusals.append(error)


class Producer:
    """
    A producer that records the calls of its methods.
    """

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class Greedy(Producer):
    """
    A producer that writes as long as it is not paused.
    """

    def __init__(self, request: Any) -> None:
        super().__init__()
        self.written = 0
        self._request = request
        self._paused = False
        request.registerProducer(self, True)
        if not self._paused:
            self.resumeProducing()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        while not self._paused and self.written < WIDE:
            self.written += 65536
            self._request.write(b"\0" * 65536)


class Answer:
    """
    The response that a client has received on a stream.
    """

    def __init__(self) -> None:
        self.heads: list[dict[bytes, bytes]] = []
        self.frames: list[bytes] = []
        self.ended = False
        self.reset: ErrorCodes | int | None = None

    @property
    def status(self) -> bytes:
        return self.heads[-1][b":status"]

    @property
    def body(self) -> bytes:
        return b"".join(self.frames)


class Client:
    """
    The client's side of a connection.

    @ivar answers: the responses, by stream.
    @ivar order: the streams of the DATA frames, in the order in which they were received.
    @ivar goaway: the error code and last stream of the last GOAWAY.
    """

    def __init__(self, site: MirrorSite, wide: bool = True) -> None:
        """
        @param wide: whether the windows are so large that they do not matter.
        """
        self.answers: dict[int, Answer] = defaultdict(Answer)
        self.order: list[int] = []
        self.goaway: tuple[ErrorCodes | int | None, int | None] | None = None
        self.transport = TLSTransport(b"h2")
        self.protocol = site.buildProtocol(None)
        self.protocol.makeConnection(self.transport)
        self.protocol.handshakeCompleted()
        # The client must be able to send invalid input.
        self.h2 = H2Connection(
            H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
        )
        self.h2.initiate_connection()
        if wide:
            self.setWindow(WIDE)
            self.h2.increment_flow_control_window(WIDE)
        self.exchange()

    def setWindow(self, size: int) -> None:
        """
        Set the window of each stream.
        """
        self.h2.update_settings({4: size})

    def exchange(self) -> None:
        """
        Transfer bytes in both directions until there are none.
        """
        sent = received = b"-"
        while sent or received:
            sent, received = self.h2.data_to_send(), self.transport.value()
            self.transport.clear()
            if received and not self.transport.aborted:
                for event in self.h2.receive_data(received):
                    self._seen(event)
            if sent:
                self.protocol.dataReceived(sent)

    def _seen(self, event: Event) -> None:
        if isinstance(event, ConnectionTerminated):
            self.goaway = event.error_code, event.last_stream_id
            return
        answer = self.answers[getattr(event, "stream_id", None) or 0]
        if isinstance(event, ResponseReceived | InformationalResponseReceived):
            answer.heads.append(dict(event.headers))
        elif isinstance(event, DataReceived):
            self.order.append(event.stream_id)
            answer.frames.append(event.data)
        elif isinstance(event, StreamEnded):
            answer.ended = True
        elif isinstance(event, StreamReset):
            answer.reset = event.error_code

    def ask(
        self,
        method: bytes = b"GET",
        target: bytes = b"/v2/",
        fields: list[tuple[bytes, bytes]] | None = None,
        ended: bool = True,
    ) -> int:
        """
        Send a request.

        @return: the stream.
        """
        control = [
            (b":method", method),
            (b":scheme", b"https"),
            (b":authority", b"mirror.example:8443"),
            (b":path", target),
        ]
        return self.askRaw(control + (fields or []), ended)

    def askRaw(self, fields: list[tuple[bytes, bytes]], ended: bool = True) -> int:
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, fields, end_stream=ended)
        self.exchange()
        return stream

    def requestFrame(self, stream: int) -> bytes:
        """
        The frame of L{REQUEST}, for tests in which C{h2} refuses to send it.
        """
        frame = HeadersFrame(stream, self.h2.encoder.encode(REQUEST))
        frame.flags.add("END_HEADERS")
        frame.flags.add("END_STREAM")
        return frame.serialize()

    def sendBody(self, stream: int, data: bytes, ended: bool = False) -> int:
        """
        Send as much of a body as the windows allow.

        @return: the number of bytes sent.
        """
        sent = 0
        while True:
            piece = data[sent : sent + min(16384, self.h2.local_flow_control_window(stream))]
            sent += len(piece)
            last = sent == len(data)
            if piece or last:
                self.h2.send_data(stream, piece, end_stream=ended and last)
                self.exchange()
            if last or not piece:
                return sent

    def resetStream(self, stream: int) -> None:
        self.h2.reset_stream(stream, ErrorCodes.CANCEL)
        self.exchange()

    def full(self, full: bool) -> None:
        """
        Make the server's transport full, or not full any more.
        """
        if full:
            self.transport.producer.pauseProducing()
        else:
            self.transport.producer.resumeProducing()

    def leave(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))


class HTTP2Case(SynchronousTestCase):
    plain = False

    def setUp(self) -> None:
        self.clock = Clock()
        self.resource = Recorder()
        self.requests = self.resource.requests
        self.site = RecordingSite(self.resource, self.clock, IDLE, plain=self.plain)
        self.site.refusals = []
        self.client = Client(self.site)

    def request(self, *args: Any, **named: Any) -> tuple[int, Any]:
        """
        Send a request.

        @return: the stream and the site's request.
        """
        stream = self.client.ask(*args, **named)
        return stream, self.requests[-1]

    def assertClosed(self, code: ErrorCodes) -> None:
        """
        Check that the server has sent the reason for closing, and closes the connection.
        """
        assert self.client.goaway is not None
        self.assertEqual(self.client.goaway[0], code)
        self.assertTrue(self.client.transport.disconnecting)
        self.assertIsNone(self.client.transport.producer)
