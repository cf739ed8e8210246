"""
The contents of the upstream: one image and a large blob, as files for nginx.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from benchmarks.usage import MIB

_REPOSITORY = "v2/library/image"


@dataclass(frozen=True)
class Item:
    """
    A blob or manifest that clients request.

    @ivar target: the path of its URL.
    @ivar digest: the SHA-256 of its bytes, in hexadecimal.
    @ivar size: its size in bytes.
    """

    target: str
    digest: str
    size: int


class Contents:
    """
    Files of random bytes.  No two parts are alike, so that a misplaced part changes a digest.

    @param blobSize: the size of the large blob in MiB.
    @param layerSize: the size of each of the image's ten layers in MiB.
    @ivar folder: the folder of the files.
    """

    def __init__(self, folder: Path, blobSize: int, layerSize: int) -> None:
        self.folder = folder
        (folder / "cdn").mkdir(parents=True)
        self.blob = self._makeBlob(blobSize)
        self.layers = [self._makeBlob(layerSize) for _ in range(10)]
        self.manifest = self._makeManifest()

    def _makeBlob(self, size: int) -> Item:
        digest = sha256()
        path = self.folder / "cdn" / "new"
        with path.open("wb") as file:
            for _ in range(size):
                piece = os.urandom(MIB)
                digest.update(piece)
                file.write(piece)
        name = digest.hexdigest()
        path.rename(path.with_name(name))
        return Item(f"/{_REPOSITORY}/blobs/sha256:{name}", name, size * MIB)

    def _makeManifest(self) -> Item:
        layers = [
            {
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                "digest": f"sha256:{layer.digest}",
                "size": layer.size,
            }
            for layer in self.layers
        ]
        content = json.dumps({"schemaVersion": 2, "layers": layers}).encode()
        path = self.folder / _REPOSITORY / "manifests" / "latest"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        return Item(f"/{_REPOSITORY}/manifests/latest", sha256(content).hexdigest(), len(content))
