"""
Tests of the admin port and the PROXY protocol with real processes.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.test_workers import NO_REGISTRY, CommandCase


class AdminCase(CommandCase):
    def begin(self, *options: str, registry: str = NO_REGISTRY) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.admin = free.getsockname()[1]
        self.start(
            "--port=tcp:0:interface=127.0.0.1",
            f"--admin-port=tcp:{self.admin}:interface=127.0.0.1",
            f"--registry-url={registry}",
            *options,
        )
        self.port = int(self.said(r"listening on http://127\.0\.0\.1:(\d+)")[1])

    def get(
        self, path: str, port: int | None = None, fields: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", port or self.admin, timeout=30)
        connection.request("GET", path, headers=fields or {})
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found

    def status(self) -> Any:
        return json.loads(self.get("/status")[1])

    def sum(self, name: str) -> float:
        """
        The sum of all samples of a metric.
        """
        text = self.get("/metrics")[1].decode()
        families = text_string_to_metric_families(text)
        return sum(
            sample.value for family in families for sample in family.samples if sample.name == name
        )


class OneProcessTests(AdminCase):
    def test_all(self) -> None:
        """
        The status and metrics of a mirror whose registry can't be reached.
        """
        self.begin()
        self.assertEqual(self.get("/healthz"), (200, b"ok\n"))
        status, reason = self.get("/readyz")
        self.assertEqual((status, reason[:31]), (503, b"no upstream of docker.io was re"))
        self.assertEqual(self.get("/v1/_ping", self.port)[0], 200)
        self.assertEqual(self.sum("hubmirror_requests_total"), 1)
        self.assertGreater(self.sum("process_cpu_seconds_total"), 0)
        self.assertEqual(self.status()["workers"][0]["pid"], self.process.pid)

    def test_draining(self) -> None:
        """
        While the mirror drains, the admin port stays open and reports that the mirror is not ready.
        """
        with socket.create_server(("127.0.0.1", 0)) as registry:
            self.begin(registry=f"http://127.0.0.1:{registry.getsockname()[1]}")
            client = HTTPConnection("127.0.0.1", self.port, timeout=30)
            client.request("GET", "/v2/library/a/manifests/1")
            upstreams = []
            while True:
                upstream, _ = registry.accept()
                upstreams.append(upstream)
                head = upstream.recv(65536)
                if head.startswith(b"GET /v2/library/a/"):
                    break
                upstream.sendall(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
            os.kill(self.process.pid, signal.SIGTERM)
            self.said(r"Port \d+ Closed|stop")
            status, reason = self.get("/readyz")
            self.assertEqual((status, reason), (503, b"the mirror is shutting down\n"))
            upstream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            self.assertEqual(client.getresponse().read(), b"{}")
            client.close()
            for each in upstreams:
                each.close()
        self.process.communicate(timeout=30)
        self.assertEqual(self.process.returncode, 0)

    def test_taken(self) -> None:
        """
        A port that can't be bound ends the process with one line.
        """
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.start(
                "--port=tcp:0:interface=127.0.0.1",
                f"--admin-port=tcp:{port}:interface=127.0.0.1",
                f"--registry-url={NO_REGISTRY}",
            )
            output, _ = self.process.communicate(timeout=30)
        self.assertEqual(self.process.returncode, 1)
        # The others are those of twistd, which tell its version and reactor.
        [line] = [each for each in output.splitlines() if "UnixAppLogger#info]" not in each]
        self.assertIn(f"hubmirror: Couldn't listen on 127.0.0.1:{port}: ", line)


class LimitedRegistry(BaseHTTPRequestHandler):
    """
    A registry that reports how many pulls are left.
    """

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("RateLimit-Limit", "10;w=21600")
        self.send_header("RateLimit-Remaining", "7;w=21600")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[str]:
    """
    Run such a registry in a thread.

    @return: its URL.
    """
    with ThreadingHTTPServer(("127.0.0.1", 0), LimitedRegistry) as registry:
        thread = threading.Thread(target=registry.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{registry.server_port}"
        finally:
            registry.shutdown()
            thread.join()


class WorkersTests(AdminCase):
    def test_sums(self) -> None:
        """
        The counts of all workers are summed, including those of workers that have died.
        """
        with serving() as registry:
            self.begin("--workers=2", registry=registry)
            self.ready(2)
            for _ in range(20):
                self.assertEqual(self.get("/v2/", self.port)[0], 200)
            self.assertEqual(self.get("/readyz"), (200, b"ready\n"))
        self.assertEqual(self.sum("hubmirror_requests_total"), 20)
        workers = [each["pid"] for each in self.status()["workers"]]
        self.assertEqual(len(set(workers)), 2)
        self.assertNotIn(self.process.pid, workers)
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        for _ in "12":
            self.said("worker . ended")
        self.assertEqual(self.sum("hubmirror_requests_total"), 20)
        status, reason = self.get("/readyz")
        self.assertEqual(status, 503)
        # The second reason is that of a worker that has replaced one of them by now.
        self.assertRegex(
            reason, b"^no worker has reported yet|^no upstream of docker.io was reached"
        )
        self.ready(2)
        self.get("/v1/_ping", self.port)
        self.assertEqual(self.sum("hubmirror_requests_total"), 21)
        self.assertEqual(len(self.status()["workers"]), 2)

    def test_quotas(self) -> None:
        """
        Workers give the same client the same identity.
        """
        with serving() as registry:
            self.begin("--workers=2", registry=registry)
            self.ready(2)
            for _ in range(20):
                self.get("/v2/library/a/manifests/1", self.port, {"Authorization": "Bearer x"})
            [upstream] = self.status()["registries"]["docker.io"]["upstreams"]
        [quota] = upstream["quotas"]
        self.assertEqual(quota["remaining"], 7)

    def test_rates(self) -> None:
        """
        A client's rate applies to all workers together.
        """
        self.begin("--workers=2", "--client-requests=10/1h")
        self.ready(2)
        statuses = [self.get("/v1/_ping", self.port)[0] for _ in range(30)]
        self.assertEqual(statuses, [200] * 10 + [429] * 20)
        self.assertEqual(self.sum("hubmirror_denied_total"), 20)


class ProxyProtocolTests(CommandCase):
    """
    The mirror behind a load balancer that uses the PROXY protocol.
    """

    V1 = b"PROXY TCP4 192.0.2.9 192.0.2.1 50000 443\r\n"
    V2 = (
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"
        + socket.inet_aton("192.0.2.9")
        + socket.inet_aton("192.0.2.1")
        + b"\xc3\x50\x01\xbb"
    )

    def begin(self, port: str, *options: str) -> None:
        self.log = Path(self.folder, "access.log")
        self.start(f"--port=haproxy:{port}", f"--access-log-file={self.log}", *options)
        self.port = int(self.said(r"listening on \w+://127\.0\.0\.1:(\d+)")[1])

    def ask(self, header: bytes, tls: bool) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(header)
            line: socket.socket = connection
            if tls:
                line = self.trust.wrap_socket(connection, server_hostname="127.0.0.1")
            line.sendall(b"GET /v1/_ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            answer = b""
            while data := line.recv(65536):
                answer += data
            return answer

    def assertServes(self, tls: bool) -> None:  # type: ignore[override]
        for header in (self.V1, self.V2):
            self.assertTrue(self.ask(header, tls).endswith(b"\r\n\r\ntrue"))

    def assertLogged(self) -> None:
        self.process.terminate()
        self.assertEqual(self.process.wait(timeout=30), 0)
        lines = self.log.read_text().splitlines()
        self.assertEqual(len(lines), 2)
        for line in lines:
            self.assertIn(" 192.0.2.9 GET /v1/_ping 200 ", line)
        self.log.unlink()

    def test_plain(self) -> None:
        self.begin("tcp:0:interface=127.0.0.1")
        self.assertServes(tls=False)
        # Without the balancer's header, the connection is closed.
        self.assertEqual(self.ask(b"", tls=False), b"")
        self.assertLogged()

    def test_tls(self) -> None:
        """
        The header comes before the client's TLS handshake.
        """
        self.begin("ssl:0:interface=127.0.0.1")
        self.assertServes(tls=True)
        with self.assertRaises((ssl.SSLError, OSError)):
            self.ask(b"", tls=True)
        self.assertLogged()

    def test_workers(self) -> None:
        """
        Workers share such a port as any other, and the supervisor accepts nothing on it.
        """
        for port, tls in (("tcp", False), ("ssl", True)):
            self.begin(f"{port}:0:interface=127.0.0.1", "--workers=2")
            self.assertServes(tls)
            self.assertLogged()
