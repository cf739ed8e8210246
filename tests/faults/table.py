"""
The faults that a blob may meet, in terms of the embedded Hub.

The same table is used in memory, over TLS on loopback, and for the figures in the documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from twisted.internet.task import LoopingCall

from hubmirror.testing import Answer, Blob, EmbeddedHub, Ending, HubRequest, Seen

SIZE = 1_000_000
MIDDLE = 500_000
REPOSITORY = "library/hello"


@dataclass(frozen=True)
class Setting:
    """
    The circumstances of a fault.

    @ivar reactor: the clock.
    @ivar stall: seconds after which the mirror regards an upstream's body as stalled.
    """

    hub: EmbeddedHub
    blob: Blob
    reactor: Any
    stall: float


@dataclass(frozen=True)
class Fault:
    """
    A fault.

    @ivar name: a short description.
    @ivar inject: simulates the fault.
    @ivar survived: whether the client receives everything; otherwise its connection is aborted.
    @ivar options: settings of the mirror.
    @ivar fallback: whether there is another upstream.
    @ivar range: the C{Range} of the client's request; C{None} for the whole blob.
    @ivar expires: whether the fault takes so long that URLs and tokens expire.
    """

    name: str
    inject: Callable[[Setting], None]
    survived: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    fallback: bool = False
    range: str | None = None
    expires: bool = False

    def wanted(self, blob: Blob) -> bytes:
        """The bytes that the client requests."""
        start, stop = 0, blob.size
        if self.range is not None:
            first, _, last = self.range.removeprefix("bytes=").partition("-")
            start, stop = int(first), int(last) + 1 if last else blob.size
        return b"".join(blob.pieces(start, stop))


def isRest(seen: Seen) -> bool:
    """Whether a request is for the rest of a body."""
    return seen.field("Range") is not None


def first(pieces: Any, length: int) -> Iterator[bytes]:
    """The beginning of a body."""
    for piece in pieces:
        yield piece[:length]
        length -= len(piece)
        if length <= 0:
            return


def cut(setting: Setting, after: int = MIDDLE, count: int | None = 1) -> None:
    setting.hub.cdn.cut(after, count=count)


def reset(setting: Setting) -> None:
    """Reset the connection with RST."""

    def fault(request: HubRequest, serve: Any) -> Answer:
        answer = serve(request)

        def pieces() -> Iterator[bytes]:
            yield from first(answer.pieces, MIDDLE)
            request.channel.transport.abortConnection()

        return replace(answer, pieces=pieces(), ending=Ending.HANG)

    setting.hub.cdn.script(fault, count=1)


def trickle(setting: Setting) -> None:
    """Send a byte from time to time, so that there is never a long pause."""

    def fault(request: HubRequest, serve: Any) -> None:
        answer = serve(request)
        for name, value in answer.fields.items():
            request.setHeader(name, value)
        request.setHeader("Content-Length", str(answer.length))
        data = b"".join(answer.pieces)
        request.write(data[:MIDDLE])
        position = MIDDLE

        def more() -> None:
            nonlocal position
            request.write(data[position : position + 1])
            position += 1

        loop = LoopingCall(more)
        loop.clock = setting.reactor
        loop.start(setting.stall / 10, now=False)
        request.notifyFinish().addErrback(lambda _: loop.stop())

    setting.hub.cdn.script(fault, count=1)


def onRest(change: Callable[[Answer], Answer], count: int | None = 1) -> Callable[..., None]:
    """The CDN cuts the body once, and responds wrongly to the request for the rest."""

    def inject(setting: Setting) -> None:
        cut(setting)
        setting.hub.cdn.script(
            lambda request, serve: change(serve(request)), count=count, when=isRest
        )

    return inject


def withField(name: str, value: str) -> Callable[[Answer], Answer]:
    return lambda answer: replace(answer, fields={**answer.fields, name: value})


def refused(status: int, count: int = 1) -> Callable[[Setting], None]:
    """The CDN cuts the body once, and refuses the rest a number of times."""

    def inject(setting: Setting) -> None:
        cut(setting)
        setting.hub.cdn.fail(status, b"", count=count, when=isRest)

    return inject


def ignoreRange(setting: Setting) -> None:
    cut(setting)
    setting.hub.cdn.ignoreRange(count=1, when=lambda seen: len(setting.hub.cdn.seen) > 1)


def expired(setting: Setting, token: bool = False) -> None:
    """The body stalls, and when that is noticed, the URL and the token have expired."""
    setting.hub.links.lifetime = int(setting.stall) - 1
    if token:
        setting.hub.tokens.lifetime = int(setting.stall) - 1
    setting.hub.cdn.stall(MIDDLE, count=1)


def deadCDN(setting: Setting) -> None:
    """The CDN becomes unavailable in the middle of the blob, and stays so."""

    def fault(request: HubRequest, serve: Any) -> Answer:
        answer = serve(request)

        def pieces() -> Iterator[bytes]:
            yield from first(answer.pieces, MIDDLE)
            setting.reactor.callLater(0, setting.hub.cdn.stopListening)

        return replace(answer, pieces=pieces(), ending=Ending.HANG)

    setting.hub.cdn.script(fault, count=1)


def redirectToNowhere(setting: Setting) -> None:
    """The URL has expired, and the registry then redirects to a CDN that is unavailable."""
    refused(403)(setting)
    setting.hub.registry.script(
        lambda request, serve: Answer(307, {"Location": "https://127.0.0.1:1/x"}, 0),
        count=1,
        when=isRest,
    )


def chunked(setting: Setting) -> None:
    setting.hub.cdn.script(
        lambda request, serve: replace(
            (answer := serve(request)),
            length=None,
            pieces=first(answer.pieces, MIDDLE),
            ending=Ending.CLOSE,
        ),
        count=1,
    )


def expiredToken(setting: Setting) -> None:
    expired(setting, token=True)


#: The faults, in the order in which the documentation shows them.
FAULTS = (
    Fault(
        "resets the connection before its answer",
        lambda setting: setting.hub.cdn.closeBeforeHead(count=1),
    ),
    Fault("answers 500 twice", lambda setting: setting.hub.cdn.fail(500, b"", count=2)),
    Fault("closes before the first byte", lambda setting: cut(setting, 0)),
    Fault("closes in the middle", cut),
    Fault("closes before the last byte", lambda setting: cut(setting, SIZE - 1)),
    Fault("closes ten times", lambda setting: cut(setting, SIZE // 11 + 1, 10)),
    Fault("resets the connection", reset),
    Fault("stalls before the first byte", lambda setting: setting.hub.cdn.stall(0, count=1)),
    Fault("stalls in the middle", lambda setting: setting.hub.cdn.stall(MIDDLE, count=1)),
    Fault("sends less than the floor", trickle),
    Fault("closes, then ignores ``Range``", ignoreRange),
    Fault("closes, then has another ``ETag`` at the same URL", onRest(withField("ETag", '"x"'))),
    Fault(
        "closes, then has a wrong ``Content-Range``",
        onRest(withField("Content-Range", f"bytes {MIDDLE + 1}-{SIZE - 1}/{SIZE}")),
    ),
    Fault("closes, then has a content coding", onRest(withField("Content-Encoding", "gzip"))),
    Fault("closes, then answers 416", refused(416)),
    Fault("closes, then answers 500 twice", refused(500, 2)),
    Fault("closes, then answers 503 twice", refused(503, 2)),
    Fault("stalls until its link has expired", expired, expires=True),
    Fault("stalls until its link and the client's token have expired", expiredToken, expires=True),
    Fault("is dead from the middle on; there is a fallback", deadCDN, fallback=True),
    Fault(
        "closes; the registry's next link leads to a dead one; there is a fallback",
        redirectToNowhere,
        fallback=True,
    ),
    Fault(
        "closes in the middle of the client's own range", cut, range=f"bytes=100-{MIDDLE + 99_999}"
    ),
    Fault("closes in the middle of an open range", cut, range="bytes=100-"),
    Fault("closes in a range, then ignores ``Range``", ignoreRange, range="bytes=100-899999"),
    Fault(
        "changes a byte, ``verify=always``",
        lambda setting: setting.hub.cdn.corrupt(MIDDLE),
        survived=False,
        options={"verify": "always"},
    ),
    Fault(
        "announces a byte too few, ``verify=always``",
        lambda setting: setting.hub.cdn.misstateLength(-1, count=1),
        survived=False,
        options={"verify": "always"},
    ),
    Fault(
        "announces a byte too many",
        lambda setting: setting.hub.cdn.misstateLength(1, count=1),
        survived=False,
        options={"resumes": 1},
    ),
    Fault(
        "closes, then has another length",
        onRest(withField("Content-Range", f"bytes {MIDDLE}-{SIZE - 1}/{SIZE + 1}"), count=None),
        survived=False,
    ),
    Fault("closes in a body of unknown length", chunked, survived=False),
    Fault(
        "is dead from the middle on; there is no fallback",
        deadCDN,
        survived=False,
        options={"resumes": 1},
    ),
)
