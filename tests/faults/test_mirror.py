"""
Tests of the whole mirror in memory, with upstreams that are unavailable, limited or slow.
"""

from __future__ import annotations

import json

from twisted.logger import capturedLogs, formatEvent

from hubmirror.exchange import Outcome
from hubmirror.testing import Seen
from tests.faults.memory import STALL, FaultCase
from tests.faults.table import MIDDLE, REPOSITORY, SIZE, cut
from tests.wire.support import Line, Message, read

MANIFEST = f"/v2/{REPOSITORY}/manifests/latest".encode()


class MirrorCase(FaultCase):
    """
    A Hub, and another mirror of it.
    """

    options = {"fallback": "https://mirror.hub.test"}

    def get(
        self,
        path: bytes = MANIFEST,
        method: bytes = b"GET",
        token: str | None = "",
        body: bytes | None = None,
    ) -> Message:
        """
        Send a request, and receive the whole response.

        @param token: the token; empty for an anonymous one, C{None} for none.
        """
        fields = ()
        if token is not None:
            credentials = f"Bearer {token}".encode() if token else self.authorization()[1]
            fields = ((b"Authorization", credentials),)
        before = len(self.exchanges)
        client = self.send(path, method, fields, body)
        self.waitFor(lambda: len(self.exchanges) > before)
        got = read(client.value())
        client.leaves()
        self.move()
        return got

    def user(self, name: str) -> str:
        """Issue a user's token."""
        return self.hub.tokens.issue(name, {REPOSITORY: frozenset({"pull"})})

    def asked(self, service: str = "registry") -> list[Seen]:  # type: ignore[override]
        """The requests to a service since the last call."""
        found = [seen for seen in self.hub.seen if seen.service == service]
        self.hub.seen[:] = [seen for seen in self.hub.seen if seen.service != service]
        return found


class OnceTests(MirrorCase):
    """
    Tests of what is resumed, and what is never repeated.
    """

    options = {}

    def test_manifestBeforeTheFirstByte(self) -> None:
        self.hub.registry.cut(0, count=1)
        got = self.get()
        self.assertEqual(got.body, self.image.manifest.body)
        self.assertEqual(len(self.asked()), 2)

    def test_manifestAfterTheFirstByte(self) -> None:
        self.hub.registry.cut(10, count=1)
        self.get()
        self.assertIs(self.exchanges[0].outcome, Outcome.BROKEN)
        self.assertEqual(len(self.asked()), 1)

    def test_others(self) -> None:
        """HEAD and push requests are sent upstream only once, however they fail."""
        for method, body in ((b"HEAD", None), (b"PUT", b"{}"), (b"POST", b""), (b"DELETE", None)):
            for fault in ("closeBeforeHead", "hang"):
                self.configure()
                getattr(self.hub.registry, fault)(count=1)
                client = self.send(MANIFEST, method, (self.authorization(),), body)
                self.move(400)
                self.assertIn(read(client.value()).status, (502, 504), method)
                self.assertEqual(len(self.asked()), 1, method)
                client.leaves()
                self.assertNothingLeft()


class LeavingTests(MirrorCase):
    """
    The client leaves while the mirror resumes its body.
    """

    options = {}

    def leave(self, client: Line) -> None:
        before = len(self.hub.seen)
        client.leaves()
        self.move()
        [exchange] = self.exchanges
        self.assertIs(exchange.outcome, Outcome.CLIENT_LEFT)
        self.assertNothingLeft()
        self.assertEqual(len(self.hub.seen), before)

    def test_whileAsking(self) -> None:
        """The rest has been requested from the CDN, and there is no response yet."""
        self.hub.cdn.cut(MIDDLE, count=1)
        self.hub.cdn.hang()
        client = self.askBlob()
        self.waitFor(lambda: len(self.hub.cdn.seen) == 2)
        self.leave(client)

    def test_whileWaiting(self) -> None:
        """The rest was refused, and the next attempt is delayed."""
        self.hub.cdn.cut(MIDDLE, count=1)
        self.hub.cdn.fail(503)
        client = self.askBlob()
        self.waitFor(lambda: len(self.hub.cdn.seen) == 4)
        self.leave(client)

    def test_afterwards(self) -> None:
        """The rest is being transferred."""
        self.hub.cdn.cut(MIDDLE, count=1)
        self.hub.cdn.stall(1000, count=1)
        client = self.askBlob()
        self.waitFor(lambda: self.exchanges or len(self.hub.cdn.seen) == 2)
        self.move()
        self.leave(client)

    def test_slowClient(self) -> None:
        """
        A client that accepts no data for minutes does not count as a stall; when it reads again, it
        receives everything.
        """
        self.hub.cdn.stall(MIDDLE, count=1)
        client = self.askBlob()
        self.move()
        client.producer.pauseProducing()
        self.move(290)
        self.assertEqual(len(self.hub.cdn.seen), 1)
        client.producer.resumeProducing()
        self.waitFor(lambda: self.exchanges)
        self.assertEqual(len(read(client.value()).body), SIZE)

    def test_stalledClient(self) -> None:
        """A client that accepts no data for too long is disconnected."""
        self.hub.cdn.stall(MIDDLE)
        client = self.askBlob()
        self.move()
        client.producer.pauseProducing()
        self.move(300)
        self.assertEqual(client.ended, "aborted")
        self.assertIs(self.exchanges[0].outcome, Outcome.CLIENT_STALLED)
        self.assertNothingLeft()

    def test_drain(self) -> None:
        """When the mirror stops, a body that is being resumed is completed."""
        self.mirror.service.startService()
        self.hub.cdn.stall(MIDDLE, count=1)
        client = self.askBlob()
        self.move()
        stopping = self.mirror.service.stopService()
        self.move(STALL + 1)
        self.assertEqual(len(read(client.value()).body), SIZE)
        self.assertEqual(client.ended, "closed")
        self.successResultOf(stopping)
        self.assertNothingLeft()


