"""
TLS that moves many records at a time.

Twisted's own handles one record of 16 KiB after another, and lets what it sends wait for a turn of
the reactor; that is more than half of what a blob costs.  This one decrypts all that a read has
brought into one C{dataReceived}, encrypts a whole batch at once, and sends it at once.

A batch fits into the processor's cache: half as much costs more calls, twice as much more misses.
"""

from __future__ import annotations

import socket
from typing import Any

from OpenSSL.SSL import Connection, Error, WantReadError, ZeroReturnError
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IProtocol,
    IPullProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.main import CONNECTION_LOST
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

BATCH = 96 * 1024
"""
Bytes that are read, encrypted and sent at a time.
"""

_READS = 4
_RECORD = 16 * 1024
_CONTROL = 4 * 1024


class BulkTLS(TLSMemoryBIOProtocol):
    """
    The protocol of a C{TLSMemoryBIOFactory}.

    It is Twisted's in what it is to others, and takes nothing from it but the making of its
    C{OpenSSL.SSL.Connection}.  Its names begin with two underscores because those of Twisted's
    begin with one.

    To send at once is to write to the transport's socket past the transport, as long as that has
    nothing to send itself.  Whatever the socket does not take is the transport's.
    """

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
        self.__flushing: IDelayedCall | None = None
        self.__handshaking = True
        # The transport has something to send.
        self.__backlog = False
        self.__producer: Any = None
        self.__pulls = False
        self.__producerPaused = False

    def makeConnection(self, transport: Any) -> None:
        if ITCPTransport.providedBy(transport):
            self.__socket = transport.getHandle()
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
        # A full read has left more behind.  To take it now saves turns of the reactor; to take
        # all of it would keep the other connections waiting.
        for _ in range(_READS - 1):
            if len(data) < BATCH or self.__readingPaused or self.__socket is None:
                return
            try:
                data = self.__socket.recv(BATCH)
            except OSError:
                return
            if not data:
                # The transport will find the same.
                return
            self.__decrypt(data)

    def __decrypt(self, data: bytes) -> None:
        connection = self.getHandle()
        connection.bio_write(data)
        if not self.__established and not self.__shakeHands(connection):
            return
        pieces: list[bytes] = []
        end: Failure | None = None
        try:
            while True:
                pieces.append(connection.recv(_RECORD))
        except WantReadError:
            pass
        except Error:
            end = Failure()
        if pieces and not self.disconnecting:
            self.wrappedProtocol.dataReceived(b"".join(pieces))
        if self.__ended:
            return
        if end is not None:
            self.__stop(end)
            return
        # What has come may have been something to answer: a key update, a renegotiation.
        self.__transmit(connection, _CONTROL)
        if self.__handshaking:
            self.__flush()

    def __shakeHands(self, connection: Connection) -> bool:
        try:
            connection.do_handshake()
        except WantReadError:
            self.__transmit(connection, _CONTROL)
            return False
        except Error:
            self.__stop(Failure())
            return False
        self.__established = True
        self.__handshaking = False
        self.__transmit(connection, _CONTROL)
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
        elif self.__flushing is None:
            # More is likely to follow: a head's body, a frame's next.
            self.__flushing = self.__reactor.callLater(0, self.__flushLater)

    def writeSequence(self, iovec: Any) -> None:
        self.write(b"".join(iovec))

    def __flushLater(self) -> None:
        self.__flushing = None
        self.__flush()

    def __flush(self) -> None:
        if self.__established and self.__pending and not self.__ended:
            data = memoryview(b"".join(self.__pending))
            self.__pending.clear()
            self.__size = 0
            self.__encrypt(data)
        self.__balance()
        if self.disconnecting and self.__producer is None:
            self.__close()

    def __encrypt(self, data: memoryview) -> None:
        connection = self.getHandle()
        self.__handshaking = False
        sent = 0
        try:
            while sent < len(data):
                end = min(sent + BATCH, len(data))
                # Once, or once for each record: see clearPartialWrites.
                while sent < end:
                    sent += connection.send(data[sent:end])
                self.__transmit(connection, BATCH + _CONTROL)
        except WantReadError:
            # TLS 1.2 shakes hands anew; it wants the same bytes again then.
            self.__handshaking = True
            self.__pending.append(bytes(data[sent:]))
            self.__size = len(data) - sent
            self.__transmit(connection, BATCH + _CONTROL)
        except Error:
            self.__stop(Failure())

    def __transmit(self, connection: Connection, size: int) -> None:
        """
        Send all that OpenSSL has to send.

        @param size: bytes that it is likely to be at most.
        """
        try:
            while True:
                data = connection.bio_read(size)
                self.__send(data)
                if len(data) < size:
                    return
        except WantReadError:
            return

    def __send(self, data: bytes) -> None:
        if self.__socket is not None and not self.__backlog:
            try:
                sent = self.__socket.send(data)
            except OSError:
                # When it is no full buffer, the transport will find the same.
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
            self.__balance()

    def __drained(self) -> None:
        self.__backlog = False
        self.transport.unregisterProducer()
        self.__balance()

    # The producer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.__ended:
            producer.stopProducing()
            return
        if self.__producer is not None:
            raise RuntimeError(f"{self.__producer} was never unregistered")
        self.__producer = producer
        self.__pulls = not streaming
        self.__producerPaused = False
        self.__balance()

    def unregisterProducer(self) -> None:
        self.__producer = None
        if self.disconnecting:
            self.__close()

    @property
    def __full(self) -> bool:
        return self.__backlog or (self.__handshaking and bool(self.__pending))

    def __balance(self) -> None:
        """
        Let the producer produce for as long as the network takes it.
        """
        if self.__pulls:
            while self.__producer is not None and not self.__full and not self.__ended:
                self.__producer.resumeProducing()
        elif self.__producer is not None and self.__full != self.__producerPaused:
            self.__producerPaused = self.__full
            if self.__full:
                self.__producer.pauseProducing()
            else:
                self.__producer.resumeProducing()

    # The end

    def loseConnection(self) -> None:
        if self.disconnecting or not self.connected:
            return
        if not self.__established and not self.__pending:
            self.abortConnection()
            return
        self.disconnecting = True
        if self.__producer is None:
            self.__close()

    def __close(self) -> None:
        """
        Say that nothing more comes, and end when the other side has said so too.
        """
        ...

    def abortConnection(self) -> None:
        self.disconnecting = True
        self.__socket = None
        self.transport.abortConnection()
