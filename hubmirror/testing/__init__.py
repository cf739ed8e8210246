"""
An embedded Docker Hub and other registries beside it, for tests, benchmarks and demonstrations.

In process, on loopback or without any socket, they answer as the real ones do, go wrong as they are
told, and remember what they were asked. They use nothing of the mirror that they test.
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
