"""
Tests of the metrics and of the admin port.
"""

from __future__ import annotations

import json
import os
import re
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import attrs
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openMetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Site

import hubmirror
import twisted
from hubmirror.admin.exposition import expose
from hubmirror.admin.metrics import Metrics, addReport
from hubmirror.admin.site import AdminPort
from hubmirror.admin.status import Status
from hubmirror.config import Account, RegistryConfig
from hubmirror.exchange import Exchange, Outcome
from hubmirror.protocol.errors import ConnectFailed
from hubmirror.protocol.target import Kind
from hubmirror.protocol.url import splitURL
from hubmirror.service import makeAdminPort
from hubmirror.testing import ca
from hubmirror.testing.ca import Authority
from tests.wire.support import MemoryCase, answer

ROOT = Path(__file__).resolve().parents[2]


class ExchangeTests(SynchronousTestCase):
    """
    The counts that one exchange adds.
    """

    def count(self, outcome: Outcome = Outcome.COMPLETE, **attributes: Any) -> dict[str, Any]:
        metrics = Metrics()
        exchange = Exchange(b"GET", b"/v2/", None, 100.0, (metrics,))
        for name, value in {"registry": "docker.io", "kind": Kind.BLOB, **attributes}.items():
            setattr(exchange, name, value)
        exchange.end(outcome, 100.2)
        return {name: dict(counter) for name, counter in metrics.counters.items() if counter}

    def test_table(self) -> None:
        plain = {("docker.io", "blob", "GET", "200", "complete"): 1}
        for attributes, expected in (
            ({"status": 200}, {"requests": plain}),
            (
                {"status": 200, "sent": 5, "received": 7},
                {
                    "requests": plain,
                    "sent_bytes": {("docker.io", "blob"): 5},
                    "received_bytes": {("docker.io", "blob"): 7},
                },
            ),
            (
                {"status": 200, "attempts": [("a", "503"), ("a", "503"), ("b", "200")]},
                {
                    "requests": plain,
                    "upstream_requests": {
                        ("docker.io", "a", "blob", "503"): 2,
                        ("docker.io", "b", "blob", "200"): 1,
                    },
                    "failovers": {("docker.io", "a", "503"): 1},
                },
            ),
            (
                {"status": 200, "skipped": [("a", "down")], "attempts": [("b", "200")]},
                {
                    "requests": plain,
                    "upstream_requests": {("docker.io", "b", "blob", "200"): 1},
                    "failovers": {("docker.io", "a", "down"): 1},
                },
            ),
            (
                {"status": 200, "attempts": [("a", ConnectFailed.__name__)]},
                {
                    "requests": plain,
                    "upstream_requests": {("docker.io", "a", "blob", "connect_failed"): 1},
                },
            ),
            (
                {"status": 200, "breaks": [("a", "ended"), ("b", "stalled")], "resumes": 2},
                {
                    "requests": plain,
                    "resumes": {
                        ("docker.io", "a", "ended"): 1,
                        ("docker.io", "b", "stalled"): 1,
                    },
                },
            ),
        ):
            self.assertEqual(self.count(**attributes), expected)  # type: ignore[arg-type]

    def test_outcomes(self) -> None:
        self.assertEqual(
            self.count(Outcome.BROKEN, status=200, breaks=[("a", "wrong digest")])["broken"],
            {("docker.io", "wrong_digest"): 1},
        )
        self.assertEqual(
            self.count(Outcome.REFUSED, status=403, rule="deny-client")["denied"],
            {("deny-client",): 1},
        )

    def test_bounded(self) -> None:
        """
        A client can't create labels by what it writes.
        """
        found = self.count(method=b"EVIL", registry=None, kind=None, status=405)
        self.assertEqual(found, {"requests": {("", "other", "other", "405", "complete"): 1}})


