"""
One body made of several: to whoever reads it, it is one, right to the byte, or it fails.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone

from hubmirror.protocol.errors import BodyFailed, OtherEntity, UpstreamFailed
from hubmirror.protocol.ranges import Part
from hubmirror.upstream.unbroken import (
    DigestCheck,
    Patience,
    UnbrokenBody,
    delayBefore,
    wantedFrom,
)
from tests.upstream.support import Response, newExchange

BLOB = bytes(range(256)) * 4
DIGEST = b"sha256:" + hashlib.sha256(BLOB).hexdigest().encode()
STALL, FLOOR, RESUMES = 15.0, 1.0, 5


class Receiver(Protocol):
    """
    Who reads the body.

    @ivar ended: why it ended, once it has.
    """

    def __init__(self) -> None:
        self.data = b""
        self.ended: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        assert self.ended is None, "a byte after the end"
        self.data += data

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        assert self.ended is None, "it ended twice"
        self.ended = reason

    @property
    def isWhole(self) -> bool:
        return self.ended is not None and self.ended.check(ResponseDone) is not None


class Asked(NamedTuple):
    """
    That the rest was asked for.
    """

    position: int
    attempt: int
    reply: Deferred[Any]


class UnbrokenCase(SynchronousTestCase):
    """
    A blob of a KiB, of which the test gives the parts.

    @ivar asked: how often the rest was asked for; the test fires the replies.
    @ivar cancelled: how many of these were cancelled.
    @ivar wrong: how often the bytes were found wrong.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.exchange = newExchange()
        self.asked: list[Asked] = []
        self.cancelled = 0
        self.wrong = 0
        self.receiver = Receiver()

    def begin(
        self,
        response: Response | None = None,
        check: DigestCheck | None = None,
        resumes: int = RESUMES,
    ) -> Response:
        """The body's first part, which is under way."""
        first = response or Response(200, len(BLOB))
        self.body = UnbrokenBody(
            self.clock,
            first,
            self.again,
            self.exchange,
            Patience(resumes, STALL, FLOOR),
            check,
            self.markWrong,
        )
        self.body.deliverBody(self.receiver)
        return first

    def again(self, position: int, attempt: int) -> Deferred[Any]:
        def cancelled(_: object) -> None:
            self.cancelled += 1

        self.asked.append(Asked(position, attempt, Deferred(cancelled)))
        return self.asked[-1].reply

    def markWrong(self) -> None:
        self.wrong += 1

    def cut(self, leg: Response) -> None:
        """A part ends before its time, and the rest is asked for."""
        leg.ends(BodyFailed("the connection closed in the middle of the body"))
        self.clock.advance(0)

    def goOn(self, length: int | None = None, skip: int = 0) -> Response:
        """The rest is there."""
        position = self.asked[-1].position
        leg = Response(206, len(BLOB) - position + skip if length is None else length)
        self.asked[-1].reply.callback((leg, skip))
        return leg

    def refuse(self, error: Exception | None = None) -> None:
        """The rest is not to be had."""
        self.asked[-1].reply.errback(error or UpstreamFailed("answered 503"))

    def assertWhole(self, data: bytes = BLOB) -> None:
        self.assertTrue(self.receiver.isWhole, self.receiver.ended)
        self.assertEqual(self.receiver.data, data)
        self.assertNothingLeft()

    def assertBroken(self, reason: str) -> None:
        ended = self.receiver.ended
        self.assertIsNotNone(ended)
        self.assertIn(reason, ended.trap(BodyFailed) and ended.value.message)
        self.assertLess(len(self.receiver.data), len(BLOB))
        self.assertNothingLeft()

    def assertNothingLeft(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])
        asked = len(self.asked)
        self.clock.advance(1000)
        self.assertEqual(len(self.asked), asked)


