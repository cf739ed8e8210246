"""
Tests of the mirror's TLS, with itself and with Twisted's as the peer: no byte is lost or reordered.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import IPushProducer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from hubmirror.transport.tls import BATCH
from tests import examples
from tests.transport.tlspair import ROLES, Pair, PairCase, Peer, bytesOf

RECORD = 16 * 1024
MiB = 1024 * 1024
SIZES = st.one_of(
    st.integers(0, 600),
    st.integers(RECORD - 2, RECORD + 2),
    st.integers(BATCH - 2, BATCH + 2),
    st.integers(0, 3 * BATCH),
)
SIDES = st.sampled_from(["client", "server"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), SIDES, SIZES),
        st.tuples(st.sampled_from(["read", "write", "pause", "resume"]), SIDES, st.just(0)),
        st.tuples(st.just("turn"), SIDES, st.just(0)),
    ),
    max_size=40,
)


class OrderTests(SynchronousTestCase):
    @examples(1.5)
    @given(st.sampled_from(ROLES), st.sampled_from([5_000, 60_000, 400_000]), st.booleans(), STEPS)
    def test_anyOrder(
        self, roles: tuple[bool, bool], room: int, established: bool, steps: list[Any]
    ) -> None:
        """
        Large and small writes in both directions, with pauses at any time, even in the handshake,
        and with a socket that accepts few bytes at a time: each byte arrives in its place.
        """
        pair = Pair(*roles, room=room)
        if established:
            pair.settle()
        sent = {"client": b"", "server": b""}
        for number, (what, side, size) in enumerate(steps):
            peer: Peer = getattr(pair, side)
            end = getattr(pair, side + "End")
            if what == "send":
                data = bytesOf(size, number)
                sent[side] += data
                peer.transport.write(data)
            elif what == "pause":
                peer.transport.pauseProducing()
            elif what == "resume":
                peer.transport.resumeProducing()
            elif what == "turn":
                pair.reactor.advance(0)
            else:
                end.step(reading=what == "read")
        pair.client.transport.resumeProducing()
        pair.server.transport.resumeProducing()
        pair.settle()
        self.assertEqual((pair.client.established, pair.server.established), (1, 1))
        self.assertTrue(pair.server.got == sent["client"], "the server got something else")
        self.assertTrue(pair.client.got == sent["server"], "the client got something else")
        pair.close()

    def test_backlog(self) -> None:
        """
        Bytes that are written when the socket is writable again do not overtake those that wait for
        it.
        """
        for roles in ROLES:
            pair = Pair(*roles, room=5_000)
            pair.settle()
            data = bytesOf(3 * BATCH, 1)
            for start in range(0, len(data), RECORD):
                pair.server.transport.write(data[start : start + RECORD])
                pair.clientEnd.step(reading=True)
            pair.settle()
            self.assertTrue(pair.client.got == data)
            pair.close()

    def test_early(self) -> None:
        """Bytes that are written before the handshake is complete are kept until then."""

        class Early(Peer):
            def connectionMade(self) -> None:
                self.transport.write(b"small")
                self.transport.write(bytes(2 * BATCH))

        for roles in ROLES:
            pair = Pair(*roles, client=Early(), server=Early())
            pair.settle()
            for peer in (pair.client, pair.server):
                self.assertEqual(peer.got, b"small" + bytes(2 * BATCH))
            pair.close()


class BatchTests(PairCase):
    """Tests of what makes it cheap."""

    def setUp(self) -> None:
        self.pair = self.open(room=4 * BATCH)

    def test_paused(self) -> None:
        """A pause takes effect at the delivery in which it was requested."""

        class Pausing(Peer):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                self.transport.pauseProducing()

        pair = self.open(client=Pausing(), room=4 * BATCH)
        pair.server.transport.write(bytes(4 * BATCH))
        pair.settle()
        while len(pair.client.got) < 4 * BATCH:
            before = len(pair.client.sizes)
            pair.client.transport.resumeProducing()
            pair.settle()
            self.assertEqual(len(pair.client.sizes), before + 1)

    def test_delivery(self) -> None:
        """The data of one read, with several records, is delivered at once."""
        for size in (RECORD, 100):
            self.pair.server.transport.write(bytes(size))
            self.pair.reactor.advance(0)
        self.pair.clientEnd.step(reading=True)
        self.assertEqual(self.pair.client.sizes, [RECORD + 100])

    def largestDelivery(self, size: int) -> int:
        """Send data, and return the size of the largest delivery."""
        sizes = self.pair.client.sizes
        sizes.clear()
        for _ in range(0, size, BATCH):
            self.pair.server.transport.write(bytes(BATCH))
            self.pair.settle()
        return max(sizes)

    def test_reads(self) -> None:
        """
        Reads begin small, become larger with the data that is received without a rest, and are
        small again after a rest.
        """
        self.assertLessEqual(self.largestDelivery(2 * MiB), 2 * RECORD)
        self.assertGreater(self.largestDelivery(4 * MiB), 2 * RECORD)
        self.assertLessEqual(self.largestDelivery(16 * MiB), BATCH)
        self.assertGreater(self.largestDelivery(1 * MiB), BATCH - 2 * RECORD)
        self.pair.reactor.advance(1)
        # The first read was already possible when the rest ended.
        self.largestDelivery(BATCH)
        self.assertLessEqual(self.largestDelivery(2 * MiB), 2 * RECORD)

    def test_readsOfWrapper(self) -> None:
        """The size of reads is that of the transport that reads the socket."""
        self.pair = self.open(wrapped=True)
        self.assertLessEqual(self.largestDelivery(2 * MiB), 2 * RECORD)
        self.assertGreater(self.largestDelivery(20 * MiB), BATCH - 2 * RECORD)

    def test_largeAtOnce(self) -> None:
        """A large write is sent before the turn ends, together with earlier ones."""
        self.pair.server.transport.write(b"head")
        self.pair.server.transport.write(bytes(RECORD))
        self.assertNotIn(self.pair.serverEnd, self.pair.reactor.getWriters())
        self.pair.clientEnd.step(reading=True)
        self.assertEqual(self.pair.client.got, b"head" + bytes(RECORD))

    def test_smallTogether(self) -> None:
        """Small writes of one turn are sent together at its end."""
        for piece in (b"a", b"", b"b", b"c"):
            self.pair.server.transport.write(piece)
        self.pair.server.transport.writeSequence([b"d", b"e"])
        self.pair.clientEnd.step(reading=True)
        self.assertEqual(self.pair.client.sizes, [])
        self.pair.reactor.advance(0)
        self.pair.clientEnd.step(reading=True)
        self.assertEqual(self.pair.client.sizes, [5])

    def test_smallAfterLarge(self) -> None:
        """This also holds after a large write."""
        self.pair.server.transport.write(bytes(BATCH))
        self.pair.settle()
        self.pair.server.transport.write(b"small")
        self.pair.clientEnd.step(reading=True)
        self.assertEqual(len(self.pair.client.got), BATCH)


@implementer(IPushProducer)
class Source:
    """A producer that writes its data while its consumer does not pause it."""

    def __init__(self, consumer: Any, data: bytes, piece: int) -> None:
        self.data, self.piece = data, piece
        self.calls: list[str] = []
        self.paused = False
        self.consumer = consumer
        consumer.registerProducer(self, True)

    def produce(self) -> None:
        while self.data and not self.paused and "stop" not in self.calls:
            piece, self.data = self.data[: self.piece], self.data[self.piece :]
            self.consumer.write(piece)

    def pauseProducing(self) -> None:
        assert not self.paused, "paused twice"
        self.calls.append("pause")
        self.paused = True

    def resumeProducing(self) -> None:
        assert self.paused, "resumed without a pause"
        self.calls.append("resume")
        self.paused = False
        self.produce()

    def stopProducing(self) -> None:
        self.calls.append("stop")


class BackpressureTests(PairCase):
    """Backpressure is stricter than with Twisted's TLS."""

    def test_backpressure(self) -> None:
        """
        While the other side does not read, the producer is paused, and no more than one piece of it
        is buffered; later it is resumed.
        """
        for piece in (1000, RECORD, BATCH, 3 * BATCH):
            pair = self.open(room=60_000)
            pair.client.transport.pauseProducing()
            data = bytesOf(12 * BATCH, piece)
            source = Source(pair.server.transport, data, piece)
            while not source.paused:
                source.produce()
                pair.reactor.advance(0)
            left = len(source.data)
            pair.settle()
            self.assertEqual((left, source.paused), (len(source.data), True))
            self.assertLess(len(pair.serverEnd.dataBuffer), piece + 2 * RECORD)
            pair.client.transport.resumeProducing()
            while source.data:
                pair.settle()
                source.produce()
            pair.settle()
            self.assertTrue(pair.client.got == data)

    def test_duringTheHandshake(self) -> None:
        """Bytes that wait for the handshake pause a producer as well."""
        pair = Pair(self.bulk, self.bulk)
        source = Source(pair.client.transport, bytes(BATCH), RECORD)
        source.produce()
        self.assertEqual((source.calls, len(source.data)), (["pause"], BATCH - RECORD))
        pair.settle()
        self.assertEqual(pair.server.got, bytes(BATCH))
        self.assertEqual(source.calls, ["pause", "resume"])
        pair.close()

    def test_registeredLate(self) -> None:
        """A producer that is registered while the socket is full is paused at once."""
        pair = self.open(room=5_000)
        pair.server.transport.write(bytes(BATCH))
        self.assertEqual(Source(pair.server.transport, b"", 1).calls, ["pause"])

    def test_pull(self) -> None:
        pair = self.open()
        with self.assertRaises(ValueError):
            pair.server.transport.registerProducer(object(), False)


