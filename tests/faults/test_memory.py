"""
Tests of all faults of the table in memory, with HTTP/1.1 and HTTP/2 clients.
"""

from __future__ import annotations

from hubmirror.exchange import Outcome
from tests.faults.memory import STALL, FaultCase
from tests.faults.table import FAULTS, Fault, Setting
from tests.transport.http2client import Client
from tests.wire.support import read


class TableTests(FaultCase):
    def begin(self, fault: Fault) -> tuple[tuple[bytes, bytes], ...]:
        """
        Begin a request.

        @return: the fields of the client's request.
        """
        fallback = (self.hub.mirrorURL,) if fault.fallback else ()
        self.configure(fallback=fallback, **fault.options)
        fault.inject(Setting(self.hub, self.blob, self.clock, STALL))
        ranged = () if fault.range is None else ((b"Range", fault.range.encode()),)
        return (self.authorization(), *ranged)

    def assertEnded(self, fault: Fault) -> None:
        [exchange] = self.exchanges
        self.assertIs(exchange.outcome, Outcome.COMPLETE if fault.survived else Outcome.BROKEN)
        if fault.survived:
            self.assertGreaterEqual(exchange.resumes + len(exchange.failures), 1)
        for seen in self.hub.cdn.seen:
            self.assertIsNone(seen.field("Authorization"))

    def assertBody(self, fault: Fault, body: bytes, length: bytes | None) -> None:
        """
        Check the body that a client has received.

        @param length: the length that was announced to the client.
        """
        wanted = fault.wanted(self.blob)
        if fault.survived:
            self.assertEqual((len(body), length), (len(wanted), b"%d" % len(wanted)))
            self.assertTrue(body == wanted, "other bytes")
        elif length is not None:
            self.assertLess(len(body), int(length))

    def overHTTP1(self, fault: Fault) -> None:
        fields = self.begin(fault)
        client = self.send(self.path, fields=fields)
        self.waitFor(lambda: self.exchanges)
        got = read(client.value())
        self.assertEqual(got.status, 200 if fault.range is None else 206)
        self.assertBody(fault, got.body, next(iter(got.values(b"Content-Length")), None))
        self.assertEqual(client.ended, "" if fault.survived else "aborted")
        self.assertEnded(fault)
        client.leaves()
        self.assertNothingLeft()

    def overHTTP2(self, fault: Fault) -> None:
        fields = self.begin(fault)
        client = Client(self.site)
        stream = client.ask(target=self.path, fields=[(n.lower(), v) for n, v in fields])

        def exchanged() -> bool:
            client.exchange()
            answer = client.answers[stream]
            return answer.ended or answer.reset is not None

        self.waitFor(exchanged)
        answer = client.answers[stream]
        self.assertEqual(answer.status, b"200" if fault.range is None else b"206")
        self.assertBody(fault, answer.body, answer.heads[-1].get(b"content-length"))
        # Resetting the stream marks the body as broken, and the connection stays open.
        self.assertEqual(answer.ended, fault.survived)
        self.assertFalse(client.transport.disconnecting)
        self.move()
        self.assertEnded(fault)
        client.leave()
        self.assertNothingLeft()


def _addTests(kind: str) -> None:
    """Add a test for each fault, so that each can fail by itself."""
    for number, fault in enumerate(FAULTS):

        def test(self: TableTests, fault: Fault = fault) -> None:
            getattr(self, f"over{kind}")(fault)

        test.__doc__ = fault.name
        setattr(TableTests, f"test_{kind}_{number:02}", test)


for _kind in ("HTTP1", "HTTP2"):
    _addTests(_kind)
