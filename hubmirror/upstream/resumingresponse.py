"""
A response whose body is resumed when it breaks off, and verified while it is received.

The receiver of the body gets either a complete and correct body or a failure, never a truncated
body that looks complete.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocol, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse
from zope.interface import implementer

from hubmirror.exchange import Exchange
from hubmirror.protocol.errors import BodyFailed, OtherEntity, UpstreamFailed
from hubmirror.protocol.ranges import Part, partOf
from hubmirror.upstream.bodies import StallWatch

# The delay before the second attempt, and the longest delay, in seconds.
_FIRST_DELAY = 0.5
_LONGEST_DELAY = 8.0
_ALGORITHMS = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}


@attrs.frozen
class RetryPolicy:
    """
    When a body counts as broken, and how often the rest of it is requested.

    @ivar resumes: the body fails after this number of requests in a row that bring no byte of it.
    @ivar stall: the time without a byte after which a body counts as broken, in seconds.
    @ivar floor: a body also counts as broken when its rate is below this one, in bytes per second,
        during C{stall}.
    """

    resumes: int
    stall: float
    floor: float


def delayBefore(attempt: int) -> float:
    """
    The time to wait before an attempt, in seconds.

    @param attempt: the number of this attempt since the last byte that was received, beginning with
        1.
    """
    if attempt == 1:
        return 0.0
    return float(min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** (attempt - 2)))


class DigestCheck:
    """
    Computes the digest of a blob while it is received.
    """

    def __init__(self, digest: bytes) -> None:
        """
        @param digest: a digest as in the URL of a blob, C{algorithm:hex} (OCI image specification,
            "Digests").
        @raise KeyError: when the algorithm is neither sha256 nor sha512.
        """
        algorithm, _, self._expected = digest.partition(b":")
        self._hash = _ALGORITHMS[algorithm]()

    def update(self, data: bytes) -> None:
        """
        Add bytes to the digest.
        """
        self._hash.update(data)

    def isRight(self) -> bool:
        """
        Whether the digest of the bytes so far is the expected one.
        """
        return self._hash.hexdigest().encode("ascii") == self._expected.lower()


class _Transfer(Protocol):
    """
    The part of a body that is received over one connection.
    """

    def __init__(self, body: ResumingResponse, skip: int, fits: bool) -> None:
        """
        @param skip: the number of bytes at the beginning of the transfer that have been passed on
            already.
        @param fits: whether the transfer ends where the body ends.
        """
        self._body = body
        self._skip = skip
        self.fits = fits

    def connectionMade(self) -> None:
        if self._body.paused:
            self.producer.pauseProducing()

    @property
    def producer(self) -> Any:
        """
        The upstream's connection.
        """
        return self.transport

    def dataReceived(self, data: bytes) -> None:
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            self._body.skipped(self, skipped)
            data = data[skipped:]
        if data:
            self._body.received(self, data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._body.transferEnded(self, reason)


Again = Callable[[int, int], "Deferred[tuple[IResponse, int]]"]
"""
Requests the rest of a body.  The parameters are the number of bytes that have been received, and
the number of this attempt since the last byte, beginning with 1.  The deferred fires with a
response and the number of bytes at its beginning that have to be skipped.
"""


@implementer(IResponse, IPushProducer)
class ResumingResponse:
    """
    A response whose body is resumed when it breaks off.  It is also the transport of its body.
    """

    request = None
    previousResponse: IResponse | None = None
    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        first: IResponse,
        again: Again,
        exchange: Exchange,
        retryPolicy: RetryPolicy,
        check: DigestCheck | None,
        wrong: Callable[[], None],
    ) -> None:
        """
        @param first: the response whose head is passed on.
        @param again: requests the rest of the body.
        @param check: verifies the whole body; C{None} if it need not be verified.
        @param wrong: called when the verification fails.
        """
        self.version = first.version
        self.code = first.code
        self.phrase = first.phrase
        self.headers = first.headers
        self.length = first.length
        self.paused = False
        self._reactor = reactor
        self._first = first
        self._again = again
        self._exchange = exchange
        self._retryPolicy = retryPolicy
        self._check = check
        self._wrong = wrong
        part = partIn(first)
        self._length = None if part is None else part.length
        self._position = 0
        self._attempts = 0
        self._transfer: _Transfer | None = None
        self._resuming: Deferred[None] | None = None
        self._wanted: Deferred[None] | None = None
        self._receiver: Any = None
        self._watch = StallWatch(reactor, retryPolicy.stall, retryPolicy.floor, self._stalled)

    def setPreviousResponse(self, response: IResponse) -> None:
        self.previousResponse = response

    def deliverBody(self, protocol: IProtocol) -> None:
        """
        Deliver the body to a protocol.  Its C{connectionLost} is called with C{ResponseDone} when
        the body is complete and correct, otherwise with L{BodyFailed}.
        """
        self._receiver = protocol
        protocol.makeConnection(self)  # type: ignore[arg-type]
        self._start(self._first, 0)

    def _start(self, response: IResponse, skip: int) -> None:
        left = (self._length or 0) - self._position
        transfer = self._transfer = _Transfer(self, skip, response.length == skip + left)
        response.deliverBody(transfer)
        if self._transfer is transfer:
            # Most manifests are complete at this point and need no timer.
            self._watch.start()

    # Called by the transfer

    def skipped(self, transfer: _Transfer, size: int) -> None:
        """
        Bytes have been received again that were passed on before.
        """
        if transfer is self._transfer:
            self._watch.received(size)

    def received(self, transfer: _Transfer, data: bytes) -> None:
        """
        Bytes of the body have been received.
        """
        if transfer is not self._transfer:
            return
        self._watch.received(len(data))
        self._attempts = 0
        if self._length is None:
            self._pass(data)
            return
        left = self._length - self._position
        if len(data) < left:
            self._pass(data)
            return
        # The last bytes are passed on only when the whole body is correct: without them, no client
        # takes a wrong body for a complete one.
        data = data[:left]
        if self._check is not None:
            self._check.update(data)
            if not self._check.isRight():
                self._refuse()
                return
            self._check = None
        self._position += len(data)
        self._transfer = None
        self._receiver.dataReceived(data)
        self._finish()
        if not transfer.fits:
            # An upstream that ignored the Range may go on to send more.
            transfer.producer.stopProducing()

    def _pass(self, data: bytes) -> None:
        if self._check is not None:
            self._check.update(data)
        self._position += len(data)
        self._receiver.dataReceived(data)

    def transferEnded(self, transfer: _Transfer, reason: Failure) -> None:
        """
        A transfer has ended, with or without the rest of the body.
        """
        if transfer is not self._transfer:
            return
        self._transfer = None
        if self._length is None and reason.check(ResponseDone, PotentialDataLoss):
            if self._check is not None and not self._check.isRight():
                self._refuse()
            else:
                self._finish()
        else:
            self._broken("ended", reason.getErrorMessage())

    def _stalled(self) -> None:
        transfer, self._transfer = self._transfer, None
        if transfer is not None:
            transfer.producer.stopProducing()
        self._broken("stalled", f"no progress for {self._retryPolicy.stall:g} s")

    # Breaking and ending

    def _broken(self, how: str, reason: str) -> None:
        self._breaks(how)
        self._watch.stop()
        self._resuming = Deferred.fromCoroutine(self._resume(reason)).addErrback(self._defect)

    async def _resume(self, reason: str) -> None:
        try:
            while self._attempts < self._retryPolicy.resumes:
                self._attempts += 1
                await deferLater(self._reactor, delayBefore(self._attempts))
                await self._whenWanted()
                try:
                    response, skip = await self._again(self._position, self._attempts)
                except OtherEntity as error:
                    self._breaks("other entity")
                    reason = error.message
                    break
                except UpstreamFailed as error:
                    reason = error.message
                    continue
                self._exchange.resumes += 1
                self._resuming = None
                self._start(response, skip)
                return
        except CancelledError:
            return
        self._resuming = None
        self._fail(reason)

    def _whenWanted(self) -> Deferred[None]:
        """
        Wait until the client accepts data.  Until then, no attempt can make progress.
        """
        wanted: Deferred[None] = Deferred()
        if self.paused:
            self._wanted = wanted
        else:
            wanted.callback(None)
        return wanted

    def _defect(self, reason: Failure) -> None:
        self._log.failure("a defect of the mirror", reason)
        self._end(reason)

    def _refuse(self) -> None:
        transfer, self._transfer = self._transfer, None
        if transfer is not None:
            transfer.producer.stopProducing()
        self._wrong()
        self._breaks("wrong digest")
        self._fail("the bytes are not those of the digest")

    def _breaks(self, how: str) -> None:
        self._exchange.breaks.append((self._exchange.upstream or "", how))

    def _fail(self, reason: str) -> None:
        self._exchange.failures.append((self._exchange.upstream or "", reason))
        self._end(Failure(BodyFailed(reason)))

    def _finish(self) -> None:
        self._end(Failure(ResponseDone()))

    def _end(self, reason: Failure) -> None:
        self._watch.stop()
        self._receiver.connectionLost(reason)

    # Called by the receiver of the body

    def pauseProducing(self) -> None:
        self.paused = True
        self._watch.pause()
        if self._transfer is not None:
            self._transfer.producer.pauseProducing()

    def resumeProducing(self) -> None:
        self.paused = False
        self._watch.resume()
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            wanted.callback(None)
        elif self._transfer is not None:
            self._transfer.producer.resumeProducing()

    def stopProducing(self) -> None:
        """
        Close the upstream's connection or cancel the request for the rest: the client is gone.
        """
        self._watch.stop()
        transfer, self._transfer = self._transfer, None
        if transfer is not None:
            transfer.producer.stopProducing()
        resuming, self._resuming = self._resuming, None
        if resuming is not None:
            resuming.cancel()

    loseConnection = stopProducing


def partIn(answer: IResponse) -> Part | None:
    """
    The part of the entity that a response holds; C{None} when it has not exactly one (see
    L{partOf}).
    """
    length = None if answer.length is UNKNOWN_LENGTH else answer.length
    return partOf(answer.code, length, answer.headers)


def bytesToSkip(answer: IResponse, part: Part, position: int, tag: bytes | None) -> int | None:
    """
    How many bytes at the beginning of a response have to be skipped to continue a part.

    @param part: the part that the first response held.
    @param position: the number of bytes of that part that have been received.
    @param tag: the strong C{ETag} that the response must have if it has any.
    @return: the number of bytes, or C{None} when the response can't continue the part.
    @raise OtherEntity: when the response holds another entity.
    """
    got = partIn(answer)
    if got is None:
        return None
    if part.total is not None and got.total is not None and part.total != got.total:
        raise OtherEntity(f"the upstream now has {got.total} bytes instead of {part.total}")
    if tag is not None and got.tag is not None and got.tag != tag:
        raise OtherEntity("the upstream now has another entity")
    skip = part.first + position - got.first
    return skip if 0 <= skip < got.length else None
