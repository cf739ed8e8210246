"""Tests of the demo."""

import os
import re
import signal
import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

import hubmirror
from hubmirror.operations import demo, twistd
from hubmirror.operations.demo import DemoFailed, perform
from hubmirror.operations.pulling import PullFailed
from hubmirror.operations.twistd import NotRunning, Twistd

ROOT = Path(hubmirror.__file__).parent.parent


class Demo(ProcessProtocol):
    """
    The process of C{python -m hubmirror demo}.

    @ivar signalAt: the output at which it is interrupted.
    """

    def __init__(self, folder: str, signalAt: str | None = None) -> None:
        self.output = ""
        self.ended: Deferred[int | None] = Deferred()
        self.signalAt = signalAt
        reactor.spawnProcess(
            self,
            sys.executable,
            [sys.executable, "-m", "hubmirror", "demo"],
            env={**os.environ, "TMPDIR": folder, "PYTHONUNBUFFERED": "1"},
            path=str(ROOT),
        )

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.output += data.decode()
        if self.signalAt is not None and self.signalAt in self.output:
            self.signalAt = None
            self.transport.signalProcess("INT")

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(reason.value.exitCode)


class CommandTests(TestCase):
    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.folder = os.path.abspath(self.folder)

    def assertNothingLeft(self, output: str) -> None:
        """Check that its two mirrors have ended, and its files are removed."""
        processes = re.findall(r"process (\d+)", output)
        self.assertEqual(len(processes), 2, output)
        for process in processes:
            self.assertRaises(ProcessLookupError, os.kill, int(process), 0)
        self.assertEqual(os.listdir(self.folder), [])

    async def test_shows(self) -> None:
        """The demo shows all pulls, ends with status 0, and leaves nothing behind."""
        command = Demo(self.folder)
        self.assertEqual(await command.ended, 0, command.output)
        for words in (
            "1. A pull through the mirror",
            "4 blobs, 36.1 MiB",
            "4 requests over 1 connection, 0 of them with a credential",
            "served     by the Hub",
            "2. The same, while the Hub responds with 429",
            "responded 5 times with 429",
            "CDN        0 requests",
            "served     by the fallback, 6 requests",
            "3. The same, while the CDN closes every connection after 12 MiB",
            "6 requests over 6 connections, 0 of them with a credential",
            "cut        2 times, each after 12 MiB",
            "requests for bytes=12582912- and bytes=25165824-",
            "bytes lost: 0",
            "All as it should be",
        ):
            self.assertIn(words, command.output)
        self.assertNothingLeft(command.output)

    async def test_interrupted(self) -> None:
        """When it is interrupted, it leaves nothing behind either."""
        command = Demo(self.folder, signalAt="1. A pull")
        self.assertEqual(await command.ended, 1, command.output)
        self.assertIn("The demo failed: interrupted", command.output)
        self.assertNothingLeft(command.output)


class FailureTests(TestCase):
    """Failures of the demo, which runs in this process so that they can be caused."""

    async def failure(self, kind: type[Exception]) -> str:
        """The reason why the demo fails."""
        performing = Deferred.fromCoroutine(perform(reactor, lambda line: None))
        return str(await self.assertFailure(performing, kind))

    async def test_noMirror(self) -> None:
        """If a mirror does not start, the error has its last output."""
        self.patch(twistd, "_COMMAND", (sys.executable, "-c", "raise SystemExit('no, thanks')"))
        reason = await self.failure(NotRunning)
        self.assertEqual(reason, "twistd ended, and said last: no, thanks")

    async def test_wrongBytes(self) -> None:
        """A pull that gets wrong bytes makes the demo fail."""

        async def act(stage: demo.Stage) -> None:
            stage.hub.cdn.corrupt(0)
            await stage.pull()

        self.patch(demo, "ACTS", (("Corrupt", act),))
        self.assertIn("not match sha256:", await self.failure(PullFailed))

    async def test_credentialAtTheCDN(self) -> None:
        """A credential that is sent to the CDN makes the demo fail."""

        async def act(stage: demo.Stage) -> None:
            def leak(seen: object) -> bool:
                seen.headers.setRawHeaders("Authorization", ["Bearer x"])
                return False

            stage.hub.cdn.fail(500, when=leak)
            await stage.pull()

        self.patch(demo, "ACTS", (("Leak", act),))
        self.assertEqual(await self.failure(DemoFailed), "a credential went to the CDN")

    async def test_noFallback(self) -> None:
        """An act that does not behave as expected makes the demo fail."""

        async def act(stage: demo.Stage) -> None:
            self.patch(stage.hub.registry, "fail", lambda *args, **options: None)
            await demo.throughTheFallback(stage)

        self.patch(demo, "ACTS", (("No fault", act),))
        self.assertEqual(await self.failure(DemoFailed), "it was not the fallback that served")

    async def test_noCut(self) -> None:
        async def act(stage: demo.Stage) -> None:
            self.patch(stage.hub.cdn, "cut", lambda after: None)
            await demo.throughCuts(stage)

        self.patch(demo, "ACTS", (("No cut", act),))
        self.assertIn("not resumed twice", await self.failure(DemoFailed))


class TwistdTests(TestCase):
    async def test_stubborn(self) -> None:
        """A process that ignores SIGTERM is killed in the end."""
        self.patch(twistd, "PATIENCE", 0.1)
        code = (
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
            "print('listening on http://x', flush=True); time.sleep(60)"
        )
        self.patch(twistd, "_COMMAND", (sys.executable, "-c", code))
        process = Twistd(reactor, ".", [])
        self.assertEqual(await process.listening, "http://x")
        await process.stop()
        self.assertRaises(ProcessLookupError, os.kill, process.pid, signal.SIGKILL)
