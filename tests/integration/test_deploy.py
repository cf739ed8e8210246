"""
Tests of the files in C{deploy}: the program that a file is for reads each, and uses it where that
is possible here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import ssl
import sys
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from hubmirror import MirrorConfig
from hubmirror.config.file import TABLES, parse
from tests.integration.ca import CertificateAuthority
from tests.integration.clients import Skopeo, Surroundings
from tests.integration.mirror import TWISTD, Answer, ask
from tests.integration.programs import (
    ROOT,
    CommandFailed,
    Server,
    eventually,
    freePort,
    listens,
    require,
    run,
)
from tests.integration.world import IntegrationTestCase

DEPLOY = ROOT / "deploy"
#: The address of a client that is not the address of the programs between it and the mirror.
CLIENT = "127.0.0.5"
CONFIGURATIONS = ("mirror.toml", "container.toml", "compose.toml", "kubernetes/mirror.toml")


class DeployTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()

    def adapted(self, name: str, *changes: tuple[str, str]) -> Path:
        """
        Copy a file, and replace the parts that depend on the machine.

        @param changes: texts that the file must contain, and their replacements.
        """
        return adapt(name, self.folder, changes)


def adapt(name: str, folder: Path, changes: Sequence[tuple[str, str]]) -> Path:
    text = (DEPLOY / name).read_text()
    for before, after in changes:
        assert before in text, (name, before)
        text = text.replace(before, after)
    path = folder / Path(name).name
    path.write_text(text)
    return path


class HeadTests(SynchronousTestCase):
    def test_comment(self) -> None:
        """The comment at the top of each file explains its purpose."""
        for path in sorted(DEPLOY.rglob("*")):
            if not path.is_file():
                continue
            text = path.read_text()
            if path.suffix == ".json":
                self.assertTrue(json.loads(text)["__comment"])
                continue
            comment = text.removeprefix("#!/bin/sh\n")
            self.assertRegex(comment, r"\A# [A-Za-z]", path.name)
            if path.suffix != ".yml" and "Containerfile" not in path.name:
                self.assertLessEqual(max(map(len, text.splitlines())), 130, path.name)

    def test_executable(self) -> None:
        for path in DEPLOY.rglob("*"):
            if path.is_file():
                isScript = path.read_text().startswith("#!")
                self.assertEqual(os.access(path, os.X_OK), isScript, path.name)


class SystemdTests(DeployTestCase):
    def setUp(self) -> None:
        super().setUp()
        require("systemd-analyze", "systemd-sysusers")
        twistd = self.folder / "twistd"
        twistd.symlink_to(TWISTD[0])
        self.service = self.adapted("hubmirror.service", ("/opt/hubmirror/bin/twistd", str(twistd)))
        self.socket = self.adapted("hubmirror.socket")

    def test_verify(self) -> None:
        """systemd-analyze has no messages about the units."""
        units = [str(self.service), str(self.socket)]
        command = ["systemd-analyze", "--man=no", "verify", *units]
        self.assertEqual(run(["sh", "-c", 'exec "$@" 2>&1', "sh", *command]), "")

    def test_next(self) -> None:
        """
        The unit that serves while the other one is restarted: C{systemd-analyze} reads its drop-in,
        and it differs from what it takes over from in its admin port.
        """
        service = self.service.rename(self.folder / "hubmirror-next.service")
        folder = self.folder / "hubmirror-next.service.d"
        folder.mkdir()
        dropIn = self.adapted("hubmirror-next.conf", ("/opt/hubmirror/bin", str(self.folder)))
        dropIn = dropIn.rename(folder / "next.conf")
        command = ["systemd-analyze", "--man=no", "verify", str(service)]
        self.assertEqual(run(["sh", "-c", 'exec "$@" 2>&1', "sh", *command]), "")
        words, others = mainCommand(dropIn.read_text()), mainCommand(service.read_text())
        self.assertEqual(words[: len(others)], others)
        option, port = words[len(others) :]
        self.assertEqual(option, "--admin-port")
        found, _ = parse((DEPLOY / "mirror.toml").read_text(), "/", {})
        config = MirrorConfig(**found)
        self.assertNotEqual(port, config.admin_port)
        self.assertTrue(config.reuse_port)
        with dropIn.open("a") as file:
            file.write("Nonsense=yes\n")
        self.assertIn("Nonsense", run(["sh", "-c", 'exec "$@" 2>&1', "sh", *command]))

    def test_security(self) -> None:
        """The exposure level that systemd computes is below 2.5; without any settings it is 9.6."""
        run(["systemd-analyze", "security", "--offline=true", "--threshold=25", str(self.service)])

    def test_account(self) -> None:
        said = run(["systemd-sysusers", "--dry-run", str(self.adapted("hubmirror.sysusers"))])
        self.assertNotIn("rror:", said)

    def test_socket(self) -> None:
        """
        The comment about the mirror's port is correct: systemd's own tool opens the socket here.
        C{ExecReload} checks the port in a process that does not get the socket.
        """
        require("systemd-socket-activate")
        text = self.socket.read_text()
        [endpoint] = re.findall(r'^#   port = \["(.*)"\]$', text, re.MULTILINE)
        [address] = re.findall(r"^ListenStream=(.*):\d+$", text, re.MULTILINE)
        port = freePort()
        # systemd itself always passes names.
        activate = ["systemd-socket-activate", "--fdname=mirror", f"--listen={address}:{port}"]
        server = Server(
            "socket",
            [*activate, *TWISTD, f"--port={endpoint}"],
            self.folder,
            ready=lambda: listens(port),
        )
        self.addCleanup(server.stop)
        server.start()
        connection = HTTPConnection(address, port, timeout=60)
        self.addCleanup(connection.close)
        connection.request("GET", "/v1/_ping")
        self.assertEqual(connection.getresponse().read(), b"true")
        run([*TWISTD, f"--port={endpoint}", "--check-config"])

    def test_seconds(self) -> None:
        """systemd waits for longer than the mirror drains."""
        [seconds] = re.findall(r"^TimeoutStopSec=(\d+)$", self.service.read_text(), re.MULTILINE)
        self.assertGreater(int(seconds), drainTimeout("mirror.toml"))


def mainCommand(unit: str) -> list[str]:
    """The words of what a unit runs."""
    [line] = re.findall(r"^ExecStart=(\S.*)$", unit.replace("\\\n", ""), re.MULTILINE)
    return str(line).split()


def drainTimeout(name: str) -> float:
    """The drain timeout of a mirror with this configuration, in seconds."""
    found, problems = parse((DEPLOY / name).read_text(), str(DEPLOY / name), {})
    assert not problems, problems
    return MirrorConfig(**found).drain_timeout


class ConfigurationTests(DeployTestCase):
    def test_check(self) -> None:
        """C{--check-config} accepts each file, including its certificates."""
        pem = CertificateAuthority(self.folder).server("mirror.example").read_bytes()
        (self.folder / "key.pem").write_bytes(pem)
        (self.folder / "cert.pem").write_bytes(pem)
        for name in CONFIGURATIONS:
            places = [
                (place, str(self.folder))
                for place in ("/etc/hubmirror/tls", "/var/log/hubmirror")
                if place in (DEPLOY / name).read_text()
            ]
            path = self.adapted(name, *places)
            said = run([*TWISTD, f"--config={path}", "--check-config"])
            self.assertIn("# file", said, name)

    def test_suggestions(self) -> None:
        """Each option that is suggested in a comment works."""
        for name in CONFIGURATIONS:
            for text in suggestions((DEPLOY / name).read_text()):
                found, problems = parse(text, "/", {"CREDENTIALS_DIRECTORY": "/run"})
                self.assertEqual(problems, [], name)
                MirrorConfig(**found)


def suggestions(text: str) -> Iterator[str]:
    """The options in the comments of a configuration, each with its table."""
    table = ""
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if any(line.startswith("# [registry") for line in lines):
            yield "\n".join(
                line.removeprefix("# ") for line in lines if re.match(r'# (\[|\w+ = ")', line)
            )
            continue
        for line in lines:
            header = re.match(r"\[(\w+)\]$", line)
            if header:
                table = header[0] if header[1] in TABLES else ""
            elif re.match(r"# *\w+ = [\[\"\d]", line):
                yield f"{table}\n{line.removeprefix('#')}"


def askFrom(
    address: str, port: int, bundle: Path, target: str, fields: Mapping[str, str] | None = None
) -> Answer:
    """Send a request from an address of this machine to a TLS port of 127.0.0.1."""
    context = ssl.create_default_context(cafile=str(bundle))
    connection = HTTPSConnection(
        "127.0.0.1", port, context=context, timeout=30, source_address=(address, 0)
    )
    try:
        return ask(connection, target, fields)
    finally:
        connection.close()


class TerminatorTestCase(IntegrationTestCase):
    """
    A mirror behind a TLS terminator, from a client's point of view.
    """

    #: The name of the site.
    name = ""

    def begin(self, *options: str) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()
        self.port = freePort()
        self.address = f"{self.name}:{self.port}"
        self.inner = self.world.makeMirror(
            f"behind.{self.name}",
            self.world.hubHosts,
            self.hub.registryUrl,
            "--trusted-proxy=127.0.0.1",
            f"--access-log-file={self.folder / 'access.log'}",
            *options,
        )
        self.certificate = self.world.authority.server(self.name, "127.0.0.1")
        self.addCleanup(self.inner.server.stop)
        self.inner.server.start()

    def startProgram(self, program: str, command: Sequence[str], **env: str) -> None:
        server = Server(program, command, self.folder, ready=lambda: listens(self.port), env=env)
        self.addCleanup(server.stop)
        server.start()

    def ask(self, target: str, fields: dict[str, str]) -> Answer:
        """Send a request to the TLS terminator from L{CLIENT}."""
        return askFrom(CLIENT, self.port, self.world.authority.bundle, target, fields)

    def assertServes(self) -> None:
        answer = self.ask(
            "/v2/", {"Host": self.address, "X-Forwarded-For": "203.0.113.9", "Forwarded": "for=_x"}
        )
        self.assertEqual(answer.status, 401)
        self.assertIn(f'realm="https://{self.address}/token"', answer.headers["WWW-Authenticate"])
        surroundings = Surroundings(
            self.world.hostsFile(self.name, f"127.0.0.1 {self.name}\n"),
            self.world.authority.bundle,
            self.address,
        )
        skopeo = Skopeo(self.folder / "skopeo", surroundings)
        image = "library/ten:latest"
        self.assertEqual(skopeo.pull(image), self.hub.images[image].digest)
        # The mirror knows the clients' addresses, and ignores the one that a client claims to have.
        first, *others = (self.folder / "access.log").read_text().splitlines()
        self.assertEqual(first.split()[1], CLIENT)
        self.assertEqual({line.split()[1] for line in others}, {"127.0.0.1"})


class NginxTests(TerminatorTestCase):
    name = "nginx.test"

    def configuration(self) -> Path:
        """The site's configuration, within a minimal one."""
        changes = [
            ("listen 443 ssl http2;", f"listen 127.0.0.1:{self.port} ssl http2;"),
            ("    listen [::]:443 ssl http2;\n", ""),
            ("server 127.0.0.1:5000;", f"server 127.0.0.1:{self.inner.plainPort};"),
            ("server_name mirror.example;", f"server_name {self.name};"),
        ]
        live = "/etc/letsencrypt/live/mirror.example"
        for name in ("fullchain.pem", "privkey.pem"):
            changes.append((f"{live}/{name}", str(self.certificate)))
        site = adapt("nginx.conf", self.folder, changes)
        path = self.folder / "frame.conf"
        paths = "\n".join(
            f"    {each}_temp_path {self.folder}/{each};"
            for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        path.write_text(
            "daemon off; user root; worker_processes 1;"
            f" pid {self.folder}/nginx.pid; error_log {self.folder}/error.log;\n"
            f"events {{ }}\nhttp {{\n{paths}\n    access_log off;\n    include {site};\n}}\n"
        )
        return path

    def test_nginx(self) -> None:
        self.begin()
        path = self.configuration()
        command = ["nginx", "-p", str(self.folder), "-e", f"{self.folder}/error.log", "-c"]
        said = run(["sh", "-c", 'exec "$@" 2>&1', "sh", *command, str(path), "-t"])
        self.assertNotIn("[warn]", said)
        self.startProgram("nginx", [*command, str(path)])
        self.assertServes()
        # No body was written to the disk.
        self.assertEqual(os.listdir(self.folder / "proxy"), [])


class CaddyTests(TerminatorTestCase):
    name = "caddy.test"

    def setUp(self) -> None:
        require("caddy")
        super().setUp()

    def test_validate(self) -> None:
        """nginx accepts the file without changes."""
        folder = Path(self.mktemp()).resolve()
        folder.mkdir()
        run(
            ["caddy", "validate", "--adapter=caddyfile", f"--config={DEPLOY / 'Caddyfile'}"],
            env={"HOME": str(folder)},
        )

    def test_formatted(self) -> None:
        """C{caddy fmt} does not change the file."""
        text = (DEPLOY / "Caddyfile").read_text()
        self.assertEqual(run(["caddy", "fmt", "-"], stdin=text), text)

    def test_caddy(self) -> None:
        self.begin()
        site = f"https://{self.name}:{self.port}"
        path = adapt(
            "Caddyfile",
            self.folder,
            [
                (
                    "\nmirror.example {\n",
                    f"\n{site} {{\n\ttls {self.certificate} {self.certificate}\n",
                ),
                ("127.0.0.1:5000 {", f"127.0.0.1:{self.inner.plainPort} {{"),
            ],
        )
        # Caddy listens on no other port, neither for redirects nor for administration.
        path.write_text("{\n\tadmin off\n\tauto_https disable_redirects\n}\n" + path.read_text())
        self.startProgram(
            "caddy",
            ["caddy", "run", "--adapter=caddyfile", f"--config={path}"],
            HOME=str(self.folder),
        )
        self.assertServes()


class LocalTestCase(DeployTestCase):
    """
    A mirror without an upstream, which only refuses and logs.
    """

    def startMirror(self, *options: str) -> Server:
        self.log = self.folder / "access.log"
        self.port = freePort()
        dead = freePort()
        server = Server(
            "twistd",
            [
                *TWISTD,
                f"--port=tcp:{self.port}:interface=127.0.0.1",
                f"--registry-url=http://127.0.0.1:{dead}",
                f"--auth-url=http://127.0.0.1:{dead}/token",
                f"--access-log-file={self.log}",
                *options,
            ],
            self.folder,
            ready=lambda: listens(self.port),
        )
        self.addCleanup(server.stop)
        server.start()
        return server

    def ask(self, target: str, method: str = "GET") -> int:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, target)
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    def logged(self, count: int) -> list[str]:
        """Wait for a number of lines in the access log."""
        eventually(lambda: len(self.log.read_text().splitlines()) >= count, "logged")
        return self.log.read_text().splitlines()


