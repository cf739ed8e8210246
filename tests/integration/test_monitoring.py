"""
Tests of C{deploy/alerts.yml} and C{deploy/grafana.json}: a real Prometheus scrapes a real mirror
that has counts for everything, and evaluates every query.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import ssl
from collections.abc import Iterator, Mapping
from functools import cached_property
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.trial.unittest import SynchronousTestCase, TestCase

from hubmirror.testing import EmbeddedHub
from tests.integration.mirror import TWISTD
from tests.integration.programs import Server, eventually, freePort, listens, require, run
from tests.integration.test_deploy import DEPLOY

REPOSITORY = "library/hello"
_FIRING = 'count(ALERTS{alertstate="firing",alertname="%s",severity="%s"})'
#: The values that Grafana puts in place of its variables.
VARIABLES = {"$__rate_interval": "1m", "$job": ".+", "$instance": ".+"}
_SELECTOR = re.compile(r"\b((?:hubmirror|process|python)_\w+)(\{[^}]*\})?")
_LABELS = re.compile(r"\b(?:by|on|group_left) ?\(([^)]*)\)")


def dashboard() -> Any:
    return json.loads((DEPLOY / "grafana.json").read_text())


def panelQueries() -> Iterator[tuple[str, str, str]]:
    """The title, query and legend of everything on the dashboard."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"]
            for variable, value in VARIABLES.items():
                query = query.replace(variable, value)
            yield panel["title"], query, target["legendFormat"]


class Mirror:
    """
    A mirror of the embedded Hub, with the Hub's own mirror as its fallback.
    """

    def __init__(self, hub: EmbeddedHub, folder: Path) -> None:
        self._hub = hub
        self.port, self.admin = freePort(), freePort()
        pem = folder / "server.pem"
        pem.write_bytes(hub.serverPEM(["127.0.0.1"]))
        options = [
            f"--port=ssl:{self.port}:interface=127.0.0.1:privateKey={pem}",
            f"--admin-port=tcp:{self.admin}:interface=127.0.0.1",
            f"--registry-url={hub.registryURL}",
            f"--auth-url={hub.authURL}",
            f"--search-url={hub.searchURL}",
            f"--fallback={hub.mirrorURL}",
            f"--allow-redirects-to={hub.cdnOrigin}",
            f"--ca-file={hub.caFile}",
            "--deny-repository=docker.io/denied/**",
            "--resumes=1",
        ]
        self._trust = ssl.create_default_context(cafile=hub.caFile)
        self.server = Server(
            "twistd",
            [*TWISTD, *options],
            folder,
            ready=lambda: listens(self.port) and listens(self.admin),
        )

    def ask(self, method: str, target: str, body: bytes | None = None) -> int | None:
        """
        Send a request.

        @return: the status; C{None} when the body is cut.
        """
        token = self._hub.issueToken(REPOSITORY, "pull", "push")
        connection = HTTPSConnection("127.0.0.1", self.port, context=self._trust, timeout=30)
        with contextlib.closing(connection):
            # The token service accepts only passwords.
            own = {} if target.startswith("/token") else {"Authorization": f"Bearer {token}"}
            connection.request(method, target, body, own)
            answer = connection.getresponse()
            try:
                answer.read()
            except (HTTPException, OSError):
                return None
            return answer.status


