"""Tests of the settings for each client."""

import json
import re
import sys
from pathlib import Path
from textwrap import indent

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import hubmirror
from hubmirror.operations.clientconfig import (
    CLIENTS,
    Unusable,
    describe,
    readURL,
    settingsFor,
    write,
)
from hubmirror.operations.discovery import listed

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(hubmirror.__file__).parent.parent

SECURE = "https://mirror.example"
PLAIN = "http://127.0.0.1:5000"
SECRET = "https://mirror.example:8443/secret/path"


def texts(client: str, url: str) -> list[str]:
    return [file.text for file in settingsFor(client, readURL(url))]


class URLTests(SynchronousTestCase):
    def test_usable(self) -> None:
        """A URL is split, its host converted to lower case, and joined again."""
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
        """A URL that some client would refuse is refused, with one line that does not repeat it."""
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
        """The error lists the known clients."""
        error = self.assertRaises(Unusable, settingsFor, "rkt", readURL(SECURE))
        for client in CLIENTS:
            self.assertIn(client, str(error))


class TextTests(SynchronousTestCase):
    def test_docker(self) -> None:
        """A mirror without TLS is listed as insecure, even on loopback."""
        for url, settings in [
            (SECURE, {"registry-mirrors": [SECURE]}),
            (SECRET, {"registry-mirrors": [SECRET]}),
            (PLAIN, {"registry-mirrors": [PLAIN], "insecure-registries": ["127.0.0.1:5000"]}),
        ]:
            self.assertEqual(json.loads(texts("docker", url)[0]), settings)

    def test_hosts(self) -> None:
        """dockerd and containerd use the whole URL, and append /v2 themselves."""
        for client, number in [("docker", 1), ("containerd", 0)]:
            for url in (SECURE, PLAIN, SECRET):
                self.assertEqual(
                    tomllib.loads(texts(client, url)[number]),
                    {
                        "server": "https://registry-1.docker.io",
                        "host": {url: {"capabilities": ["pull", "resolve"]}},
                    },
                )

    def test_containerdConfig(self) -> None:
        """containerd's configuration names the folder of hosts.toml."""
        hosts, config = settingsFor("containerd", readURL(SECURE))
        settings = tomllib.loads(config.text)
        [plugin] = settings["plugins"].values()
        self.assertEqual(f"{plugin['registry']['config_path']}/docker.io/hosts.toml", hosts.path)

    def test_podman(self) -> None:
        """podman and skopeo use host and path, and need a setting when there is no TLS."""
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
        """
        The path is part of a repository's name for these clients, and must have no capital letters.
        """
        mirror = readURL("https://mirror.example/Secret")
        self.assertRaises(Unusable, settingsFor, "podman", mirror)
        self.assertTrue(settingsFor("docker", mirror))

    def test_buildkit(self) -> None:
        """
        buildkit uses host and path in its list of mirrors; other settings of the mirror are by
        host.
        """
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
        """k3s does not append /v2 to an endpoint with a path, so the setting has it."""
        for url, endpoint in [(SECURE, SECURE), (PLAIN, PLAIN), (SECRET, SECRET + "/v2")]:
            self.assertEqual(
                texts("k3s", url),
                [f'mirrors:\n  docker.io:\n    endpoint:\n      - "{endpoint}"\n'],
            )


class DocumentationTests(SynchronousTestCase):
    def test_same(self) -> None:
        """The documentation has the settings that the command prints."""
        documented = (ROOT / "docs" / "clients.rst").read_text()
        for client in CLIENTS:
            for file in settingsFor(client, readURL(SECURE)):
                self.assertIn(file.path, documented)
                self.assertIn(indent(file.text, "   "), documented)


class DescriptionTests(SynchronousTestCase):
    def test_complete(self) -> None:
        """Each file has a path, and a note on how to make the client read it."""
        for client in CLIENTS:
            for url in (SECURE, PLAIN, SECRET):
                mirror = readURL(url)
                description = describe(client, mirror)
                for file in settingsFor(client, mirror):
                    for part in (file.path, file.text, file.note):
                        self.assertIn(part, description)

    def test_path(self) -> None:
        """For a URL with a path, the note has the target that the client will request."""
        for client, asked in [
            ("docker", "/secret/path/v2/..., its BuildKit for /v2/secret/path/...;"),
            ("containerd", "/secret/path/v2/..."),
            ("k3s", "/secret/path/v2/..."),
            ("podman", "/v2/secret/path/..."),
            ("skopeo", "/v2/secret/path/..."),
            ("buildkit", "/v2/secret/path/..."),
        ]:
            self.assertIn(f"ask for {asked}", describe(client, readURL(SECRET)))
            self.assertIn(f"--public-url {SECRET}", describe(client, readURL(SECRET)))
            self.assertNotIn("ask for", describe(client, readURL(SECURE)))


