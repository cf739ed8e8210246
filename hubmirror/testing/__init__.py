"""
An embedded Docker Hub and other embedded registries, for tests, benchmarks and demonstrations.

They run in the process of the test, on loopback or without any socket.  They respond as the real
registries do, simulate faults, and record the requests that they receive.  They do not import
anything from the mirror that they test.
"""

from hubmirror.testing.answers import Answer, Ending, bytesAnswer, errorAnswer, jsonAnswer
from hubmirror.testing.blobs import Blob
from hubmirror.testing.credentials import Credential
from hubmirror.testing.embedded import EmbeddedRegistry
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
from hubmirror.testing.settings import Authentication, RegistrySettings
from hubmirror.testing.wire import HubRequest

__all__ = [
    "DOCKER_INDEX",
    "DOCKER_MANIFEST",
    "OCI_INDEX",
    "OCI_MANIFEST",
    "Answer",
    "Authentication",
    "Blob",
    "Credential",
    "EmbeddedHub",
    "EmbeddedRegistry",
    "Ending",
    "HubRequest",
    "Image",
    "Index",
    "MemoryAgent",
    "Origin",
    "RegistrySettings",
    "Seen",
    "bytesAnswer",
    "errorAnswer",
    "jsonAnswer",
]
