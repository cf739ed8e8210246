"""
Blobs: in memory, generated when they are read, or discarded after a push.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Protocol

#: The length of one piece of a blob in bytes: Twisted's transports buffer as much before they pause
#: a producer.
PIECE = 64 * 1024

# The length of the pattern is a prime, so that an offset that is wrong by a power of two does not
# lead to the same bytes.
_PATTERN = 65521


def digestOf(data: bytes) -> str:
    """
    The SHA-256 digest of some bytes, such as C{sha256:0123…}.
    """
    return f"sha256:{sha256(data).hexdigest()}"


class Blob(Protocol):
    """
    A blob: bytes of a known length, which are addressed by their digest.
    """

    @property
    def digest(self) -> str:
        """
        The digest: C{sha256:} and 64 hexadecimal digits.
        """

    @property
    def size(self) -> int:
        """
        The length in bytes.
        """

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """
        The bytes from C{start} up to, not including, C{stop}, in pieces of at most L{PIECE} bytes.
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
    A blob of any size that takes almost no memory: one pseudorandom block, repeated.

    The constructor computes the digest, which takes about half a second for a GiB.

    @param seed: different seeds give different bytes.
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
    A pushed blob whose digest was checked, and whose bytes were discarded because of its size.
    """

    digest: str
    size: int

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        return iter(())
