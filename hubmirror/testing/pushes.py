"""
The push side of a registry: uploads in any number of pieces, mounts, and manifests.

Twisted's Site collects the body of a request in a temporary file, so that a push of any size takes
bounded memory.
"""

import base64
import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any, BinaryIO
from urllib.parse import parse_qs, quote
from uuid import uuid4

from hubmirror.testing.answers import Answer, errorAnswer
from hubmirror.testing.authentication import Authenticator
from hubmirror.testing.blobs import Blob, DiscardedBlob, HeldBlob
from hubmirror.testing.contents import Contents
from hubmirror.testing.images import Manifest
from hubmirror.testing.wire import HubRequest

#: The size in bytes up to which a pushed blob is kept.  Of larger ones, only digest and size are.
KEPT = 32 * 1024 * 1024
#: The size in bytes of the largest manifest that the Hub accepts.
LONGEST_MANIFEST = 4 * 1024 * 1024


class Upload:
    """
    A blob that is being uploaded.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.uuid = str(uuid4())
        self.size = 0
        self._hash = sha256()
        self._kept = bytearray()

    @property
    def state(self) -> str:
        """
        The value of C{_state} in the upload's location, which changes with each piece.
        """
        hashed = sha256(f"{self.uuid} {self.size}".encode()).digest()
        return base64.b64encode(hashed).decode()

    @property
    def digest(self) -> str:
        """
        The digest of the bytes that have been received.
        """
        return f"sha256:{self._hash.hexdigest()}"

    def feed(self, body: BinaryIO) -> None:
        """
        Append a piece.
        """
        while block := body.read(1024 * 1024):
            self._hash.update(block)
            self.size += len(block)
            if self.size <= KEPT:
                self._kept += block
            else:
                self._kept.clear()

    def blob(self) -> Blob:
        """
        The blob, once it has been received completely.
        """
        if self.size > KEPT:
            return DiscardedBlob(self.digest, self.size)
        return HeldBlob(bytes(self._kept))


class Pushes:
    """
    Responds to the requests of clients that may push.

    @param origin: returns the registry's own origin, for absolute locations.
    """

    def __init__(
        self, contents: Contents, authenticator: Authenticator, origin: Callable[[], str]
    ) -> None:
        self._contents = contents
        self._authenticator = authenticator
        self._origin = origin
        self._uploads: dict[str, Upload] = {}

    def upload(self, request: HubRequest, name: str, uuid: str) -> Answer:
        """
        Begin an upload, or continue one.
        """
        query = parse_qs(request.query)
        if not uuid:
            return self._begin(request, name, query)
        upload = self._uploads.get(uuid)
        if upload is None or upload.name != name:
            return errorAnswer(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        if query.get("_state") != [upload.state]:
            return errorAnswer(400, "BLOB_UPLOAD_INVALID", "the location was changed on its way")
        if request.method == b"PATCH":
            return self._append(request, upload)
        if request.method == b"PUT":
            upload.feed(request.content)
            return self._complete(upload, query)
        if request.method == b"DELETE":
            del self._uploads[uuid]
            return Answer(204)
        return self._progress(204, upload)

    def putManifest(self, request: HubRequest, name: str, reference: str) -> Answer:
        """
        Accept a manifest whose blobs and manifests have already been uploaded.
        """
        body = request.content.read(LONGEST_MANIFEST + 1)
        if len(body) > LONGEST_MANIFEST:
            return errorAnswer(413, "SIZE_INVALID", "manifest too long")
        manifest = Manifest(request.fieldOf("Content-Type"), body)
        byDigest = reference.startswith("sha256:")
        if byDigest and reference != manifest.digest:
            return _wrongDigest(reference, manifest.digest)
        repository = self._contents.repository(name)
        try:
            parts = _partsOf(json.loads(body))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return errorAnswer(400, "MANIFEST_INVALID", "manifest invalid")
        missing = [part for part in parts if part not in repository.blobs | repository.manifests]
        if missing:
            message = "manifest references unknown content"
            return errorAnswer(400, "MANIFEST_BLOB_UNKNOWN", message, {"digest": missing[0]})
        repository.manifests[manifest.digest] = manifest
        if not byDigest:
            repository.tags[reference] = manifest.digest
        return self._created(f"/v2/{name}/manifests/{manifest.digest}", manifest.digest)

    def deleteManifest(self, name: str, reference: str) -> Answer:
        """
        Delete a tag, or a manifest and all its tags.
        """
        repository = self._contents.repository(name)
        if repository.find(reference) is None:
            return errorAnswer(404, "MANIFEST_UNKNOWN", "manifest unknown")
        if repository.manifests.pop(reference, None) is None:
            del repository.tags[reference]
        else:
            repository.tags = {
                tag: digest for tag, digest in repository.tags.items() if digest != reference
            }
        return Answer(202, length=0)

    def _begin(self, request: HubRequest, name: str, query: dict[str, list[str]]) -> Answer:
        if request.method != b"POST":
            return errorAnswer(405, "UNSUPPORTED", "The operation is unsupported.")
        repository = self._contents.repository(name)
        mounted = self._mountable(request, query)
        if mounted is not None:
            repository.blobs[mounted.digest] = mounted
            return self._created(f"/v2/{name}/blobs/{mounted.digest}", mounted.digest)
        upload = Upload(name)
        self._uploads[upload.uuid] = upload
        if "digest" in query:
            upload.feed(request.content)
            return self._complete(upload, query)
        return self._progress(202, upload)

    def _mountable(self, request: HubRequest, query: dict[str, list[str]]) -> Blob | None:
        """
        The blob to mount from another repository; L{None} when the client may not pull from there.
        """
        digest, source = (query.get(name, [""])[0] for name in ("mount", "from"))
        visitor = self._authenticator.visitor(request)
        if visitor is None or "pull" not in visitor.allowed(source):
            return None
        return self._contents.repository(source).blobs.get(digest)

    def _append(self, request: HubRequest, upload: Upload) -> Answer:
        start = (request.fieldOf("Content-Range") or str(upload.size)).partition("-")[0]
        if start != str(upload.size):
            return self._progress(416, upload)
        upload.feed(request.content)
        return self._progress(202, upload)

    def _complete(self, upload: Upload, query: dict[str, list[str]]) -> Answer:
        del self._uploads[upload.uuid]
        digest = query.get("digest", [""])[0]
        if digest != upload.digest:
            return _wrongDigest(digest, upload.digest)
        self._contents.repository(upload.name).blobs[digest] = upload.blob()
        return self._created(f"/v2/{upload.name}/blobs/{digest}", digest)

    def _progress(self, status: int, upload: Upload) -> Answer:
        location = f"{self._origin()}/v2/{upload.name}/blobs/uploads/{upload.uuid}"
        fields = {
            "Location": f"{location}?_state={quote(upload.state, safe='')}",
            "Range": f"0-{max(upload.size - 1, 0)}",
            "Docker-Upload-UUID": upload.uuid,
        }
        return Answer(status, fields, None if status == 204 else 0)

    def _created(self, path: str, digest: str) -> Answer:
        return Answer(201, {"Location": self._origin() + path, "Docker-Content-Digest": digest}, 0)


def _partsOf(manifest: dict[str, Any]) -> list[str]:
    """
    The digests of the blobs and manifests that a manifest or an index refers to.
    """
    descriptors = [*manifest.get("layers", []), *manifest.get("manifests", [])]
    if "config" in manifest:
        descriptors.append(manifest["config"])
    return [str(descriptor["digest"]) for descriptor in descriptors]


def _wrongDigest(given: str, actual: str) -> Answer:
    message = "provided digest did not match uploaded content"
    return errorAnswer(400, "DIGEST_INVALID", message, {"given": given, "actual": actual})
