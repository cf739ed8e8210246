"""
Tests of all faults of the table over TCP and TLS on 127.0.0.1, in real time.
"""

from __future__ import annotations

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from hubmirror.exchange import Outcome
from tests.faults.loopback import Stand
from tests.faults.table import FAULTS, Fault


class TableTests(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.stand = Stand(reactor)

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
    """Add a test for each fault, so that each can fail by itself."""
    for number, fault in enumerate(FAULTS):

        async def test(self: TableTests, fault: Fault = fault) -> None:
            await self.suffer(fault)

        test.__doc__ = fault.name
        setattr(TableTests, f"test_{number:02}", test)


_addTests()
