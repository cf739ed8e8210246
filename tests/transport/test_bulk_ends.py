"""
Tests of how connections with the mirror's TLS end: in the same way as with Twisted's, whichever
side ends them.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.testing.ca import Authority
from hubmirror.transport.tls import BATCH
from tests import examples
from tests.transport.test_bulk import RECORD, SIDES, SIZES, STEPS
from tests.transport.tlspair import ROLES, Pair, PairCase, Peer, bytesOf

ELSEWHERE = trustRootFromCertificates([Certificate.loadPEM(Authority().pem)])


def ended(pair: Pair) -> list[type[BaseException] | None]:
    """The reasons for which client and server lost the connection."""
    pair.settle()
    return [peer.reason and peer.reason.type for peer in (pair.client, pair.server)]


def _bothLose(pair: Pair) -> None:
    pair.client.transport.loseConnection()
    pair.server.transport.loseConnection()


def _loseAndVanish(pair: Pair) -> None:
    pair.server.transport.loseConnection()
    pair.clientEnd.loseConnection()


def _writeAndLose(pair: Pair) -> None:
    pair.server.transport.write(bytes(BATCH))
    pair.client.transport.loseConnection()


#: Actions on an established connection.  An end is the transport below TLS.
ENDINGS: dict[str, Callable[[Pair], object]] = {
    "the client loses it": lambda pair: pair.client.transport.loseConnection(),
    "the server loses it": lambda pair: pair.server.transport.loseConnection(),
    "both lose it": _bothLose,
    "the client aborts": lambda pair: pair.client.transport.abortConnection(),
    "the server aborts": lambda pair: pair.server.transport.abortConnection(),
    "the client vanishes": lambda pair: pair.clientEnd.loseConnection(),
    "the server vanishes": lambda pair: pair.serverEnd.loseConnection(),
    "the server loses it, the client vanishes": _loseAndVanish,
    "the client half-closes": lambda pair: pair.clientEnd.loseWriteConnection(),
    "the client loses it while the server writes": _writeAndLose,
    "garbage": lambda pair: pair.serverEnd.write(b"garbage" * 9),
}


class ReasonTests(SynchronousTestCase):
    def test_asTwisted(self) -> None:
        """Both sides get the same reason as if both had Twisted's TLS."""
        for name, end in ENDINGS.items():
            told = []
            for roles in ROLES:
                pair = Pair(*roles)
                pair.settle()
                end(pair)
                told.append(ended(pair))
            self.assertNotIn(None, told[0], name)
            self.assertEqual(told, [told[0]] * 4, name)

    def test_beforeTheHandshake(self) -> None:
        """This also holds before and in the handshake."""
        for name, end in ENDINGS.items():
            for turns in range(3) if name != "garbage" else ():
                told = []
                for roles in ROLES:
                    pair = Pair(*roles)
                    for _ in range(turns):
                        pair.serverEnd.step(reading=True)
                        pair.serverEnd.step(reading=False)
                        pair.clientEnd.step(reading=False)
                    end(pair)
                    told.append(ended(pair))
                self.assertEqual(told, [told[0]] * 4, (name, turns))

    def test_otherName(self) -> None:
        for roles in ROLES:
            pair = Pair(*roles, name="elsewhere.example")
            self.assertEqual(ended(pair), [VerificationError, ConnectionLost])

    def test_otherAuthority(self) -> None:
        for roles in ROLES:
            pair = Pair(*roles, trust=ELSEWHERE)
            self.assertEqual(ended(pair), [SSL.Error, SSL.Error])
            assert pair.client.reason is not None
            self.assertIn("certificate verify failed", str(pair.client.reason.value))