class ProducerTests(PairCase):
    def test_closing(self) -> None:
        """C{loseConnection} takes effect only after the producer is unregistered."""
        pair = self.open()
        source = Source(pair.server.transport, bytes(5 * BATCH), BATCH)
        pair.server.transport.loseConnection()
        pair.settle()
        self.assertIsNone(pair.client.reason)
        source.produce()
        pair.settle()
        pair.server.transport.unregisterProducer()
        pair.settle()
        self.assertIsNotNone(pair.client.reason)
        self.assertEqual(pair.client.got, bytes(5 * BATCH))

    def test_lost(self) -> None:
        """
        A producer is stopped once when the connection is lost, and at once if it is registered
        later.
        """
        pair = self.open()
        source = Source(pair.server.transport, b"", 1)
        pair.client.transport.abortConnection()
        pair.settle()
        self.assertEqual(source.calls, ["stop"])
        self.assertEqual(Source(pair.server.transport, b"", 1).calls, ["stop"])

    def test_twoAtOnce(self) -> None:
        pair = self.open()
        Source(pair.server.transport, b"", 1)
        with self.assertRaises(RuntimeError):
            Source(pair.server.transport, b"", 1)
        pair.server.transport.unregisterProducer()
        Source(pair.server.transport, b"", 1)


class PlainProducerTests(ProducerTests):
    bulk = False
