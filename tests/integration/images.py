"""
Creates images without a daemon, and pushes them to a registry over its API.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import platform as machine
import random
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

MIB = 1024 * 1024

#: The architecture of this machine, in the spelling of images.
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(machine.machine(), "amd64")

DOCKER = {
    "manifest": "application/vnd.docker.distribution.manifest.v2+json",
    "config": "application/vnd.docker.container.image.v1+json",
    "layer": "application/vnd.docker.image.rootfs.diff.tar.gzip",
}
OCI = {
    "manifest": "application/vnd.oci.image.manifest.v1+json",
    "config": "application/vnd.oci.image.config.v1+json",
    "layer": "application/vnd.oci.image.layer.v1.tar+gzip",
}
_OCI_INDEX = "application/vnd.oci.image.index.v1+json"


def digestOf(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Layer:
    """
    A layer with one file of random, hence incompressible, bytes.

    @ivar blob: the tar file, gzipped without compression; it is little larger than the file.
    @ivar diffId: the digest of the tar file itself.
    """

    blob: bytes
    diffId: str

    @classmethod
    def make(cls, seed: str, size: int) -> Layer:
        """
        Create a layer.

        @param size: the size of the file in bytes.
        """
        content = random.Random(seed).randbytes(size)
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as archive:
            entry = tarfile.TarInfo(seed.replace("/", "-"))
            entry.size = size
            archive.addfile(entry, io.BytesIO(content))
        return cls(gzip.compress(tar.getvalue(), 0, mtime=0), digestOf(tar.getvalue()))


@dataclass(frozen=True)
class Image:
    """
    An image for one platform.

    @ivar kind: the media type of its manifest.
    @ivar blobs: the configuration and the layers.
    """

    kind: str
    manifest: bytes
    blobs: tuple[bytes, ...]

    @classmethod
    def make(
        cls,
        layers: Sequence[Layer],
        types: Mapping[str, str] = DOCKER,
        architecture: str = ARCHITECTURE,
    ) -> Image:
        """
        Create an image.

        @param types: the media types, L{DOCKER} or L{OCI}.
        """
        config = _json(
            {
                "architecture": architecture,
                "os": "linux",
                "config": {"Cmd": ["true"]},
                "rootfs": {"type": "layers", "diff_ids": [layer.diffId for layer in layers]},
                "history": [{"created_by": layer.diffId} for layer in layers],
            }
        )
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": types["manifest"],
                "config": _descriptor(types["config"], config),
                "layers": [_descriptor(types["layer"], layer.blob) for layer in layers],
            }
        )
        return cls(types["manifest"], manifest, (config, *(layer.blob for layer in layers)))

    @property
    def sizes(self) -> dict[str, int]:
        """The blobs' sizes in bytes, by digest."""
        return {digestOf(blob): len(blob) for blob in self.blobs}

    def write(self, folder: Path) -> None:
        """Write the image into a new folder, in the format of skopeo's C{dir:} transport."""
        folder.mkdir()
        (folder / "version").write_text("Directory Transport Version: 1.1\n")
        (folder / "manifest.json").write_bytes(self.manifest)
        for blob in self.blobs:
            (folder / digestOf(blob).removeprefix("sha256:")).write_bytes(blob)


@dataclass(frozen=True)
class Published:
    """
    The content of a tag.

    @ivar digest: the digest of the manifest or index.
    @ivar blobs: the digests of the configuration and layers that this machine needs, with their
        sizes in bytes.
    """

    digest: str
    blobs: Mapping[str, int]


class Publisher:
    """
    Pushes to one registry over plain HTTP, without a server that counts requests.

    @param authorize: returns the bearer token for a push to a repository.
    """

    def __init__(self, port: int, authorize: Callable[[str], str]) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._authorize = authorize

    def image(self, repository: str, tag: str, image: Image) -> Published:
        """Push an image."""
        for blob in image.blobs:
            self._putBlob(repository, blob)
        self._putManifest(repository, tag, image.manifest, image.kind)
        return Published(digestOf(image.manifest), image.sizes)

    def index(self, repository: str, tag: str, images: Mapping[str, Image]) -> Published:
        """
        Push an OCI index.

        @param images: the images by architecture, including this machine's.
        """
        manifests = []
        for architecture, image in images.items():
            self.image(repository, digestOf(image.manifest), image)
            platform = {"os": "linux", "architecture": architecture}
            manifests.append({**_descriptor(image.kind, image.manifest), "platform": platform})
        index = _json({"schemaVersion": 2, "mediaType": _OCI_INDEX, "manifests": manifests})
        self._putManifest(repository, tag, index, _OCI_INDEX)
        return Published(digestOf(index), images[ARCHITECTURE].sizes)

    def close(self) -> None:
        self._connection.close()

    def _putBlob(self, repository: str, blob: bytes) -> None:
        opened = self._ask(repository, "POST", f"/v2/{repository}/blobs/uploads/", 202)
        location = urlsplit(opened["Location"])
        query = f"{location.query}&{urlencode({'digest': digestOf(blob)})}"
        self._ask(repository, "PUT", f"{location.path}?{query}", 201, blob)

    def _putManifest(self, repository: str, reference: str, body: bytes, kind: str) -> None:
        self._ask(repository, "PUT", f"/v2/{repository}/manifests/{reference}", 201, body, kind)

    def _ask(
        self,
        repository: str,
        method: str,
        target: str,
        expected: int,
        body: bytes = b"",
        contentType: str = "application/octet-stream",
    ) -> http.client.HTTPMessage:
        fields = {
            "Authorization": f"Bearer {self._authorize(repository)}",
            "Content-Type": contentType,
        }
        self._connection.request(method, target, body, fields)
        response = self._connection.getresponse()
        answer = response.read()
        assert response.status == expected, (method, target, response.status, answer)
        return response.headers


def _descriptor(mediaType: str, content: bytes) -> dict[str, object]:
    return {"mediaType": mediaType, "size": len(content), "digest": digestOf(content)}


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
