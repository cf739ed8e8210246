"""
Tests of how a body of several parts ends: with a slow client, a client that leaves, wrong bytes,
and events in any order.
"""

from __future__ import annotations

import hashlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone

from hubmirror.protocol.errors import BodyFailed, OtherEntity, UpstreamFailed
from hubmirror.protocol.ranges import Part
from hubmirror.upstream.resumingresponse import DigestCheck, bytesToSkip
from tests import examples
from tests.upstream.broken import BLOB, DIGEST, Receiver, ResumingResponseCase
from tests.upstream.support import Response


class ClientTests(ResumingResponseCase):
    """
    A client that is slow or leaves.
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
        """
        While the client is paused, the rest is not requested, because there could be no progress.
        """
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
        """If the client is paused when a part arrives, the part is paused."""
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
        """Pausing and resuming at once has no effect."""
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
        """The client leaves while it receives bytes, even the last one."""

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


class CheckTests(ResumingResponseCase):
    """
    Tests of verification while the bytes are passed on.
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
        """
        The last bytes are held back until the digest is verified, so that the client never has all
        of a wrong blob.
        """
        for at in (0, 500, len(BLOB) - 1):
            self.setUp()
            data = BLOB[:at] + bytes([BLOB[at] ^ 1]) + BLOB[at + 1 :]
            first = self.begin(check=DigestCheck(DIGEST))
            first.gives(data[:1000])
            first.gives(data[1000:])
            self.assertEqual(self.receiver.data, data[:1000])
            self.assertEqual((self.wrong, first.state), (1, "stopped"))
            self.assertBroken("not those of the digest")
            self.assertEqual(len(self.exchange.failures), 1)
            self.assertEqual(self.asked, [])

    def test_wrongOfUnknownLength(self) -> None:
        """If the length is not known, the end is held back."""
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
    Tests of which bytes of a further response are used.
    """

    PART = Part(100, 50, 1000, b'"tag"')

    def wanted(self, answer: Response, position: int = 10) -> int | None:
        return bytesToSkip(answer, self.PART, position, self.PART.tag)

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


class AnyOrderTests(ResumingResponseCase):
    @given(STEPS, st.booleans(), st.sampled_from(["", "leave", "other"]))
    @examples(3)
    def test_anyOrder(self, steps: list[Any], checked: bool, last: str) -> None:
        """
        For any events of upstream and client at any byte, the client has exactly the blob, or a
        prefix of it and an error; and nothing is left.
        """
        self.setUp()
        self.transfer = self.begin(check=DigestCheck(DIGEST) if checked else None)
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
        if self.transfer.state == "flowing":
            data = BLOB[self.at : self.at + size]
            self.at += len(data)
            if data:
                self.transfer.gives(data)

    def do_pause(self) -> None:
        self.body.pauseProducing()

    def do_resume(self) -> None:
        self.body.resumeProducing()

    def do_cut(self) -> None:
        if self.transfer.state in ("flowing", "paused"):
            self.transfer.ends(BodyFailed("closed"))

    def do_close(self) -> None:
        if self.transfer.state in ("flowing", "paused"):
            self.transfer.ends(ResponseDone())

    def do_stall(self) -> None:
        """Let so much time pass that any upstream that is not paused has stalled."""
        paused, asked = self.body.paused, len(self.asked)
        state = self.transfer.state
        self.clock.pump([0.5] * 40)
        if paused:
            self.assertEqual((self.transfer.state, len(self.asked)), (state, asked))
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
            self.transfer = Response(206, stop - start)
            reply.callback((self.transfer, self.asked[-1].position - start))

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
        """End all faults, or replace the blob by another entity, and check that the body ends."""
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