class LogrotateTests(LocalTestCase):
    def setUp(self) -> None:
        super().setUp()
        require("logrotate")
        self.configuration = self.adapted(
            "logrotate",
            ("/var/log/hubmirror/access.log", str(self.folder / "access.log")),
            ("su hubmirror hubmirror", "su root root"),
        )
        self.state = self.folder / "state"

    def test_debug(self) -> None:
        (self.folder / "access.log").write_text("a\n")
        command = ["logrotate", "--debug", f"--state={self.state}", str(self.configuration)]
        said = run(["sh", "-c", 'exec "$@" 2>&1', "sh", *command])
        self.assertIn("considering log", said)
        self.assertNotIn("error:", said)

    def test_moved(self) -> None:
        """
        After the log is rotated, the mirror writes to a new file by itself, and no line is lost.
        """
        self.startMirror()
        self.assertEqual(self.ask("/v1/_ping"), 200)
        self.logged(1)
        run(["logrotate", "--force", f"--state={self.state}", str(self.configuration)])
        self.assertFalse(self.log.exists())
        self.assertEqual(self.ask("/v1/_ping"), 200)
        eventually(self.log.exists, "a new log")
        self.assertEqual(len(self.logged(1)), 1)
        moved = self.folder / "access.log.1"
        self.assertEqual(len(moved.read_text().splitlines()), 1)


