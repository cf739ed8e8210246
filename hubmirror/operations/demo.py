"""
C{python -m hubmirror demo}: shows a mirror in front of an embedded Hub, without the network.

The Hub and another registry are those of L{hubmirror.testing}, and run in this process.  Two
mirrors run under C{twistd}, in processes of their own: one in front of the Hub, and one that is its
fallback, in front of another origin of the same Hub.  A client in this process pulls through the
first mirror.  The demo prints what the client received and which requests the registries received.
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.internet.task import react

from hubmirror.operations.pulling import Pulled, PullFailed, RegistryClient, pull
from hubmirror.operations.twistd import NotRunning, Twistd
from hubmirror.testing import EmbeddedHub, EmbeddedRegistry, Seen

LIMIT = 50.0
"""
Seconds that the demo may take.
"""

_REPOSITORY, _TAG = "library/hello", "latest"
_PLATFORM = ("linux", "arm64")
_OTHER, _OTHER_REPOSITORY = "quay.test", "team/app"
_OTHER_PLATFORM = ("linux", "amd64")
_CUT = 12 * 1024 * 1024
_LAYERS = (64 * 1024, 4 * 1024 * 1024, 32 * 1024 * 1024)


class DemoFailed(Exception):
    """
    The mirror did not behave as the demo expects.
    """


@attrs.frozen
class Stage:
    """
    The registries, mirror and client that the acts of the demo use.

    @ivar other: the other registry.
    @ivar url: the URL of the mirror that the client pulls through.
    @ivar say: prints a line for the user.
    """

    reactor: Any
    hub: EmbeddedHub
    other: EmbeddedRegistry
    client: RegistryClient
    url: str
    say: Callable[[str], None]

    async def pull(self) -> Sight:
        """
        Pull the image through the mirror, and record the requests that the Hub received.

        @raise PullFailed: when the image can't be pulled.
        @raise DemoFailed: when the CDN was sent a credential.
        """
        before, requests = len(self.hub.seen), self.client.requests
        started = self.reactor.seconds()
        pulled = await pull(self.client, self.url, _REPOSITORY, _TAG, _PLATFORM)
        seconds = self.reactor.seconds() - started
        sight = Sight(
            pulled, self.client.requests - requests, seconds, tuple(self.hub.seen[before:])
        )
        if sight.withCredentials("cdn"):
            raise DemoFailed("a credential went to the CDN")
        return sight


@attrs.frozen
class Sight:
    """
    The record of one pull, from both ends.

    @ivar pulled: what the client received.
    @ivar requests: the number of requests that the client sent.
    @ivar seconds: the duration of the pull in seconds.
    @ivar seen: the requests that the registry received.
    """

    pulled: Pulled
    requests: int
    seconds: float
    seen: tuple[Seen, ...]

    def asked(self, service: str) -> list[Seen]:
        """
        The requests to one service of the registry.
        """
        return [seen for seen in self.seen if seen.service == service]

    def withCredentials(self, service: str) -> int:
        """
        How many requests to a service had a credential.
        """
        return sum(
            seen.headers.hasHeader("Authorization") or seen.headers.hasHeader("Cookie")
            for seen in self.asked(service)
        )

    def traffic(self, service: str) -> str:
        """
        The requests to a service, in words.
        """
        asked = self.asked(service)
        connections = len({seen.connection for seen in asked})
        return (
            f"{_count(len(asked), 'request')} over {_count(connections, 'connection')},"
            f" {self.withCredentials(service)} of them with a credential"
        )


async def throughTheMirror(stage: Stage) -> None:
    """
    A pull without any faults.
    """
    sight = await stage.pull()
    _tellPull(stage, sight)
    stage.say(f"  registry   {sight.traffic('registry')}")
    stage.say(f"  CDN        {sight.traffic('cdn')}")
    if not sight.asked("cdn") or sight.asked("mirror"):
        raise DemoFailed("the blobs came another way than from the CDN")
    stage.say("  served     by the Hub; the mirror followed its redirects to the CDN")


async def throughTheFallback(stage: Stage) -> None:
    """
    The same pull, while the Hub refuses all requests with the client's token.
    """
    registry = stage.hub.registry
    registry.fail(429, when=lambda seen: seen.headers.hasHeader("Authorization"))
    try:
        sight = await stage.pull()
    finally:
        registry.restore()
    _tellPull(stage, sight)
    refused = sight.withCredentials("registry")
    served = len(sight.asked("mirror"))
    stage.say(f"  registry   responded {_count(refused, 'time')} with 429")
    stage.say(f"  CDN        {_count(len(sight.asked('cdn')), 'request')}")
    if not refused or served < sight.pulled.blobs:
        raise DemoFailed("it was not the fallback that served")
    stage.say(
        f"  served     by the fallback, {_count(served, 'request')}; the client noticed nothing"
    )


async def throughCuts(stage: Stage) -> None:
    """
    The same pull, while the CDN closes every connection after L{_CUT} bytes of a response.  The
    largest layer then takes three connections.
    """
    cdn = stage.hub.cdn
    cdn.cut(_CUT)
    try:
        sight = await stage.pull()
    finally:
        cdn.restore()
    _tellPull(stage, sight)
    rests = [rest for seen in sight.asked("cdn") if (rest := seen.field("Range")) is not None]
    if len(rests) != 2:
        raise DemoFailed("the largest layer was not resumed twice")
    stage.say(f"  CDN        {sight.traffic('cdn')}")
    stage.say(
        f"  cut        {_count(len(rests), 'time')}, each after {_CUT / 2**20:g} MiB of a layer"
    )
    stage.say(f"  resumed    with requests for {' and '.join(rests)}, the rest of it")
    stage.say("  received   in one piece, bytes lost: 0; the client noticed nothing")


async def fromAnotherRegistry(stage: Stage) -> None:
    """
    A pull from another registry through the same mirror, with a token of that registry.
    """
    before, requests, asked = len(stage.hub.seen), stage.client.requests, len(stage.other.seen)
    started = stage.reactor.seconds()
    url = f"{stage.url}/{stage.other.name}"
    pulled = await pull(stage.client, url, _OTHER_REPOSITORY, _TAG, _OTHER_PLATFORM)
    seconds = stage.reactor.seconds() - started
    sight = Sight(
        pulled, stage.client.requests - requests, seconds, tuple(stage.other.seen[asked:])
    )
    _tellPull(stage, sight)
    stage.say(f"  requested  {url}/v2/{_OTHER_REPOSITORY}/manifests/{_TAG}")
    stage.say(f"  registry   {stage.other.name}: {sight.traffic('registry')}")
    if len(stage.hub.seen) > before or stage.hub.misdirected():
        raise DemoFailed("one registry was asked for what is another's")
    stage.say("  Hub        0 requests; no registry saw a token of the other")


ACTS: tuple[tuple[str, Callable[[Stage], Awaitable[None]]], ...] = (
    ("A pull through the mirror", throughTheMirror),
    ("The same, while the Hub responds with 429 (too many requests)", throughTheFallback),
    (f"The same, while the CDN closes every connection after {_CUT / 2**20:g} MiB", throughCuts),
    ("Another registry, through the same mirror", fromAnotherRegistry),
)
"""
The parts of the demo in their order, each with a title.
"""


def _tellPull(stage: Stage, sight: Sight) -> None:
    pulled = sight.pulled
    stage.say(
        f"  pulled     {_count(pulled.blobs, 'blob')}, {pulled.size / 2**20:.1f} MiB, in"
        f" {sight.seconds:.2f} s; every digest is right"
    )
    stage.say(f"  client     {_count(sight.requests, 'request')}, all of them to the mirror")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


async def perform(reactor: Any, say: Callable[[str], None]) -> None:
    """
    Start the registries and mirrors, perform the acts, and stop everything again.

    @param say: prints a line for the user.
    @raise DemoFailed: when the mirror did not behave as expected.
    @raise PullFailed: when an image can't be pulled.
    @raise NotRunning: when a mirror's process ended.
    """
    hub = EmbeddedHub(reactor)
    images = {
        f"linux/{architecture}": hub.addImage(
            _REPOSITORY, architecture, sizes=_LAYERS, platform=f"linux/{architecture}"
        )
        for architecture in ("amd64", "arm64")
    }
    hub.addIndex(_REPOSITORY, _TAG, images)
    other = hub.addRegistry(_OTHER)
    app = other.addImage(_OTHER_REPOSITORY, "amd64", sizes=_LAYERS[:2], platform="linux/amd64")
    other.addIndex(_OTHER_REPOSITORY, _TAG, {"linux/amd64": app})
    trust = trustRootFromCertificates([Certificate.loadPEM(hub.caPEM)])
    client = RegistryClient(reactor, trust)
    mirrors: list[Twistd] = []
    with tempfile.TemporaryDirectory(prefix="hubmirror-demo-") as folder:
        Path(folder, "server.pem").write_bytes(hub.serverPEM(["127.0.0.1"]))
        try:
            await hub.start()
            say(f"An embedded Docker Hub, with {_REPOSITORY}:{_TAG} for {' and '.join(images)}")
            say(f"  registry   {hub.registryURL}")
            say(f"  CDN        {hub.cdnOrigin}")
            say(f"Another registry, {_OTHER}, with {_OTHER_REPOSITORY}:{_TAG}")
            say(f"  registry   {other.registryURL}")

            async def start(name: str, *options: str) -> str:
                common = ("--port", "ssl:0:interface=127.0.0.1", "--ca-file", hub.caFile)
                mirror = Twistd(reactor, folder, [*common, *options])
                mirrors.append(mirror)
                url = await mirror.listening
                say(f"  {name}   {url}, process {mirror.pid}")
                return url

            Path(folder, "mirror.toml").write_text(
                f'[registry."{_OTHER}"]\n'
                f'url = "{other.registryURL}"\n'
                f'auth_url = "{other.authURL}"\n'
            )
            say("Two processes of twistd hubmirror: a mirror, and its fallback if the Hub fails")
            fallback = await start(
                "fallback",
                *("--registry-url", hub.mirrorURL),
                *("--auth-url", f"{hub.mirrorURL}/token"),
                *("--search-url", hub.mirrorURL),
            )
            url = await start(
                "mirror  ",
                *("--registry-url", hub.registryURL),
                *("--auth-url", hub.authURL),
                *("--search-url", hub.searchURL),
                *("--allow-redirects-to", hub.cdnOrigin),
                *("--allow-redirects-to", other.cdnOrigin),
                *("--fallback", fallback),
                *("--config", str(Path(folder, "mirror.toml"))),
            )
            stage = Stage(reactor, hub, other, client, url, say)
            for number, (title, act) in enumerate(ACTS, 1):
                say(f"\n{number}. {title}")
                await act(stage)
        finally:
            await client.close()
            for mirror in mirrors:
                await mirror.stop()
            await hub.stop()


def run(arguments: Namespace) -> NoReturn:
    """
    Run the command.

    @raise SystemExit: always; the status is 0 when all acts succeeded, and 1 otherwise.
    """
    react(_main)


async def _main(reactor: Any) -> None:
    started = reactor.seconds()
    interrupted = False
    performing = Deferred.fromCoroutine(perform(reactor, print))
    performing.addTimeout(LIMIT, reactor, _late)

    def interrupt() -> Deferred[None]:
        nonlocal interrupted
        interrupted = True
        performing.cancel()
        # The reactor waits for this, so that the registries and processes are stopped.
        return performing

    reactor.addSystemEventTrigger("before", "shutdown", interrupt)
    try:
        await performing
    except Exception as error:
        print(f"\nThe demo failed: {'interrupted' if interrupted else _reason(error)}")
        raise SystemExit(1) from None
    print(f"\nAll as it should be, in {reactor.seconds() - started:.1f} s.")


def _late(_: object, limit: float) -> None:
    raise DemoFailed(f"it took more than {limit:g} s")


def _reason(error: Exception) -> str:
    if isinstance(error, (DemoFailed, PullFailed, NotRunning)):
        return str(error)
    return f"{type(error).__name__}: {error}"