class StatusTests(SynchronousTestCase):
    def report(self, **other: Any) -> dict[str, Any]:
        metrics = Metrics()
        exchange = Exchange(b"GET", b"/v2/", None, 100.0, (metrics,))
        exchange.kind, exchange.registry, exchange.status = Kind.PING, "docker.io", 200
        exchange.headAfter = 0.02
        exchange.end(Outcome.COMPLETE, 100.2)
        return json.loads(  # type: ignore[no-any-return]
            json.dumps(
                {
                    **metrics.report(),
                    "pid": 1,
                    "started": 1000.0,
                    "notReady": None,
                    "streams": {"client": 2, "upstream": 1},
                    "connections": {"client": 4, "upstream": 3},
                    "waiting": 0,
                    "registries": {},
                    "certificates": {},
                    "process": [["process_x", "Help.", "gauge", [["process_x", {}, 5.0]]]],
                    **other,
                }
            )
        )

    def samples(self, status: Status) -> dict[tuple[str, str], float]:
        """
        The samples by their names and the values of their labels.
        """
        text, _ = expose(status, "")
        return {
            (
                sample.name,
                ",".join(value for _, value in sorted(sample.labels.items())),
            ): sample.value
            for family in prometheus(text.decode())
            for sample in family.samples
        }

    def test_sum(self) -> None:
        """
        Counts are those of all processes, including ended ones; gauges are those of running
        processes.
        """
        before: dict[str, Any] = {}
        addReport(before, self.report())
        reports = [self.report(worker=1), self.report(worker=3)]
        status = Status(reports, key=b"k", before=before)
        found = self.samples(status)
        labels = "ping,GET,complete,docker.io,200"
        self.assertEqual(found["hubmirror_requests_total", labels], 3)
        self.assertEqual(found["hubmirror_request_seconds_count", "ping"], 3)
        self.assertEqual(found["hubmirror_request_seconds_bucket", "ping,0.1"], 0)
        self.assertEqual(found["hubmirror_request_seconds_bucket", "ping,0.25"], 3)
        self.assertEqual(found["hubmirror_head_seconds_bucket", "ping,0.025"], 3)
        self.assertEqual(found["hubmirror_streams", "client"], 4)
        self.assertEqual(found["hubmirror_connections", "upstream"], 6)
        self.assertEqual(found["process_x", "1"], 5)
        self.assertEqual(found["process_x", "3"], 5)
        self.assertEqual([each["worker"] for each in status.document()["workers"]], [1, 3])
        # The status must not have changed the counts that the supervisor keeps.
        self.assertEqual(
            self.samples(Status([], key=b"k", before=before)).get(
                ("hubmirror_requests_total", labels)
            ),
            1,
        )

    def test_registries(self) -> None:
        """
        An upstream is down when any process reports so; identities are hashed, and their number is
        limited.  The latest quota of an identity counts, whether or not it is lower.
        """

        def upstream(
            up: bool, down: list[Any], *quotas: tuple[bytes, int, float]
        ) -> dict[str, Any]:
            return {
                "docker.io": {
                    "upstreams": [
                        {
                            "name": "hub",
                            "up": up,
                            "down": down,
                            "quotas": [
                                {
                                    "identity": identity.hex(),
                                    "remaining": left,
                                    "limit": 100,
                                    "until": until,
                                }
                                for identity, left, until in quotas
                            ],
                        }
                    ]
                }
            }

        outage = {"route": "blobs", "since": 7.0, "reason": "connection refused"}
        many = [(b"%d" % number, number, 1.0) for number in range(100, 200)]
        status = Status(
            [
                self.report(
                    registries=upstream(True, [], (b"", 9, 1.0), (b"me", 3, 1.0), (b"you", 80, 2.0))
                ),
                self.report(
                    registries=upstream(False, [outage], (b"me", 40, 2.0), (b"you", 9, 1.0), *many)
                ),
            ],
            key=b"k",
        )
        [found] = status.registries()["docker.io"]
        self.assertEqual(
            (found["up"], found["since"], found["reason"]),
            (False, 7.0, "blobs: connection refused"),
        )
        quotas = found["quotas"]
        self.assertEqual(len(quotas), 20)
        self.assertEqual((quotas[0]["identity"], quotas[0]["remaining"]), ("anonymous", 9))
        self.assertRegex(quotas[1]["identity"], r"\A[0-9a-f]{8}\Z")
        self.assertEqual([quota["remaining"] for quota in quotas[:4]], [9, 40, 80, 100])
        samples = self.samples(status)
        self.assertEqual(samples["hubmirror_upstream_up", "docker.io,hub"], 0)
        self.assertEqual(samples["hubmirror_quota_remaining", "anonymous,docker.io,hub"], 9)
        self.assertEqual(samples["hubmirror_quota_limit", "anonymous,docker.io,hub"], 100)

    def test_document(self) -> None:
        """
        The document has the versions, and the time since the start of the oldest process.
        """
        self.patch(time, "time", lambda: 1000.25)
        reports = [self.report(started=990.0), self.report(started=900.0)]
        document = Status(reports, key=b"k").document()
        self.assertEqual(document["version"], hubmirror.__version__)
        self.assertEqual(document["twisted"], twisted.__version__)
        self.assertEqual((document["started"], document["uptime"]), (900.0, 100.25))
        self.assertEqual([each["started"] for each in document["workers"]], [990.0, 900.0])
        document = Status([], key=b"k").document()
        self.assertEqual((document["started"], document["uptime"]), (1000.25, 0.0))

    def test_formats(self) -> None:
        status = Status([self.report()], key=b"k")
        self.assertEqual(self.samples(status)["process_x", ""], 5)
        text, mediaType = expose(status, "application/openmetrics-text;version=1.0.0")
        self.assertTrue(mediaType.startswith("application/openmetrics-text"))
        self.assertIn("hubmirror_requests", {each.name for each in openMetrics(text.decode())})
        text, mediaType = expose(status, "text/plain")
        self.assertTrue(mediaType.startswith("text/plain"))
        self.assertIn("hubmirror_info", text.decode())