class PassTests(UnbrokenCase):
    def test_head(self) -> None:
        """The head is the first answer's."""
        first = self.begin(Response(206, 5, Content_Range=b"bytes 0-4/9", X_Own=b"1"))
        self.assertEqual((self.body.code, self.body.length), (206, 5))
        self.assertIs(self.body.headers, first.headers)
        self.assertEqual((self.body.version, self.body.phrase), (first.version, first.phrase))
        self.body.stopProducing()

    def test_whole(self) -> None:
        first = self.begin()
        first.gives(BLOB[:1000])
        self.assertEqual(self.receiver.data, BLOB[:1000])
        self.assertIsNone(self.receiver.ended)
        first.gives(BLOB[1000:])
        self.assertWhole()
        first.ends()
        self.assertEqual(self.exchange.resumes, 0)

    def test_unknownLength(self) -> None:
        first = self.begin(Response(200))
        first.gives(BLOB)
        self.assertIsNone(self.receiver.ended)
        first.ends()
        self.assertWhole()

    def test_backpressure(self) -> None:
        first = self.begin()
        self.body.pauseProducing()
        self.assertEqual(first.state, "paused")
        self.body.resumeProducing()
        self.assertEqual(first.state, "flowing")
        self.body.stopProducing()
        self.assertEqual(first.state, "stopped")
        self.assertNothingLeft()

    def test_pausedAtOnce(self) -> None:
        """Who reads it may be full already."""

        class Full(Receiver):
            def connectionMade(self) -> None:
                self.transport.pauseProducing()

        self.receiver = Full()
        self.assertEqual(self.begin().state, "paused")
        self.body.stopProducing()


