"""
Finds, starts, runs and stops the real programs.
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
    Check that these programs, and the rights to use them, are available.

    @param programs: their names, or the paths of other files.
    @raise SkipTest: when something is missing.
    @raise AssertionError: in place of L{SkipTest}, when the environment has C{HUBMIRROR_NO_SKIP=1}.
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
    A TCP port of 127.0.0.1 that was free a moment ago, never the same one twice.
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
    The environment of every program, which has nothing of the machine's own except C{PATH}.

    Proxies, the settings of Docker, containerd and podman, C{REGISTRY_*} (with which
    docker-registry changes its configuration), locale and time zone would each change the behaviour
    of a program.
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
    Wrap a command so that it runs in a mount namespace of its own, where C{hosts} is C{/etc/hosts}.

    So the mirror can resolve the names of the stand-in Hub, and no client can reach it except
    through the mirror. The machine's own settings of clients for registries are hidden there, and
    so is its containerd, which dockerd would use instead of starting one.
    """
    hidden = " ".join(_HIDDEN)
    script = (
        f"for folder in {hidden}; do"
        ' test ! -d "$folder" || mount -t tmpfs none "$folder" || exit; '
        'done; mount --bind "$0" /etc/hosts && exec "$@"'
    )
    return ["unshare", "--mount", "sh", "-c", script, str(hosts), *command]


#: Folders of the machine that change the behaviour of clients.
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
    Run a command to its end, and return its standard output.

    @param timeout: the time limit in seconds.
    @raise CommandFailed: when the status is not 0, with all of the output.
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
    Wait until a condition holds in another process, by checking it repeatedly.

    @param timeout: the time limit in seconds.
    @raise AssertionError: when the condition still does not hold.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(0.02)


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server accepts connections on this port."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


class Server:
    """
    A program that runs until it is stopped, or until the tests end, however they end.

    @param folder: its working directory, and the folder of its output.
    @param ready: returns whether it is ready.
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
        Start the program, and return when it is ready.

        @raise AssertionError: when it ends, or is not ready in time.
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
        """Stop the program by its process ID, and wait until it has ended."""
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
        Wait until the program ends by itself.

        @param timeout: the time limit in seconds.
        @return: the exit status.
        """
        assert self._process is not None
        return self._process.wait(timeout)

    def output(self) -> str:
        """The output so far, standard output and error."""
        return self._output.read_text(errors="replace")

    def _ended(self) -> bool:
        assert self._process is not None
        return self._process.poll() is not None


def pythonProgram(name: str) -> str:
    """The path of a program that is installed beside this Python, such as C{twistd}."""
    return str(Path(sys.executable).parent / name)
