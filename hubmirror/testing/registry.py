"""
The routes of a registry and its pull side: challenges, manifests, tags, and blobs.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import unquote

from hubmirror.testing.answers import Answer, bytesAnswer, errorAnswer, jsonAnswer
from hubmirror.testing.authentication import Authenticator
from hubmirror.testing.blobs import Blob
from hubmirror.testing.contents import PULL, PUSH, Contents
from hubmirror.testing.images import OCI_INDEX
from hubmirror.testing.pages import TagPages
from hubmirror.testing.pushes import Pushes
from hubmirror.testing.settings import RegistrySettings
from hubmirror.testing.wire import HubRequest

#: Responds to a request for a blob that exists.
GiveBlob = Callable[[HubRequest, Blob], Answer]
#: Responds to GET or HEAD of a manifest, given the request, repository, reference and account.
GiveManifest = Callable[[HubRequest, str, str, str], Answer]

_VERSION = {"Docker-Distribution-API-Version": "registry/2.0"}
_READS = (b"GET", b"HEAD")
_CATALOG = re.compile(r"/v2/+_catalog/*")


class Registry:
    """
    Responds to requests below C{/v2/}.

    @param authenticator: authenticates the clients.
    @param origin: returns the registry's own origin, for the locations of uploads.
    @param giveManifest: responds to GET or HEAD of a manifest.
    @param giveBlob: responds to GET or HEAD of a blob that exists.
    """

    def __init__(
        self,
        contents: Contents,
        settings: RegistrySettings,
        authenticator: Authenticator,
        origin: Callable[[], str],
        giveManifest: GiveManifest,
        giveBlob: GiveBlob,
    ) -> None:
        self._contents = contents
        self._settings = settings
        self._authenticator = authenticator
        self._giveManifest = giveManifest
        self._giveBlob = giveBlob
        self._pushes = Pushes(contents, authenticator, origin)
        self._tags = TagPages(contents, settings)
        self._routes = [
            (re.compile(f"/v2/(?P<name>.+)/{rest}"), handler)
            for rest, handler in (
                (r"blobs/uploads/(?P<uuid>[^/]*)", self._pushes.upload),
                (r"manifests/(?P<reference>[^/]+)", self._manifest),
                (r"blobs/(?P<digest>[^/]+)", self._blob),
                (r"tags/list", self._tags.serve),
                (r"referrers/(?P<digest>[^/]+)", self._referrers),
            )
        ]

    def serve(self, request: HubRequest) -> Answer:
        """
        Respond to a request to the registry.
        """
        answer = self._route(request)
        return replace(answer, fields={**_VERSION, **answer.fields})

    def _route(self, request: HubRequest) -> Answer:
        path = unquote(request.path.decode("latin-1"))
        if path == "/v2":
            return Answer(301, {"Location": "/v2/"}, 0)
        if path == "/v2/":
            refusal = self._refusal(request) if self._settings.challengesPing else None
            return refusal or jsonAnswer(200, {})
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
        The error response to a request to a repository that is not permitted or does not exist;
        L{None} when the request can be served.
        """
        refusal = self._refusal(request, name)
        if refusal is not None:
            return refusal
        impossible = self._settings.officialImages and "/" not in name
        unknown = request.method in _READS and name not in self._contents.repositories
        if impossible or unknown:
            return errorAnswer(404, "NAME_UNKNOWN", "repository name not known to registry")
        return None

    def _refusal(self, request: HubRequest, name: str | None = None) -> Answer | None:
        """
        The error response to a request that its credentials do not permit; L{None} when they do.
        """
        visitor = self._authenticator.visitor(request)
        needed = PULL if request.method in _READS else PUSH
        if visitor is not None and (name is None or needed <= visitor.allowed(name)):
            return None
        return self._authenticator.refuse(request, name, needed, visitor is not None)

    def _manifest(self, request: HubRequest, name: str, reference: str) -> Answer:
        if request.method == b"PUT":
            return self._pushes.putManifest(request, name, reference)
        if request.method == b"DELETE":
            return self._pushes.deleteManifest(name, reference)
        if request.method not in _READS:
            return _unsupported()
        visitor = self._authenticator.visitor(request)
        account = "" if visitor is None else visitor.account
        return self._giveManifest(request, name, reference, account)

    def _blob(self, request: HubRequest, name: str, digest: str) -> Answer:
        if request.method not in _READS:
            return _unsupported()
        blob = self._contents.repository(name).blobs.get(digest)
        if blob is None:
            return errorAnswer(404, "BLOB_UNKNOWN", "blob unknown to registry", {"digest": digest})
        return self._giveBlob(request, blob)

    def _referrers(self, request: HubRequest, name: str, digest: str) -> Answer:
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        return jsonAnswer(200, index, {"Content-Type": OCI_INDEX})


def _unsupported() -> Answer:
    return errorAnswer(405, "UNSUPPORTED", "The operation is unsupported.")