class ResumeTests(UnbrokenCase):
    def test_cut(self) -> None:
        first = self.begin()
        first.gives(BLOB[:300])
        self.cut(first)
        self.assertIsNone(self.receiver.ended)
        [asked] = self.asked
        self.assertEqual((asked.position, asked.attempt), (300, 1))
        self.assertEqual(self.exchange.resumes, 0)
        second = self.goOn()
        self.assertEqual(self.exchange.resumes, 1)
        second.gives(BLOB[300:])
        self.assertWhole()

    def test_everywhere(self) -> None:
        """A cut may come between any two bytes, and before the first."""
        for position in range(0, len(BLOB), 7):
            self.setUp()
            first = self.begin()
            if position:
                first.gives(BLOB[:position])
            self.cut(first)
            self.assertEqual(self.asked[0].position, position)
            self.goOn().gives(BLOB[position:])
            self.assertWhole()

    def test_twice(self) -> None:
        leg = self.begin()
        leg.gives(BLOB[:300])
        self.cut(leg)
        leg = self.goOn()
        leg.gives(BLOB[300:500])
        self.cut(leg)
        self.assertEqual(self.asked[-1].position, 500)
        self.goOn().gives(BLOB[500:])
        self.assertWhole()
        self.assertEqual(self.exchange.resumes, 2)

    def test_short(self) -> None:
        """A part that ends in good order, but before its time, is broken all the same."""
        first = self.begin()
        first.gives(BLOB[:300])
        first.ends(ResponseDone())
        self.clock.advance(0)
        self.assertIsNone(self.receiver.ended)
        self.goOn().gives(BLOB[300:])
        self.assertWhole()

    def test_shortPart(self) -> None:
        """A server may give less than was asked for."""
        first = self.begin()
        first.gives(BLOB[:300])
        self.cut(first)
        second = self.goOn(length=100)
        second.gives(BLOB[300:400])
        second.ends(ResponseDone())
        self.clock.advance(0)
        self.assertEqual(self.asked[-1].position, 400)
        self.goOn().gives(BLOB[400:])
        self.assertWhole()

    def test_stall(self) -> None:
        first = self.begin()
        first.gives(BLOB[:300])
        self.clock.advance(14.9)
        self.assertEqual((first.state, self.asked), ("flowing", []))
        self.clock.advance(0.1)
        self.clock.advance(0)
        self.assertEqual(first.state, "stopped")
        self.assertEqual(self.asked[0].position, 300)
        self.goOn().gives(BLOB[300:])
        self.assertWhole()

    def test_trickle(self) -> None:
        """Fewer bytes each second than the floor are as good as none."""
        first = self.begin()
        for position in range(14):
            self.clock.advance(1)
            first.gives(BLOB[position : position + 1])
        self.clock.advance(1)
        self.clock.advance(0)
        self.assertEqual(first.state, "stopped")
        self.goOn().gives(BLOB[14:])
        self.assertWhole()

    def test_stallAfterAResume(self) -> None:
        """Each part is watched."""
        first = self.begin()
        first.gives(BLOB[:300])
        self.cut(first)
        second = self.goOn()
        self.clock.advance(15)
        self.assertEqual(second.state, "stopped")
        self.clock.advance(1)
        self.goOn().gives(BLOB[300:])
        self.assertWhole()

    def test_tooLong(self) -> None:
        """What comes after the last byte is not the client's."""
        first = self.begin()
        first.gives(BLOB + b"more")
        self.assertWhole()
        first.gives(b"and more")

    def test_ignoredRange(self) -> None:
        """A whole in place of a part: what has passed before is skipped, in whatever pieces."""
        for size in (1, 7, 300, 1024):
            self.setUp()
            first = self.begin()
            first.gives(BLOB[:300])
            self.cut(first)
            second = self.goOn(len(BLOB), 300)
            for start in range(0, len(BLOB), size):
                second.gives(BLOB[start : start + size])
            self.assertWhole()
            self.assertEqual(second.state, "flowing")

    def test_skippingIsNoStall(self) -> None:
        first = self.begin()
        first.gives(BLOB[:900])
        self.cut(first)
        second = self.goOn(len(BLOB), 900)
        for start in range(0, 900, 100):
            self.clock.advance(10)
            second.gives(BLOB[start : start + 100])
        second.gives(BLOB[900:])
        self.assertWhole()

    def test_muchMore(self) -> None:
        """What a server has to say beyond the client's range is not read."""
        part = Response(206, 100, Content_Range=b"bytes 200-299/1024")
        first = self.begin(part)
        first.gives(BLOB[200:250])
        self.cut(first)
        second = Response(200, len(BLOB))
        self.asked[-1].reply.callback((second, 250))
        second.gives(BLOB[:900])
        self.assertWhole(BLOB[200:300])
        self.assertEqual(second.state, "stopped")

    def test_endlessChunks(self) -> None:
        """Nor what follows a part of unknown length."""
        first = self.begin(Response(206, None, Content_Range=b"bytes 200-299/1024"))
        first.gives(BLOB[200:900])
        self.assertWhole(BLOB[200:300])
        self.assertEqual(first.state, "stopped")

    def test_lateBytes(self) -> None:
        """What an abandoned part still gives, or how it ends, is of no importance."""
        first = self.begin()
        first.gives(BLOB[:300])
        self.clock.advance(15)
        first.state = "flowing"
        first.gives(b"late")
        first.ends(BodyFailed("aborted"))
        self.clock.advance(0)
        self.assertEqual(len(self.asked), 1)
        self.goOn().gives(BLOB[300:])
        self.assertWhole()

    def test_brokenAtOnce(self) -> None:
        """A part may have ended before anybody reads it, many times over."""

        class Broken(Response):
            def deliverBody(self, protocol: Any) -> None:
                super().deliverBody(protocol)
                self.gives(b"x")
                self.ends(BodyFailed("closed"))

        self.begin(Broken(200, len(BLOB)))
        for position in range(1, len(BLOB)):
            self.clock.advance(0)
            self.assertEqual(self.asked[-1].position, position)
            self.asked[-1].reply.callback((Broken(206, len(BLOB) - position), 0))
        self.assertWhole(b"x" * len(BLOB))


