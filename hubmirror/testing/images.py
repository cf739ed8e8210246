"""
Creates images: layers that can be unpacked, configs, manifests and indexes.

All contents are generated from seeds, so that the same arguments always give the same digests.
"""

import gzip
import io
import json
import random
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hubmirror.testing.blobs import Blob, HeldBlob, digestOf

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"

_INDEX_OF = {DOCKER_MANIFEST: DOCKER_INDEX, OCI_MANIFEST: OCI_INDEX}
_CONFIG_OF = {
    DOCKER_MANIFEST: "application/vnd.docker.container.image.v1+json",
    OCI_MANIFEST: "application/vnd.oci.image.config.v1+json",
}
_LAYER_OF = {
    DOCKER_MANIFEST: "application/vnd.docker.image.rootfs.diff.tar.gzip",
    OCI_MANIFEST: "application/vnd.oci.image.layer.v1.tar+gzip",
}


@dataclass(frozen=True)
class Manifest:
    """
    A manifest or an index: its JSON and its media type.
    """

    mediaType: str
    body: bytes = field(repr=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", digestOf(self.body))


@dataclass(frozen=True)
class Image:
    """
    An image for one platform: a manifest with its config and layers.
    """

    manifest: Manifest
    config: HeldBlob
    layers: tuple[Blob, ...]

    @property
    def digest(self) -> str:
        """
        The digest of the manifest.
        """
        return self.manifest.digest


@dataclass(frozen=True)
class Index:
    """
    An image for several platforms: an index with the image of each platform.
    """

    manifest: Manifest
    images: Mapping[str, Image]

    @property
    def digest(self) -> str:
        """
        The digest of the index itself.
        """
        return self.manifest.digest


def makeLayer(size: int, seed: str) -> bytes:
    """
    Create a layer: a gzipped tar with one file of C{size} pseudorandom bytes.
    """
    content = random.Random(seed).randbytes(size)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo(f"data-{digestOf(seed.encode())[7:19]}")
        entry.size = size
        archive.addfile(entry, io.BytesIO(content))
    # Level 0 does not compress, which would take time and could not make random bytes smaller.
    return gzip.compress(packed.getvalue(), compresslevel=0, mtime=0)


def makeImage(layers: Sequence[bytes], platform: str, mediaType: str) -> Image:
    """
    Create an image of these layers.

    @param layers: gzipped tars, lowest first; or any bytes, if no client unpacks them.
    @param platform: the platform, such as C{linux/amd64}.
    @param mediaType: L{DOCKER_MANIFEST} or L{OCI_MANIFEST}.
    """
    blobs = tuple(HeldBlob(layer) for layer in layers)
    config = HeldBlob(
        _dump(
            {
                **_platformFields(platform),
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [_diffID(layer) for layer in layers]},
                "history": [{"created_by": "hubmirror.testing"} for _ in layers],
            }
        )
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediaType,
        "config": _descriptor(_CONFIG_OF[mediaType], config.digest, config.size),
        "layers": [_descriptor(_LAYER_OF[mediaType], blob.digest, blob.size) for blob in blobs],
    }
    return Image(Manifest(mediaType, _dump(manifest)), config, blobs)


def makeIndex(images: Mapping[str, Image]) -> Index:
    """
    Create an index of these images, which are given by platform.  Its media type is Docker's or
    OCI's, in accordance with the first image.
    """
    mediaType = _INDEX_OF[next(iter(images.values())).manifest.mediaType]
    index = {
        "schemaVersion": 2,
        "mediaType": mediaType,
        "manifests": [
            {
                **_descriptor(image.manifest.mediaType, image.digest, len(image.manifest.body)),
                "platform": _platformFields(platform),
            }
            for platform, image in images.items()
        ],
    }
    return Index(Manifest(mediaType, _dump(index)), dict(images))


def _descriptor(mediaType: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": mediaType, "digest": digest, "size": size}


def _platformFields(platform: str) -> dict[str, str]:
    return dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))


def _diffID(layer: bytes) -> str:
    return digestOf(gzip.decompress(layer) if layer.startswith(b"\x1f\x8b") else layer)


def _dump(value: object) -> bytes:
    return json.dumps(value, indent=2).encode()