class SilentTests(SynchronousTestCase):
    """
    A client that keeps its connection open but does not read from it.
    """

    def test_idle(self) -> None:
        """The server waits only a short time for its close_notify."""
        pair = Pair(True, True)
        pair.settle()
        pair.server.transport.loseConnection()
        pair.reactor.advance(2.9)
        pair.serverEnd.step(reading=False)
        self.assertFalse(pair.serverEnd.disconnecting)
        pair.reactor.advance(0.1)
        pair.serverEnd.step(reading=False)
        self.assertEqual(ended(pair), [ConnectionDone, ConnectionDone])
        self.assertEqual(pair.reactor.getDelayedCalls(), [])

    def test_stillReading(self) -> None:
        """
        It waits longer while the client sends anything, because a closed socket would then drop
        what the client has not received yet.
        """
        pair = Pair(False, True)
        pair.settle()
        pair.client.transport.pauseProducing()
        pair.server.transport.loseConnection()
        for _ in range(5):
            pair.reactor.advance(2.9)
            pair.client.transport.write(b"window update")
            pair.turn()
        self.assertFalse(pair.serverEnd.disconnecting)
        self.assertEqual(pair.server.got, b"")
        pair.reactor.advance(3)
        pair.serverEnd.step(reading=False)
        self.assertEqual(ended(pair)[1], ConnectionDone)

    def test_slow(self) -> None:
        """Nevertheless, everything that was written arrives."""
        pair = Pair(False, True, room=5_000)
        pair.settle()
        pair.client.transport.pauseProducing()
        pair.server.transport.write(bytes(10 * BATCH))
        pair.server.transport.loseConnection()
        pair.reactor.advance(60)
        pair.client.transport.resumeProducing()
        self.assertEqual(ended(pair), [ConnectionDone, ConnectionDone])
        self.assertEqual(len(pair.client.got), 10 * BATCH)


class InFlightTests(SynchronousTestCase):
    @examples(0.6)
    @given(st.sampled_from(ROLES), st.sampled_from([5_000, 400_000]), st.lists(SIZES, max_size=6))
    def test_lose(self, roles: tuple[bool, bool], room: int, sizes: list[int]) -> None:
        """
        Bytes that were written before C{loseConnection} arrive, and then the connection ends
        properly.
        """
        pair = Pair(*roles, room=room)
        pair.settle()
        pair.client.transport.pauseProducing()
        for number, size in enumerate(sizes):
            pair.server.transport.write(bytesOf(size, number))
        pair.server.transport.loseConnection()
        pair.turn()
        pair.client.transport.resumeProducing()
        self.assertEqual(ended(pair), [ConnectionDone, ConnectionDone])
        sent = b"".join(bytesOf(size, number) for number, size in enumerate(sizes))
        self.assertTrue(pair.client.got == sent)

    @examples(0.6)
    @given(st.sampled_from(ROLES), st.sampled_from([5_000, 400_000]), STEPS, SIDES)
    def test_abort(
        self, roles: tuple[bool, bool], room: int, steps: list[Any], aborting: str
    ) -> None:
        """
        An abort ends both sides at any time; what has arrived is a prefix of what was sent.
        """
        pair = Pair(*roles, room=room)
        sent = {"client": b"", "server": b""}
        for number, (what, side, size) in enumerate(steps):
            if what == "send":
                data = bytesOf(size, number)
                sent[side] += data
                getattr(pair, side).transport.write(data)
            elif what in ("read", "write"):
                getattr(pair, side + "End").step(reading=what == "read")
        getattr(pair, aborting).transport.abortConnection()
        self.assertNotIn(None, ended(pair))
        self.assertTrue(sent["client"].startswith(pair.server.got))
        self.assertTrue(sent["server"].startswith(pair.client.got))


class EndTests(PairCase):
    def test_abortedWithWritesPending(self) -> None:
        """Pending writes of an aborted connection are dropped, without an error."""
        pair = self.open()
        pair.client.transport.write(b"small")
        pair.client.transport.abortConnection()
        self.assertTrue(pair.client.transport.disconnecting)
        pair.settle()
        self.assertEqual(pair.server.got, b"")

    def test_truncated(self) -> None:
        """Without close_notify, the received data is not regarded as complete."""
        pair = self.open()
        pair.server.transport.write(bytes(RECORD))
        pair.serverEnd.loseConnection()
        self.assertEqual(ended(pair)[0], ConnectionLost)
        self.assertEqual(pair.client.got, bytes(RECORD))

    def test_garbage(self) -> None:
        """Data before the first invalid record is valid, and delivered."""
        pair = self.open()
        pair.server.transport.write(bytes(RECORD))
        pair.reactor.advance(0)
        pair.serverEnd.write(b"\x17\x03\x03\x00\x20" + bytes(32))
        self.assertEqual(ended(pair), [SSL.Error, SSL.Error])
        self.assertEqual(pair.client.got, bytes(RECORD))