class PatienceTests(UnbrokenCase):
    def test_delays(self) -> None:
        self.assertEqual([delayBefore(n) for n in range(1, 9)], [0, 0.5, 1, 2, 4, 8, 8, 8])
        self.assertIs(type(delayBefore(1)), float)

    def test_givesUp(self) -> None:
        """Attempts without a byte in between have an end; each waits longer than the last."""
        first = self.begin()
        first.gives(BLOB[:300])
        self.cut(first)
        times = [self.clock.seconds()]
        for _ in range(RESUMES - 1):
            self.refuse()
            self.assertIsNone(self.receiver.ended)
            count = len(self.asked)
            while len(self.asked) == count:
                self.clock.advance(0.25)
            times.append(self.clock.seconds())
        self.assertEqual(times, [0, 0.5, 1.5, 3.5, 7.5])
        self.assertEqual([asked.attempt for asked in self.asked], [1, 2, 3, 4, 5])
        self.refuse(UpstreamFailed("answered 418"))
        self.assertBroken("answered 418")

    def test_noByte(self) -> None:
        """An answer is no progress, a byte is."""
        first = self.begin()
        first.gives(BLOB[:300])
        self.cut(first)
        for attempt in range(1, RESUMES):
            self.assertEqual(self.asked[-1].attempt, attempt)
            leg = self.goOn()
            leg.ends(BodyFailed("closed"))
            self.clock.advance(8)
        self.goOn().ends(BodyFailed("closed again"))
        self.assertBroken("closed again")

    def test_progress(self) -> None:
        """Progress resets the count, and the delay."""
        leg = self.begin()
        for position in range(100):
            leg.gives(BLOB[position : position + 1])
            self.cut(leg)
            self.assertEqual(self.asked[-1].attempt, 1)
            self.refuse()
            self.clock.advance(0.5)
            self.assertEqual(self.asked[-1].attempt, 2)
            leg = self.goOn()
        leg.gives(BLOB[100:])
        self.assertWhole()

    def test_skippedIsNoProgress(self) -> None:
        first = self.begin()
        first.gives(BLOB[:300])
        self.cut(first)
        for attempt in range(1, RESUMES + 1):
            self.assertEqual(self.asked[-1].attempt, attempt)
            leg = self.goOn(len(BLOB), 300)
            leg.gives(BLOB[:299])
            leg.ends(BodyFailed("closed"))
            self.clock.advance(8)
        self.assertBroken("closed")

    def test_otherEntity(self) -> None:
        """What has become another thing does not become the old one by waiting."""
        first = self.begin()
        first.gives(BLOB[:300])
        self.cut(first)
        self.refuse(OtherEntity("the upstream now has another entity"))
        self.assertBroken("another entity")
        self.assertEqual(len(self.asked), 1)

    def test_none(self) -> None:
        first = self.begin(resumes=0)
        first.gives(BLOB[:300])
        first.ends(BodyFailed("closed"))
        self.assertBroken("closed")
        self.assertEqual(self.asked, [])

    def test_unknownLength(self) -> None:
        """A body whose end is not known can't be taken for whole."""
        first = self.begin(Response(200), resumes=0)
        first.gives(BLOB[:300])
        first.ends(BodyFailed("closed"))
        self.assertBroken("closed")

    def test_defect(self) -> None:
        """What the mirror did not foresee ends the body too, and is in the log."""
        first = self.begin()
        self.cut(first)
        self.refuse(ZeroDivisionError())
        self.assertIsNotNone(self.receiver.ended)
        self.assertFalse(self.receiver.isWhole)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertNothingLeft()


