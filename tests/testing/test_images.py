"""
Tests of the images.
"""

import gzip
import io
import json
import tarfile

from twisted.trial.unittest import SynchronousTestCase

from hubmirror.testing import DOCKER_INDEX, OCI_INDEX, OCI_MANIFEST
from hubmirror.testing.blobs import PIECE, Blob, HeldBlob, PatternBlob, digestOf
from hubmirror.testing.images import DOCKER_MANIFEST, makeImage, makeIndex, makeLayer


class LayerTests(SynchronousTestCase):
    def test_unpacks(self) -> None:
        with tarfile.open(fileobj=io.BytesIO(makeLayer(1000, "seed"))) as archive:
            [entry] = archive.getmembers()
            self.assertEqual(entry.size, 1000)
            self.assertEqual(len(archive.extractfile(entry).read()), 1000)

    def test_seed(self) -> None:
        self.assertEqual(makeLayer(1000, "one"), makeLayer(1000, "one"))
        self.assertNotEqual(makeLayer(1000, "one"), makeLayer(1000, "two"))

    def test_size(self) -> None:
        """
        A layer is hardly larger than its content, which does not compress.
        """
        self.assertApproximates(len(makeLayer(1_000_000, "seed")), 1_000_000, 20_000)


class ImageTests(SynchronousTestCase):
    def test_manifest(self) -> None:
        layer = makeLayer(10, "seed")
        image = makeImage([layer], "linux/arm64/v8", DOCKER_MANIFEST)
        manifest = json.loads(image.manifest.body)
        self.assertEqual(manifest["mediaType"], DOCKER_MANIFEST)
        self.assertEqual(
            manifest["layers"],
            [
                {
                    "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                    "digest": digestOf(layer),
                    "size": len(layer),
                }
            ],
        )
        self.assertEqual(manifest["config"]["digest"], image.config.digest)
        self.assertEqual(image.digest, digestOf(image.manifest.body))

    def test_config(self) -> None:
        """
        C{diff_ids} match the content, as clients check after unpacking.
        """
        layer = makeLayer(10, "seed")
        config = json.loads(makeImage([layer], "linux/arm64/v8", OCI_MANIFEST).config.data)
        self.assertEqual(config["rootfs"]["diff_ids"], [digestOf(gzip.decompress(layer))])
        self.assertEqual(
            [config["os"], config["architecture"], config["variant"]], ["linux", "arm64", "v8"]
        )

    def test_index(self) -> None:
        for mediaType, indexType in ((DOCKER_MANIFEST, DOCKER_INDEX), (OCI_MANIFEST, OCI_INDEX)):
            image = makeImage([b"layer"], "linux/amd64", mediaType)
            index = makeIndex({"linux/amd64": image})
            self.assertEqual(index.manifest.mediaType, indexType)
            [entry] = json.loads(index.manifest.body)["manifests"]
            self.assertEqual(entry["digest"], image.digest)
            self.assertEqual(entry["platform"], {"os": "linux", "architecture": "amd64"})


class BlobTests(SynchronousTestCase):
    def check(self, blob: Blob) -> None:
        whole = b"".join(blob.pieces(0, blob.size))
        self.assertEqual(len(whole), blob.size)
        self.assertEqual(digestOf(whole), blob.digest)
        for start, stop in ((0, 1), (1, PIECE + 2), (PIECE, 3 * PIECE), (70_000, 70_000)):
            pieces = list(blob.pieces(start, stop))
            self.assertEqual(b"".join(pieces), whole[start:stop])
            self.assertTrue(all(0 < len(piece) <= PIECE for piece in pieces))

    def test_held(self) -> None:
        self.check(HeldBlob(b"".join(b"%d" % n for n in range(50_000))))

    def test_pattern(self) -> None:
        self.check(PatternBlob(300_000, "seed"))

    def test_patternIsNotAligned(self) -> None:
        """
        Reading at an offset that is wrong by a power of two yields other bytes.
        """
        blob = PatternBlob(4 * 1024 * 1024, "seed")
        first = b"".join(blob.pieces(0, 16))
        for power in range(21):
            self.assertNotEqual(b"".join(blob.pieces(2**power, 2**power + 16)), first)
