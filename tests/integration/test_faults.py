"""
Tests of dockerd and containerd when the CDN cuts every response and the registry refuses now and
then.
"""

from __future__ import annotations

import re
from functools import cache, cached_property
from urllib.parse import urlsplit

from tests.integration.breaking import HERE, Breaking, Line
from tests.integration.clients import Client, Containerd, Dockerd, Surroundings
from tests.integration.hub import CDN, INDEX, REGISTRY, TOKENS
from tests.integration.images import MIB
from tests.integration.programs import eventually, listens
from tests.integration.world import IntegrationTestCase, World

IMAGE = "library/ten:latest"
CUT = 3 * MIB
EACH = 5


class BreakingWorld:
    """
    Two mirrors of the Hub, one of which is the fallback of the other, with a network that breaks
    between them and the Hub; and their clients.
    """

    def __init__(self, world: World) -> None:
        hub = world.hub
        folder = world.folder / "breaking"
        cdn, front, backdoor = (
            urlsplit(url).port or 443 for url in (hub.cdnUrl, hub.registryUrl, hub.backdoorUrl)
        )
        self.breaking = Breaking(
            folder,
            hub.certificate,
            world.authority.bundle,
            [
                Line(CDN, cdn, cutAfter=CUT),
                Line(REGISTRY, front, refuseEach=EACH),
                Line(REGISTRY, backdoor),
            ],
            ready=lambda: all(listens(port, HERE) for port in (cdn, front, backdoor)),
        )
        hosts = world.hostsFile(
            "breaking-hub",
            f"{HERE} {REGISTRY} {CDN}\n127.0.0.1 {TOKENS} {INDEX} broken-fallback.test\n",
        )
        self.fallback = world.makeMirror("broken-fallback.test", hosts, hub.backdoorUrl)
        self.mirror = world.makeMirror(
            "broken.test",
            hosts,
            hub.registryUrl,
            f"--fallback=https://{self.fallback.address}",
        )
        self._folder = folder
        self._surroundings = Surroundings(
            world.hostsFile("breaking-clients", "127.0.0.1 broken.test\n"),
            world.authority.bundle,
            self.mirror.address,
        )
        for server in (self.breaking.server, self.fallback.server, self.mirror.server):
            server.start()

    @cached_property
    def dockerd(self) -> Dockerd:
        dockerd = Dockerd(self._folder / "dockerd", self._surroundings)
        dockerd.server.start()
        return dockerd

    @cached_property
    def containerd(self) -> Containerd:
        containerd = Containerd(self._folder / "containerd", self._surroundings)
        containerd.server.start()
        return containerd


@cache
def _breaking(world: World) -> BreakingWorld:
    return BreakingWorld(world)


class ResumingTests(IntegrationTestCase):
    """
    Pulls of the image with ten layers of 8 MiB.
    """

    def setUp(self) -> None:
        super().setUp()
        self.broken = _breaking(self.world)

    def assertPulls(self, client: Client) -> None:
        broken, image = self.broken, self.hub.images[IMAGE]
        mark = broken.breaking.log.mark()
        before = len(broken.mirror.server.output())
        self.assertIn(image.digest, client.pull(IMAGE))

        # The upstream: its responses were cut, and every fifth request for the rest was refused.
        layers = [digest for digest, size in image.blobs.items() if size > CUT]
        self.assertEqual(len(layers), 10)
        events = broken.breaking.log.since(mark)
        cuts = [event for event in events if event["what"] == "cut"]
        self.assertGreaterEqual(len(cuts), 2 * len(layers))
        self.assertTrue([event for event in events if event["what"] == "refused"])
        fetched = self.seen(self.hub.cdn.log)
        for digest in layers:
            ranges = [
                request["range"]
                for request in fetched
                if f"/{digest.partition(':')[2]}/data?" in request["uri"]
            ]
            # The requests of a layer: from the beginning, and twice from where it was cut.
            self.assertEqual(len(ranges), 3, ranges)
            starts = [int(re.match(r"bytes=(\d+)-", each)[1]) for each in ranges if each]
            self.assertEqual(starts, sorted(set(starts)))
            self.assertGreater(starts[-1], 5 * MIB)

        # The client has requested everything once, and received it.
        def asked() -> list[str]:
            output = broken.mirror.server.output()[before:]
            return re.findall(
                r" (GET|HEAD) (/v2/library/ten/\S+) (\d+) .*?(complete|$)", output, re.M
            )

        eventually(lambda: len(asked()) >= len(image.blobs) + 1, "the mirror's log")
        lines = asked()
        blobs = sorted(
            target.rpartition("/")[2].partition("?")[0]
            for _, target, _, _ in lines
            if "/blobs/" in target
        )
        self.assertEqual(blobs, sorted(image.blobs))
        for method, target, status, outcome in lines:
            if status != "401":
                self.assertEqual((status, outcome), ("200", "complete"), (method, target))

    def test_dockerd(self) -> None:
        self.assertPulls(self.broken.dockerd)

    def test_containerd(self) -> None:
        self.assertPulls(self.broken.containerd)