class DocumentationTests(SynchronousTestCase):
    def test_complete(self) -> None:
        """The documentation has each metric, and no other."""
        text, _ = expose(Status([], key=b"k"), "text/plain")
        names = re.findall(r"^# HELP (hubmirror_\w+) ", text.decode(), re.MULTILINE)
        page = (ROOT / "docs/metrics.rst").read_text("utf-8")
        self.assertEqual(set(re.findall(r"^``(hubmirror_\w+)``", page, re.MULTILINE)), set(names))


class AdminCase(MemoryCase):
    """
    The whole mirror in memory, with its admin port.
    """

    options = {"admin_port": "tcp:0"}

    def admin(self, path: bytes) -> Any:
        port: AdminPort = self.mirror.service._adminPort  # type: ignore[assignment]
        site, self.site = self.site, port.site
        try:
            client = self.connect()
            client.says(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path)
            return self.answered(client)
        finally:
            self.site = site

    def sample(self, name: str, *labels: str) -> float:
        [found] = [
            sample.value
            for family in prometheus(self.admin(b"/metrics").body.decode())
            for sample in family.samples
            if (sample.name, {*sample.labels.values()}) == (name, {*labels})
        ]
        return float(found)


class AdminTests(AdminCase):
    def bind(self) -> None:
        self.mirror.service._readiness.start()  # type: ignore[union-attr]
        self.addCleanup(self.mirror.service._readiness.stop)  # type: ignore[union-attr]

    def test_health(self) -> None:
        got = self.admin(b"/healthz")
        self.assertEqual((got.status, got.body), (200, b"ok\n"))
        self.assertEqual(self.admin(b"/other").status, 404)

    def test_ready(self) -> None:
        """
        The mirror sends a request by itself, and again before the last response is too old.
        """
        got = self.admin(b"/readyz")
        self.assertEqual(got.status, 503)
        self.assertIn(b"docker.io was reached lately: it has not answered yet", got.body)
        self.bind()
        self.assertEqual(self.asked().target, b"/v2/")
        self.network.lines[-1].says(answer(401))
        self.assertEqual(self.admin(b"/readyz").status, 200)
        self.clock.advance(10)
        self.assertEqual(self.network.lines[-1].hears(), b"")
        self.clock.pump([10] * 3)
        self.assertEqual(self.asked().target, b"/v2/")
        self.assertEqual(self.admin(b"/readyz").status, 200)
        self.network.refuses.add(b"hub.example")
        self.network.lines[-1].leaves()
        self.clock.pump([10] * 7)
        got = self.admin(b"/readyz")
        self.assertEqual((got.status, b"connection refused" in got.body), (503, True))

    def test_notByItself(self) -> None:
        """
        The mirror sends no request by itself to a registry that clients use.
        """
        self.exchange(b"/v2/", answer(401))
        self.bind()
        self.assertEqual(self.network.lines[-1].hears(), b"")
        self.assertEqual(self.admin(b"/readyz").status, 200)

    def test_accountRefused(self) -> None:
        """
        A registry that rejects the operator's account has responded.
        """
        path = self.mktemp()
        Path(path).write_text("secret")
        account = Account(username="me", password_file=path)
        registry = RegistryConfig(
            name="ghcr.test", auth_url="https://ghcr.test/token", account=[account]
        )
        self.configure(registries=[registry], **self.options)
        self.exchange(b"/v2/", answer(401))
        self.bind()
        self.network.lines[-1].says(
            answer(401, b"", ((b"WWW-Authenticate", b'Bearer realm="https://ghcr.test/"'),))
        )
        self.network.lines[-1].says(answer(401))
        self.assertEqual(self.admin(b"/readyz").body, b"ready\n")

    def test_reload(self) -> None:
        """
        The mirror stays ready when it gets another registry, which it asks at once, until the
        response shows that the registry can't be reached.
        """
        self.exchange(b"/v2/", answer(401))
        self.bind()
        for _ in "12":
            self.reload("https://ghcr.example")
        self.assertEqual(self.network.origins[1:], [splitURL(b"https://ghcr.example")[0]])
        self.assertEqual(self.admin(b"/readyz").status, 200)
        self.network.lines[-1].says(answer(401))
        self.assertEqual(self.admin(b"/readyz").status, 200)
        self.network.refuses.add(b"other.example")
        self.reload("https://other.example")
        got = self.admin(b"/readyz")
        self.assertEqual(got.status, 503)
        self.assertIn(b"ghcr.test was reached lately: other.example: connection refused", got.body)

    def test_reloadAtStart(self) -> None:
        """A mirror that is not ready yet does not become ready by a reload."""
        self.bind()
        self.mirror.service.reload(self.config)
        self.assertEqual(self.admin(b"/readyz").status, 503)
        self.assertEqual(len(self.network.lines), 1)
        self.network.lines[-1].says(answer(401))
        self.assertEqual(self.admin(b"/readyz").status, 200)

    def test_reloadOfSupervisor(self) -> None:
        """A supervisor checks a configuration with a mirror that does not run."""
        self.reload("https://ghcr.example")
        self.assertEqual(self.network.lines, [])

    def reload(self, url: str) -> None:
        """Let the mirror have another registry besides the one that it has."""
        registry = RegistryConfig(name="ghcr.test", url=url)
        self.mirror.service.reload(attrs.evolve(self.config, registries=[registry]))

    def test_draining(self) -> None:
        self.exchange(b"/v2/", answer(401))
        self.mirror.service._mirror.draining = True
        got = self.admin(b"/readyz")
        self.assertEqual((got.status, got.body), (503, b"the mirror is shutting down\n"))

    def test_counted(self) -> None:
        """
        A client's request over the wire is counted in the metrics.
        """
        self.exchange(b"/v2/library/a/manifests/1", answer(200, b"{}"))
        self.assertEqual(
            self.sample(
                "hubmirror_requests_total", "docker.io", "manifest", "GET", "200", "complete"
            ),
            1,
        )
        self.assertEqual(
            self.sample(
                "hubmirror_upstream_requests_total", "docker.io", "hub.example", "manifest", "200"
            ),
            1,
        )
        self.assertEqual(self.sample("hubmirror_sent_bytes_total", "docker.io", "manifest"), 2)
        self.send(b"/v2/library/a/blobs/sha256:1")
        self.assertEqual(self.sample("hubmirror_streams", "client"), 1)
        self.assertEqual(self.sample("hubmirror_streams", "upstream"), 1)

    def test_status(self) -> None:
        self.exchange(
            b"/v2/library/a/manifests/1",
            answer(
                200,
                b"{}",
                (
                    (b"RateLimit-Limit", b"100;w=21600"),
                    (b"RateLimit-Remaining", b"7;w=21600"),
                ),
            ),
        )
        self.network.refuses.add(b"auth.example")
        self.answered(self.send(b"/token?scope=x"))
        found = json.loads(self.admin(b"/status").body)
        [upstream] = found["registries"]["docker.io"]["upstreams"]
        self.assertEqual(
            (upstream["name"], upstream["up"], upstream["reason"]),
            ("hub.example", False, "token: connection refused"),
        )
        [quota] = upstream["quotas"]
        self.assertEqual((quota["remaining"], quota["limit"]), (7, 100))
        self.assertEqual(len(found["workers"]), 1)
        self.assertEqual(found["ready"], True)

    def test_search(self) -> None:
        """
        A search that fails does not mean that the upstream is down: pulls do not need the index.
        The reason is shown for a minute after the index might be tried again.
        """
        self.network.refuses.add(b"index.example")
        self.assertEqual(self.answered(self.send(b"/v1/search?q=x")).status, 502)
        for reason in ("search: connection refused", None):
            found = json.loads(self.admin(b"/status").body)
            [upstream] = found["registries"]["docker.io"]["upstreams"]
            self.assertEqual((upstream["up"], upstream["reason"]), (True, reason))
            self.assertEqual(self.sample("hubmirror_upstream_up", "docker.io", "hub.example"), 1)
            self.clock.advance(62)


