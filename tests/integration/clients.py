"""
The clients of a mirror, each set up as its users do it, with a store of its own.  None of them can
resolve the Hub's names: what they pull comes through the mirror, or not at all.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.integration.programs import CommandFailed, Server, require, run, withHosts
from tests.integration.tokens import PASSWORD, USER


class Client(Protocol):
    """
    A program that pulls images.

    @ivar userAgent: the beginning of the product in its C{User-Agent}.
    """

    userAgent: str

    def pull(self, name: str, *, private: bool = False) -> str:
        """
        Pull C{docker.io/NAME} again.

        @param name: C{repository:tag}.
        @param private: whether to pull as alice, who has logged in.
        @return: the digests of the image in the client's store.
        @raise CommandFailed: when the pull fails.
        """
        ...


@dataclass(frozen=True)
class Surroundings:
    """
    The environment of all clients.

    @ivar hosts: the C{/etc/hosts} of the clients.
    @ivar bundle: the file with the CA that they trust.
    @ivar mirror: C{HOST:PORT} of their mirror.
    """

    hosts: Path
    bundle: Path
    mirror: str


class Dockerd:
    """
    dockerd with C{registry-mirrors}, and the docker command.

    The Hub's credentials are written to the configuration of the command in the same form as by
    C{docker login}: the login itself would go to the Hub without any mirror.
    """

    userAgent = "docker/"

    def __init__(
        self, folder: Path, surroundings: Surroundings, settings: str | None = None
    ) -> None:
        """
        @param settings: a C{daemon.json} in place of its own.
        """
        require("dockerd", "docker")
        folder.mkdir()
        self._mirror = mirror = surroundings.mirror
        self._surroundings = surroundings
        configuration = folder / "daemon.json"
        configuration.write_text(
            settings or json.dumps({"registry-mirrors": [f"https://{mirror}"]})
        )
        self._socket = folder / "docker.sock"
        self._anonymous = _writeAuths(folder / "anonymous", {})
        self._alice = _writeAuths(folder / "alice", {"https://index.docker.io/v1/": USER})
        command = [
            "dockerd",
            f"--config-file={configuration}",
            f"--host=unix://{self._socket}",
            f"--data-root={folder}/data",
            f"--exec-root={folder}/exec",
            f"--pidfile={folder}/pid",
            "--storage-driver=vfs",
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
        ]
        self.server = Server(
            "dockerd",
            withHosts(surroundings.hosts, command),
            folder,
            ready=self._answers,
            env={"SSL_CERT_FILE": str(surroundings.bundle)},
        )

    def pull(self, name: str, *, private: bool = False) -> str:
        reference = f"docker.io/{name}"
        self._docker("image", "prune", "--all", "--force")
        self._docker("pull", reference, config=self._alice if private else self._anonymous)
        return self._docker("image", "inspect", "--format={{.RepoDigests}}", reference)

    def pullFromMirror(self, name: str) -> str:
        """Pull C{MIRROR/NAME}, with a login at the mirror."""
        return self.pullByName(f"{self._mirror}/{name}")

    def pullByName(self, reference: str) -> str:
        """Pull an image by its full name, with a login at its registry."""
        self._docker("image", "prune", "--all", "--force")
        self._docker("pull", reference)
        return self._docker("image", "inspect", "--format={{.RepoDigests}}", reference)

    def build(self, dockerfile: str) -> None:
        """
        C{docker build} by the BuildKit that is part of dockerd, with nothing left of an earlier
        one.
        """
        require(_DOCKER)
        self._docker("image", "prune", "--all", "--force")
        self._docker("builder", "prune", "--all", "--force")
        command = [_DOCKER, f"--config={self._anonymous}", f"--host=unix://{self._socket}"]
        # Here it is the command that asks for tokens.
        run(
            withHosts(self._surroundings.hosts, [*command, "build", "-"]),
            env={"DOCKER_BUILDKIT": "1", "SSL_CERT_FILE": str(self._surroundings.bundle)},
            stdin=dockerfile,
        )

    def login(self, password: str = PASSWORD, *, user: str = USER, registry: str = "") -> str:
        """C{docker login}, at the mirror or at another registry."""
        user = f"--username={user}"
        registry = registry or self._mirror
        return self._docker("login", user, "--password-stdin", registry, stdin=password)

    def logout(self, registry: str = "") -> None:
        self._docker("logout", registry or self._mirror)

    def push(self, name: str, target: str) -> str:
        """Push the local image C{docker.io/NAME} to C{MIRROR/TARGET}."""
        return self.pushByName(f"docker.io/{name}", f"{self._mirror}/{target}")

    def pushByName(self, reference: str, target: str) -> str:
        """Push a local image under another name."""
        self._docker("tag", reference, target)
        return self._docker("push", target)

    def search(self, term: str) -> str:
        """C{docker search MIRROR/TERM}."""
        return self._docker("search", f"{self._mirror}/{term}")

    def _docker(self, *arguments: str, config: Path | None = None, stdin: str | None = None) -> str:
        command = ["docker", f"--config={config or self._anonymous}"]
        return run([*command, f"--host=unix://{self._socket}", *arguments], stdin=stdin)

    def _answers(self) -> bool:
        try:
            self._docker("version")
        except CommandFailed:
            return False
        return True


#: Debian's: from 23 on the docker command builds by a plugin, which need not be there.
_DOCKER = "/usr/bin/docker"


class Containerd:
    """
    containerd with C{hosts.toml}, and its command ctr.
    """

    userAgent = "containerd/"

    def __init__(self, folder: Path, surroundings: Surroundings) -> None:
        require("containerd", "ctr")
        folder.mkdir()
        self._hosts = surroundings.hosts
        # Up to 1.7 it is ctr that fetches, from 2.0 on the daemon.
        self._environment = {"SSL_CERT_FILE": str(surroundings.bundle)}
        self._address = folder / "containerd.sock"
        self._registries = folder / "certs.d"
        (self._registries / "docker.io").mkdir(parents=True)
        (self._registries / "docker.io" / "hosts.toml").write_text(
            'server = "https://registry-1.docker.io"\n'
            f'[host."https://{surroundings.mirror}"]\n'
            '  capabilities = ["pull", "resolve"]\n'
        )
        configuration = folder / "config.toml"
        configuration.write_text(
            "version = 2\n"
            f'root = "{folder}/root"\n'
            f'state = "{folder}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]\n'
            f'[grpc]\naddress = "{self._address}"\n'
        )
        self.server = Server(
            "containerd",
            withHosts(surroundings.hosts, ["containerd", f"--config={configuration}"]),
            folder,
            ready=self._answers,
            env=self._environment,
        )

    def pull(self, name: str, *, private: bool = False) -> str:
        user = f"{USER}:{PASSWORD}" if private else ""
        return self.pullByName(f"docker.io/{name}", self._registries, user)

    def pullByName(self, reference: str, registries: Path, user: str = "") -> str:
        """
        Pull an image by its full name.

        @param registries: the folder of C{hosts.toml} files.
        @param user: C{USER:PASSWORD}; empty for none.
        """
        self._ctr("images", "remove", "--sync", reference)
        credentials = [f"--user={user}"] if user else []
        options = [f"--hosts-dir={registries}", "--snapshotter=native", *credentials]
        self._ctr("images", "pull", *options, reference)
        return self._ctr("images", "list", f"name=={reference}")

    def _ctr(self, *arguments: str) -> str:
        command = ["ctr", f"--address={self._address}", *arguments]
        return run(withHosts(self._hosts, command), env=self._environment)

    def _answers(self) -> bool:
        try:
            self._ctr("version")
        except CommandFailed:
            return False
        return True


class Podman:
    """
    podman with C{registries.conf}, and a login at the mirror where one is needed.
    """

    userAgent = "containers/"

    def __init__(self, folder: Path, surroundings: Surroundings) -> None:
        require("podman")
        folder.mkdir()
        self._hosts = surroundings.hosts
        self._environment = {
            "CONTAINERS_REGISTRIES_CONF": str(_writeRegistries(folder, surroundings.mirror)),
            "SSL_CERT_FILE": str(surroundings.bundle),
            "HOME": str(folder),
        }
        self._anonymous = _writeAuths(folder / "anonymous", {}) / "config.json"
        self._alice = folder / "alice.json"
        self._mirror = surroundings.mirror
        self._command = [
            "podman",
            f"--root={folder}/root",
            f"--runroot={folder}/run",
            f"--tmpdir={folder}/tmp",
            "--storage-driver=vfs",
            "--cgroup-manager=cgroupfs",
            "--events-backend=none",
        ]

    def pull(self, name: str, *, private: bool = False) -> str:
        if private:
            self.login(self._mirror, self._alice)
        authfile = self._alice if private else self._anonymous
        return self.pullByName(f"docker.io/{name}", authfile=authfile)

    def pullByName(
        self, reference: str, registries: Path | None = None, authfile: Path | None = None
    ) -> str:
        """
        Pull an image by its full name.

        @param registries: a C{registries.conf} in place of the client's own.
        @param authfile: the credentials of C{podman login}; by default, none.
        """
        self._podman("rmi", "--all", "--force")
        self._podman(
            "pull", f"--authfile={authfile or self._anonymous}", reference, conf=registries
        )
        return self._podman("image", "inspect", "--format={{.RepoDigests}}", reference)

    def login(
        self, registry: str, authfile: Path, user: str = USER, password: str = PASSWORD
    ) -> None:
        """C{podman login REGISTRY}."""
        credentials = [f"--username={user}", "--password-stdin"]
        self._podman("login", f"--authfile={authfile}", *credentials, registry, stdin=password)

    def search(self, term: str) -> str:
        """C{podman search MIRROR/TERM}."""
        return self._podman("search", f"{self._mirror}/{term}")

    def _podman(self, *arguments: str, stdin: str | None = None, conf: Path | None = None) -> str:
        command = withHosts(self._hosts, [*self._command, *arguments])
        more = {"CONTAINERS_REGISTRIES_CONF": str(conf)} if conf else {}
        return run(command, env={**self._environment, **more}, stdin=stdin)


class Skopeo:
    """
    skopeo with C{registries.conf}; its store is a folder for each image.
    """

    userAgent = "skopeo/"

    def __init__(self, folder: Path, surroundings: Surroundings) -> None:
        require("skopeo")
        folder.mkdir()
        self._folder = folder
        self._hosts = surroundings.hosts
        self._registries = _writeRegistries(folder, surroundings.mirror)
        self._environment = {"SSL_CERT_FILE": str(surroundings.bundle)}
        self._anonymous = _writeAuths(folder / "anonymous", {}) / "config.json"
        self._alice = _writeAuths(folder / "alice", {surroundings.mirror: USER}) / "config.json"
        self._mirror = surroundings.mirror

    def pull(self, name: str, *, private: bool = False) -> str:
        stored = self._folder / name.replace("/", "-").replace(":", "-")
        authfile = self._alice if private else self._anonymous
        return self.copy(f"docker://docker.io/{name}", f"dir:{stored}", authfile=authfile)

    def pullByName(self, reference: str, registries: Path | None = None) -> str:
        """
        Pull an image by its full name, without a login.

        @param registries: a C{registries.conf} in place of the client's own.
        """
        return self.copy(f"docker://{reference}", f"dir:{self._folder / 'pulled'}", registries)

    def push(self, image: Path, target: str) -> str:
        """
        Push an image from its folder to C{MIRROR/TARGET}.

        @return: the digest.
        """
        target = f"docker://{self._mirror}/{target}"
        return self.copy(f"dir:{image}", target, authfile=self._alice)

    def copy(
        self,
        source: str,
        target: str,
        registries: Path | None = None,
        authfile: Path | None = None,
    ) -> str:
        """
        Run C{skopeo copy}.

        @return: the digest.
        """
        digest = self._folder / "digest"
        options = [f"--authfile={authfile or self._anonymous}", f"--digestfile={digest}"]
        self._skopeo(registries, "copy", "--all", *options, source, target)
        return digest.read_text()

    def tags(self, repository: str, registries: Path | None = None) -> list[str]:
        """Run C{skopeo list-tags}."""
        options = [f"--authfile={self._anonymous}", f"docker://{repository}"]
        found: list[str] = json.loads(self._skopeo(registries, "list-tags", *options))["Tags"]
        return found

    def _skopeo(self, registries: Path | None, *arguments: str) -> str:
        conf = f"--registries-conf={registries or self._registries}"
        command = ["skopeo", "--insecure-policy", conf, *arguments]
        return run(withHosts(self._hosts, command), env=self._environment)


def _writeRegistries(folder: Path, mirror: str) -> Path:
    """Write a C{registries.conf} with this mirror for docker.io."""
    path = folder / "registries.conf"
    path.write_text(
        f'[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "{mirror}"\n'
    )
    return path


def _writeAuths(folder: Path, users: dict[str, str], password: str = PASSWORD) -> Path:
    """
    Write a C{config.json} in the form of C{docker login}.

    @param users: the users, by registry.
    @return: the folder.
    """
    folder.mkdir()
    auths = {
        registry: {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}
        for registry, user in users.items()
    }
    (folder / "config.json").write_text(json.dumps({"auths": auths}))
    return folder
