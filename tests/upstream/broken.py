"""
Bodies that break: a response whose parts the test supplies, and the agents of C{registry} around an
agent for which the test responds.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers

from hubmirror import MirrorConfig
from hubmirror.protocol.errors import BodyFailed, UpstreamFailed
from hubmirror.protocol.target import readTarget
from hubmirror.upstream.policy import Service
from hubmirror.upstream.registry import Registry
from hubmirror.upstream.resumingresponse import DigestCheck, ResumingResponse, RetryPolicy
from tests.upstream.support import RecordingAgent, Response, newExchange

BLOB = bytes(range(256)) * 4
SIZE = len(BLOB)
DIGEST = b"sha256:" + hashlib.sha256(BLOB).hexdigest().encode()
STALL, FLOOR, RESUMES = 15.0, 1.0, 5
PATH = b"/v2/library/x/blobs/" + DIGEST
HUB = b"https://hub.example" + PATH
SECOND = b"https://second.example" + PATH
CDN = b"https://cdn.example/one?Signature=a%2fb"
CDN2 = b"https://cdn2.example/two?Signature=c"
TAG = b'"tag"'


class Receiver(Protocol):
    """
    Receives the body.

    @ivar ended: the reason for its end, once it has ended.
    """

    def __init__(self) -> None:
        self.data = b""
        self.ended: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        assert self.ended is None, "a byte after the end"
        self.data += data

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        assert self.ended is None, "it ended twice"
        self.ended = reason

    @property
    def isWhole(self) -> bool:
        return self.ended is not None and self.ended.check(ResponseDone) is not None


class Asked(NamedTuple):
    """
    A request for the rest.
    """

    position: int
    attempt: int
    reply: Deferred[Any]


class ResumingResponseCase(SynchronousTestCase):
    """
    Tests with a blob of one KiB, whose parts the test supplies.

    @ivar asked: the requests for the rest, to which the test responds.
    @ivar cancelled: how many of them were cancelled.
    @ivar wrong: how often the bytes were found wrong.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.exchange = newExchange()
        self.exchange.upstream = "hub"
        self.asked: list[Asked] = []
        self.cancelled = 0
        self.wrong = 0
        self.receiver = Receiver()

    def begin(
        self,
        response: Response | None = None,
        check: DigestCheck | None = None,
        resumes: int = RESUMES,
    ) -> Response:
        """Begin the first part of the body."""
        first = response or Response(200, len(BLOB))
        self.body = ResumingResponse(
            self.clock,
            first,
            self.again,
            self.exchange,
            RetryPolicy(resumes, STALL, FLOOR),
            check,
            self.markWrong,
        )
        self.body.deliverBody(self.receiver)
        return first

    def again(self, position: int, attempt: int) -> Deferred[Any]:
        def cancelled(_: object) -> None:
            self.cancelled += 1

        self.asked.append(Asked(position, attempt, Deferred(cancelled)))
        return self.asked[-1].reply

    def markWrong(self) -> None:
        self.wrong += 1

    def cut(self, transfer: Response) -> None:
        """Cut a part early, which causes a request for the rest."""
        transfer.ends(BodyFailed("the connection closed in the middle of the body"))
        self.clock.advance(0)

    def goOn(self, length: int | None = None, skip: int = 0) -> Response:
        """Respond with the rest."""
        position = self.asked[-1].position
        transfer = Response(206, len(BLOB) - position + skip if length is None else length)
        self.asked[-1].reply.callback((transfer, skip))
        return transfer

    def refuse(self, error: Exception | None = None) -> None:
        """Refuse the rest."""
        self.asked[-1].reply.errback(error or UpstreamFailed("answered 503"))

    def assertWhole(self, data: bytes = BLOB) -> None:
        self.assertTrue(self.receiver.isWhole, self.receiver.ended)
        self.assertEqual(self.receiver.data, data)
        self.assertNothingLeft()

    def assertBroken(self, reason: str) -> None:
        ended = self.receiver.ended
        self.assertIsNotNone(ended)
        self.assertIn(reason, ended.trap(BodyFailed) and ended.value.message)
        self.assertLess(len(self.receiver.data), len(BLOB))
        self.assertNothingLeft()

    def assertNothingLeft(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])
        asked = len(self.asked)
        self.clock.advance(1000)
        self.assertEqual(len(self.asked), asked)


class ResumingCase(SynchronousTestCase):
    """
    Tests with a hub and a second mirror, and a client that has the head of a response.

    @ivar receiver: what the client has received.
    """

    options: dict[str, Any] = {}

    def setUp(self) -> None:
        self.clock = Clock()
        self.inner = RecordingAgent()
        config = MirrorConfig(
            **{
                "port": (),
                "registry_url": "https://hub.example",
                "auth_url": "https://auth.example/token",
                "fallback": "https://second.example",
                **self.options,
            }
        )
        self.registry = Registry(self.clock, config, config.allRegistries()[0], self.inner)

    def ask(
        self,
        path: bytes = PATH,
        method: bytes = b"GET",
        service: Service = Service.REGISTRY,
        **fields: bytes,
    ) -> Deferred[Any]:
        self.exchange = newExchange(method)
        target = readTarget(path)
        self.exchange.kind = target.kind
        headers = Headers(
            {name.replace("_", "-").encode(): [value] for name, value in fields.items()}
        )
        return Deferred.fromCoroutine(
            self.registry.ask(self.exchange, service, target, path, headers, None)
        )

    def redirect(self, location: bytes = CDN) -> None:
        self.inner.answer(Response(307, 0, b"", Location=location))

    def read(self, asking: Deferred[Any]) -> None:
        """Read the body of the response."""
        self.answer = self.successResultOf(asking)
        self.receiver = Receiver()
        self.answer.deliverBody(self.receiver)

    def begin(self, first: Response | None = None, redirected: bool = True, **fields: bytes) -> Any:
        """Begin a response with a blob."""
        fields = {"Authorization": b"Bearer x", **fields}
        asking = self.ask(**fields)
        if redirected:
            self.redirect()
        first = self.inner.answer(first or Response(200, SIZE, ETag=TAG))
        self.read(asking)
        return first

    def cut(self, transfer: Response, seconds: float = 0) -> None:
        transfer.ends(BodyFailed("closed"))
        self.clock.advance(seconds)

    @property
    def uri(self) -> bytes:
        """The URI of the last request."""
        return self.inner.asked[-1].uri

    def field(self, name: bytes) -> list[bytes] | None:
        """The value of a field in the last request."""
        values: list[bytes] | None = self.inner.asked[-1].headers.getRawHeaders(name)
        return values

    def rest(self, first: int, last: int = SIZE - 1, **fields: bytes) -> Response:
        """The rest of the blob, as a server sends it."""
        value = b"bytes %d-%d/%d" % (first, last, SIZE)
        return self.inner.answer(
            Response(206, last - first + 1, **{"Content_Range": value, "ETag": TAG, **fields})
        )

    def refuse(self, status: int = 403) -> None:
        self.inner.answer(Response(status, 0, b""))

    def assertWhole(self, data: bytes = BLOB) -> None:
        self.assertTrue(self.receiver.isWhole, self.receiver.ended)
        self.assertEqual(self.receiver.data, data)
        self.assertNothingLeft()

    def assertBroken(self) -> None:
        self.assertIsNotNone(self.receiver.ended)
        self.receiver.ended.trap(BodyFailed)
        self.assertNothingLeft()

    def assertNothingLeft(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])