class Fail2banTests(LocalTestCase):
    def test_filter(self) -> None:
        """The filter matches all refusals in a real access log, and nothing else."""
        require("fail2ban-regex")
        self.startMirror("--deny-repository=docker.io/bad/**", "--client-requests=7/1h")
        targets = ["/v1/_ping", "/v2/bad/one/manifests/1", "/v2/bad/x%20y<z>/manifests/1"]
        targets += [
            "/v2/good/one/manifests/1",
            "/nothing",
            "/v2/_catalog",
            "/v1/_ping",
            "/v1/_ping",
        ]
        statuses = [self.ask(target) for target in targets]
        self.assertEqual(statuses[0], 200)
        self.assertEqual(statuses[-1], 429)
        self.assertEqual(statuses[1], 403)
        lines = self.logged(len(targets))
        refused = [line for line in lines if re.search(r"ms refused( \[|$)", line)]
        self.assertIn(" 403 ", "".join(refused))
        command = ["fail2ban-regex", "--print-all-matched", "--print-all-missed"]
        said = run([*command, str(self.log), str(DEPLOY / "fail2ban/filter.d/hubmirror.conf")])
        [counts] = re.findall(r"(\d+) lines, \d+ ignored, (\d+) matched, (\d+) missed", said)
        expected = (len(lines), len(refused), len(lines) - len(refused))
        self.assertEqual(tuple(map(int, counts)), expected, said)

    def test_addresses(self) -> None:
        """
        The filter works for an IPv6 client, and for a client that writes another address into its
        requests.
        """
        require("fail2ban-regex")
        line = "2026-01-02T03:04:05+00:00 {} GET {} 403 0B 1ms refused [abc]"
        for address in ("192.0.2.9", "2001:db8::9"):
            said = run(
                [
                    *("fail2ban-regex", "--out=ip"),
                    line.format(address, r"/v2/198.51.100.1\x20GET\x20/\x20403/manifests/1"),
                    str(DEPLOY / "fail2ban/filter.d/hubmirror.conf"),
                ]
            )
            self.assertEqual(said.strip(), address)

    def test_jail(self) -> None:
        """fail2ban can start with the jail in a complete configuration."""
        require("fail2ban-client")
        configuration = self.folder / "fail2ban"
        shutil.copytree("/etc/fail2ban", configuration)
        shutil.copytree(DEPLOY / "fail2ban", configuration, dirs_exist_ok=True)
        # Files that this machine's own jails read may not exist.
        for other in (configuration / "jail.d").iterdir():
            if other.name != "hubmirror.conf":
                other.unlink()
        log = self.folder / "access.log"
        log.touch()
        jail = configuration / "jail.d/hubmirror.conf"
        jail.write_text(jail.read_text().replace("/var/log/hubmirror/access.log", str(log)))
        said = run(["fail2ban-client", "-c", str(configuration), "--test"])
        self.assertIn("test is successful", said)
        dumped = run(["fail2ban-client", "-c", str(configuration), "-d"])
        self.assertIn("['set', 'hubmirror', 'maxretry', 200]", dumped)
        self.assertIn(f"['set', 'hubmirror', 'addlogpath', '{log}', 'head']", dumped)


