"""
A TLS protocol that processes many records at a time.

Twisted's own TLS processes one record of 16 KiB after another, and sends encrypted data in the next
iteration of the reactor.  This is more than half of the cost of a blob.  L{BulkTLS} decrypts all
data of a read for one C{dataReceived}, and encrypts and sends a whole batch at once.

Large reads cost less CPU, and small ones less memory, because OpenSSL's buffers keep the size of
the largest batch as long as the connection lasts.  Therefore reads are small at first, and grow
while a connection receives data without a rest.  The upstream connection of a client that reads
slowly has a rest as soon as the kernel's buffers for the client are full.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from OpenSSL.SSL import SENT_SHUTDOWN, Connection, Error, WantReadError, ZeroReturnError
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IProtocol,
    IPullProducer,
    IPushProducer,
    IReactorTime,
    ISystemHandle,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

BATCH = 192 * 1024
"""
The largest number of bytes that are read or encrypted at a time.
"""

# The size in bytes of the first reads, and the number of bytes after which reads become larger by
# this size.  Linux buffers 4 MiB for a socket by default at most (tcp_wmem in tcp(7)).
_STEP = 32 * 1024
_GROWTH = 4 * 1024 * 1024
# The time in seconds without data after which reads are small again.
_REST = 0.5
# The largest payload of a TLS record, in bytes (RFC 8446 section 5.1).
_RECORD = 16 * 1024
# More bytes than a few records without application data usually have.
_CONTROL = 4 * 1024
# The time in seconds without data for which the peer's close_notify is awaited.
_CLOSE_TIMEOUT = 3.0


class BulkTLS(TLSMemoryBIOProtocol):
    """
    The protocol of a C{TLSMemoryBIOFactory}.

    It behaves like C{TLSMemoryBIOProtocol}, including the reasons that it passes to
    C{connectionLost}, but uses its base class only to create the C{OpenSSL.SSL.Connection}.
    Private names begin with two underscores, because those of the base class begin with one.

    It differs from its base class in four ways.  A protocol that pauses or closes the connection
    in C{dataReceived} gets no further data.  Closing a paused connection does not wait for the
    peer's C{close_notify} forever.  All data that was written is sent before this side's own
    C{close_notify}.  Pull producers are not supported.
    """

    def __init__(
        self, reactor: IReactorTime, factory: TLSMemoryBIOFactory, wrappedProtocol: IProtocol
    ) -> None:
        super().__init__(factory, wrappedProtocol)
        self.__batches = _Batches(reactor, wrappedProtocol)

    @property
    def disconnecting(self) -> bool:  # type: ignore[override]
        """
        Whether the connection is being closed.
        """
        return self.__batches.disconnecting

    def makeConnection(self, transport: Any) -> None:
        batches = self.__batches
        batches.open(transport)
        super().makeConnection(transport)
        batches.connection = self.getHandle()

    def pauseProducing(self) -> None:
        self.__batches.pauseReading()

    def resumeProducing(self) -> None:
        self.__batches.resumeReading()

    def dataReceived(self, data: bytes) -> None:
        self.__batches.received(data)

    def write(self, data: bytes) -> None:
        self.__batches.write(data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self.__batches.write(b"".join(iovec))

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """
        @param streaming: must be true.  The channels of this package convert pull producers.
        @raise ValueError: when C{streaming} is false.
        """
        if not streaming:
            raise ValueError("pull producers are not supported")
        self.__batches.registerProducer(producer)

    def unregisterProducer(self) -> None:
        self.__batches.unregisterProducer()

    def loseConnection(self) -> None:
        self.__batches.lose()

    def abortConnection(self) -> None:
        self.__batches.abort()

    def failVerification(self, reason: Failure) -> None:
        self.__batches.over(reason)
        self.__batches.abort()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.connected = False
        told = self.__batches.lost()
        connection = self.getHandle()
        # TLSMemoryBIOProtocol.connectionLost would try to read more data, so it is not called.  The
        # rest breaks reference cycles.
        ProtocolWrapper.connectionLost(self, told)
        connection.set_app_data(None)


class _Batches:
    """
    The implementation of L{BulkTLS}.

    It is a class of its own because each use of an attribute costs several times as much in a
    class with C{__getattr__}, such as Twisted's C{ProtocolWrapper}.

    Encrypted data is written directly to the transport's socket, as long as the transport itself
    has nothing to send.  Data that the socket does not accept is passed to the transport.

    @ivar connection: the C{OpenSSL.SSL.Connection}, once the handshake may begin.
    @ivar disconnecting: whether the connection is being closed.
    """

    def __init__(self, reactor: IReactorTime, protocol: IProtocol) -> None:
        self.connection: Any = None
        self.disconnecting = False
        self._reactor = reactor
        self._protocol: Any = protocol
        self._transport: Any = None
        # The transport that reads the socket, which has the size of its reads.
        self._reader: Any = None
        self._socket: socket.socket | None = None
        self._established = False
        # Whether TLS has ended: nothing is read or written any more.
        self._ended = False
        self._reason: Failure | None = None
        self._readingPaused = False
        # The number of bytes since the last rest, and the time of the last read.
        self._received = 0
        self._receivedAt = 0.0
        # Small writes that wait for more data, or any writes that wait for OpenSSL.
        self._pending: list[bytes] = []
        self._size = 0
        self._flushing = False
        self._blocked = True
        # Whether the transport has data to send.
        self._backlog = False
        self._producer: Any = None
        self._producerPaused = False
        self._leaving: IDelayedCall | None = None

    def open(self, transport: Any) -> None:
        """
        The connection has been established, and its handshake has not begun.
        """
        self._transport = transport
        handle: object = transport.getHandle() if ISystemHandle.providedBy(transport) else None
        if isinstance(handle, socket.socket):
            self._socket = handle
            # Behind the PROXY protocol, the transport is a wrapper.
            while isinstance(transport, ProtocolWrapper):
                transport = transport.transport
            self._reader = transport
            transport.bufferSize = _STEP

    # Reading

    def pauseReading(self) -> None:
        self._readingPaused = True
        self._transport.pauseProducing()

    def resumeReading(self) -> None:
        self._readingPaused = False
        self._transport.resumeProducing()

    def received(self, data: bytes) -> None:
        """
        Bytes have been received from the network.
        """
        if self._ended:
            # A wrapper may pass on what it had received before the protocol aborted.
            return
        if self._leaving is not None and self._leaving.active():
            # The peer may still read.  The system would drop the data that it has not sent yet if
            # the peer sent more after the end of the connection.
            self._leaving.reset(_CLOSE_TIMEOUT)
        self._adaptReads(len(data))
        self._decrypt(data)
        if self._established and not self._ended:
            # Some records need a reply, such as a key update or a renegotiation.  To check for
            # replies costs as much as to decrypt a record, so it is done only once for each read.
            self._transmit(self.connection, _CONTROL)
            if self._blocked:
                self._flush()

    def _adaptReads(self, size: int) -> None:
        now = self._reactor.seconds()
        if now - self._receivedAt > _REST:
            self._received = 0
        self._receivedAt = now
        self._received += size
        if self._socket is not None:
            self._reader.bufferSize = min(_STEP * (1 + self._received // _GROWTH), BATCH)

    def _decrypt(self, data: bytes) -> None:
        connection = self.connection
        connection.bio_write(data)
        if not self._established and not self._shakeHands(connection):
            return
        pieces: list[bytes] = []
        closed = False
        problem: Failure | None = None
        try:
            while True:
                pieces.append(connection.recv(_RECORD))
        except WantReadError:
            pass
        except ZeroReturnError:
            closed = True
        except Error:
            problem = Failure()
        if pieces and not self.disconnecting:
            self._protocol.dataReceived(b"".join(pieces))
        if self._ended:
            return
        if problem is not None:
            self._stop(problem)
        elif closed:
            self._flush()
            self._sayGoodbye()
            self._finish()

    def _shakeHands(self, connection: Connection) -> bool:
        """
        Continue the handshake.

        @return: whether the handshake is complete.
        """
        try:
            connection.do_handshake()
        except WantReadError:
            self._transmit(connection, _CONTROL)
            return False
        except Error:
            self._stop(Failure())
            return False
        self._established = True
        if IHandshakeListener.providedBy(self._protocol):
            self._protocol.handshakeCompleted()
        self._flush()
        return not self._ended

    # Writing

    def write(self, data: bytes) -> None:
        if not data or self._ended or (self.disconnecting and self._producer is None):
            return
        self._pending.append(data)
        self._size += len(data)
        if self._size >= _RECORD:
            self._flush()
        elif not self._flushing:
            # More data is likely to follow: the body after a head, or the next frame.
            self._flushing = True
            self._reactor.callLater(0, self._flushLater)

    def _flushLater(self) -> None:
        self._flushing = False
        if self._pending:
            self._flush()

    def _flush(self) -> None:
        if self._established and self._pending and not self._ended:
            self._encrypt()
        self._balance()
        if self.disconnecting and not (self._producer or self._pending or self._ended):
            self._sayGoodbye()

    def _encrypt(self) -> None:
        connection = self.connection
        data = memoryview(b"".join(self._pending))
        self._pending.clear()
        self._size = sent = 0
        self._blocked = False
        try:
            sent = connection.send(data[:BATCH])
            # With a context that was not created by makeContext, send encrypts only one record.
            while sent < len(data):
                self._transmit(connection, BATCH + _CONTROL)
                sent += connection.send(data[sent : sent + BATCH])
        except WantReadError:
            # A renegotiation of TLS 1.2 is in progress.
            self._blocked = True
            self._pending.append(bytes(data[sent:]))
        except Error:
            self._stop(Failure())
        self._transmit(connection, BATCH + _CONTROL)

    def _transmit(self, connection: Connection, likely: int) -> None:
        """
        Send all encrypted data that OpenSSL has made.

        @param likely: the number of bytes that this data usually does not exceed.
        """
        try:
            while True:
                data = connection.bio_read(likely)
                self._send(data)
                if len(data) < likely:
                    return
        except WantReadError:
            return

    def _send(self, data: bytes) -> None:
        if self._socket is not None and not self._backlog:
            try:
                sent = self._socket.send(data)
            except OSError:
                # Either the socket is full, or the transport will get the same error.
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        self._transport.write(data)
        if not self._backlog:
            self._backlog = True
            drain = _Drain(self._drained)
            self._transport.registerProducer(drain, False)
            drain.registered = True

    def _drained(self) -> None:
        self._backlog = False
        self._transport.unregisterProducer()
        self._balance()

    # The producer

    def registerProducer(self, producer: IPushProducer) -> None:
        if self._producer is not None:
            raise RuntimeError(f"{self._producer} was never unregistered")
        if self._ended:
            producer.stopProducing()
            return
        self._producer = producer
        self._producerPaused = False
        self._balance()

    def unregisterProducer(self) -> None:
        self._producer = None
        if self.disconnecting:
            self._flush()

    def _balance(self) -> None:
        """
        Pause the producer while its data waits for the network.
        """
        full = self._backlog or (self._blocked and bool(self._pending))
        if self._producer is not None and self._producerPaused != full:
            self._producerPaused = full
            if full:
                self._producer.pauseProducing()
            else:
                self._producer.resumeProducing()

    # The end

    def lose(self) -> None:
        if not self._established and not self._pending:
            self.abort()
            return
        self.disconnecting = True
        self._flush()

    def _sayGoodbye(self) -> None:
        """
        Send a C{close_notify}.  The connection ends when the peer has sent its own, or nothing for
        three seconds: RFC 8446 section 6.1 does not require either side to wait, and a peer that
        keeps an idle connection may not read from it.  The protocol must limit the time for a peer
        that goes on sending.
        """
        connection = self.connection
        if not connection.get_shutdown() & SENT_SHUTDOWN:
            with suppress(Error):
                connection.shutdown()
            self._transmit(connection, _CONTROL)
            self._leaving = self._reactor.callLater(_CLOSE_TIMEOUT, self._finish)
        if self._readingPaused:
            self.resumeReading()

    def _finish(self) -> None:
        """
        TLS has ended cleanly.  No data is missing, however the connection itself ends.
        """
        self._stop(Failure(CONNECTION_DONE))

    def _stop(self, reason: Failure) -> None:
        """
        End TLS, and close the connection when all data has been sent.
        """
        self.over(reason)
        # OpenSSL may have made an alert.
        self._transmit(self.connection, _CONTROL)
        self._transport.loseConnection()

    def over(self, reason: Failure) -> None:
        # The frames of the traceback refer back to the failure, which would be a reference cycle.
        reason.cleanFailure()
        if self._leaving is not None and self._leaving.active():
            self._leaving.cancel()
        if not self._ended:
            self._ended = True
            self._reason = reason
            self._socket = None

    def abort(self) -> None:
        """
        Close the connection immediately.
        """
        self.disconnecting = True
        self.over(Failure(CONNECTION_LOST))
        self._transport.abortConnection()

    def lost(self) -> Failure:
        """
        The connection has been lost.

        @return: the reason to pass to the protocol's C{connectionLost}.
        """
        # Unless TLS has already ended, there was no close_notify: the data may be truncated, even
        # if the transport reports a clean end.
        self.over(Failure(CONNECTION_LOST))
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        # Break a reference cycle.
        self._protocol = None
        assert self._reason is not None
        return self._reason


@implementer(IPullProducer)
class _Drain:
    """
    A pull producer that detects when a transport has sent all its data, because the transport then
    calls L{resumeProducing}.

    @ivar registered: whether the registration is over.  The transport also calls L{resumeProducing}
        during the registration; that call is ignored.
    """

    def __init__(self, drained: Callable[[], None]) -> None:
        self._drained = drained
        self.registered = False

    def resumeProducing(self) -> None:
        if self.registered:
            self._drained()

    def stopProducing(self) -> None:
        """
        Do nothing: the connection is lost, and the protocol's C{connectionLost} follows.
        """
