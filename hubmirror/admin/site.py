"""
The admin port: C{/healthz}, C{/readyz}, C{/metrics} and C{/status}.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from hubmirror.admin.exposition import expose
from hubmirror.admin.status import Status

Answer = tuple[int, str, bytes]
"""
A status, a media type and a body.
"""


class _StatusResource(Resource):
    """
    Responds with a representation of the status.
    """

    isLeaf = True
    _log = Logger()

    def __init__(
        self, find: Callable[[], Deferred[Status]], show: Callable[[Status, Any], Answer]
    ) -> None:
        super().__init__()
        self._find = find
        self._show = show

    def render_GET(self, request: Any) -> int:
        """
        Respond once the status has been found.
        """
        finding = self._find()
        request.notifyFinish().addErrback(lambda _: finding.cancel())
        finding.addCallback(self._answer, request)
        finding.addErrback(self._failed, request)
        return NOT_DONE_YET

    def _answer(self, status: Status, request: Any) -> None:
        code, mediaType, body = self._show(status, request)
        request.setResponseCode(code)
        request.setHeader(b"Content-Type", mediaType.encode("ascii"))
        request.setHeader(b"Cache-Control", b"no-store")
        request.setHeader(b"Content-Length", b"%d" % len(body))
        if request.method != b"HEAD":
            request.write(body)
        request.finish()

    def _failed(self, reason: Failure, request: Any) -> None:
        if request.channel is None:
            return
        self._log.failure("a defect of the mirror", reason)
        request.setResponseCode(500)
        request.finish()


def _ready(status: Status, _request: Any) -> Answer:
    reason = status.whyNotReady()
    return 200 if reason is None else 503, "text/plain", f"{reason or 'ready'}\n".encode()


def _healthy(status: Status, _request: Any) -> Answer:
    return 200, "text/plain", b"ok\n"


def _metrics(status: Status, request: Any) -> Answer:
    accept = request.getHeader("Accept") or ""
    body, mediaType = expose(status, accept)
    return 200, mediaType, body


def _document(status: Status, _request: Any) -> Answer:
    return 200, "application/json", json.dumps(status.document(), indent=2).encode() + b"\n"


class AdminPort:
    """
    Serves the four paths on an endpoint.
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamServerEndpoint,
        find: Callable[[], Deferred[Status]],
        certificates: Any,
    ) -> None:
        """
        @param find: returns a deferred that fires with the status.
        @param certificates: the C{Certificates} of the endpoint.
        """

        def findAll() -> Deferred[Status]:
            return find().addCallback(Status.addCertificates, certificates.expiries())

        root = Resource()
        for path, show in (
            (b"healthz", _healthy),
            (b"readyz", _ready),
            (b"metrics", _metrics),
            (b"status", _document),
        ):
            root.putChild(path, _StatusResource(findAll, show))
        self.site = Site(root, reactor=reactor)
        self.site.noisy = False
        self.site.log = lambda *_: None  # type: ignore[method-assign]
        self._endpoint = endpoint
        self._certificates = certificates
        self.port: IListeningPort | None = None

    def start(self) -> None:
        """
        Listen on the endpoint, if that has not been done yet.

        @raise CannotListenError: when the port can't be bound.
        """
        if self.port is not None:
            return
        problems: list[Failure] = []
        self._endpoint.listen(self.site).addCallbacks(self._bound, problems.append)
        for problem in problems:
            problem.raiseException()

    def _bound(self, port: IListeningPort) -> None:
        self.port = port
        self._certificates.start()

    async def stop(self) -> None:
        """
        Stop listening.
        """
        self._certificates.stop()
        port, self.port = self.port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