class CertbotTests(LocalTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.tls = self.folder / "tls"
        self.tls.mkdir()
        self.authority = CertificateAuthority(self.folder)

    def renew(self, name: str = "mirror.example") -> bytes:
        """
        Renew the certificate as certbot does: a new pair in a folder, and the hook.

        @return: the certificate, as DER.
        """
        pem = self.authority.server("127.0.0.1").read_text()
        key, *certificates = re.split("(?m)^(?=-----BEGIN CERTIFICATE-----$)", pem)
        lineage = self.folder / "live" / name
        lineage.mkdir(parents=True, exist_ok=True)
        (lineage / "privkey.pem").write_text(key)
        (lineage / "fullchain.pem").write_text("".join(certificates))
        run(
            [str(DEPLOY / "certbot-deploy-hook")],
            env={
                "RENEWED_LINEAGE": str(lineage),
                "HUBMIRROR_TLS": str(self.tls),
                "HUBMIRROR_GROUP": "root",
            },
        )
        return ssl.PEM_cert_to_DER_cert(certificates[0])

    def test_files(self) -> None:
        self.renew()
        self.assertEqual(sorted(os.listdir(self.tls)), ["cert.pem", "key.pem"])
        for path in self.tls.iterdir():
            self.assertEqual(path.stat().st_mode & 0o777, 0o640)

    def test_otherCertificate(self) -> None:
        """The hook ignores another certificate of the same machine."""
        self.renew("www.example")
        self.assertEqual(os.listdir(self.tls), [])

    def test_pickedUp(self) -> None:
        """
        The mirror uses the renewed certificate at the next check, which SIGHUP triggers.
        """
        first = self.renew()
        port = freePort()
        pair = f"privateKey={self.tls}/key.pem:certKey={self.tls}/cert.pem"
        server = self.startMirror(f"--port=ssl:{port}:interface=127.0.0.1:{pair}")
        eventually(lambda: listens(port), "TLS")
        self.assertEqual(self.served(port), first)
        second = self.renew()
        self.assertNotEqual(first, second)
        os.kill(server.pid, signal.SIGHUP)
        eventually(lambda: self.served(port) == second, "the renewed certificate is served")

    def served(self, port: int) -> bytes:
        return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port), timeout=30))


