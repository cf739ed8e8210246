"""
The real programs: which are needed, how they are started, run and stopped.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from twisted.trial.unittest import SkipTest

ROOT = Path(__file__).resolve().parents[2]

#: The Debian package of each program that the tests start.
PACKAGES = {
    "/usr/lib/nginx/modules/ngx_stream_module.so": "libnginx-mod-stream",
    "/usr/bin/docker": "docker.io",
    "apt-get": "apt",
    "buildah": "buildah",
    "caddy": "caddy",
    "chromium": "chromium",
    "chroot": "coreutils",
    "containerd": "containerd",
    "ctr": "containerd",
    "curl": "curl",
    "debootstrap": "debootstrap",
    "docker": "docker.io",
    "docker-compose": "docker-compose",
    "docker-registry": "docker-registry",
    "dockerd": "docker.io",
    "fail2ban-client": "fail2ban",
    "fail2ban-regex": "fail2ban",
    "ip": "iproute2",
    "kubectl": "kubernetes-client",
    "kubernetes-validate": "none; PyPI's kubernetes-validate",
    "logrotate": "logrotate",
    "mount": "mount",
    "nginx": "nginx-light",
    "nsenter": "util-linux",
    "podman": "podman",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "setpriv": "util-linux",
    "skopeo": "skopeo",
    "systemd-analyze": "systemd",
    "systemd-socket-activate": "systemd",
    "systemd-sysusers": "systemd",
    "tar": "tar",
    "unshare": "util-linux",
    "yq": "yq",
}


def require(*programs: str) -> None:
    """
    Go on only if these programs, and the rights to use them, are there.

    @param programs: by their names; a file of another kind by its path.
    @raise SkipTest: something is missing.
    @raise AssertionError: the same, when the environment says C{HUBMIRROR_NO_SKIP=1}.
    """
    missing = [
        f"{program} (Debian package {PACKAGES[program]})"
        for program in programs
        if not (os.path.exists(program) if os.path.isabs(program) else shutil.which(program))
    ]
    if os.geteuid() != 0:
        missing.append("root, for mount namespaces and image stores")
    if missing:
        reason = "missing: " + ", ".join(missing)
        if os.environ.get("HUBMIRROR_NO_SKIP") == "1":
            raise AssertionError(reason)
        raise SkipTest(reason)


def freePort() -> int:
    """
    A TCP port of 127.0.0.1 that nobody listened on a moment ago, never the same one twice.
    """
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _portsGiven:
            _portsGiven.add(port)
            return port


_portsGiven: set[int] = set()


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """
    The environment of every program: nothing of the machine's own but where programs are.

    Proxies, the settings of Docker, containerd and podman, C{REGISTRY_*} (with which
    docker-registry changes its configuration), locale and time zone would each change what a
    program does.
    """
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "CONTAINERS_CONF": os.devnull,
        "PYTHONPATH": str(ROOT),
        **(extra or {}),
    }


def withHosts(hosts: Path, command: Sequence[str]) -> list[str]:
    """
    The command, in a mount namespace of its own where C{hosts} is C{/etc/hosts}.

    This is how the mirror knows the stand-in Hub by name, and how no client can reach it but
    through the mirror. What the machine's own clients are told of registries is hidden there, and
    so is its containerd, which dockerd would use instead of starting one.
    """
    hidden = " ".join(_HIDDEN)
    script = (
        f"for folder in {hidden}; do"
        ' test ! -d "$folder" || mount -t tmpfs none "$folder" || exit; '
        'done; mount --bind "$0" /etc/hosts && exec "$@"'
    )
    return ["unshare", "--mount", "sh", "-c", script, str(hosts), *command]


#: Folders of the machine that change what a client does.
_HIDDEN = (
    "/etc/containers/certs.d",
    "/etc/containers/registries.conf.d",
    "/etc/docker/certs.d",
    "/run/containerd",
)


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    timeout: float = 60,
) -> str:
    """
    Run a command to its end and give what it wrote on standard output.

    @param timeout: seconds.
    @raise CommandFailed: its status was not 0; with all that it wrote.
    """
    done = subprocess.run(
        list(command),
        env=environment(env),
        input=stdin or "",
        umask=0o022,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        raise CommandFailed(command, done.returncode, done.stdout + done.stderr)
    return done.stdout


class CommandFailed(Exception):
    """A command ended with a status other than 0."""

    def __init__(self, command: Sequence[str], status: int, output: str) -> None:
        super().__init__(f"{' '.join(command)}: status {status}\n{output}")
        self.status = status
        self.output = output


def eventually(condition: Callable[[], bool], what: str, timeout: float = 20) -> None:
    """
    Wait until something holds in another process, which can't tell us by itself.

    @param timeout: seconds.
    @raise AssertionError: it still does not hold.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(0.02)


def listens(port: int) -> bool:
    """Does somebody accept connections on this port of 127.0.0.1?"""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


class Server:
    """
    One program that runs until it is stopped, or until the tests end, however they end.

    @param folder: its working directory, and where its output goes.
    @param ready: does it serve?
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        *,
        ready: Callable[[], bool],
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._output = folder / f"{name}.out"
        self._command = ["setpriv", "--pdeathsig", "TERM", "--", *command]
        self._folder = folder
        self._ready = ready
        self._env = environment(env)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """
        Start it, and return when it is ready.

        @raise AssertionError: it ended, or was not ready in time.
        """
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._env,
                umask=0o022,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        atexit.register(self.stop)
        try:
            eventually(lambda: self._ended() or self._ready(), "ready")
            assert not self._ended(), "it ended"
        except AssertionError as failure:
            self.stop()
            raise AssertionError(f"{self._command}: {failure}\n{self.output()}") from None

    def stop(self) -> None:
        """End it by its pid, and wait until it is gone."""
        if self._process is None:
            return
        atexit.unregister(self.stop)
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def wait(self, timeout: float = 60) -> int:
        """
        The status with which it ends by itself.

        @param timeout: seconds.
        """
        assert self._process is not None
        return self._process.wait(timeout)

    def output(self) -> str:
        """What it has written so far, standard output and error."""
        return self._output.read_text(errors="replace")

    def _ended(self) -> bool:
        assert self._process is not None
        return self._process.poll() is not None


def pythonProgram(name: str) -> str:
    """The path of a program that was installed beside this Python, C{twistd} for one."""
    return str(Path(sys.executable).parent / name)
