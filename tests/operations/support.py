"""The embedded Hub with an image, and mirrors of it in this process."""

from pathlib import Path

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from hubmirror import HubMirror, MirrorConfig
from hubmirror.testing import EmbeddedHub
from hubmirror.transport.connecting import loadTrust

REPOSITORY, TAG = "library/alpine", "latest"
PLATFORM = ("linux", "amd64")


class MirrorCase(TestCase):
    """Tests with a Hub on loopback, which has an image for two platforms."""

    async def setUp(self) -> None:
        self.hub = EmbeddedHub(reactor)
        images = {
            platform: self.hub.addImage(REPOSITORY, platform[-5:], sizes=[70000], platform=platform)
            for platform in ("linux/arm64", "linux/amd64")
        }
        self.hub.addIndex(REPOSITORY, TAG, images)
        self.image = images["linux/amd64"]
        await self.hub.start()
        self.addCleanup(self.hub.stop)
        self.trust = loadTrust(self.hub.caFile)

    def startMirror(self, **options: object) -> str:
        """
        Start a mirror of this Hub, with TLS.

        @return: its URL.
        """
        pem = Path(self.mktemp())
        pem.write_bytes(self.hub.serverPEM(["127.0.0.1"]))
        config = MirrorConfig(
            **{
                "port": f"ssl:0:interface=127.0.0.1:privateKey={pem}",
                "registry_url": self.hub.registryURL,
                "auth_url": self.hub.authURL,
                "search_url": self.hub.searchURL,
                "ca_file": self.hub.caFile,
                "allow_redirects_to": self.hub.cdnOrigin,
                **options,
            }
        )
        service = HubMirror(reactor, config, listeners=()).service
        service.startService()
        self.addCleanup(service.stopService)
        return f"https://127.0.0.1:{service.ports[0].getHost().port}"
