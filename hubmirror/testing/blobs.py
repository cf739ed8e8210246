"""
Blobs: bytes that are held, bytes that are made when they are asked for, and bytes let go.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Protocol

#: Bytes in one piece of a blob: as much as Twisted's transports take before they pause a producer.
PIECE = 64 * 1024

# A prime, so that a reader who lands off by a power of two reads other bytes than he should.
_PATTERN = 65521


def digestOf(data: bytes) -> str:
    """
    Digest of some bytes, as in C{sha256:0123…}.
    """
    return f"sha256:{sha256(data).hexdigest()}"


class Blob(Protocol):
    """
    Bytes of a known length, named by their digest.
    """

    @property
    def digest(self) -> str:
        """
        Name of the blob, C{sha256:} and 64 hexadecimal digits.
        """

    @property
    def size(self) -> int:
        """
        Length, in bytes.
        """

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """
        The bytes from C{start} up to, not including, C{stop}, none of them longer than L{PIECE}.
        """


@dataclass(frozen=True)
class HeldBlob:
    """
    A blob in memory.
    """

    data: bytes = field(repr=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", digestOf(self.data))

    @property
    def size(self) -> int:
        return len(self.data)

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        for at in range(start, stop, PIECE):
            yield self.data[at : min(at + PIECE, stop)]


class PatternBlob:
    """
    A blob of any size that costs no memory: one seeded block, over and over.

    Making one reads it through once for the digest: about half a second for a GiB.
    """

    def __init__(self, size: int, seed: str) -> None:
        self.size = size
        self._pattern = random.Random(seed).randbytes(_PATTERN) * 2
        hashed = sha256()
        for piece in self.pieces(0, size):
            hashed.update(piece)
        self.digest = f"sha256:{hashed.hexdigest()}"

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        for at in range(start, stop, _PATTERN):
            phase = at % _PATTERN
            yield self._pattern[phase : phase + min(_PATTERN, stop - at)]


@dataclass(frozen=True)
class DiscardedBlob:
    """
    A pushed blob that was checked, and was too big to be kept: there are no bytes to it.
    """

    digest: str
    size: int

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        return iter(())