class PlainEndTests(EndTests):
    bulk = False


class StricterTests(PairCase):
    """Cases in which Twisted's TLS raises, delivers more data, or waits for ever."""

    def test_afterwards(self) -> None:
        """Calls after the end have no effect."""
        pair = self.open()
        transport = pair.client.transport
        transport.loseConnection()
        transport.write(b"late")
        self.assertEqual(ended(pair), [ConnectionDone, ConnectionDone])
        transport.write(b"later")
        transport.loseConnection()
        transport.abortConnection()
        pair.settle()
        self.assertEqual(pair.server.got, b"")

    def test_abortedAtOnce(self) -> None:
        """
        A connection that was refused costs no handshake, even if a wrapper passes on the client's
        first bytes.
        """

        class Refusing(Peer):
            def connectionMade(self) -> None:
                self.transport.abortConnection()

        pair = Pair(True, True, server=Refusing())
        self.addCleanup(pair.close)
        pair.clientEnd.step(reading=False)
        hello = pair.serverEnd.socket.recv(BATCH)
        self.assertEqual(hello[:1], b"\x16")
        sent: list[bytes] = []
        self.patch(pair.serverEnd, "write", sent.append)
        pair.serverEnd.protocol.dataReceived(hello)
        self.assertEqual(sent, [])
        pair.reactor.advance(0)

    def test_inADelivery(self) -> None:
        """
        If the connection is ended while the data of a read is delivered, no further data is
        delivered.
        """
        for end in ("loseConnection", "abortConnection"):

            class Ending(Peer):
                def dataReceived(self, data: bytes, end: str = end) -> None:
                    super().dataReceived(data)
                    getattr(self.transport, end)()

            pair = self.open(client=Ending(), room=4 * BATCH)
            pair.server.transport.write(bytes(3 * BATCH))
            self.assertNotIn(None, ended(pair))
            self.assertEqual(len(pair.client.sizes), 1)

    def test_pausedAndLost(self) -> None:
        """
        After C{loseConnection}, a paused protocol does not wait for ever for the other side's
        close_notify.
        """
        pair = self.open()
        pair.server.transport.pauseProducing()
        pair.client.transport.write(bytes(RECORD))
        pair.server.transport.loseConnection()
        self.assertEqual(ended(pair), [ConnectionDone, ConnectionDone])
        self.assertEqual(pair.server.got, b"")


class MemoryTests(SynchronousTestCase):
    """Nothing of a connection remains, even without the garbage collector."""

    def setUp(self) -> None:
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)

    def left(self, pair: Pair, end: Callable[[Pair], object]) -> list[object]:
        alive = [
            weakref.ref(found)
            for side in (pair.clientEnd, pair.serverEnd)
            for found in (side, side.protocol, side.protocol.getHandle())
        ]
        end(pair)
        self.assertNotIn(None, ended(pair))
        pair.clientEnd = pair.serverEnd = pair.client = pair.server = None  # type: ignore[assignment]
        return [found for reference in alive if (found := reference()) is not None]

    def test_ended(self) -> None:
        for name, end in ENDINGS.items():
            for stalled in (False, True):
                pair = Pair(True, True, room=5_000)
                pair.settle()
                if stalled:
                    pair.client.transport.pauseProducing()
                    pair.server.transport.write(bytes(2 * BATCH))
                    pair.turn()
                    pair.client.transport.resumeProducing()
                self.assertEqual(self.left(pair, end), [], name)

    def test_neverEstablished(self) -> None:
        for pair in (Pair(True, True, trust=ELSEWHERE), Pair(True, True, name="elsewhere.example")):
            self.assertEqual(self.left(pair, lambda pair: None), [])
