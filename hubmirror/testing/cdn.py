"""
The CDN of a registry.

It serves blobs to requests with a signed URL, and manifests to all requests.  It refuses requests
with credentials, or for another host.
"""

import base64
import hmac
import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from urllib.parse import unquote

from hubmirror.testing.answers import Answer, bytesAnswer
from hubmirror.testing.blobs import Blob, DiscardedBlob
from hubmirror.testing.contents import Contents
from hubmirror.testing.manifests import Manifests
from hubmirror.testing.ranges import parseRange
from hubmirror.testing.wire import HubRequest

_KEY = b"the CDN's key: made up, and no secret"
_BOUNDARY = "4d6f7265207468616e206f6e65"
_LAST_MODIFIED = "Mon, 01 Jan 2024 00:00:00 GMT"
_TYPE = "application/octet-stream"
_PATH = re.compile(rb"/registry-v2/docker/registry/v2/blobs/sha256/[0-9a-f]{2}/([0-9a-f]{64})/data")
# registry.k8s.io redirects requests for manifests to URLs of this form, without a signature.
_MANIFEST = re.compile(r"/v2/artifacts/(?P<name>.+)/manifests/(?P<reference>[^/]+)")
_EXPIRES = re.compile(rb"Expires=([0-9]{1,20})&")


class CDN:
    """
    Serves blobs by signed URLs, and manifests.

    @param origin: returns the CDN's own origin, such as C{https://127.0.0.1:4711}.
    @param seconds: returns the present time, in seconds.
    @ivar lifetime: how long a signed URL is valid, in seconds.
    """

    def __init__(
        self, contents: Contents, origin: Callable[[], str], seconds: Callable[[], float]
    ) -> None:
        self.lifetime = 1200
        self._contents = contents
        self._manifests = Manifests(contents, pulls=0)
        self._origin = origin
        self._seconds = seconds

    def redirect(self, request: HubRequest, blob: Blob) -> Answer:
        """
        Redirect a request to the signed URL of a blob.
        """
        name = blob.digest.removeprefix("sha256:")
        path = f"/registry-v2/docker/registry/v2/blobs/sha256/{name[:2]}/{name}/data".encode()
        query = _signed(path, int(self._seconds()) + self.lifetime)
        location = f"{self._origin()}{path.decode()}?{query.decode()}"
        return bytesAnswer(307, _TYPE, b"", {"Location": location})

    def redirectManifest(
        self, request: HubRequest, name: str, reference: str, account: str
    ) -> Answer:
        """
        Redirect a request to the URL of a manifest, whether the manifest exists or not.
        """
        location = f"{self._origin()}/v2/artifacts/{name}/manifests/{reference}"
        return Answer(307, {"Location": location}, 0)

    def serve(self, request: HubRequest) -> Answer:
        """
        Respond to a request to the CDN itself.
        """
        if request.requestHeaders.hasHeader("Authorization"):
            return _refuse(400, "InvalidArgument", "Only one auth mechanism allowed")
        if request.requestHeaders.hasHeader("Cookie"):
            return _refuse(400, "InvalidArgument", "No cookies here")
        if request.fieldOf("Host") != self._origin().removeprefix("https://"):
            return _refuse(403, "AccessDenied", "Another host")
        if request.method not in (b"GET", b"HEAD"):
            return _refuse(405, "MethodNotAllowed", "GET or HEAD")
        path, _, query = request.uri.partition(b"?")
        found = _MANIFEST.fullmatch(unquote(path.decode("latin-1")))
        if found is not None:
            return self._manifests.give(request, found["name"], found["reference"], "")
        expires = _EXPIRES.match(query)
        if expires is None or not hmac.compare_digest(query, _signed(path, int(expires[1]))):
            return _refuse(403, "SignatureDoesNotMatch", "The link was changed on its way")
        if int(expires[1]) < self._seconds():
            return _refuse(403, "AccessDenied", "The link has expired")
        match = _PATH.fullmatch(path)
        blob = match and self._contents.blob(f"sha256:{match[1].decode()}")
        if not blob:
            return _refuse(404, "NoSuchKey", "There is no such blob")
        return self.deliver(request, blob)

    def deliver(self, request: HubRequest, blob: Blob) -> Answer:
        """
        Respond with a blob, or with the parts of it that the request asks for.
        """
        if isinstance(blob, DiscardedBlob) and request.method == b"GET":
            return _refuse(404, "NoSuchKey", "This blob was too big to be kept")
        etag = f'"{blob.digest[7:39]}"'
        fields = {
            "ETag": etag,
            "Last-Modified": _LAST_MODIFIED,
            "Accept-Ranges": "bytes",
            "Cache-Control": "public, max-age=14400",
        }
        if etag in request.fieldOf("If-None-Match"):
            return Answer(304, fields)
        parts = None
        if (request.fieldOf("If-Range") or etag) in (etag, _LAST_MODIFIED):
            parts = parseRange(request.fieldOf("Range"), blob.size)
        if parts is None:
            whole = blob.pieces(0, blob.size)
            return Answer(200, {"Content-Type": _TYPE, **fields}, blob.size, whole)
        if not parts:
            return Answer(416, {"Content-Range": f"bytes */{blob.size}", **fields}, 0)
        if len(parts) > 1:
            return _multipart(blob, parts, fields)
        [(start, stop)] = parts
        fields |= {"Content-Type": _TYPE, "Content-Range": _contentRange(blob, start, stop)}
        return Answer(206, fields, stop - start, blob.pieces(start, stop))


def _signed(path: bytes, expires: int) -> bytes:
    """
    The signed query of a path, which is valid only byte for byte.

    It contains everything that re-encoding might change: escapes in upper and lower case, an
    unnecessary escape (C{%7E}), a bare C{~}, an empty parameter, one without C{=}, and one without
    a value.
    """
    signature = hmac.digest(_KEY, path + b"?%d" % expires, sha256)
    escaped = base64.b64encode(signature).replace(b"+", b"%2B").replace(b"/", b"%2F")
    return b"Expires=%d&Signature=%s&Key-Pair-Id=K2%%2b%%7E~%%3D&&flag&empty=" % (
        expires,
        escaped.replace(b"=", b"%3D"),
    )


def _contentRange(blob: Blob, start: int, stop: int) -> str:
    return f"bytes {start}-{stop - 1}/{blob.size}"


def _multipart(blob: Blob, parts: list[tuple[int, int]], fields: dict[str, str]) -> Answer:
    """
    A response with several parts (RFC 9110, 14.6).
    """
    heads = [
        f"\r\n--{_BOUNDARY}\r\nContent-Type: {_TYPE}\r\n"
        f"Content-Range: {_contentRange(blob, start, stop)}\r\n\r\n".encode()
        for start, stop in parts
    ]
    end = f"\r\n--{_BOUNDARY}--\r\n".encode()

    def pieces() -> Iterator[bytes]:
        for head, (start, stop) in zip(heads, parts, strict=True):
            yield head
            yield from blob.pieces(start, stop)
        yield end

    length = sum(map(len, heads)) + sum(stop - start for start, stop in parts) + len(end)
    fields["Content-Type"] = f"multipart/byteranges; boundary={_BOUNDARY}"
    return Answer(206, fields, length, pieces())


def _refuse(status: int, code: str, message: str) -> Answer:
    """
    An error in the form of object stores.
    """
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return bytesAnswer(status, "application/xml", body.encode())
