"""
Tests of the container image: C{deploy/Containerfile} is built, pushed to a registry, pulled through
a mirror, and run.

The base image is made of Debian's packages, from the same place as those of this machine.
Therefore the tests need C{apt} and C{pip} to work here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from hubmirror import __version__
from tests.integration.hub import dockerRegistry
from tests.integration.mirror import TWISTD
from tests.integration.programs import ROOT, Server, freePort, listens, require, run

#: The time limit, in seconds, of a step that uses the network.
_LONG = 900

#: Runs a script in the image's root, which is read-only, as the image's user, without a network
#: except loopback. C{$0} is the root, C{$1} the script.
_INSIDE = """
set -eu
path=/opt/hubmirror/bin:/usr/local/bin:/usr/bin:/bin
ip link set lo up
mount --bind "$0" "$0"
mount --options remount,bind,ro "$0"
mount -t tmpfs none "$0/tmp"
mount -t proc none "$0/proc"
mount --bind /dev "$0/dev"
inside() {
    exec chroot --userspec=65532:65532 "$0" env -i "PATH=$path" "$@"
}
eval "$1"
"""


class ImageTests(SynchronousTestCase):
    def setUp(self) -> None:
        require("apt-get", "buildah", "chroot", "debootstrap", "docker-registry", "ip", "mount")
        require("setpriv", "tar", "unshare")
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()
        # Root file systems, of several hundred megabytes.
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        (self.folder / "policy.json").write_text(
            '{"default": [{"type": "insecureAcceptAnything"}]}'
        )
        (self.folder / "registries.conf").write_text("")

    def buildah(self, store: str, *arguments: str, timeout: float = 300) -> str:
        """
        Run buildah.

        @param store: the folder of its images.
        """
        folder = self.folder / store
        options = ["--storage-driver=vfs", f"--root={folder}", f"--runroot={folder}-run"]
        options.append(f"--registries-conf={self.folder / 'registries.conf'}")
        env = {"HOME": str(self.folder), "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(self.folder)}
        return run(["buildah", *options, *arguments], env=env, timeout=timeout).strip()

    def policy(self) -> str:
        return f"--signature-policy={self.folder / 'policy.json'}"

    def test_all(self) -> None:
        base = self.makeBase()
        self.build(base)
        registry = freePort()
        server = dockerRegistry(self.folder, registry)
        self.addCleanup(server.stop)
        server.start()
        target = f"docker://127.0.0.1:{registry}/library/hubmirror:latest"
        self.buildah(
            "built",
            "push",
            self.policy(),
            "--tls-verify=false",
            "--format=v2s2",
            "hubmirror",
            target,
        )
        mirror = self.startMirror(registry)
        container = self.buildah(
            "pulled",
            *("from", self.policy(), "--tls-verify=false"),
            f"docker://127.0.0.1:{mirror}/library/hubmirror:latest",
        )
        self.checkSettings(container)
        root = self.buildah("pulled", "mount", container)
        self.checkVersion(root)
        self.checkDemo(root)
        self.checkMirror(root)

    def makeBase(self) -> str:
        """
        Create an image of Debian like its C{slim} one, of the release of this machine.

        @return: the name of the image.
        """
        suite = _codename()
        root = self.folder / "debian"
        uris = ["apt-get", "indextargets", "--format=$(REPO_URI)"]
        uris += ["Created-By: Packages", f"Codename: {suite}"]
        uri = run(uris, env=_ofTheMachine()).split()[0]
        run(
            ["debootstrap", "--variant=minbase", suite, str(root), uri],
            env=_ofTheMachine(),
            timeout=_LONG,
        )
        # The image has the package sources of this machine.
        shutil.copytree("/etc/apt", root / "etc/apt", dirs_exist_ok=True)
        for archive in (root / "var/cache/apt/archives").glob("*.deb"):
            archive.unlink()
        tar = ["tar", "--create", f"--file={self.folder}/context/debian.tar", f"--directory={root}"]
        (self.folder / "context").mkdir()
        run([*tar, "--exclude=./dev/*", "."])
        shutil.rmtree(root)
        (self.folder / "context/Containerfile").write_text("FROM scratch\nADD debian.tar /\n")
        self.buildah("built", "bud", "--tag=debian", str(self.folder / "context"))
        shutil.rmtree(self.folder / "context")
        return "localhost/debian"

    def build(self, base: str) -> None:
        """
        Build the image as the head of the Containerfile explains, with packages that were
        downloaded before.
        """
        wheels = self.folder / "wheels"
        needed = [each for each in requires("hubmirror") or () if _isInImage(each)]
        package = run(["apt-cache", "show", "python3-minimal"], env=_ofTheMachine())
        [version, *_] = re.findall(r"^Version: (\d+\.\d+)\.", package, re.MULTILINE)
        run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", f"--dest={wheels}"),
                *("--only-binary=:all:", f"--python-version={version}"),
                *(each.partition(";")[0] for each in needed),
                *("setuptools>=77", "wheel"),
            ],
            env=_ofTheMachine(),
            timeout=_LONG,
        )
        conf = self.folder / "pip.conf"
        conf.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
        self.buildah(
            "built",
            *("bud", "--format=docker", "--tag=hubmirror", f"--build-arg=BASE={base}"),
            *(f"--secret=id=pip.conf,src={conf}", f"--volume={wheels}:/wheels:ro"),
            *(self.policy(), f"--file={ROOT}/deploy/Containerfile"),
            *(f"--ignorefile={ROOT}/deploy/Containerfile.dockerignore", str(ROOT)),
            timeout=_LONG,
        )

    def startMirror(self, registry: int) -> int:
        """
        Start a mirror of the registry.

        @return: its port.
        """
        port = freePort()
        options = [
            f"--port=tcp:{port}:interface=127.0.0.1",
            f"--registry-url=http://127.0.0.1:{registry}",
            f"--auth-url=http://127.0.0.1:{registry}/token",
        ]
        server = Server("twistd", [*TWISTD, *options], self.folder, ready=lambda: listens(port))
        self.addCleanup(server.stop)
        server.start()
        return port

    def checkSettings(self, container: str) -> None:
        """
        Check the image's configuration, which an engine uses to run it.
        """
        inspected = json.loads(self.buildah("pulled", "inspect", container))
        settings: dict[str, Any] = inspected["Docker"]["config"]
        self.assertEqual(settings["User"], "65532:65532")
        self.assertEqual(settings["StopSignal"], "SIGTERM")
        self.assertEqual(set(settings["ExposedPorts"]), {"5000/tcp", "9090/tcp"})
        self.assertEqual(settings["Entrypoint"], ["hubmirror-entrypoint"])
        self.assertEqual(settings["Healthcheck"]["Test"][:3], ["CMD", "python", "-c"])
        self.healthcheck = settings["Healthcheck"]["Test"][3]

    def inside(self, root: str, script: str, *arguments: str) -> str:
        """
        Run a script in which C{inside} runs a command in the image.
        """
        command = ["unshare", "--mount", "--net", "--pid", "--fork", "sh", "-c", _INSIDE]
        return run([*command, root, script, *arguments], timeout=120)

    def checkVersion(self, root: str) -> None:
        said = self.inside(root, "inside hubmirror-entrypoint --version")
        self.assertEqual(said, f"hubmirror {__version__}\n")

    def checkDemo(self, root: str) -> None:
        said = self.inside(root, "inside python -m hubmirror demo")
        self.assertIn("hubmirror", said)

    def checkMirror(self, root: str) -> None:
        """
        Check C{docker run IMAGE --registry ghcr.io}: the mirror is healthy, and ends properly when
        it is stopped.
        """
        said = self.inside(
            root,
            """
            inside hubmirror-entrypoint --registry ghcr.io > "$0/tmp/log" 2>&1 &
            mirror=$!
            until (inside python -c "$2"); do kill -0 "$mirror"; done 2> "$0/tmp/tries"
            kill "$mirror"
            wait "$mirror"
            cat "$0/tmp/log"
            """,
            self.healthcheck,
        )
        self.assertIn("listening on http://0.0.0.0:5000", said)
        self.assertNotIn("Traceback", said)


def _codename() -> str:
    """The name of this machine's release of Debian."""
    lines = Path("/etc/os-release").read_text().splitlines()
    [name] = [line.partition("=")[2] for line in lines if line.startswith("VERSION_CODENAME=")]
    return name.strip('"')


def _ofTheMachine() -> dict[str, str]:
    """
    The configuration of the machine's package sources.
    """
    kept = ("PIP_", "SSL_", "HOME", "http_", "https_", "no_proxy", "HTTP", "NO_PROXY")
    return {name: value for name, value in os.environ.items() if name.startswith(kept)}


def _isInImage(requirement: str) -> bool:
    """
    Whether the image needs a package.  It has the extra C{admin}, and a Python with C{tomllib}.
    """
    _, _, marker = requirement.partition(";")
    return not marker or 'extra == "admin"' in marker