REGISTRIES = ("docker.io", "ghcr.io", "registry.example:5000")


class RegistriesTests(SynchronousTestCase):
    """
    Several registries.
    """

    def files(self, client: str, url: str = SECURE) -> dict[str, str]:
        return {file.path: file.text for file in settingsFor(client, readURL(url), REGISTRIES)}

    def test_hosts(self) -> None:
        """Each registry has a file, and the client names the registry in ns."""
        for client, folder in (("docker", "docker"), ("containerd", "containerd")):
            files = self.files(client)
            for name, server in (
                ("docker.io", "https://registry-1.docker.io"),
                ("ghcr.io", "https://ghcr.io"),
                ("registry.example_5000_", "https://registry.example:5000"),
            ):
                text = files[f"/etc/{folder}/certs.d/{name}/hosts.toml"]
                self.assertIn(f'server = "{server}"', text)
                self.assertIn(f'[host."{SECURE}"]', text)

    def test_default(self) -> None:
        """One file can be for all registries, but is not written."""
        for client, folder in (("docker", "docker"), ("containerd", "containerd")):
            for url in (SECURE, SECRET):
                text = describe(client, readURL(url), REGISTRIES)
                _, _, default = text.partition(f"/etc/{folder}/certs.d/_default/hosts.toml\n")
                self.assertIn(f'\n\n[host."{url}"]\ncapabilities = ["pull", "resolve"]\n', default)
            self.assertNotIn("_default", "".join(self.files(client)))
        self.assertNotIn("_default", describe("podman", readURL(SECURE), REGISTRIES))

    def test_podman(self) -> None:
        """The registry's name follows that of the mirror."""
        [text] = self.files("podman").values()
        for name, location in (
            ("docker.io", "mirror.example"),
            ("ghcr.io", "mirror.example/ghcr.io"),
            ("registry.example:5000", "mirror.example/registry.example:5000"),
        ):
            self.assertIn(
                f'[[registry]]\nlocation = "{name}"\n\n'
                f'[[registry.mirror]]\nlocation = "{location}"\n',
                text,
            )
        self.assertEqual(list(self.files("cri-o").values()), [text])

    def test_buildkitAndK3s(self) -> None:
        [text] = self.files("buildkit").values()
        self.assertIn('[registry."ghcr.io"]\nmirrors = ["mirror.example"]', text)
        [text] = self.files("k3s").values()
        self.assertIn(f'  ghcr.io:\n    endpoint:\n      - "{SECURE}"', text)
        self.assertIn('  "registry.example:5000":\n', text)

    def test_oldDocker(self) -> None:
        """For a docker without mirrors of other registries, the names to pull by are printed."""
        text = describe("docker", readURL(SECURE), REGISTRIES)
        self.assertIn("  docker pull mirror.example/ghcr.io/NAME\n", text)
        self.assertNotIn("docker pull mirror.example/NAME", text)
        self.assertNotIn("docker pull", describe("docker", readURL(SECURE)))

    def test_oldDockerAndPath(self) -> None:
        """Those names have the path of the mirror in them, and the Hub has one too."""
        text = describe("docker", readURL(SECRET), REGISTRIES)
        mirror = SECRET.removeprefix("https://")
        for name in ("NAME", "ghcr.io/NAME", "registry.example:5000/NAME"):
            self.assertIn(f"  docker pull {mirror}/{name}\n", text)
        # An image has no name with capital letters.
        text = describe("docker", readURL("https://mirror.example/Secret"), REGISTRIES)
        self.assertNotIn("docker pull", text)


class WriteTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.root.mkdir()

    def write(self, client: str, url: str = SECURE) -> str:
        return "\n".join(write(client, readURL(url), ("docker.io",), self.root))

    def test_new(self) -> None:
        self.assertIn("written", self.write("podman"))
        path = self.root / "etc/containers/registries.conf.d/hubmirror.conf"
        self.assertEqual([path.read_text()], texts("podman", SECURE))
        self.assertIn("is right already", self.write("podman"))

    def test_kept(self) -> None:
        """The former content is kept in a file beside it."""
        self.write("podman", PLAIN)
        path = self.root / "etc/containers/registries.conf.d/hubmirror.conf"
        before = path.read_text()
        self.assertIn("hubmirror.conf.before-hubmirror", self.write("podman"))
        self.assertEqual(path.with_name(path.name + ".before-hubmirror").read_text(), before)

    def test_keptOnce(self) -> None:
        """The copy stays the user's own file, byte for byte and with its mode, whatever follows."""
        own = b"# S\xfcd\r\n"
        path = self.root / "etc/containers/registries.conf.d/hubmirror.conf"
        path.parent.mkdir(parents=True)
        path.write_bytes(own)
        path.chmod(0o600)
        self.assertIn("what was there is in hubmirror.conf.before-hubmirror", self.write("podman"))
        self.assertIn("is still in hubmirror.conf.before-hubmirror", self.write("podman", PLAIN))
        copy = path.with_name("hubmirror.conf.before-hubmirror")
        self.assertEqual((copy.read_bytes(), copy.stat().st_mode & 0o777), (own, 0o600))
        self.assertEqual([path.read_text()], texts("podman", PLAIN))

    def test_registryName(self) -> None:
        """
        The names of registries, which a mirror states, do not lead out of the folder, and add no
        settings.
        """
        mirror = readURL(SECURE)
        for client in CLIENTS:
            for name in ("../../../cron.d", "/etc", 'a.b"]\n[evil', "a.b\n", ""):
                with self.assertRaises(Unusable):
                    list(write(client, mirror, ("docker.io", name), self.root))
        self.assertEqual(list(self.root.iterdir()), [])

    def test_notWritten(self) -> None:
        """The error names the file and the reason in one line."""
        folder = self.root / "etc/containers"
        folder.parent.mkdir()
        folder.write_bytes(b"")
        error = self.assertRaises(Unusable, self.write, "podman")
        self.assertEqual(str(error), f"{folder}/registries.conf.d: Not a directory")
        folder.unlink()
        file = folder / "registries.conf.d/hubmirror.conf"
        file.mkdir(parents=True)
        error = self.assertRaises(Unusable, self.write, "podman")
        self.assertEqual(str(error), f"{file}: Is a directory")

    def test_joined(self) -> None:
        """Other settings of dockerd are kept."""
        path = self.root / "etc/docker/daemon.json"
        path.parent.mkdir(parents=True)
        path.write_text('{"debug": true, "registry-mirrors": ["https://old.example"]}')
        self.write("docker")
        self.assertEqual(
            json.loads(path.read_text()),
            {"debug": True, "registry-mirrors": [SECURE, "https://old.example"]},
        )
        self.assertIn("is right already", self.write("docker"))
        path.write_text('{"registry-mirrors": null}')
        self.write("docker")
        self.assertEqual(json.loads(path.read_text()), {"registry-mirrors": [SECURE]})
        for wrong in (b"[]", b"1", b'{"registry-mirrors": 1}', b'{"a": "\xfc"}'):
            path.write_bytes(wrong)
            self.assertIn("left as it is", self.write("docker"))

    def test_notJoined(self) -> None:
        """A file that can't be merged is left as it is."""
        path = self.root / "etc/rancher/k3s/registries.yaml"
        path.parent.mkdir(parents=True)
        path.write_text("mirrors: {}\n")
        self.assertIn("add this yourself", self.write("k3s"))
        self.assertEqual(path.read_text(), "mirrors: {}\n")


class DiscoveryTests(SynchronousTestCase):
    def test_listed(self) -> None:
        for value, names in (
            (None, ["docker.io"]),
            ("", ["docker.io"]),
            ("docker.io, ghcr.io", ["docker.io", "ghcr.io"]),
        ):
            self.assertEqual(listed(value), names)

    @given(st.text("a., \t\n") | st.text())
    def test_foreign(self, value: str) -> None:
        """There is always a name, and what is no name is refused later."""
        names = listed(value)
        self.assertTrue(names)
        for name in names:
            self.assertTrue(name.strip())
            self.assertNotIn(",", name)
        try:
            settingsFor("containerd", readURL(SECURE), names)
        except Unusable:
            return
        for name in names:
            self.assertIsNotNone(re.fullmatch(r"[A-Za-z0-9.:\[\]-]+", name), name)