class ComposeTests(DeployTestCase):
    def test_config(self) -> None:
        """Compose accepts the file, and waits for longer than the mirror drains."""
        require("docker-compose", "yq")
        path = self.adapted("compose.yaml")
        command = ["docker-compose", "--project-name=test", f"--file={path}", "config"]
        [service] = json.loads(run(["yq", "."], stdin=run(command)))["services"].values()
        self.assertTrue(service["read_only"])
        self.assertEqual(service["cap_drop"], ["ALL"])
        [period] = re.findall(r"^ +stop_grace_period: (\d+)s$", path.read_text(), re.MULTILINE)
        self.assertGreater(int(period), drainTimeout("compose.toml"))
        healthcheck = service["healthcheck"]["test"]
        self.assertIn(":9090/readyz", healthcheck[-1])
        compile(healthcheck[-1], "healthcheck", "exec")
        # The published port is the one that the mirror listens on.
        found, _ = parse((DEPLOY / "compose.toml").read_text(), "/", {})
        [port] = MirrorConfig(**found).port
        self.assertIn(port.split(":")[1], json.dumps(service["ports"]))


#: PyPI's kubernetes-validate.
VALIDATE = (sys.executable, "-m", "kubernetes_validate", "--strict")


class KubernetesTests(DeployTestCase):
    """
    Checks the objects that C{kubectl} creates from the files, with the schemas of Kubernetes' own
    API.  Of the ServiceMonitor, which belongs to the Prometheus operator, only the relevant fields
    are checked.
    """

    def setUp(self) -> None:
        super().setUp()
        require("kubectl", "yq")
        rendered = run(
            ["kubectl", "kustomize", str(DEPLOY / "kubernetes")], env={"HOME": str(self.folder)}
        )
        documents = json.loads(run(["yq", "--slurp", "."], stdin=rendered))
        self.documents: dict[str, dict[str, Any]] = {each["kind"]: each for each in documents}
        self.assertEqual(len(self.documents), len(documents))
        deployment = self.documents["Deployment"]["spec"]
        self.replicas = deployment.get("replicas")
        self.labels = deployment["template"]["metadata"]["labels"]
        self.pod = deployment["template"]["spec"]
        [self.container] = self.pod["containers"]
        self.ports = {each["name"]: each["containerPort"] for each in self.container["ports"]}

    def test_schemas(self) -> None:
        """No field is unknown, in an older version and in the newest one that is available."""
        files = []
        for kind, document in self.documents.items():
            if kind != "ServiceMonitor":
                files.append(self.folder / f"{kind}.json")
                files[-1].write_text(json.dumps(document))
        for version in (["-k", "1.32"], []):
            run([*VALIDATE, *version, *map(str, files)])

    def test_schemasFind(self) -> None:
        """The check would find a misspelt field."""
        document = json.loads(json.dumps(self.documents["Deployment"]))
        document["spec"]["template"]["spec"]["terminationGracePeriod"] = 1
        path = self.folder / "wrong.json"
        path.write_text(json.dumps(document))
        with self.assertRaises(CommandFailed):
            run([*VALIDATE, str(path)])

    def test_complete(self) -> None:
        self.assertEqual(
            set(self.documents),
            {
                *("Namespace", "ConfigMap", "Deployment", "Service", "Ingress"),
                *("HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"),
                "ServiceMonitor",
            },
        )
        [mounted, _] = self.pod["volumes"]
        self.assertEqual(
            mounted["configMap"]["name"], self.documents["ConfigMap"]["metadata"]["name"]
        )

    def test_end(self) -> None:
        """A pod has enough time for load balancers to notice, for the drain, and some more."""
        sleep, seconds = self.container["lifecycle"]["preStop"]["exec"]["command"]
        self.assertEqual(sleep, "sleep")
        needed = int(seconds) + drainTimeout("kubernetes/mirror.toml")
        self.assertGreaterEqual(self.pod["terminationGracePeriodSeconds"], needed + 10)
        self.assertIsNone(self.replicas)

    def test_probes(self) -> None:
        for probe, path in (
            ("liveness", "/healthz"),
            ("readiness", "/readyz"),
            ("startup", "/healthz"),
        ):
            asked = self.container[f"{probe}Probe"]["httpGet"]
            self.assertEqual((asked["path"], asked["port"]), (path, "admin"))
        found, _ = parse((DEPLOY / "kubernetes/mirror.toml").read_text(), "/", {})
        config = MirrorConfig(**found)
        self.assertEqual(config.port, (f"tcp:{self.ports['http']}",))
        self.assertEqual(config.admin_port, f"tcp:{self.ports['admin']}")

    def test_restricted(self) -> None:
        """The pod complies with the Pod Security Standard "restricted"."""
        labels = self.documents["Namespace"]["metadata"]["labels"]
        self.assertEqual(labels["pod-security.kubernetes.io/enforce"], "restricted")
        ofPod, ofContainer = self.pod["securityContext"], self.container["securityContext"]
        self.assertTrue(ofPod["runAsNonRoot"])
        self.assertGreater(ofPod["runAsUser"], 0)
        self.assertEqual(ofPod["seccompProfile"], {"type": "RuntimeDefault"})
        self.assertIs(ofContainer["allowPrivilegeEscalation"], False)
        self.assertEqual(ofContainer["capabilities"], {"drop": ["ALL"]})
        self.assertTrue(ofContainer["readOnlyRootFilesystem"])
        self.assertTrue(all({"configMap", "emptyDir"} & set(each) for each in self.pod["volumes"]))

    def test_references(self) -> None:
        """All references to pods, ports and the deployment have a target."""
        service = self.documents["Service"]
        self.assertEqual(service["spec"]["selector"], self.labels)
        self.assertEqual({each["targetPort"] for each in service["spec"]["ports"]}, set(self.ports))
        for kind, key in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
            self.assertEqual(self.documents[kind]["spec"][key]["matchLabels"], self.labels)
        policy = self.documents["NetworkPolicy"]["spec"]["ingress"]
        self.assertEqual(
            {port["port"] for rule in policy for port in rule["ports"]}, set(self.ports)
        )
        scaled = self.documents["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
        self.assertEqual((scaled["kind"], scaled["name"]), ("Deployment", "hubmirror"))
        [rule] = self.documents["Ingress"]["spec"]["rules"]
        [path] = rule["http"]["paths"]
        backend = {"name": service["metadata"]["name"], "port": {"name": "http"}}
        self.assertEqual(path["backend"]["service"], backend)
        monitor = self.documents["ServiceMonitor"]
        self.assertEqual(monitor["apiVersion"], "monitoring.coreos.com/v1")
        self.assertEqual(set(monitor["spec"]), {"selector", "endpoints"})
        self.assertEqual(monitor["spec"]["selector"]["matchLabels"], service["metadata"]["labels"])
        [endpoint] = monitor["spec"]["endpoints"]
        self.assertEqual(set(endpoint), {"port", "path", "interval", "scrapeTimeout"})
        self.assertEqual((endpoint["port"], endpoint["path"]), ("admin", "/metrics"))