class ClientTests(UnbrokenCase):
    """
    A client that is slow, or gone.
    """

    def test_slowIsNoStall(self) -> None:
        first = self.begin()
        first.gives(BLOB[:300])
        self.body.pauseProducing()
        self.clock.pump([100] * 100)
        self.assertEqual((first.state, self.asked), ("paused", []))
        self.body.resumeProducing()
        self.clock.advance(14)
        first.gives(BLOB[300:])
        self.assertWhole()

    def test_brokenWhilePaused(self) -> None:
        """What a client does not want yet is asked for when it does: in between no attempt could
        make progress."""
        first = self.begin()
        first.gives(BLOB[:300])
        self.body.pauseProducing()
        self.cut(first)
        self.clock.pump([100] * 10)
        self.assertEqual(self.asked, [])
        self.body.resumeProducing()
        self.assertEqual(self.asked[0].position, 300)
        self.goOn().gives(BLOB[300:])
        self.assertWhole()

    def test_pausedWhileAsking(self) -> None:
        """The part that comes waits as the client does."""
        first = self.begin()
        first.gives(BLOB[:300])
        self.cut(first)
        self.body.pauseProducing()
        second = self.goOn()
        self.assertEqual(second.state, "paused")
        self.clock.pump([100] * 10)
        self.assertEqual(second.state, "paused")
        self.body.resumeProducing()
        self.assertEqual(second.state, "flowing")
        second.gives(BLOB[300:])
        self.assertWhole()

    def test_pausedInTheDelay(self) -> None:
        first = self.begin()
        self.cut(first)
        self.refuse()
        self.body.pauseProducing()
        self.clock.advance(100)
        self.assertEqual(len(self.asked), 1)
        self.body.resumeProducing()
        self.assertEqual(len(self.asked), 2)
        self.goOn().gives(BLOB)
        self.assertWhole()

    def test_pausedAndResumed(self) -> None:
        """To be slow for a moment changes nothing."""
        first = self.begin()
        self.body.pauseProducing()
        self.cut(first)
        self.body.resumeProducing()
        self.body.pauseProducing()
        self.body.resumeProducing()
        self.clock.advance(0)
        self.assertEqual(len(self.asked), 1)
        self.goOn().gives(BLOB)
        self.assertWhole()

    def assertGone(self) -> None:
        self.assertIsNone(self.receiver.ended)
        self.assertNothingLeft()

    def test_leaves(self) -> None:
        first = self.begin()
        first.gives(BLOB[:300])
        self.body.stopProducing()
        self.assertEqual(first.state, "stopped")
        first.ends(BodyFailed("aborted"))
        self.assertGone()

    def test_leavesWhileAsking(self) -> None:
        first = self.begin()
        self.cut(first)
        self.body.stopProducing()
        self.assertEqual(self.cancelled, 1)
        self.assertGone()

    def test_leavesInTheDelay(self) -> None:
        first = self.begin()
        self.cut(first)
        self.refuse()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.body.stopProducing()
        self.assertGone()

    def test_leavesWhilePaused(self) -> None:
        first = self.begin()
        self.body.pauseProducing()
        self.cut(first)
        self.body.stopProducing()
        self.body.resumeProducing()
        self.assertGone()
        self.assertEqual(self.asked, [])

    def test_leavesAfterAResume(self) -> None:
        first = self.begin()
        self.cut(first)
        second = self.goOn()
        self.body.stopProducing()
        self.assertEqual(second.state, "stopped")
        self.assertGone()

    def test_leavesAtAByte(self) -> None:
        """In the middle of what it is given, be it the last byte."""

        class Leaving(Receiver):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                self.transport.stopProducing()

        for size in (300, len(BLOB)):
            self.setUp()
            self.receiver = Leaving()
            first = self.begin()
            first.gives(BLOB[:size])
            if size < len(BLOB):
                self.assertEqual(first.state, "stopped")
                self.assertGone()
            self.assertNothingLeft()


