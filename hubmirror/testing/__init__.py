"""
An embedded Docker Hub, for tests, benchmarks and demonstrations.

In process, on loopback or without any socket, it answers as the Hub does, goes wrong as it is told,
and remembers what it was asked. It uses nothing of the mirror that it tests.
"""

from hubmirror.testing.answers import Answer, Ending, bytesAnswer, errorAnswer, jsonAnswer
from hubmirror.testing.blobs import Blob
from hubmirror.testing.faults import Seen
from hubmirror.testing.hub import EmbeddedHub
from hubmirror.testing.images import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Image,
    Index,
)
from hubmirror.testing.memory import MemoryAgent
from hubmirror.testing.origin import Origin
from hubmirror.testing.wire import HubRequest

__all__ = [
    "DOCKER_INDEX",
    "DOCKER_MANIFEST",
    "OCI_INDEX",
    "OCI_MANIFEST",
    "Answer",
    "Blob",
    "EmbeddedHub",
    "Ending",
    "HubRequest",
    "Image",
    "Index",
    "MemoryAgent",
    "Origin",
    "Seen",
    "bytesAnswer",
    "errorAnswer",
    "jsonAnswer",
]
