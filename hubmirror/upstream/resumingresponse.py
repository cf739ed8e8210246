"""
One answer's body, come what may: goes on where it broke, and is checked while it passes.

To whoever reads it there is one answer, right to the byte, or a failure; never a part that looks
whole.
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

_FIRST_DELAY = 0.5
_LONGEST_DELAY = 8.0
_ALGORITHMS = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}


@attrs.frozen
class RetryPolicy:
    """
    @ivar resumes: how often in a row, without a byte in between, a body is asked for again.
    @ivar stall: seconds without a byte after which it counts as broken.
    @ivar floor: bytes for each second below which it does too.
    """

    resumes: int
    stall: float
    floor: float


def delayBefore(attempt: int) -> float:
    """
    Seconds to wait before the given attempt without progress, the first of which is 1.
    """
    if attempt == 1:
        return 0.0
    return float(min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** (attempt - 2)))


class DigestCheck:
    """
    Hashes a blob while it passes.
    """

    def __init__(self, digest: bytes) -> None:
        """
        @param digest: as in a blob's reference, C{algorithm:hex}.
        @raise KeyError: when the algorithm is unknown.
        """
        algorithm, _, self._expected = digest.partition(b":")
        self._hash = _ALGORITHMS[algorithm]()

    def update(self, data: bytes) -> None:
        """
        Some bytes have passed.
        """
        self._hash.update(data)

    def isRight(self) -> bool:
        """
        Whether the bytes so far are the blob.
        """
        return self._hash.hexdigest().encode("ascii") == self._expected.lower()


class _Transfer(Protocol):
    """
    The part of a body that comes over one connection.
    """

    def __init__(self, body: ResumingResponse, skip: int, fits: bool) -> None:
        """
        @param skip: bytes at its beginning that have been passed on before.
        @param fits: it ends where the body does.
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
        The upstream's side.
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
Asks for what is left of a body after so many bytes, for the which-th time without progress: fires
with an answer and the number of bytes at its beginning that are not wanted.
"""


@implementer(IResponse, IPushProducer)
class ResumingResponse:
    """
    An answer whose body goes on where it breaks.  It is also its body's transport.
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
        @param first: the answer whose head is handed on.
        @param check: of the whole body, when it is to be checked.
        @param wrong: called when the body fails the check.
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
        Give the body to a protocol, whose C{connectionLost} ends it: with C{ResponseDone} when
        it is whole and right, else with L{BodyFailed}.
        """
        self._receiver = protocol
        protocol.makeConnection(self)  # type: ignore[arg-type]
        self._start(self._first, 0)

    def _start(self, response: IResponse, skip: int) -> None:
        left = (self._length or 0) - self._position
        transfer = self._transfer = _Transfer(self, skip, response.length == skip + left)
        response.deliverBody(transfer)
        if self._transfer is transfer:
            # Most manifests are whole by now.
            self._watch.start()

    # From the transfer

    def skipped(self, transfer: _Transfer, size: int) -> None:
        """
        Bytes have come that were passed on before.
        """
        if transfer is self._transfer:
            self._watch.received(size)

    def received(self, transfer: _Transfer, data: bytes) -> None:
        """
        Bytes of the body have come.
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
        # The last bytes are passed on only when all of them are right.
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
            # An upstream that ignored the Range may have much more to say.
            transfer.producer.stopProducing()

    def _pass(self, data: bytes) -> None:
        if self._check is not None:
            self._check.update(data)
        self._position += len(data)
        self._receiver.dataReceived(data)

    def transferEnded(self, transfer: _Transfer, reason: Failure) -> None:
        """
        Nothing more comes over this connection.
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
            self._broken(reason.getErrorMessage())

    def _stalled(self) -> None:
        transfer, self._transfer = self._transfer, None
        if transfer is not None:
            transfer.producer.stopProducing()
        self._broken(f"no progress for {self._retryPolicy.stall:g} s")

    # What becomes of it

    def _broken(self, reason: str) -> None:
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
        As long as the client takes nothing, no attempt can make progress.
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
        self._fail("the bytes are not those of the digest")

    def _fail(self, reason: str) -> None:
        self._exchange.failures.append((self._exchange.upstream or "", reason))
        self._end(Failure(BodyFailed(reason)))

    def _finish(self) -> None:
        self._end(Failure(ResponseDone()))

    def _end(self, reason: Failure) -> None:
        self._watch.stop()
        self._receiver.connectionLost(reason)

    # From the client's side

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
        The client is gone: so is all that was done for it.
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
    The one part that an answer holds, as L{partOf}.
    """
    length = None if answer.length is UNKNOWN_LENGTH else answer.length
    return partOf(answer.code, length, answer.headers)


def bytesToSkip(answer: IResponse, part: Part, position: int, tag: bytes | None) -> int | None:
    """
    How many bytes at the beginning of an answer are not wanted, when it can go on with a part.

    @param part: what the first answer held.
    @param position: bytes of it that have come.
    @param tag: the strong C{ETag} that it must have if it has one.
    @return: C{None} when it can't go on with it.
    @raise OtherEntity: when it holds another entity.
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
