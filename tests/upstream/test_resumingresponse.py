"""
Tests of a body that consists of several parts: its reader gets one body, exactly to the byte, or an
error.
"""

from __future__ import annotations

from typing import Any

from twisted.web.client import ResponseDone

from hubmirror.protocol.errors import BodyFailed, OtherEntity, UpstreamFailed
from hubmirror.upstream.resumingresponse import delayBefore
from tests.upstream.broken import BLOB, RESUMES, Receiver, ResumingResponseCase
from tests.upstream.support import Response


class PassTests(ResumingResponseCase):
    def test_head(self) -> None:
        """The head is that of the first response."""
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
        """The reader may pause the body at once."""

        class Full(Receiver):
            def connectionMade(self) -> None:
                self.transport.pauseProducing()

        self.receiver = Full()
        self.assertEqual(self.begin().state, "paused")
        self.body.stopProducing()


class ResumeTests(ResumingResponseCase):
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
        """The body may be cut between any two bytes, and before the first."""
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
        transfer = self.begin()
        transfer.gives(BLOB[:300])
        self.cut(transfer)
        transfer = self.goOn()
        transfer.gives(BLOB[300:500])
        self.cut(transfer)
        self.assertEqual(self.asked[-1].position, 500)
        self.goOn().gives(BLOB[500:])
        self.assertWhole()
        self.assertEqual(self.exchange.resumes, 2)

    def test_short(self) -> None:
        """A part that ends properly, but early, counts as cut."""
        first = self.begin()
        first.gives(BLOB[:300])
        first.ends(ResponseDone())
        self.clock.advance(0)
        self.assertIsNone(self.receiver.ended)
        self.goOn().gives(BLOB[300:])
        self.assertWhole()

    def test_shortPart(self) -> None:
        """A server may send less than was requested."""
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
        """A body whose speed is below the minimum counts as stalled."""
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
        """Stalls of later parts are detected, too."""
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
        """Bytes after the end of the body are not passed on."""
        first = self.begin()
        first.gives(BLOB + b"more")
        self.assertWhole()
        first.gives(b"and more")

    def test_ignoredRange(self) -> None:
        """
        If a server sends the whole instead of a part, the bytes that were already passed on are
        skipped, however they are split.
        """
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
        """Bytes after the end of the client's range are not read."""
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
        """Bytes after the end are not read of a part of unknown length either."""
        first = self.begin(Response(206, None, Content_Range=b"bytes 200-299/1024"))
        first.gives(BLOB[200:900])
        self.assertWhole(BLOB[200:300])
        self.assertEqual(first.state, "stopped")

    def test_lateBytes(self) -> None:
        """Bytes and the end of an abandoned part are ignored."""
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
        """A part may have ended before it is read, many times in a row."""

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


class RetryPolicyTests(ResumingResponseCase):
    def test_delays(self) -> None:
        self.assertEqual([delayBefore(n) for n in range(1, 9)], [0, 0.5, 1, 2, 4, 8, 8, 8])
        self.assertIs(type(delayBefore(1)), float)

    def test_givesUp(self) -> None:
        """The number of attempts without a byte is limited; the delay grows with each."""
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
        self.assertEqual(self.exchange.failures, [("hub", "answered 418")])

    def test_noByte(self) -> None:
        """Only a byte counts as progress, not a response."""
        first = self.begin()
        first.gives(BLOB[:300])
        self.cut(first)
        for attempt in range(1, RESUMES):
            self.assertEqual(self.asked[-1].attempt, attempt)
            transfer = self.goOn()
            transfer.ends(BodyFailed("closed"))
            self.clock.advance(8)
        self.goOn().ends(BodyFailed("closed again"))
        self.assertBroken("closed again")

    def test_progress(self) -> None:
        """Progress resets the number of attempts and the delay."""
        transfer = self.begin()
        for position in range(100):
            transfer.gives(BLOB[position : position + 1])
            self.cut(transfer)
            self.assertEqual(self.asked[-1].attempt, 1)
            self.refuse()
            self.clock.advance(0.5)
            self.assertEqual(self.asked[-1].attempt, 2)
            transfer = self.goOn()
        transfer.gives(BLOB[100:])
        self.assertWhole()

    def test_skippedIsNoProgress(self) -> None:
        first = self.begin()
        first.gives(BLOB[:300])
        self.cut(first)
        for attempt in range(1, RESUMES + 1):
            self.assertEqual(self.asked[-1].attempt, attempt)
            transfer = self.goOn(len(BLOB), 300)
            transfer.gives(BLOB[:299])
            transfer.ends(BodyFailed("closed"))
            self.clock.advance(8)
        self.assertBroken("closed")

    def test_otherEntity(self) -> None:
        """If the entity has changed, the body fails without further attempts."""
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
        """A body of unknown length can't be known to be complete."""
        first = self.begin(Response(200), resumes=0)
        first.gives(BLOB[:300])
        first.ends(BodyFailed("closed"))
        self.assertBroken("closed")

    def test_defect(self) -> None:
        """A defect of the mirror ends the body, too, and is logged."""
        first = self.begin()
        self.cut(first)
        self.refuse(ZeroDivisionError())
        self.assertIsNotNone(self.receiver.ended)
        self.assertFalse(self.receiver.isWhole)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertNothingLeft()