class Prometheus:
    """
    A Prometheus.

    @param target: HOST:PORT of what it scrapes.
    """

    def __init__(self, folder: Path, target: str) -> None:
        self._port = freePort()
        configuration = {
            "global": {"scrape_interval": "250ms", "evaluation_interval": "250ms"},
            "rule_files": [str(DEPLOY / "alerts.yml")],
            "scrape_configs": [
                {"job_name": "hubmirror", "static_configs": [{"targets": [target]}]}
            ],
        }
        path = folder / "prometheus.yml"
        # JSON is valid YAML.
        path.write_text(json.dumps(configuration))
        self.server = Server(
            "prometheus",
            [
                *("prometheus", f"--config.file={path}", f"--storage.tsdb.path={folder}/data"),
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
            folder,
            ready=lambda: listens(self._port) and self._isReady(),
        )

    def _isReady(self) -> bool:
        """Whether it is ready: it listens before it has read its storage."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", "/-/ready")
            return connection.getresponse().status == 200

    def ask(self, path: str, **parameters: str) -> Any:
        """
        Send a request to its API.

        @raise AssertionError: when the response is an error.
        """
        connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", f"/api/v1/{path}?{urlencode(parameters)}")
            answer = json.load(connection.getresponse())
        assert answer["status"] == "success", (parameters, answer)
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, str]]:
        """The labels of each series in the result of a query."""
        found = self.ask("query", query=expression)["result"]
        return [series["metric"] for series in found]


class ScrapeTests(TestCase):
    """
    The tests with one mirror and Prometheus, which take seconds to start.
    """

    timeout = 240

    async def setUp(self) -> None:
        require("prometheus", "setpriv")
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()
        self.hub = EmbeddedHub(reactor)
        self.hub.addImage(REPOSITORY, "latest", sizes=[1000])
        self.blob = self.hub.addBlob(REPOSITORY, 100_000).digest
        await self.hub.start()
        self.addCleanup(self.hub.stop)
        self.mirror = Mirror(self.hub, self.folder)
        self.addCleanup(self.mirror.server.stop)
        self.mirror.server.start()
        await self.happen()
        self.prometheus = Prometheus(self.folder, f"127.0.0.1:{self.mirror.admin}")
        self.addCleanup(self.prometheus.server.stop)
        self.prometheus.server.start()

    async def ask(self, method: str, target: str, body: bytes | None = None) -> int | None:
        asking: Deferred[int | None] = deferToThreadPool(
            reactor, reactor.getThreadPool(), self.mirror.ask, method, target, body
        )
        return await asking

    async def happen(self) -> None:
        """
        Cause every event that operators monitor, each once.
        """
        manifest = f"/v2/{REPOSITORY}/manifests/latest"
        blob = f"/v2/{REPOSITORY}/blobs/{self.blob}"
        uploads = f"/v2/{REPOSITORY}/blobs/uploads/?digest=sha256:{'0' * 64}"
        scope = f"/token?scope=repository:{REPOSITORY}:pull&service=registry.docker.io"
        self.assertEqual(await self.ask("GET", "/v2/"), 200)
        self.assertEqual(await self.ask("GET", scope), 200)
        # Manifests, whose responses have a quota.
        self.assertEqual(await self.ask("GET", manifest), 200)
        self.assertEqual(await self.ask("GET", blob), 200)
        # A request that is denied, and a push that the registry refuses.
        self.assertEqual(await self.ask("GET", "/v2/denied/one/manifests/1"), 403)
        self.assertEqual(await self.ask("POST", uploads, b"no such digest"), 400)
        # A layer whose body is cut and resumed.
        self.hub.cdn.cut(1000, count=1)
        self.assertEqual(await self.ask("GET", blob), 200)
        # A layer whose body can't be completed: no upstream sends a further byte.
        self.hub.cdn.cut(1000, count=1)
        for each in (self.hub.cdn, self.hub.mirror):
            each.cut(0)
        self.assertIs(await self.ask("GET", blob), None)
        for each in (self.hub.cdn, self.hub.mirror):
            each.restore()
        # An upstream that responds with 429, and another that serves.
        self.hub.registry.fail(429)
        self.assertEqual(await self.ask("GET", manifest), 200)
        # No upstream serves.
        self.hub.mirror.fail(503)
        self.assertEqual(await self.ask("GET", manifest), 429)

    @cached_property
    def metrics(self) -> Mapping[str, set[str]]:
        """The labels of each scraped metric, by its name."""
        found: dict[str, set[str]] = {}
        for series in self.prometheus.ask("series", **{"match[]": '{job="hubmirror"}'}):
            found.setdefault(series.pop("__name__"), set()).update(series)
        return found

    def test_queries(self) -> None:
        self.waitForScrapes()
        for title, query, legend in panelQueries():
            found = self.prometheus.query(query)
            self.assertTrue(found, f"{title}: nothing for {query}")
            self.checkNames(query)
            for label in re.findall(r"\{\{(\w+)\}\}", legend):
                self.assertTrue(all(label in series for series in found), (title, label, found))
        self.checkRules()

    def waitForScrapes(self) -> None:
        """Wait for two scrapes, which a rate requires."""
        eventually(
            lambda: bool(self.prometheus.query("count_over_time(hubmirror_info[1m]) > 3")),
            "scraped",
        )

    def checkRules(self) -> None:
        """
        Check that Prometheus has loaded and evaluated all rules, and that the metrics in them
        exist.
        """
        eventually(lambda: all(rule["health"] != "unknown" for rule in self.rules()), "evaluated")
        rules = self.rules()
        self.assertGreater(len(rules), 10)
        for rule in rules:
            self.assertEqual((rule["health"], rule["name"]), ("ok", rule["name"]), rule)
            self.checkNames(rule["query"])
            self.assertIn(rule["labels"]["severity"], ("critical", "warning"))
            labels = self.labelsOf(rule["query"])
            for text in rule["annotations"].values():
                named = set(re.findall(r"\$labels\.(\w+)", text))
                self.assertEqual(named - labels, set(), rule["name"])
        # The certificates of these tests expire soon.  Counters that do not change raise no alert.
        raised = {rule["name"] for rule in rules if rule["state"] != "inactive"}
        expected = {"HubmirrorCertificateExpires", "HubmirrorCertificateExpiresSoon"}
        self.assertEqual(raised, expected)

    def rules(self) -> list[dict[str, Any]]:
        [group] = self.prometheus.ask("rules")["groups"]
        found: list[dict[str, Any]] = group["rules"]
        return found

    def checkNames(self, query: str) -> None:
        """
        Check that each series in a query was scraped, with the labels that the query selects or
        groups by.
        """
        selectors = _SELECTOR.findall(query)
        self.assertTrue(selectors, query)
        for name, matchers in selectors:
            self.assertTrue(self.prometheus.query(name + matchers), f"there is no {name}{matchers}")
            asked = set(re.findall(r"(\w+) ?[=!]", matchers))
            self.assertEqual(asked - self.metrics[name], set(), name)
        known = set().union(*(self.metrics[name] for name, _ in selectors))
        grouped = {
            label.strip() for group in _LABELS.findall(query) for label in group.split(",")
        } - {""}
        self.assertEqual(grouped - known, set(), query)

    def labelsOf(self, query: str) -> set[str]:
        """The labels of a query's result, as far as its text determines them."""
        groups = [set(re.split(r",\s*", group)) for group in re.findall(r"by ?\(([^)]*)\)", query)]
        if groups:
            return set(itertools.chain(*groups))
        return set().union(*(self.metrics[name] for name, _ in _SELECTOR.findall(query)))


class NamesTests(SynchronousTestCase):
    def test_fixed(self) -> None:
        """All metrics in queries are among those that the documentation promises."""
        promised = {
            f"hubmirror_{name}"
            for name in (
                *("requests_total", "upstream_requests_total", "sent_bytes_total"),
                *("received_bytes_total", "resumes_total", "failovers_total", "broken_total"),
                *("denied_total", "request_seconds_bucket", "head_seconds_bucket", "streams"),
                *("connections", "upstream_up", "quota_remaining", "quota_limit", "info"),
                "certificate_expiry_timestamp_seconds",
            )
        }
        text = (DEPLOY / "alerts.yml").read_text()
        text = re.sub(r"^ +(summary|description): .*$", "", text, flags=re.MULTILINE)
        asked = {*re.findall(r"\bhubmirror_\w+", text)}
        shown = {name for _, query, _ in panelQueries() for name, _ in _SELECTOR.findall(query)}
        own = {name for name in shown if name.startswith("hubmirror_")}
        self.assertEqual(asked - promised, set())
        # The dashboard uses all of them.
        self.assertEqual(own, promised)

    def test_places(self) -> None:
        """No two panels of the dashboard overlap, and no two have the same number."""
        panels = dashboard()["panels"]
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        taken: set[tuple[int, int]] = set()
        for panel in panels:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            self.assertEqual(taken & cells, set(), panel["title"])
            self.assertLessEqual(place["x"] + place["w"], 24)
            taken |= cells


class RulesTests(SynchronousTestCase):
    def setUp(self) -> None:
        require("promtool")
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()

    def test_check(self) -> None:
        run(["promtool", "check", "rules", "--lint-fatal", str(DEPLOY / "alerts.yml")])

    def test_alerts(self) -> None:
        """
        Each alert is raised when it should be, and not otherwise: beside those that are expected,
        the same series raise none.
        """
        names = re.findall(r"^ +- alert: (\w+)$", (DEPLOY / "alerts.yml").read_text(), re.MULTILINE)
        cases = list(_cases())
        self.assertEqual({name for _, _, raised in cases for name in raised}, set(names))
        tests = [
            {
                "interval": "1m",
                "input_series": [
                    {"series": name, "values": values} for name, values in series.items()
                ],
                "promql_expr_test": [
                    {
                        "expr": _FIRING % (alert, severity),
                        "eval_time": when,
                        "exp_samples": (
                            [{"labels": "{}", "value": 1}] if raised.get(alert) == severity else []
                        ),
                    }
                    for alert in names
                    for severity in ("critical", "warning")
                ],
            }
            for series, when, raised in cases
        ]
        path = self.folder / "tests.yml"
        path.write_text(json.dumps({"rule_files": [str(DEPLOY / "alerts.yml")], "tests": tests}))
        run(["promtool", "test", "rules", str(path)])


def _series(metric: str, **labels: str) -> str:
    """The notation of a series of one mirror."""
    of = {"instance": "a:9090", "job": "hubmirror", **labels}
    return f"{metric}{{{','.join(f'{name}={json.dumps(text)}' for name, text in of.items())}}}"


def _cases() -> Iterator[tuple[dict[str, str], str, dict[str, str]]]:
    """
    Series with one value each minute, the time of a look at the alerts, and the severity of each
    alert that is raised then.
    """
    hub, other = ({"registry": "docker.io", "upstream": each} for each in ("hub", "two"))
    info = _series("hubmirror_info")
    yield {info: "1x5 _x60"}, "18m", {"HubmirrorGone": "critical"}
    yield {info: "1x60"}, "30m", {}

    ups = [_series("hubmirror_upstream_up", **each) for each in (hub, other)]
    yield {ups[0]: "0x60", ups[1]: "1x60"}, "30m", {"HubmirrorUpstreamDown": "warning"}
    yield {ups[0]: "0x60", ups[1]: "0x60"}, "10m", {"HubmirrorRegistryUnreachable": "critical"}

    complete, failed = (
        _series("hubmirror_requests_total", registry="docker.io", outcome=each)
        for each in ("complete", "failed")
    )
    fail = {"HubmirrorRequestsFail": "critical"}
    yield {complete: "0+90x60", failed: "0+10x60"}, "30m", fail
    yield {complete: "0+97x60", failed: "0+3x60"}, "30m", {}
    # One failure in two requests, of only a few.
    yield {complete: "0+1x60", failed: "0+1x60"}, "30m", {}

    broken = _series("hubmirror_broken_total", registry="docker.io", reason="stalled")
    yield {broken: "0+1x60"}, "30m", {"HubmirrorAnswersBreak": "warning"}
    yield {broken: "0+0.2x60"}, "30m", {}

    over = _series("hubmirror_failovers_total", **hub, reason="connect")
    yield {over: "0+30x90", complete: "0+100x90"}, "1h", {"HubmirrorFailsOver": "warning"}
    yield {over: "0+10x90", complete: "0+100x90"}, "1h", {}

    limited, served = (
        _series("hubmirror_upstream_requests_total", **hub, status=each) for each in ("429", "200")
    )
    yield {limited: "0+1x60"}, "30m", {"HubmirrorLimitedByUpstream": "warning"}
    yield {limited: "9x60", served: "0+1x60"}, "30m", {}

    remaining, limit = (
        _series(f"hubmirror_quota_{each}", **hub, identity="anonymous")
        for each in ("remaining", "limit")
    )
    yield {remaining: "9x60", limit: "100x60"}, "30m", {"HubmirrorQuotaLow": "warning"}
    yield {remaining: "11x60", limit: "100x60"}, "30m", {}

    for kind, quick, raised in (
        ("manifest", "0+9x60", {"HubmirrorSlow": "warning"}),
        ("manifest", "0+10x60", {}),
        ("search", "0+9x60", {}),
    ):
        bounds = [
            _series("hubmirror_head_seconds_bucket", kind=kind, le=le) for le in ("5", "10", "+Inf")
        ]
        yield dict(zip(bounds, (quick, "0+10x60", "0+10x60"), strict=True)), "30m", raised

    denied = _series("hubmirror_denied_total", rule="client-requests")
    yield {denied: "0+360x90"}, "1h", {"HubmirrorDenies": "warning"}
    yield {denied: "0+240x90"}, "1h", {}

    expiry = _series("hubmirror_certificate_expiry_timestamp_seconds", port="a")
    expires = {"HubmirrorCertificateExpires": "warning"}
    yield {expiry: f"{20 * 86400}x200"}, "2h", {}
    yield {expiry: f"{10 * 86400}x200"}, "2h", expires
    soon = {**expires, "HubmirrorCertificateExpiresSoon": "critical"}
    yield {expiry: f"{2 * 86400}x200"}, "2h", soon

    files = {_series("process_open_fds"): "900x60", _series("process_max_fds"): "1000x60"}
    yield {info: "1x60", **files}, "30m", {"HubmirrorFilesScarce": "warning"}
    yield {info: "1x60", **files, _series("process_open_fds"): "700x60"}, "30m", {}
    # Another program's.
    yield files, "30m", {}

    start = _series("process_start_time_seconds")
    yield {info: "1x60", start: "0+60x60"}, "30m", {"HubmirrorRestarts": "warning"}
    yield {info: "1x60", start: "0x20 600x40"}, "30m", {}
    yield {start: "0+60x60"}, "30m", {}
