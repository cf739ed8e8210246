"""
The embedded Docker Hub.
"""

from twisted.internet.interfaces import IReactorTime

from hubmirror.testing.embedded import EmbeddedRegistry
from hubmirror.testing.settings import RegistrySettings

_SETTINGS = RegistrySettings(service="registry.docker.io", officialImages=True, pulls=100)


class EmbeddedHub(EmbeddedRegistry):
    """
    An embedded Docker Hub: the registry C{docker.io}, with the Hub's settings.

    @param reactor: the reactor to listen with; a L{Clock} is enough for C{agent}.
    @param address: the loopback address to listen on.
    """

    def __init__(self, reactor: IReactorTime, address: str = "127.0.0.1") -> None:
        super().__init__(reactor, "docker.io", _SETTINGS, address=address)

    def _hostOf(self, service: str) -> str:
        return f"{service}.hub.test"
