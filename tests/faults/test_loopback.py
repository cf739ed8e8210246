"""
Every fault of the table for real: TCP and TLS on 127.0.0.1, and the time of day.
"""

from __future__ import annotations

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from hubmirror.exchange import Outcome
from tests.faults.loopback import Body, Stand
from tests.faults.table import FAULTS, REPOSITORY, SIZE, Fault
from tests.wire.loopback import settled, until


class StandCase(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.stand = Stand(reactor)


class TableTests(StandCase):
    async def suffer(self, fault: Fault) -> None:
        self.addCleanup(self.stand.stop)
        got = await self.stand.suffer(fault)
        self.assertEqual(got.status, 200 if fault.range is None else 206)
        self.assertEqual(got.isWhole, fault.survived)
        if fault.survived:
            wanted = fault.wanted(self.stand.blob)
            self.assertEqual(len(got.body), len(wanted))
            self.assertTrue(got.body == wanted, "other bytes")
        [exchange] = self.stand.exchanges
        self.assertIs(exchange.outcome, Outcome.COMPLETE if fault.survived else Outcome.BROKEN)


def _addTests() -> None:
    """A test for each fault, so that each is seen to fail by itself."""
    for number, fault in enumerate(FAULTS):

        async def test(self: TableTests, fault: Fault = fault) -> None:
            await self.suffer(fault)

        test.__doc__ = fault.name
        setattr(TableTests, f"test_{number:02}", test)


_addTests()


class PieceTests(StandCase):
    async def test_closedPiece(self) -> None:
        """
        containerd opens C{bytes=N-} for each piece and closes it early: that costs the upstream a
        few buffers more than the piece, and leaves no connection.
        """
        stand = self.stand
        stand.blob = stand.hub.addBlob(REPOSITORY, 64 * SIZE)
        await stand.start()
        self.addCleanup(stand.stop)
        response = await stand.ask(stand.path, {"Range": "bytes=1000-"})
        self.assertEqual(response.code, 206)
        body = Body()
        response.deliverBody(body)
        await until(lambda: body.data != b"")
        body.transport.stopProducing()
        await until(lambda: stand.exchanges)
        self.assertIs(stand.exchanges[0].outcome, Outcome.CLIENT_LEFT)
        await until(lambda: not stand.hub.cdn._site.channels)
        self.assertLess(await settled(lambda: stand.hub.cdn.bytesSent), 16 * SIZE)
        self.assertEqual(len(stand.hub.cdn.seen), 1)
