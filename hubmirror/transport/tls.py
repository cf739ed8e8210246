"""
A TLS protocol that processes many records at a time.

Twisted's own TLS processes one record of 16 KiB after another and sends encrypted data in the next
iteration of the reactor, which is more than half of the cost of a blob.  This one decrypts all data
of
a read for one C{dataReceived}, and encrypts and sends a whole batch at once.

The size of a batch is chosen for the processor's cache: smaller batches need more calls, larger
ones
cause more cache misses.
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

BATCH = 96 * 1024
"""
The number of bytes that are read, encrypted and sent at a time.
"""

_RECORD = 16 * 1024
_CONTROL = 4 * 1024
_CLOSE_TIMEOUT = 3.0


class BulkTLS(TLSMemoryBIOProtocol):
    """
    The protocol of a C{TLSMemoryBIOFactory}.

    It behaves like C{TLSMemoryBIOProtocol}, including the reasons that it passes to
    C{connectionLost}, but uses only the creation of the C{OpenSSL.SSL.Connection} of its base
    class.  Private names begin with two underscores, since those of the base class begin with one.

    It differs in three ways: a protocol that pauses or closes the connection in C{dataReceived}
    gets no further data; closing a paused connection does not wait for the peer's C{close_notify}
    for ever; and all data that was written is sent before the own C{close_notify}.  It does not
    support pull producers.
    """

    def __init__(
        self, reactor: IReactorTime, factory: TLSMemoryBIOFactory, wrappedProtocol: IProtocol
    ) -> None:
        super().__init__(factory, wrappedProtocol)
        self.__batches = _Batches(reactor, wrappedProtocol)

    @property
    def disconnecting(self) -> bool:  # type: ignore[override]
        """
        Whether the connection is about to end.
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
        @param streaming: always: the channels of this package pull by themselves.
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
        # Twisted's would read on; and these are the reference cycles.
        ProtocolWrapper.connectionLost(self, told)
        connection.set_app_data(None)


class _Batches:
    """
    The work of a L{BulkTLS}.

    It is an object of its own because each use of an attribute costs several times as much in a
    class with C{__getattr__}, such as Twisted's C{ProtocolWrapper}.

    To send at once is to write to the transport's socket past the transport, as long as that has
    nothing to send itself.  Whatever the socket does not take is the transport's.

    @ivar connection: OpenSSL's side, from the moment that the handshake may begin.
    @ivar disconnecting: whether the connection is about to end.
    """

    def __init__(self, reactor: IReactorTime, protocol: IProtocol) -> None:
        self.connection: Any = None
        self.disconnecting = False
        self._reactor = reactor
        self._protocol: Any = protocol
        self._transport: Any = None
        self._socket: socket.socket | None = None
        self._established = False
        # Nothing is read or written any more.
        self._ended = False
        self._reason: Failure | None = None
        self._readingPaused = False
        # Small writes that wait for others, or any that wait for OpenSSL.
        self._pending: list[bytes] = []
        self._size = 0
        self._flushing = False
        self._blocked = True
        # The transport has something to send.
        self._backlog = False
        self._producer: Any = None
        self._producerPaused = False
        self._leaving: IDelayedCall | None = None

    def open(self, transport: Any) -> None:
        """
        There is a connection, whose handshake has not begun.
        """
        self._transport = transport
        handle: object = transport.getHandle() if ISystemHandle.providedBy(transport) else None
        if isinstance(handle, socket.socket):
            self._socket = handle
            transport.bufferSize = BATCH

    # Reading

    def pauseReading(self) -> None:
        self._readingPaused = True
        self._transport.pauseProducing()

    def resumeReading(self) -> None:
        self._readingPaused = False
        self._transport.resumeProducing()

    def received(self, data: bytes) -> None:
        """
        Bytes of the network.
        """
        self._decrypt(data)
        # A full read has left more behind.  To take as much again saves a turn of the reactor; to
        # take all of it would keep the other connections waiting.
        if len(data) == BATCH and not self._readingPaused and self._socket is not None:
            # At the end, as after an error, the transport will find the same.
            data = b""
            with suppress(OSError):
                data = self._socket.recv(BATCH)
            if data:
                self._decrypt(data)
        if self._established and not self._ended:
            # Some of it may have to be answered: a key update, a renegotiation.  To look for that
            # costs as much as to decrypt a record, so it is not done for each batch.
            self._transmit(self.connection, _CONTROL)
            if self._blocked:
                self._flush()

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
        @return: whether the handshake is done.
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
            # More is likely to follow: a head's body, a frame's next.
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
        data = b"".join(self._pending)
        self._pending.clear()
        self._size = sent = 0
        self._blocked = False
        try:
            sent = connection.send(data)
            # A context of another's making encrypts one record at a time.
            while sent < len(data):
                sent += connection.send(memoryview(data)[sent:])
        except WantReadError:
            # TLS 1.2 shakes hands anew.
            self._blocked = True
            self._pending.append(data[sent:])
        except Error:
            self._stop(Failure())
        self._transmit(connection, BATCH + _CONTROL)

    def _transmit(self, connection: Connection, likely: int) -> None:
        """
        Send all that OpenSSL has to send.

        @param likely: bytes that it will not exceed as a rule.
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
                # When it is not that the socket is full, the transport will find the same.
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
        Pause the producer while what it has produced waits for the network.
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
        Send a C{close_notify}.  When the other side has done so too, the connection ends.  It is
        not waited for for long (RFC 8446 6.1): who keeps an idle connection may not look at it.
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
        TLS has ended as it should.  However the connection itself ends, nothing is missing.
        """
        self._stop(Failure(CONNECTION_DONE))

    def _stop(self, reason: Failure) -> None:
        """
        TLS is over: end the connection when all is sent.
        """
        self.over(reason)
        # An alert, maybe.
        self._transmit(self.connection, _CONTROL)
        self._transport.loseConnection()

    def over(self, reason: Failure) -> None:
        # Its traceback leads to frames that lead back to it.
        reason.cleanFailure()
        if self._leaving is not None and self._leaving.active():
            self._leaving.cancel()
        if not self._ended:
            self._ended = True
            self._reason = reason
            self._socket = None

    def abort(self) -> None:
        """
        End the connection at once.
        """
        self.disconnecting = True
        self.over(Failure(CONNECTION_LOST))
        self._transport.abortConnection()

    def lost(self) -> Failure:
        """
        The connection is gone.

        @return: why, as the protocol is to be told.
        """
        # Whatever the transport says, without a close_notify it was broken off.
        self.over(Failure(CONNECTION_LOST))
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        # These would be reference cycles.
        self._protocol = None
        assert self._reason is not None
        return self._reason


@implementer(IPullProducer)
class _Drain:
    """
    Learns when a transport has sent all that it had: it then asks for more.

    @ivar registered: is not asked for the first time, which comes with the registration.
    """

    def __init__(self, drained: Callable[[], None]) -> None:
        self._drained = drained
        self.registered = False

    def resumeProducing(self) -> None:
        if self.registered:
            self._drained()

    def stopProducing(self) -> None:
        """
        The connection is lost; its protocol is told.
        """
