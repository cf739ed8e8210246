"""
The registry's door and its pull side: challenges, manifests, tags, redirects to blobs.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import parse_qs, quote, unquote

from hubmirror.testing.answers import Answer, bytesAnswer, errorAnswer, jsonAnswer
from hubmirror.testing.blobs import Blob
from hubmirror.testing.contents import PULL, PUSH, Contents
from hubmirror.testing.images import OCI_INDEX, Manifest
from hubmirror.testing.pushes import Pushes
from hubmirror.testing.tokens import SERVICE, Tokens
from hubmirror.testing.wire import HubRequest

_VERSION = {"Docker-Distribution-API-Version": "registry/2.0"}
_READS = (b"GET", b"HEAD")
_CATALOG = re.compile(r"/v2/+_catalog/*")


class Registry:
    """
    Answers below C{/v2/}.

    @param origin: tells its own origin, for the locations of what is pushed.
    @param realm: tells the URL of the token service, for challenges.
    @param giveBlob: answers a request for a blob that there is.
    @ivar pullsLeft: what C{ratelimit-remaining} says. Every GET of a manifest takes one off; none
        is ever refused for it.
    """

    def __init__(
        self,
        contents: Contents,
        tokens: Tokens,
        origin: Callable[[], str],
        realm: Callable[[], str],
        giveBlob: Callable[[HubRequest, Blob], Answer],
    ) -> None:
        self.pullsLeft = 100
        self._contents = contents
        self._tokens = tokens
        self._realm = realm
        self._giveBlob = giveBlob
        self._pushes = Pushes(contents, tokens, origin)
        self._routes = [
            (re.compile(f"/v2/(?P<name>.+)/{rest}"), handler)
            for rest, handler in (
                (r"blobs/uploads/(?P<uuid>[^/]*)", self._pushes.upload),
                (r"manifests/(?P<reference>[^/]+)", self._manifest),
                (r"blobs/(?P<digest>[^/]+)", self._blob),
                (r"tags/list", self._tags),
                (r"referrers/(?P<digest>[^/]+)", self._referrers),
            )
        ]

    def serve(self, request: HubRequest) -> Answer:
        """
        Answer a request to the registry.
        """
        answer = self._route(request)
        return replace(answer, fields={**_VERSION, **answer.fields})

    def _route(self, request: HubRequest) -> Answer:
        path = unquote(request.path.decode("latin-1"))
        if path == "/v2":
            return Answer(301, {"Location": "/v2/"}, 0)
        if path == "/v2/":
            return self._refusal(request) or jsonAnswer(200, {})
        if _CATALOG.fullmatch(path):
            names = sorted(self._contents.repositories)
            return self._refusal(request) or jsonAnswer(200, {"repositories": names})
        for pattern, handler in self._routes:
            match = pattern.fullmatch(path)
            if match is not None:
                return self._within(request, match["name"]) or handler(request, **match.groupdict())
        return bytesAnswer(404, "text/plain", b"404 page not found\n")

    def _within(self, request: HubRequest, name: str) -> Answer | None:
        """
        What stands in the way of a request to a repository, if anything does.
        """
        refusal = self._refusal(request, name)
        if refusal is None and request.method in _READS and name not in self._contents.repositories:
            return errorAnswer(404, "NAME_UNKNOWN", "repository name not known to registry")
        return refusal

    def _refusal(self, request: HubRequest, name: str | None = None) -> Answer | None:
        """
        A challenge, unless the request has a token that is good for it.
        """
        access = self._tokens.ofRequest(request)
        needed = PULL if request.method in _READS else PUSH
        if access is not None and (name is None or needed <= access.get(name, frozenset())):
            return None
        challenge = f'Bearer realm="{self._realm()}",service="{SERVICE}"'
        if name is not None:
            challenge += f',scope="repository:{name}:{",".join(sorted(needed))}"'
        if access is not None:
            challenge += ',error="insufficient_scope"'
        elif request.requestHeaders.hasHeader("Authorization"):
            challenge += ',error="invalid_token"'
        return errorAnswer(
            401,
            "UNAUTHORIZED",
            "authentication required",
            [{"Type": "repository", "Name": name, "Action": action} for action in sorted(needed)]
            if name
            else None,
            {"WWW-Authenticate": challenge},
        )

    def _manifest(self, request: HubRequest, name: str, reference: str) -> Answer:
        if request.method == b"PUT":
            return self._pushes.putManifest(request, name, reference)
        if request.method == b"DELETE":
            return self._pushes.deleteManifest(name, reference)
        if request.method not in _READS:
            return _unsupported()
        manifest = self._contents.repository(name).find(reference)
        if manifest is None:
            return errorAnswer(404, "MANIFEST_UNKNOWN", "manifest unknown", {"Tag": reference})
        if not _accepts(request, manifest):
            message = f"{manifest.mediaType} found, but accept header does not support it"
            return errorAnswer(404, "MANIFEST_UNKNOWN", message)
        if request.method == b"GET":
            self.pullsLeft = max(self.pullsLeft - 1, 0)
        fields = {
            "Docker-Content-Digest": manifest.digest,
            "ETag": f'"{manifest.digest}"',
            "ratelimit-limit": "100;w=21600",
            "ratelimit-remaining": f"{self.pullsLeft};w=21600",
            "docker-ratelimit-source": request.getClientAddress().host,
        }
        if fields["ETag"] in request.fieldOf("If-None-Match"):
            return Answer(304, fields)
        return bytesAnswer(200, manifest.mediaType, manifest.body, fields)

    def _blob(self, request: HubRequest, name: str, digest: str) -> Answer:
        if request.method not in _READS:
            return _unsupported()
        blob = self._contents.repository(name).blobs.get(digest)
        if blob is None:
            return errorAnswer(404, "BLOB_UNKNOWN", "blob unknown to registry", {"digest": digest})
        return self._giveBlob(request, blob)

    def _tags(self, request: HubRequest, name: str) -> Answer:
        query = parse_qs(request.query)
        last = query.get("last", [""])[0]
        tags = sorted(tag for tag in self._contents.repository(name).tags if tag > last)
        page = tags[: int(query["n"][0])] if "n" in query else tags
        fields = {}
        if page and len(page) < len(tags):
            more = f"/v2/{name}/tags/list?last={quote(page[-1])}&n={len(page)}"
            fields["Link"] = f'<{more}>; rel="next"'
        return jsonAnswer(200, {"name": name, "tags": page}, fields)

    def _referrers(self, request: HubRequest, name: str, digest: str) -> Answer:
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        return jsonAnswer(200, index, {"Content-Type": OCI_INDEX})


def _accepts(request: HubRequest, manifest: Manifest) -> bool:
    """
    Whether the client takes this media type; one that names none takes any.
    """
    values = ",".join(request.requestHeaders.getRawHeaders("Accept", [])).split(",")
    accepted = {value.partition(";")[0].strip() for value in values} - {""}
    return not accepted or not accepted.isdisjoint({manifest.mediaType, "application/*", "*/*"})


def _unsupported() -> Answer:
    return errorAnswer(405, "UNSUPPORTED", "The operation is unsupported.")