class WithoutTests(MemoryCase):
    def test_nothing(self) -> None:
        """
        Without an admin port, no listener counts exchanges.
        """
        self.assertEqual(len(self.mirror.service._mirror.listeners), 1)
        self.assertIsNone(self.mirror.report)


class TLSTests(SynchronousTestCase):
    def test_renewed(self) -> None:
        """
        A renewed certificate of the admin port is used, and the metrics have its expiry.
        """
        authority = Authority()
        file = Path(os.path.abspath(self.mktemp())) / "a.pem"
        file.parent.mkdir()
        for description in (f"ssl:9090:privateKey={file}", f"tls:{file.parent}:9090"):
            self.lifetime(90)
            file.write_bytes(authority.serverPEM(["a.example"]))
            reactor = MemoryReactorClock()
            port = makeAdminPort(reactor, description, lambda: succeed(Status([], key=b"")))
            port.start()
            before = self.expiry(port)
            self.lifetime(30)
            file.unlink()
            file.write_bytes(authority.serverPEM(["a.example"]))
            reactor.pump([30, 30])
            self.assertAlmostEqual(before - self.expiry(port), 60 * 86400, delta=3600)
            self.successResultOf(Deferred.fromCoroutine(port.stop()))
            self.assertEqual(reactor.getDelayedCalls(), [], description)

    def lifetime(self, days: int) -> None:
        self.patch(ca, "_LIFETIME", timedelta(days=days))

    def expiry(self, port: AdminPort) -> float:
        from tests.downstream.support import Server

        server = Server()
        server.site = port.site  # type: ignore[assignment]
        line = server.connect()
        line.says(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        name = rb"hubmirror_certificate_expiry_timestamp_seconds"
        found = re.search(name + rb'{port="9090"} (\S+)', line.hears())
        assert found is not None
        return float(found[1])


class SiteTests(SynchronousTestCase):
    def test_defect(self) -> None:
        """
        If the status can't be found, the response is an error.
        """
        from tests.downstream.support import Server

        failing: Deferred[Status] = Deferred()
        port = AdminPort(Clock(), None, lambda: failing, Mock())  # type: ignore[arg-type]
        self.assertIsInstance(port.site, Site)
        server = Server()
        server.site = port.site  # type: ignore[assignment]
        line = server.connect()
        line.says(b"GET /status HTTP/1.1\r\nHost: a\r\n\r\n")
        failing.errback(ZeroDivisionError())
        self.assertIn(b" 500 ", line.hears())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
