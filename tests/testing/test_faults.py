"""
Tests of each fault, with a client over TLS.
"""

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import (
    ResponseDone,
    ResponseFailed,
    ResponseNeverReceived,
    readBody,
)
from twisted.web.iweb import IResponse

from hubmirror.testing import Answer, HubRequest, Seen, errorAnswer
from hubmirror.testing.answers import Serve
from tests.testing.support import LoopbackCase

SIZE = 300_000


class Body(Protocol):
    """
    Receives a body, and fires when enough of it has arrived and when it has ended.
    """

    def __init__(self, enough: int) -> None:
        self.data = b""
        self.reason: Failure | None = None
        self.came: Deferred[None] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self._enough = enough

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        if len(self.data) >= self._enough and not self.came.called:
            self.came.callback(None)

    def connectionLost(self, reason: Failure) -> None:
        self.reason = reason
        self.ended.callback(None)


class FaultCase(LoopbackCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.blob = self.hub.addBlob("library/hello", SIZE)
        self.content = b"".join(self.blob.pieces(0, SIZE))
        self.url = await self.link("library/hello", self.blob.digest)

    async def get(self, **fields: str) -> IResponse:
        return await self.ask("GET", self.url, **fields)

    async def deliver(self, response: IResponse) -> Body:
        """
        Receive a body until its end, whatever the reason.
        """
        body = Body(SIZE)
        response.deliverBody(body)
        await body.ended
        return body

    async def assertWell(self) -> None:
        body = await self.deliver(await self.get())
        self.assertEqual(body.data, self.content)
        body.reason.trap(ResponseDone)


class WholeAnswerTests(FaultCase):
    async def test_fail(self) -> None:
        self.hub.registry.fail()
        response = await self.ask("GET", f"{self.hub.registryURL}/v2/")
        self.assertEqual(response.code, 429)
        [error] = (await response.json())["errors"]
        self.assertEqual(error["code"], "TOOMANYREQUESTS")

    async def test_failByStatus(self) -> None:
        self.hub.cdn.fail(503)
        response = await self.get()
        self.assertEqual(response.code, 503)
        [error] = (await response.json())["errors"]
        self.assertEqual(error["code"], "UNAVAILABLE")

    async def test_failWithBody(self) -> None:
        fields = {"Retry-After": "7", "Content-Type": "text/html"}
        self.hub.cdn.fail(502, b"<p>", fields)
        response = await self.get()
        self.assertEqual((response.code, await readBody(response)), (502, b"<p>"))
        for name, value in fields.items():
            self.assertEqual(response.headers.getRawHeaders(name), [value])

    async def test_hang(self) -> None:
        arrived: Deferred[Seen] = Deferred()

        def when(seen: Seen) -> bool:
            arrived.callback(seen)
            return True

        self.hub.cdn.hang(when=when)
        pending = ensureDeferred(self.get())
        await arrived
        await self.assertHangs(pending)

    async def assertHangs(self, pending: Deferred[IResponse]) -> None:
        """
        Check that a request gets no response, while another one on a different connection does.
        """
        await readBody(await self.ask("GET", f"{self.hub.searchURL}/v1/search"))
        self.assertNoResult(pending)
        pending.cancel()
        await self.assertFailure(pending, ResponseNeverReceived)

    async def test_closeBeforeHead(self) -> None:
        self.hub.cdn.closeBeforeHead(count=1)
        await self.assertFailure(ensureDeferred(self.get()), ResponseNeverReceived)
        await self.assertWell()

    async def test_script(self) -> None:
        def scripted(request: HubRequest, serve: Serve) -> Answer:
            right = serve(request)
            return errorAnswer(418, "TEAPOT", f"instead of {right.status}")

        self.hub.cdn.script(scripted)
        response = await self.get()
        self.assertEqual(response.code, 418)
        self.assertIn(b"instead of 200", await readBody(response))


class BodyTests(FaultCase):
    async def test_cut(self) -> None:
        for after in (0, 1, 65_536, 100_000, SIZE - 1):
            self.hub.cdn.cut(after, count=1)
            response = await self.get()
            self.assertEqual(response.length, SIZE)
            body = await self.deliver(response)
            self.assertEqual(body.data, self.content[:after])
            body.reason.trap(ResponseFailed)
        await self.assertWell()

    async def test_cutOfRange(self) -> None:
        """
        The bytes are counted in the body that is sent, even if it is a part of the blob.
        """
        self.hub.cdn.cut(10)
        body = await self.deliver(await self.get(Range="bytes=1000-"))
        self.assertEqual(body.data, self.content[1000:1010])

    async def test_stall(self) -> None:
        for after in (1, 100_000):
            self.hub.cdn.stall(after, count=1)
            response = await self.get()
            body = Body(after)
            response.deliverBody(body)
            await body.came
            await self.assertWell()
            self.assertEqual(body.data, self.content[:after])
            self.assertIsNone(body.reason)
            body.transport.stopProducing()
            await body.ended

    async def test_ignoreRange(self) -> None:
        self.hub.cdn.ignoreRange(count=1)
        for status in (200, 206):
            response = await self.get(Range="bytes=1-")
            self.assertEqual(response.code, status)
            await readBody(response)

    async def test_tooLong(self) -> None:
        self.hub.cdn.misstateLength(10)
        response = await self.get()
        self.assertEqual(response.length, SIZE + 10)
        body = await self.deliver(response)
        self.assertEqual(body.data, self.content)
        body.reason.trap(ResponseFailed)

    async def test_tooShort(self) -> None:
        self.hub.cdn.misstateLength(-10)
        response = await self.get()
        self.assertEqual(response.length, SIZE - 10)
        body = await self.deliver(response)
        self.assertEqual(body.data, self.content[:-10])
        self.assertEqual(self.hub.cdn.bytesSent, SIZE)

    async def test_corrupt(self) -> None:
        for at in (0, 65_521, SIZE - 1):
            self.hub.cdn.corrupt(at, count=1)
            data = await readBody(await self.get())
            self.assertEqual(len(data), SIZE)
            self.assertEqual([n for n in range(SIZE) if data[n] != self.content[n]], [at])


class ChoiceTests(FaultCase):
    async def statuses(self, count: int, **fields: str) -> list[int]:
        responses = [await self.get(**fields) for _ in range(count)]
        for response in responses:
            await readBody(response)
        return [response.code for response in responses]

    async def test_count(self) -> None:
        self.hub.cdn.fail(503, count=2)
        self.assertEqual(await self.statuses(3), [503, 503, 200])

    async def test_order(self) -> None:
        self.hub.cdn.fail(503, count=1)
        self.hub.cdn.fail(502, count=1)
        self.assertEqual(await self.statuses(3), [503, 502, 200])

    async def test_when(self) -> None:
        self.hub.cdn.fail(503, when=lambda seen: seen.field("Range") == "bytes=5-")
        self.assertEqual(await self.statuses(1), [200])
        self.assertEqual(await self.statuses(1, Range="bytes=5-"), [503])

    async def test_restore(self) -> None:
        self.hub.cdn.fail(503)
        self.hub.cdn.restore()
        self.assertEqual(await self.statuses(1), [200])

    async def test_ownService(self) -> None:
        """
        Faults of one service do not affect the others.
        """
        self.hub.registry.fail(503)
        self.assertEqual(await self.statuses(1), [200])
