"""
The site that the mirror listens with: requests handed on with their head, HTTP/1.1 and HTTP/2.
"""

from __future__ import annotations

import tempfile
from io import BytesIO
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES, parse_qs
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from hubmirror.downstream.upload import RequestBody, collect
from hubmirror.protocol.errors import BodyFailed, RequestRefused
from hubmirror.transport.http1server import HTTP1Channel


class MirrorRequest(Request):
    """
    A request that is processed when its head is there.  A resource with a true C{streamsBody}
    finds a L{RequestBody} as C{content}; any other is asked when the body is whole, in a file.
    """

    content: Any

    def headReceived(
        self, method: bytes, target: bytes, version: bytes, length: int | None
    ) -> None:
        """
        @param length: of the body to come, in bytes; C{None} when it is not known.
        """
        self.method, self.uri, self.clientproto = method, target, version
        self.path, _, query = target.partition(b"?")
        self.args = parse_qs(query, True)
        self.content = BytesIO() if length == 0 else RequestBody(self.channel, length)
        self.process()

    def handleContentChunk(self, data: bytes) -> None:
        self.content.dataReceived(data)

    def contentComplete(self) -> None:
        """
        The whole body has arrived.
        """
        self.content.complete()

    def render(self, resrc: IResource) -> None:
        if not isinstance(self.content, RequestBody) or getattr(resrc, "streamsBody", False):
            super().render(resrc)
            return

        def collected(file: Any) -> None:
            self.content = file
            Request.render(self, resrc)

        def failed(reason: Failure) -> None:
            if not reason.check(BodyFailed, CancelledError):
                self.processingFailed(reason)

        file = tempfile.SpooledTemporaryFile(100_000)  # noqa: SIM115  (the request closes it)
        collect(self.content, file).addCallback(collected).addErrback(failed)  # type: ignore[arg-type]


class MirrorSite(Site):
    """
    A C{Site} with the mirror's own channels.

    @ivar closing: every answer from now on ends its connection.
    """

    noisy = False

    def __init__(self, resource: IResource, reactor: IReactorTime, idleTimeout: float) -> None:
        """
        @param idleTimeout: seconds that a connection is kept without a request.
        """
        super().__init__(resource, requestFactory=MirrorRequest, reactor=reactor)
        self.timeOut = idleTimeout
        self.closing = False
        self._channels: set[Any] = set()
        self._waiting: list[Deferred[None]] = []

    def buildProtocol(self, addr: IAddress | None) -> Any:
        channel: Any = HTTP1Channel()
        channel.site = channel.factory = self
        channel.requestFactory = MirrorRequest
        channel.callLater = self.reactor.callLater
        channel.timeOut = self.timeOut
        return channel

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]

    def log(self, request: object) -> None:
        """
        The mirror logs exchanges, not requests.
        """

    def startFactory(self) -> None:
        """
        Without Twisted's access log there is no date to keep for it.
        """

    stopFactory = startFactory

    def opened(self, channel: Any) -> None:
        """
        A channel's connection is there.
        """
        self._channels.add(channel)

    def closed(self, channel: Any) -> None:
        """
        A channel's connection is gone.
        """
        self._channels.discard(channel)
        if not self._channels:
            waiting, self._waiting = self._waiting, []
            for deferred in waiting:
                deferred.callback(None)

    def close(self) -> Deferred[None]:
        """
        End every connection as soon as it has no request under way.

        @return: fires when none is left.
        """
        self.closing = True
        for channel in list(self._channels):
            channel.closeWhenIdle()
        return self._whenClosed()

    def abort(self) -> Deferred[None]:
        """
        End every connection at once.

        @return: fires when none is left.
        """
        for channel in list(self._channels):
            channel.abortConnection()
        return self._whenClosed()

    def _whenClosed(self) -> Deferred[None]:
        gone: Deferred[None] = Deferred()
        if self._channels:
            self._waiting.append(gone)
        else:
            gone.callback(None)
        return gone

    def refused(self, channel: Any, error: RequestRefused) -> None:
        """
        Something came that was no request.
        """

    @staticmethod
    def reason(status: int) -> bytes:
        return RESPONSES.get(status, b"Error")