class CheckTests(UnbrokenCase):
    """
    The bytes are hashed while they pass.
    """

    def test_right(self) -> None:
        first = self.begin(check=DigestCheck(DIGEST))
        first.gives(BLOB[:300])
        self.cut(first)
        self.goOn().gives(BLOB[300:])
        self.assertWhole()
        self.assertEqual(self.wrong, 0)

    def test_skippedIsNotHashed(self) -> None:
        first = self.begin(check=DigestCheck(DIGEST))
        first.gives(BLOB[:300])
        self.cut(first)
        self.goOn(len(BLOB), 300).gives(BLOB)
        self.assertWhole()

    def test_wrong(self) -> None:
        """The last bytes are kept back: a client never has all of a wrong blob."""
        for at in (0, 500, len(BLOB) - 1):
            self.setUp()
            data = BLOB[:at] + bytes([BLOB[at] ^ 1]) + BLOB[at + 1 :]
            first = self.begin(check=DigestCheck(DIGEST))
            first.gives(data[:1000])
            first.gives(data[1000:])
            self.assertEqual(self.receiver.data, data[:1000])
            self.assertEqual((self.wrong, first.state), (1, "stopped"))
            self.assertBroken("not those of the digest")
            self.assertEqual(self.asked, [])

    def test_wrongOfUnknownLength(self) -> None:
        """Here the end is what is kept back."""
        first = self.begin(Response(200), check=DigestCheck(DIGEST))
        first.gives(BLOB[1:])
        first.ends()
        self.assertBroken("not those of the digest")
        self.assertEqual(self.wrong, 1)

    def test_rightOfUnknownLength(self) -> None:
        first = self.begin(Response(200), check=DigestCheck(DIGEST))
        first.gives(BLOB)
        first.ends()
        self.assertWhole()

    def test_algorithms(self) -> None:
        digest = b"sha512:" + hashlib.sha512(BLOB).hexdigest().encode().upper()
        check = DigestCheck(digest)
        check.update(BLOB)
        self.assertTrue(check.isRight())
        self.assertRaises(KeyError, DigestCheck, b"md5:0")


class WantedTests(SynchronousTestCase):
    """
    Which bytes of a further answer are wanted.
    """

    PART = Part(100, 50, 1000, b'"tag"')

    def wanted(self, answer: Response, position: int = 10) -> int | None:
        return wantedFrom(answer, self.PART, position, self.PART.tag)

    def test_fits(self) -> None:
        for answer, skip in (
            (Response(206, 40, Content_Range=b"bytes 110-149/1000"), 0),
            (Response(206, 40, Content_Range=b"bytes 110-149/*"), 0),
            (Response(206, 890, Content_Range=b"bytes 110-999/1000"), 0),
            (Response(206, 10, Content_Range=b"bytes 110-119/1000"), 0),
            (Response(206, 50, Content_Range=b"bytes 100-149/1000"), 10),
            (Response(200, 1000), 110),
            (Response(200, 1000, ETag=b'"tag"'), 110),
            (Response(200, 1000, ETag=b'W/"other"'), 110),
        ):
            self.assertEqual(self.wanted(answer), skip)

    def test_fitsNot(self) -> None:
        for answer in (
            Response(206, 40, Content_Range=b"bytes 111-150/1000"),
            Response(206, 10, Content_Range=b"bytes 100-109/1000"),
            Response(206, 41, Content_Range=b"bytes 110-149/1000"),
            Response(206, 40),
            Response(206, 40, Content_Range=b"bytes */1000"),
            Response(200),
            Response(204, 0),
            Response(416, 0, Content_Range=b"bytes */1000"),
        ):
            self.assertIsNone(self.wanted(answer), list(answer.headers.getAllRawHeaders()))

    def test_otherEntity(self) -> None:
        for answer in (
            Response(206, 40, Content_Range=b"bytes 110-149/1001"),
            Response(200, 999),
            Response(206, 40, Content_Range=b"bytes 110-149/1000", ETag=b'"other"'),
            Response(200, 1000, ETag=b'"other"'),
        ):
            self.assertRaises(OtherEntity, self.wanted, answer)


