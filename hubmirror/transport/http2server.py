"""
The server side of HTTP/2 (RFC 9113): a connection of a client, with several requests at a time.

The C{h2} library implements the protocol; this module decides how much is sent, buffered and
accepted.  Twisted's own channel sends one frame in each iteration of the reactor, copies the rest
of a chunk each time, and pauses a producer only when the client's window is full, which is 32 MiB
with curl.  This channel sends as much as the windows and the transport allow.  A client that does
not read costs an amount of memory that does not depend on its window.
"""

from __future__ import annotations

from collections import OrderedDict
from math import inf
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import FrameTooLargeError, ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IDelayedCall, IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from hubmirror.transport.clientchannel import ClientChannel
from hubmirror.transport.closingports import FIRST_REQUEST
from hubmirror.transport.http2frames import Outbound, outbound
from hubmirror.transport.http2input import FrameReader, isGoodbye
from hubmirror.transport.http2stream import HTTP2Stream

_MAX_STREAMS = 100
# The flow control windows for the bodies of requests, in bytes.
_CONNECTION_WINDOW = 1024 * 1024
_STREAM_WINDOW = 64 * 1024
# How many control frames a client may send at once, and how many more for each second, for each
# batch of data that it is sent, and for so many bytes of it.  Go's client sends two WINDOW_UPDATE
# for each read of at least 4 KiB.
_MAX_CONTROL = 1000
_CONTROL_EACH_SECOND = 10
_CONTROL_EACH_BATCH = 32
_BYTES_EACH_CONTROL = 1024
# How many of these a client may save up, because it sends most of them only when it reads data that
# is already on its way: 4 MiB with the windows of Go's client.
_MAX_SAVED = 4096
# The number of bytes that are passed to the transport at a time, and how many of them may be from
# one stream before the next stream's turn.
_BATCH = 192 * 1024
_TURN = 32 * 1024
# The largest number of bytes of replies that a client may leave unread.
_MAX_UNREAD = 256 * 1024
# How many more streams a client may reset than get a response.
_MAX_RESETS = 100
# The number of bytes by which a head may exceed the limit and still get a response.
_HEAD_ROOM = 64 * 1024