class VerifyTests(MirrorCase):
    def test_fallback(self) -> None:
        """
        Wrong bytes of a fallback never form a complete blob; the fallback is then marked down.
        """
        self.hub.cdn.refusing = True
        self.hub.mirror.corrupt(10)
        with capturedLogs() as events:
            got = self.get(self.path)
        self.assertEqual(got.values(b"Content-Length"), [b"%d" % SIZE])
        self.assertLess(len(got.body), SIZE)
        self.assertIs(self.exchanges[0].outcome, Outcome.BROKEN)
        lines = [formatEvent(event) for event in events]
        self.assertIn(f"mirror.hub.test sent bytes that do not match {self.blob.digest}", lines)
        self.hub.cdn.refusing = False
        self.move(5)
        self.asked("mirror")
        self.assertEqual(len(self.get(self.path).body), SIZE)
        self.assertEqual(self.asked("mirror"), [])

    def test_resumed(self) -> None:
        """A body that consists of two parts is verified as one."""
        self.hub.cdn.refusing = True
        for fault in (cut, None):
            self.configure(**self.options)
            self.hub.cdn.refusing = True
            self.hub.mirror.cut(MIDDLE, count=1)
            if fault is None:
                self.hub.mirror.corrupt(10)
            got = self.get(self.path)
            self.assertEqual(len(got.body) == SIZE, fault is not None)


class HealthTests(MirrorCase):
    def test_deadRegistry(self) -> None:
        """
        After one request has found a registry unavailable, others skip it; the log has one line
        about it.
        """
        self.hub.registry.refusing = True
        with capturedLogs() as events:
            for _ in range(5):
                self.assertEqual(self.get().status, 200)
        self.assertEqual(len(self.asked("mirror")), 5)
        lines = [formatEvent(event) for event in events]
        told = "registry.hub.test (registry) is marked down: connection refused"
        self.assertEqual(lines.count(told), 1, lines)
        self.hub.registry.refusing = False
        self.move(2)
        self.assertEqual(self.get().status, 200)
        self.assertEqual(len(self.asked()), 1)
        self.assertEqual(self.asked("mirror"), [])

    def test_hangingRegistry(self) -> None:
        """
        A registry that does not respond delays three requests for different targets, but no more.
        """
        self.hub.registry.hang()
        for number in range(3):
            started = self.clock.seconds()
            self.get(MANIFEST + b"?%d" % number)
            self.assertGreaterEqual(self.clock.seconds() - started, 4.5)
        started = self.clock.seconds()
        for _ in range(5):
            self.get()
        self.assertEqual(self.clock.seconds(), started)

    def test_deadCDN(self) -> None:
        """Requests for manifests are still sent to the registry."""
        self.hub.cdn.refusing = True
        for _ in range(3):
            self.assertEqual(len(self.get(self.path).body), SIZE)
        self.assertEqual(len(self.asked()), 1)
        self.assertEqual(self.get().status, 200)
        self.assertEqual(len(self.asked()), 1)

    def test_allHang(self) -> None:
        """The client is sent a response after nine seconds in any case."""
        for service in (self.hub.registry, self.hub.token, self.hub.mirror):
            service.hang()
        for path in (b"/v2/", MANIFEST, b"/token?service=a", self.path):
            started = self.clock.seconds()
            got = self.get(path)
            self.assertLessEqual(self.clock.seconds() - started, 9.25)
            self.assertEqual((got.status, got.error), (504, "UNAVAILABLE"))


