"""The settings for each client."""

import json
import sys
from pathlib import Path
from textwrap import indent
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

import hubmirror
from hubmirror.operations.clientconfig import CLIENTS, Unusable, describe, readURL, settingsFor

if sys.version_info >= (3, 11):
    import tomllib

ROOT = Path(hubmirror.__file__).parent.parent

SECURE = "https://mirror.example"
PLAIN = "http://127.0.0.1:5000"
SECRET = "https://mirror.example:8443/secret/path"

withTOML = skipIf(sys.version_info < (3, 11), "no tomllib")


def texts(client: str, url: str) -> list[str]:
    return [file.text for file in settingsFor(client, readURL(url))]


class URLTests(SynchronousTestCase):
    def test_usable(self) -> None:
        """A URL is taken apart, its host in lower case, and put together again."""
        for url, parts in [
            (SECURE, ("https", "mirror.example", "")),
            ("HTTPS://Mirror.Example:443/", ("https", "mirror.example", "")),
            (PLAIN, ("http", "127.0.0.1:5000", "")),
            ("http://[::1]:80", ("http", "[::1]", "")),
            (SECRET + "/", ("https", "mirror.example:8443", "/secret/path")),
        ]:
            mirror = readURL(url)
            self.assertEqual((mirror.scheme, mirror.authority, mirror.path), parts, url)
            self.assertEqual(readURL(str(mirror)), mirror)

    def test_unusable(self) -> None:
        """What some client would refuse is refused, in one line that does not repeat it."""
        for url in [
            "mirror.example",
            "ftp://mirror.example",
            "https://",
            "https://user:hunter2@mirror.example",
            "https://mirror.example/?hunter2",
            "https://mirror.example?hunter2",
            "https://mirror.example/#hunter2",
            "https://mirror.example:99999",
            "https://mirror.example/a b",
            'https://mirror.example/"',
            "https://mirror.example/a/../b",
            "https://mirror.example/%41",
            "https://spiegel.süd",
            "https://mirror.example\n",
        ]:
            text = str(self.assertRaises(Unusable, readURL, url))
            self.assertNotIn("hunter2", text)
            self.assertNotIn("\n", text)

    def test_unknownClient(self) -> None:
        """The clients that there are settings for are named."""
        error = self.assertRaises(Unusable, settingsFor, "rkt", readURL(SECURE))
        for client in CLIENTS:
            self.assertIn(client, str(error))


class TextTests(SynchronousTestCase):
    def test_docker(self) -> None:
        """A plain mirror is named as insecure as well, on loopback too."""
        for url, settings in [
            (SECURE, {"registry-mirrors": [SECURE]}),
            (SECRET, {"registry-mirrors": [SECRET]}),
            (PLAIN, {"registry-mirrors": [PLAIN], "insecure-registries": ["127.0.0.1:5000"]}),
        ]:
            self.assertEqual(json.loads(texts("docker", url)[0]), settings)

    @withTOML
    def test_hosts(self) -> None:
        """dockerd and containerd take the whole URL, and put /v2 after it themselves."""
        for client, number in [("docker", 1), ("containerd", 0)]:
            for url in (SECURE, PLAIN, SECRET):
                self.assertEqual(
                    tomllib.loads(texts(client, url)[number]),
                    {
                        "server": "https://registry-1.docker.io",
                        "host": {url: {"capabilities": ["pull", "resolve"]}},
                    },
                )

    @withTOML
    def test_containerdConfig(self) -> None:
        """containerd is told where hosts.toml lies."""
        hosts, config = settingsFor("containerd", readURL(SECURE))
        settings = tomllib.loads(config.text)
        [plugin] = settings["plugins"].values()
        self.assertEqual(f"{plugin['registry']['config_path']}/docker.io/hosts.toml", hosts.path)

    @withTOML
    def test_podman(self) -> None:
        """podman and skopeo take host and path, and are told when there is no TLS."""
        for client in ("podman", "skopeo"):
            for url, mirror in [
                (SECURE, {"location": "mirror.example"}),
                (SECRET, {"location": "mirror.example:8443/secret/path"}),
                (PLAIN, {"location": "127.0.0.1:5000", "insecure": True}),
            ]:
                self.assertEqual(
                    tomllib.loads(texts(client, url)[0]),
                    {"registry": [{"location": "docker.io", "mirror": [mirror]}]},
                )

    def test_podmanLowerCase(self) -> None:
        """The path is part of a repository's name there, and takes no capital letters."""
        mirror = readURL("https://mirror.example/Secret")
        self.assertRaises(Unusable, settingsFor, "podman", mirror)
        self.assertTrue(settingsFor("docker", mirror))

    @withTOML
    def test_buildkit(self) -> None:
        """buildkit takes host and path; what else is said of the mirror goes by its host."""
        for url, hub, others in [
            (SECURE, "mirror.example", {}),
            (SECRET, "mirror.example:8443/secret/path", {}),
            (PLAIN, "127.0.0.1:5000", {"127.0.0.1:5000": {"http": True}}),
            (PLAIN + "/p", "127.0.0.1:5000/p", {"127.0.0.1:5000": {"http": True}}),
        ]:
            self.assertEqual(
                tomllib.loads(texts("buildkit", url)[0]),
                {"registry": {"docker.io": {"mirrors": [hub]}, **others}},
            )

    def test_k3s(self) -> None:
        """An endpoint with a path is taken as it is, so it gets its /v2 here."""
        for url, endpoint in [(SECURE, SECURE), (PLAIN, PLAIN), (SECRET, SECRET + "/v2")]:
            self.assertEqual(
                texts("k3s", url),
                [f'mirrors:\n  docker.io:\n    endpoint:\n      - "{endpoint}"\n'],
            )


class DocumentationTests(SynchronousTestCase):
    def test_same(self) -> None:
        """The documentation shows the settings that the command prints."""
        documented = (ROOT / "docs" / "clients.rst").read_text()
        for client in CLIENTS:
            for file in settingsFor(client, readURL(SECURE)):
                self.assertIn(file.path, documented)
                self.assertIn(indent(file.text, "   "), documented)


class DescriptionTests(SynchronousTestCase):
    def test_complete(self) -> None:
        """Each file comes with its path and with what makes the client read it."""
        for client in CLIENTS:
            for url in (SECURE, PLAIN, SECRET):
                mirror = readURL(url)
                description = describe(client, mirror)
                for file in settingsFor(client, mirror):
                    for part in (file.path, file.text, file.note):
                        self.assertIn(part, description)

    def test_path(self) -> None:
        """With a path, what will be asked for is told; without one it is not."""
        for client, asked in [
            ("docker", "/secret/path/v2/..."),
            ("containerd", "/secret/path/v2/..."),
            ("k3s", "/secret/path/v2/..."),
            ("podman", "/v2/secret/path/..."),
            ("skopeo", "/v2/secret/path/..."),
            ("buildkit", "/v2/secret/path/..."),
        ]:
            self.assertIn(f"ask for {asked}", describe(client, readURL(SECRET)))
            self.assertIn(f"--public-url {SECRET}", describe(client, readURL(SECRET)))
            self.assertNotIn("ask for", describe(client, readURL(SECURE)))