@implementer(IPushProducer)
class HTTP2Channel(ClientChannel):
    """
    An HTTP/2 connection of a client.

    @ivar requestFactory: creates a request; its parameter is the L{HTTP2Stream}.
    @ivar timeOut: the time for which the connection may be without a request, in seconds.
    @ivar h2: the protocol state of the connection.
    @ivar outbound: assembles the data to send.
    """

    factory: Any = None
    requestFactory: Any = None
    callLater: Any = None
    outbound: Outbound
    # A client sends WINDOW_UPDATE as long as it reads.
    _longestGoodbye = inf
    _log = Logger()

    def __init__(self) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=False))
        self._streams: dict[int, HTTP2Stream] = {}
        self._lastStream = 0
        # The streams with data to send and an open window, in the order of their turns.
        self._ready: OrderedDict[HTTP2Stream, None] = OrderedDict()
        self._busy = False
        self._unread = 0
        self._resets = 0
        self._reader = FrameReader()
        self._control = 0.0
        self._controlAt = 0.0
        self._headTimer: IDelayedCall | None = None
        # Whether the time for a connection without a request ended when a head had begun.
        self._overdue = False
        self._draining = False

    def connectionMade(self) -> None:
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        self._idleTimeout = self.timeOut
        self.setTimeout(self._idleTimeout)
        self._controlAt = self._now()
        self.site.opened(self)
        self._initiate()

    def _initiate(self) -> None:
        most = self.site.maxHead
        self.h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: _MAX_STREAMS,
                SettingCodes.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
                SettingCodes.MAX_HEADER_LIST_SIZE: most,
            },
        )
        # h2 closes the connection when a head exceeds its limit.  The room above the mirror's own
        # limit lets a head that is slightly too large get a response instead.  It also covers the
        # 32 bytes that h2 adds for each field (RFC 7541 section 4.1).
        self.h2.decoder.max_header_list_size = most + _HEAD_ROOM
        self.outbound = outbound(self.h2, bulk=not self.site.plain)
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(
            _CONNECTION_WINDOW - self.h2.inbound_flow_control_window
        )
        self._flush()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._closing = True
        self._loseStreams(reason)
        self.setTimeout(None)
        self._stopHeadTimer()
        # Break the reference cycle between the transport and this channel.
        self.transport.unregisterProducer()
        self.site.closed(self)

    def _loseStreams(self, reason: Failure) -> None:
        for stream in list(self._streams.values()):
            stream.lost(reason)

    def timeoutConnection(self) -> None:
        if self._closing:
            self._leaveTimedOut()
        elif self._headTimer is not None:
            self._overdue = True
        elif self.full:
            self.abortConnection()
        else:
            self.loseConnection()

    # Reading

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            self._receivedLate()
            return
        before = self._reader.control
        try:
            frames = self._reader.feed(data)
        except FrameTooLargeError:
            self._close(ErrorCodes.FRAME_SIZE_ERROR)
            return
        if self._isFlooded(self._reader.control - before):
            self._close(ErrorCodes.ENHANCE_YOUR_CALM)
            return
        try:
            # After a GOAWAY, h2 considers the connection closed, but the client still waits for its
            # responses (RFC 9113 section 6.8).
            received = [frame for frame in frames if not isGoodbye(frame)]
            events = [event for frame in received for event in self.h2.receive_data(frame)]
        except ProtocolError:
            self._shut()
            return
        # h2 has already processed the frames of all these events: on a stream that has been reset,
        # nothing can be sent, and no request must be created.  So resets are handled first.
        reset = {event.stream_id for event in events if isinstance(event, StreamReset)}
        events.sort(key=lambda event: not isinstance(event, StreamReset | ConnectionTerminated))
        self._busy = True
        try:
            for event in events:
                if not (isinstance(event, RequestReceived) and event.stream_id in reset):
                    self._handle(event)
            self._reopenConnection()
        finally:
            self._busy = False
        if len(received) < len(frames):
            if self._streams:
                self.closeWhenIdle()
            else:
                # Even before the first request, there is nothing to wait for.
                self.loseConnection()
        self._watchHead()
        self.send()

    def _isFlooded(self, frames: int) -> bool:
        """
        Whether a client floods the connection.  It does so if it sends far more control frames,
        such as PING, SETTINGS and WINDOW_UPDATE, than its requests need (CVE-2019-9512, 9513, 9515,
        9518): it may send a few each second, and some for the data that it receives.  It also does
        so if an incomplete header block already exceeds the limit.

        @param frames: the number of new control frames.
        """
        if frames:
            now = self._now()
            earned = (now - self._controlAt) * _CONTROL_EACH_SECOND
            self._control = max(min(0.0, self._control), self._control - earned) + frames
            self._controlAt = now
        mostBlock = self.site.maxHead + _HEAD_ROOM
        return self._control > _MAX_CONTROL or self._reader.blockSize > mostBlock

    def _watchHead(self) -> None:
        """
        Limit the time for a head that has begun, as in HTTP/1.1.  Neither further bytes of it nor
        other requests in progress extend that time.
        """
        if self._closing:
            return
        if not self._reader.headBegun:
            self._stopHeadTimer()
            if self._overdue:
                # It was not the head of a request.
                self.loseConnection()
        elif self._headTimer is None:
            self._headTimer = self.callLater(self.site.headTimeout, self._headTimedOut)

    def _stopHeadTimer(self) -> None:
        timer, self._headTimer = self._headTimer, None
        if timer is not None:
            timer.cancel()

    def _headTimedOut(self) -> None:
        self._headTimer = None
        self.loseConnection()

    def _reopenConnection(self) -> None:
        """
        Extend the connection's window by all data that has been received, even if it has not been
        passed on yet.  The amount of such data is limited by the windows of the streams; if it also
        counted here, a few uploads that are stuck would block all others.
        """
        size = _CONNECTION_WINDOW - self.h2.inbound_flow_control_window
        if size >= _CONNECTION_WINDOW // 4 and not self._closing:
            self.h2.increment_flow_control_window(size)

    def _handle(self, event: Event) -> None:
        if self._closing:
            return
        if isinstance(event, DataReceived):
            self._dataReceived(event)
        elif isinstance(event, WindowUpdated | RemoteSettingsChanged):
            for stream in self._streams.values():
                if stream.queued:
                    self._ready[stream] = None
        elif isinstance(event, RequestReceived):
            self._requestReceived(event)
        elif isinstance(event, StreamEnded):
            if event.stream_id in self._streams:
                self._streams[event.stream_id].ended()
        elif isinstance(event, StreamReset):
            self._streamReset(event)
        elif isinstance(event, ConnectionTerminated):
            self._shut()

    def _requestReceived(self, event: RequestReceived) -> None:
        if self._draining:
            self.h2.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)
            return
        self._lastStream = event.stream_id
        self.setTimeout(None)
        self._overdue = False
        stream = self._streams[event.stream_id] = HTTP2Stream(self, event.stream_id)
        stream.requestReceived(event.headers, event.stream_ended is not None)
        if self.site.closing:
            self.closeWhenIdle()

    def _dataReceived(self, event: DataReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.dataReceived(event.data, event.flow_controlled_length)

    def _streamReset(self, event: StreamReset) -> None:
        if event.stream_id in self._streams:
            self._streams[event.stream_id].lost(Failure(ConnectionDone()))
        # A request that the client resets before its response costs the server more than the client
        # ("rapid reset", CVE-2023-44487).
        self._resets += 1
        if self._resets > _MAX_RESETS:
            self._close(ErrorCodes.ENHANCE_YOUR_CALM)

    # Writing

    def answered(self) -> None:
        """
        The response on a stream has begun.
        """
        self._resets = max(0, self._resets - 1)
        self.send()

    def send(self, stream: HTTP2Stream | None = None) -> None:
        """
        Send as much as the windows and the transport allow, from each stream in turn.

        @param stream: a stream that has new data to send.
        """
        if stream is not None:
            self._ready[stream] = None
        if self._busy:
            return
        self._busy = True
        try:
            while self._ready and not self.full and not self._closing:
                self._takeBatch()
                self._flush()
        finally:
            self._busy = False
        self._flush()

    def _takeBatch(self) -> None:
        room = _BATCH
        while self._ready and room > 0:
            stream, _ = self._ready.popitem(last=False)
            sent = stream.sendSome(min(room, _TURN))
            room -= sent
            if sent and stream.queued:
                self._ready[stream] = None
        size = _BATCH - room
        if size > 0:
            # A client that receives data has to send WINDOW_UPDATE.
            earned = _CONTROL_EACH_BATCH + size // _BYTES_EACH_CONTROL
            self._control = max(-_MAX_SAVED, self._control - earned)

    def _flush(self) -> None:
        data = self.outbound.take()
        if not data or self._closing:
            return
        if self.full:
            # This data is replies to a client that sends frames but does not read the replies.
            self._unread += len(data)
            if self._unread > _MAX_UNREAD:
                self._report("it does not read the replies to its frames")
                self.abortConnection()
                return
        self.transport.write(data)

    # Called by the transport (IPushProducer)

    def pauseProducing(self) -> None:
        self.full = True
        if not self._streams and not self._closing:
            self._rest()
        for stream in self._streams.values():
            stream.pause()

    def resumeProducing(self) -> None:
        self.full = False
        self._unread = 0
        if self._closing:
            self._allSent()
            return
        if not self._streams:
            self._rest()
        self.send()
        for stream in list(self._streams.values()):
            stream.resume()

    def stopProducing(self) -> None:
        """
        Do nothing: the connection is lost, and L{connectionLost} follows.
        """

    # The end

    def remove(self, stream: HTTP2Stream) -> None:
        """
        Forget a stream that has ended.  A connection without streams is idle.
        """
        self._streams.pop(stream.number, None)
        self._ready.pop(stream, None)
        if self._closing:
            return
        if not self._streams:
            if self._draining:
                self.loseConnection()
            else:
                self._rest()
        self.send()

    def closeWhenIdle(self) -> None:
        """
        Refuse new requests, and close the connection when those in progress have ended.  A
        connection that has not had a request yet gets some time for it.
        """
        if self._closing or self._draining:
            return
        if self._streams:
            self._draining = True
            # H2Connection.close_connection would also close the streams.
            self.transport.write(GoAwayFrame(last_stream_id=self._lastStream).serialize())
        elif self._lastStream:
            self.loseConnection()
        else:
            self.setTimeout(FIRST_REQUEST)

    def _report(self, reason: str) -> None:
        # This is not a warning: a client could fill the log with it.
        self._log.debug(
            "closing the connection of {client}: {why}", client=self.getPeer(), why=reason
        )

    def loseConnection(self) -> None:
        """
        Close the connection when all written data has been sent, or when that takes too long.
        """
        if not self._closing:
            self._close(ErrorCodes.NO_ERROR)

    def _close(self, code: ErrorCodes) -> None:
        if code is not ErrorCodes.NO_ERROR:
            self._report("it sends too many frames or resets, or too large a frame or head")
        self.h2.close_connection(code, last_stream_id=self._lastStream)
        self._shut()

    def _shut(self) -> None:
        self._flush()
        self._closing = True
        self._stopHeadTimer()
        self._loseStreams(Failure(ConnectionDone()))
        self._leave()

    # Used by the streams

    def getPeer(self) -> IAddress:
        peer: IAddress = self.transport.getPeer()
        return peer

    def getHost(self) -> IAddress:
        host: IAddress = self.transport.getHost()
        return host