class QuotaTests(MirrorCase):
    def limit(self, **fields: str) -> None:
        """Simulate that the Hub has no more pulls for Alice."""
        self.hub.registry.fail(
            429, fields=fields, when=lambda seen: seen.field("Authorization") in self.alices
        )
        self.alices = {f"Bearer {self.user('alice')}"}

    def test_remaining(self) -> None:
        """After a user's last pull, the next upstream serves this user, but nobody else."""
        alice = self.user("alice")
        self.hub.registry.fields.setRawHeaders("RateLimit-Remaining", ["0;w=600"])
        self.get(token=alice)
        self.hub.registry.fields.removeHeader("RateLimit-Remaining")
        self.assertEqual(len(self.asked()), 1)
        self.get(token=alice)
        self.assertEqual((len(self.asked()), len(self.asked("mirror"))), (0, 1))
        self.get(token=self.user("bob"))
        self.get()
        self.assertEqual((len(self.asked()), len(self.asked("mirror"))), (2, 0))
        self.move(600)
        self.hub.tokens.lifetime = 10**6
        self.get(token=self.user("alice"))
        self.assertEqual(len(self.asked()), 1)

    def test_pulls(self) -> None:
        """A 429 for one user's pulls does not affect other users or other kinds of requests."""
        self.limit(**{"Retry-After": "30"})
        alice = self.user("alice")
        self.assertEqual(self.get(token=alice).status, 200)
        self.asked()
        self.get(token=alice)
        self.assertEqual(self.asked(), [])
        self.get(self.path, token=alice)
        self.get(token=self.user("bob"))
        self.assertEqual(len(self.asked()), 2)

    def test_fiveAtOnce(self) -> None:
        """containerd repeats a request five times at once after a 429; the Hub is sent only one."""
        self.configure()
        self.hub.registry.fail(429, fields={"Retry-After": "30"})
        for method in (b"HEAD", b"GET"):
            times = []
            for _ in range(5):
                got = self.get(method=method)
                self.assertEqual(got.status, 429)
                times += got.values(b"Retry-After")
                self.move(0.5)
            self.assertEqual(times, [b"30", b"30", b"29", b"29", b"28"])
            self.assertEqual(len(self.asked()), 1)
            self.move(30)
        self.assertEqual(json.loads(got.body)["errors"][0]["code"], "TOOMANYREQUESTS")

    def test_abuse(self) -> None:
        """
        The 429 in plain text applies to everything from this address, including tokens and
        searches.
        """
        self.configure()
        fields = {"Content-Type": "text/plain", "Retry-After": "30"}
        self.hub.registry.fail(429, b"Too Many Requests (HAP429)", fields)
        self.get(self.path)
        self.hub.registry.restore()
        self.hub.seen.clear()
        for path, token in (
            (MANIFEST, ""),
            (MANIFEST, self.user("alice")),
            (self.path, ""),
            (b"/v2/", None),
            (b"/token?service=a&scope=repository:library/hello:pull", None),
            (b"/v1/search?q=a", None),
        ):
            got = self.get(path, token=token)
            self.assertEqual((got.status, got.body), (429, b"Too Many Requests (HAP429)"), path)
            self.assertEqual(got.values(b"Retry-After"), [b"30"])
        self.assertEqual(self.hub.seen, [])
        self.move(30)
        self.assertEqual(self.get().status, 200)

    def test_abuseWithAFallback(self) -> None:
        """Meanwhile the fallback serves all of that."""
        self.hub.registry.fail(429, b"Too Many Requests (HAP429)", {"Retry-After": "30"})
        self.get()
        self.hub.seen.clear()
        for path in (MANIFEST, self.path, b"/token?service=a", b"/v1/search?q=a"):
            token = None if path.startswith(b"/token") else ""
            self.assertEqual(self.get(path, token=token).status, 200, path)
        self.assertEqual({seen.service for seen in self.hub.seen}, {"mirror"})

    def test_cdn(self) -> None:
        """A 429 of the CDN applies to one blob only."""
        self.configure()
        self.hub.cdn.fail(429, b"slow down", count=1)
        self.assertEqual(self.get(self.path).status, 429)
        self.assertEqual(self.get().status, 200)
        self.assertEqual(len(self.get(self.path).body), SIZE)

    def test_hostileToken(self) -> None:
        """A client's invalid token only serves as an identity."""
        for token in (
            "a.b.c",
            "a.W1tbW1s.c",
            "a." + "W1tb" * 1_000 + ".c",
            "a.eyJzdWIiOiJcdWQ4MDAifQ.c",
        ):
            self.assertEqual(self.get(token=token).status, 401)
