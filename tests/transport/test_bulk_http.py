"""Tests of HTTP over the mirror's TLS, with a pause at every point."""

from __future__ import annotations

import re
from itertools import count
from typing import Any

from twisted.internet.task import Clock
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource

from hubmirror.transport.http1client import UpstreamConnection
from hubmirror.transport.tls import BATCH
from tests.downstream.support import THERE, Server
from tests.transport.support import Receiver
from tests.transport.test_bulk import RECORD
from tests.transport.tlspair import Carrying, Pair, PairCase, bytesOf

#: This is enough for many reads, with small bodies in between.
BODIES = [
    bytesOf(size, number)
    for number, size in enumerate([0, 10, 2 * BATCH, 1, RECORD, BATCH + 1, 100])
]


class Echo(Resource):
    """Responds with the body of the request."""

    isLeaf = True

    def render_POST(self, request: Any) -> bytes:
        body: bytes = request.content.read()
        return body


class Fixed(Resource):
    """Responds to C{/N} with the Nth body."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        return BODIES[int(request.uri[1:])]


def serving(resource: Resource) -> Carrying:
    """A connection of the mirror's server."""
    return Carrying(Server(resource).site.buildProtocol(THERE))


def post(body: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def bodies(answers: bytes) -> list[bytes]:
    """The bodies of responses, the last of which may be cut off."""
    found = []
    while answers:
        head, _, rest = answers.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: ([0-9]+)", head)
        assert length is not None, head
        found.append(rest[: int(length[1])])
        answers = rest[int(length[1]) :]
    return found


class ServerTests(PairCase):
    """The mirror's server, and a client that implements TLS but not HTTP."""

    def begin(self, steps: int) -> Pair:
        """Send all requests on a new connection after a number of steps."""
        pair = self.open(server=serving(Echo()), room=60_000)
        pair.client.transport.write(b"".join(map(post, BODIES)))
        for number in range(steps):
            pair.step(number)
        return pair

    def test_clientPauses(self) -> None:
        """The client pauses after any step, and for any time."""
        for steps in count():
            pair = self.begin(steps)
            got = pair.client.got
            pair.client.transport.pauseProducing()
            pair.settle()
            self.assertEqual(len(pair.client.got), len(got))
            pair.client.transport.resumeProducing()
            pair.settle()
            self.assertTrue(bodies(pair.client.got) == BODIES, "other answers")
            pair.client.transport.write(post(b"more"))
            pair.settle()
            self.assertEqual(bodies(pair.client.got)[-1], b"more")
            if bodies(got) == BODIES:
                break
            pair.close()
        self.assertGreater(steps, 20)


class PlainServerTests(ServerTests):
    bulk = False


class ClientTests(PairCase):
    """The mirror's client and its server."""

    def test_bodyPauses(self) -> None:
        """
        The body is paused at any delivery; the rest arrives after it is resumed, and then the next
        response.
        """
        for pausing in count(1):
            released: list[object] = []
            client = UpstreamConnection(Clock(), True, released.append)
            pair = self.open(client=Carrying(client), server=serving(Fixed()), room=60_000)
            deliveries = 0

            def received(body: Any, pausing: int = pausing) -> None:
                nonlocal deliveries
                deliveries += 1
                if deliveries == pausing:
                    body.pauseProducing()

            for number, expected in enumerate(BODIES, 1):
                asked = client.send(b"GET", b"/%d" % (number - 1), b"a", Headers(), None)
                pair.settle()
                receiver = Receiver(received=received)
                response = self.successResultOf(asked)
                response.deliverBody(receiver)
                pair.settle()
                response.resumeProducing()
                pair.settle()
                self.assertTrue(receiver.body == expected, "another body")
                self.assertIsInstance(receiver.reason, ResponseDone)
                self.assertEqual(len(released), number)
            if deliveries < pausing:
                break
            pair.close()
        self.assertGreater(pausing, len(BODIES))


class PlainClientTests(ClientTests):
    bulk = False
