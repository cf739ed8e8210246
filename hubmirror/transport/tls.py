"""
TLS that moves many records at a time.

Twisted's own handles one record of 16 KiB after another, and lets what it sends wait for a turn of
the reactor; that is more than half of what a blob costs.  This one decrypts all that a read has
brought into one C{dataReceived}, encrypts a whole batch at once, and sends it at once.

A batch fits into the processor's cache: half as much costs more calls, twice as much more misses.
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
Bytes that are read, encrypted and sent at a time.
"""

_RECORD = 16 * 1024
_CONTROL = 4 * 1024
_CLOSE_TIMEOUT = 3.0


class BulkTLS(TLSMemoryBIOProtocol):
    """
    The protocol of a C{TLSMemoryBIOFactory}.

    It is Twisted's in what it is to others, down to the reasons that connections end with, and
    takes nothing from it but the making of its C{OpenSSL.SSL.Connection}.  Its names begin with
    two underscores because those of Twisted's begin with one.

    It is stricter than Twisted's in that who pauses or loses the connection in a delivery gets no
    further one; who loses it while paused does not wait for the other side's goodbye for ever;
    and all that was written before that goodbye is sent.  It does without pull producers.

    To send at once is to write to the transport's socket past the transport, as long as that has
    nothing to send itself.  Whatever the socket does not take is the transport's.
    """

    transport: Any

    def __init__(
        self, reactor: IReactorTime, factory: TLSMemoryBIOFactory, wrappedProtocol: IProtocol
    ) -> None:
        super().__init__(factory, wrappedProtocol)
        self.__reactor = reactor
        self.__socket: socket.socket | None = None
        self.__established = False
        # Nothing is read or written any more.
        self.__ended = False
        self.__reason: Failure | None = None
        self.__readingPaused = False
        # Small writes that wait for others, or any that wait for OpenSSL.
        self.__pending: list[bytes] = []
        self.__size = 0
        self.__flushing = False
        self.__blocked = True
        # The transport has something to send.
        self.__backlog = False
        self.__producer: Any = None
        self.__producerPaused = False
        self.__leaving: IDelayedCall | None = None

    def makeConnection(self, transport: Any) -> None:
        handle: object = transport.getHandle() if ISystemHandle.providedBy(transport) else None
        if isinstance(handle, socket.socket):
            self.__socket = handle
            transport.bufferSize = BATCH
        super().makeConnection(transport)

    # Reading

    def pauseProducing(self) -> None:
        self.__readingPaused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.__readingPaused = False
        self.transport.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        self.__decrypt(data)
        # A full read has left more behind.  To take as much again saves a turn of the reactor; to
        # take all of it would keep the other connections waiting.
        if len(data) < BATCH or self.__readingPaused or self.__socket is None:
            return
        try:
            data = self.__socket.recv(BATCH)
        except OSError:
            return
        # At the end, as after an error, the transport will find the same.
        if data:
            self.__decrypt(data)

    def __decrypt(self, data: bytes) -> None:
        connection = self.getHandle()
        connection.bio_write(data)
        if not self.__established and not self.__shakeHands(connection):
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
            self.wrappedProtocol.dataReceived(b"".join(pieces))
        if self.__ended:
            return
        if problem is not None:
            self.__stop(problem)
        elif closed:
            self.__flush()
            self.__sayGoodbye()
            self.__finish()
        else:
            # Some of it may have to be answered: a key update, a renegotiation.
            self.__transmit(connection, _CONTROL)
            if self.__blocked:
                self.__flush()

    def __shakeHands(self, connection: Connection) -> bool:
        """
        @return: whether the handshake is done.
        """
        try:
            connection.do_handshake()
        except WantReadError:
            self.__transmit(connection, _CONTROL)
            return False
        except Error:
            self.__stop(Failure())
            return False
        self.__established = True
        if IHandshakeListener.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.handshakeCompleted()
        self.__flush()
        return not self.__ended

    # Writing

    def write(self, data: bytes) -> None:
        if not data or self.__ended or (self.disconnecting and self.__producer is None):
            return
        self.__pending.append(data)
        self.__size += len(data)
        if self.__size >= _RECORD:
            self.__flush()
        elif not self.__flushing:
            # More is likely to follow: a head's body, a frame's next.
            self.__flushing = True
            self.__reactor.callLater(0, self.__flushLater)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self.write(b"".join(iovec))

    def __flushLater(self) -> None:
        self.__flushing = False
        if self.__pending:
            self.__flush()

    def __flush(self) -> None:
        if self.__established and self.__pending and not self.__ended:
            self.__encrypt()
        self.__balance()
        if self.disconnecting and not (self.__producer or self.__pending or self.__ended):
            self.__sayGoodbye()

    def __encrypt(self) -> None:
        connection = self.getHandle()
        data = memoryview(b"".join(self.__pending))
        self.__pending.clear()
        self.__size = sent = 0
        self.__blocked = False
        try:
            # Once, or once for each record, as the context has it.
            while sent < len(data):
                sent += connection.send(data[sent:])
        except WantReadError:
            # TLS 1.2 shakes hands anew.
            self.__blocked = True
            self.__pending.append(bytes(data[sent:]))
        except Error:
            self.__stop(Failure())
        self.__transmit(connection, BATCH + _CONTROL)

    def __transmit(self, connection: Connection, likely: int) -> None:
        """
        Send all that OpenSSL has to send.

        @param likely: bytes that it will not exceed as a rule.
        """
        try:
            while True:
                data = connection.bio_read(likely)
                self.__send(data)
                if len(data) < likely:
                    return
        except WantReadError:
            return

    def __send(self, data: bytes) -> None:
        if self.__socket is not None and not self.__backlog:
            try:
                sent = self.__socket.send(data)
            except OSError:
                # When it is not that the socket is full, the transport will find the same.
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        self.transport.write(data)
        if not self.__backlog:
            self.__backlog = True
            drain = _Drain(self.__drained)
            self.transport.registerProducer(drain, False)
            drain.registered = True

    def __drained(self) -> None:
        self.__backlog = False
        self.transport.unregisterProducer()
        self.__balance()

    # The producer

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """
        @param streaming: always: the channels of this package pull by themselves.
        """
        if not streaming:
            raise ValueError("pull producers are not supported")
        if self.__producer is not None:
            raise RuntimeError(f"{self.__producer} was never unregistered")
        if self.__ended:
            producer.stopProducing()
            return
        self.__producer = producer
        self.__producerPaused = False
        self.__balance()

    def unregisterProducer(self) -> None:
        self.__producer = None
        if self.disconnecting:
            self.__flush()

    def __balance(self) -> None:
        """
        Pause the producer while what it has produced waits for the network.
        """
        full = self.__backlog or (self.__blocked and bool(self.__pending))
        if self.__producer is not None and self.__producerPaused != full:
            self.__producerPaused = full
            if full:
                self.__producer.pauseProducing()
            else:
                self.__producer.resumeProducing()

    # The end

    def loseConnection(self) -> None:
        if not self.__established and not self.__pending:
            self.abortConnection()
            return
        self.disconnecting = True
        self.__flush()

    def __sayGoodbye(self) -> None:
        """
        Send a C{close_notify}.  When the other side has done so too, the connection ends.  It is
        not waited for for long (RFC 8446 6.1): who keeps an idle connection may not look at it.
        """
        connection = self.getHandle()
        if not connection.get_shutdown() & SENT_SHUTDOWN:
            with suppress(Error):
                connection.shutdown()
            self.__transmit(connection, _CONTROL)
            self.__leaving = self.__reactor.callLater(_CLOSE_TIMEOUT, self.__finish)
        if self.__readingPaused:
            self.resumeProducing()

    def __finish(self) -> None:
        """
        TLS has ended as it should.  However the connection itself ends, nothing is missing.
        """
        self.__stop(Failure(CONNECTION_DONE))

    def __stop(self, reason: Failure) -> None:
        """
        TLS is over: end the connection when all is sent.
        """
        self.__over(reason)
        # An alert, maybe.
        self.__transmit(self.getHandle(), _CONTROL)
        self.transport.loseConnection()

    def __over(self, reason: Failure) -> None:
        # Its traceback leads to frames that lead back to it.
        reason.cleanFailure()
        if self.__leaving is not None and self.__leaving.active():
            self.__leaving.cancel()
        if not self.__ended:
            self.__ended = True
            self.__reason = reason
            self.__socket = None

    def abortConnection(self) -> None:
        self.disconnecting = True
        self.__over(Failure(CONNECTION_LOST))
        self.transport.abortConnection()

    def failVerification(self, reason: Failure) -> None:
        self.__over(reason)
        self.abortConnection()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        # Whatever the transport says, without a close_notify it was broken off.
        self.__over(Failure(CONNECTION_LOST))
        self.connected = False
        producer, self.__producer = self.__producer, None
        if producer is not None:
            producer.stopProducing()
        connection = self.getHandle()
        # Twisted's would read on; and these are the reference cycles.
        ProtocolWrapper.connectionLost(self, self.__reason)
        connection.set_app_data(None)


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
