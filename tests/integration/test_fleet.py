"""
Tests of three mirrors behind C{deploy/nginx-stream.conf}, one of which is stopped while clients
pull.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.integration.clients import Skopeo, Surroundings
from tests.integration.mirror import Mirror
from tests.integration.programs import Server, eventually, freePort, listens, require, run
from tests.integration.test_deploy import CLIENT, adapt, askFrom
from tests.integration.world import IntegrationTestCase

#: The nginx module that the balancer uses.
STREAM = "/usr/lib/nginx/modules/ngx_stream_module.so"
NAME = "fleet.test"
IMAGE = "library/ten:latest"
CLIENTS = 6
#: Bytes each second that a mirror sends to all clients, which have one address here.  This is so
#: slow that pulls take as long as a test needs.
SPEED = "16M"


class Member:
    """
    One mirror of the fleet.

    @ivar port: the port for the balancer.
    """

    def __init__(self, world: Any, number: int, certificate: Path, folder: Path) -> None:
        self.port, self.admin = freePort(), freePort()
        pair = f"privateKey={certificate}:certKey={certificate}"
        self.log = folder / f"access-{number}.log"
        self.mirror: Mirror = world.makeMirror(
            f"{folder.name}-{number}.test",
            world.hubHosts,
            world.hub.registryUrl,
            f"--port=haproxy:ssl:{self.port}:interface=127.0.0.1:{pair}",
            f"--admin-port=tcp:{self.admin}:interface=127.0.0.1",
            f"--access-log-file={self.log}",
            f"--client-bandwidth={SPEED}",
            "--drain-timeout=120",
        )

    def streams(self) -> int:
        """The number of clients' requests in progress."""
        connection = HTTPConnection("127.0.0.1", self.admin, timeout=30)
        try:
            connection.request("GET", "/status")
            found: int = json.load(connection.getresponse())["streams"]["client"]
        finally:
            connection.close()
        return found

    def requests(self) -> int:
        """The number of requests that have ended."""
        return len(self.log.read_text().splitlines())

    def layers(self) -> int:
        """The number of layers that were sent completely."""
        return sum("/blobs/" in line for line in self.log.read_text().splitlines())


class FleetTests(IntegrationTestCase):
    def setUp(self) -> None:
        require("skopeo", STREAM)
        super().setUp()
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()
        certificate = self.world.authority.server(NAME, "127.0.0.1")
        self.members = [Member(self.world, n, certificate, self.folder) for n in (1, 2, 3)]
        for member in self.members:
            self.addCleanup(member.mirror.server.stop)
            member.mirror.server.start()
        self.port = freePort()
        self.startBalancer()
        hosts = self.world.hostsFile(NAME, f"127.0.0.1 {NAME}\n")
        self.surroundings = Surroundings(hosts, self.world.authority.bundle, f"{NAME}:{self.port}")

    def startBalancer(self) -> None:
        addresses = ("192.0.2.11:443", "192.0.2.12:443", "192.0.2.13:443")
        changes = [
            (before, f"127.0.0.1:{member.port}")
            for before, member in zip(addresses, self.members, strict=True)
        ]
        changes += [
            ("listen 443 ", f"listen 127.0.0.1:{self.port} "),
            ("        listen [::]:443 backlog=1024 so_keepalive=on;\n", ""),
        ]
        stream = adapt("nginx-stream.conf", self.folder, changes)
        frame = self.folder / "frame.conf"
        frame.write_text(
            "daemon off; user root; worker_processes 1;\n"
            f"load_module {STREAM};\n"
            f"pid {self.folder}/nginx.pid; error_log {self.folder}/error.log;\n"
            f"events {{ }}\ninclude {stream};\n"
        )
        command = [
            "nginx",
            "-p",
            str(self.folder),
            "-e",
            f"{self.folder}/error.log",
            "-c",
            str(frame),
        ]
        run([*command, "-t"])
        balancer = Server("nginx", command, self.folder, ready=lambda: listens(self.port))
        self.addCleanup(balancer.stop)
        balancer.start()

    def pullBy(self, number: int) -> str:
        """
        Pull with a new client.

        @return: the digest.
        """
        folder = self.folder / f"skopeo-{number}"
        return Skopeo(folder, self.surroundings).pull(IMAGE)

    def test_drained(self) -> None:
        """
        Pulls are in progress at all three mirrors when one is stopped.  It ends after its last
        response; every pull is complete, and so are those that begin later.
        """
        answer = askFrom(CLIENT, self.port, self.world.authority.bundle, "/v2/")
        self.assertEqual(answer.status, 401)
        digest = self.hub.images[IMAGE].digest
        drained = self.members[0]
        with ThreadPoolExecutor(CLIENTS + 2) as threads:
            pulls: list[Future[str]] = [
                threads.submit(self.pullBy, number) for number in range(CLIENTS)
            ]
            eventually(
                lambda: all(member.layers() for member in self.members),
                "each mirror has served a layer",
                timeout=60,
            )
            before = 0

            def isBusy() -> bool:
                nonlocal before
                # Counted first, so that what is in progress then is not among them.
                before = drained.requests()
                return drained.streams() > 0

            eventually(isBusy, "a request is in progress", timeout=60)
            os.kill(drained.mirror.server.pid, signal.SIGTERM)
            eventually(lambda: not listens(drained.port), "it accepts nobody")
            pulls += [threads.submit(self.pullBy, CLIENTS + number) for number in range(2)]
            self.assertEqual([each.result() for each in pulls], [digest] * (CLIENTS + 2))
        self.assertEqual(drained.mirror.server.wait(), 0)
        self.assertGreater(drained.requests(), before)
        self.assertWhole()

    def assertWhole(self) -> None:
        """
        Check that no response was incomplete, and that each mirror knows the clients' addresses
        from the balancer.
        """
        addresses = Counter[str]()
        for member in self.members:
            lines = member.log.read_text().splitlines()
            self.assertTrue(lines)
            addresses.update(line.split()[1] for line in lines)
            self.assertEqual([line for line in lines if "complete" not in line], [])
        self.assertEqual(set(addresses), {CLIENT, "127.0.0.1"})
        self.assertEqual(addresses[CLIENT], 1)