STEPS = st.lists(
    st.sampled_from(
        ["pause", "resume", "cut", "close", "stall", "minute", "fail", "part", "whole", "short"]
    )
    | st.integers(1, 400),
    max_size=60,
)


class AnyOrderTests(UnbrokenCase):
    @given(STEPS, st.booleans(), st.sampled_from(["", "leave", "other"]))
    @settings(deadline=None, max_examples=300)
    def test_anyOrder(self, steps: list[Any], checked: bool, last: str) -> None:
        """
        Whatever upstream and client do, at whatever byte: the client has exactly the blob, or
        its beginning and an error; and nothing is left.
        """
        self.setUp()
        self.leg = self.begin(check=DigestCheck(DIGEST) if checked else None)
        self.at = 0
        self.slack = False
        for step in steps:
            if self.receiver.ended is not None:
                break
            if isinstance(step, int):
                self.give(step)
            else:
                getattr(self, f"do_{step}")()
            self.assertEqual(self.receiver.data, BLOB[: len(self.receiver.data)])
        if self.receiver.ended is None and last == "leave":
            self.body.stopProducing()
            self.assertIsNone(self.receiver.ended)
        elif self.receiver.ended is None:
            self.finish(last == "other")
        if self.receiver.ended is not None:
            self.assertEqual(self.receiver.isWhole, self.receiver.data == BLOB)
        self.assertNothingLeft()

    def give(self, size: int) -> None:
        if self.leg.state == "flowing":
            data = BLOB[self.at : self.at + size]
            self.at += len(data)
            if data:
                self.leg.gives(data)

    def do_pause(self) -> None:
        self.body.pauseProducing()

    def do_resume(self) -> None:
        self.body.resumeProducing()

    def do_cut(self) -> None:
        if self.leg.state in ("flowing", "paused"):
            self.leg.ends(BodyFailed("closed"))

    def do_close(self) -> None:
        if self.leg.state in ("flowing", "paused"):
            self.leg.ends(ResponseDone())

    def do_stall(self) -> None:
        """So long that any upstream that may send has stalled; a paused one may not."""
        paused, asked = self.body.paused, len(self.asked)
        state = self.leg.state
        self.clock.pump([0.5] * 40)
        if paused:
            self.assertEqual((self.leg.state, len(self.asked)), (state, asked))
            self.assertIsNone(self.receiver.ended)

    def do_minute(self) -> None:
        self.clock.pump([0.5] * 2)

    def reply(self) -> Deferred[Any] | None:
        if self.asked and not self.asked[-1].reply.called:
            return self.asked[-1].reply
        return None

    def do_fail(self) -> None:
        reply = self.reply()
        if reply is not None:
            reply.errback(UpstreamFailed("answered 503"))

    def goFrom(self, start: int, stop: int) -> None:
        reply = self.reply()
        if reply is not None:
            self.at = start
            self.leg = Response(206, stop - start)
            reply.callback((self.leg, self.asked[-1].position - start))

    def do_part(self) -> None:
        if self.asked:
            self.goFrom(self.asked[-1].position, len(BLOB))

    def do_short(self) -> None:
        if self.asked:
            position = self.asked[-1].position
            self.goFrom(position, min(len(BLOB), position + 5))

    def do_whole(self) -> None:
        self.goFrom(0, len(BLOB))

    def finish(self, other: bool) -> None:
        """All is well from now on; or what was begun is there no more."""
        self.body.resumeProducing()
        for _ in range(3):
            self.give(len(BLOB))
            if self.receiver.ended is not None:
                return
            self.do_cut()
            self.clock.pump([0.5] * 20)
            if other and self.reply() is not None:
                self.asked[-1].reply.errback(OtherEntity("another"))
                self.assertIsNotNone(self.receiver.ended)
                return
            self.do_part()
        self.assertIsNotNone(self.receiver.ended)
