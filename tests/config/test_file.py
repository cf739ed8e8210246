"""
Tests of the configuration file.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.config import (
    Account,
    ConfigFileError,
    MirrorConfig,
    RegistryConfig,
    options,
    readFile,
)
from hubmirror.config.file import Problem, parse

GOOD = """
port = ["ssl:443", "tcp:5000"]
registry_url = "https://hub.example"
read_only = true
connect_timeout = 2.5
resumes = 3
max_upload = "10G"
ca_file = "ca.pem"

[registry."ghcr.io"]

[registry."quay.io"]
url = "https://quay.example"
hosts = ["quay.mirror.example"]
username = "me"
password_file = "secrets/quay"

[registry."docker.io"]
[[registry."docker.io".account]]
username = "first"
password_file = "/run/first"
[[registry."docker.io".account]]
username = "second"
password_file = "$CREDENTIALS_DIRECTORY/second"
"""

#: A file, and the place and the reason of its problem.
WRONG: list[tuple[str, list[tuple[int | None, str, str]]]] = [
    ("port = [", [(None, "", "no TOML")]),
    ("a = 1\nb\n", [(2, "", "no TOML")]),
    ("regsitry_url = 'https://a.example'", [(1, "regsitry_url", "did you mean registry_url?")]),
    ("read-only = true", [(1, "read-only", "did you mean read_only?")]),
    ("xyzzy = 1", [(1, "xyzzy", "there is no such option")]),
    ("read_only = 'yes'", [(1, "read_only", "neither true nor false")]),
    ("registry_url = 5", [(1, "registry_url", "write a text in quotes")]),
    ("public_url = true", [(1, "public_url", "write a text in quotes")]),
    ("failover_on = 429", [(1, "failover_on", "write a text in quotes")]),
    ("registry_url = ['https://a.example']", [(1, "registry_url", "write a single value")]),
    ("port = 5000", [(1, "port", "write an array of texts")]),
    ("connect_timeout = 'soon'", [(1, "connect_timeout", "no number of seconds")]),
    (
        "\nresumes = -1\n\nstall_timeout = 0\n",
        [(2, "resumes", "write a number"), (4, "stall_timeout", "write seconds")],
    ),
    ("[limits]\nclient_requests = 600", [(2, "limits.client_requests", "a text in quotes")]),
    ("[limits]\nclient_pulse = 1", [(2, "limits.client_pulse", "did you mean client_pulls?")]),
    ("[limit]\nx = 1", [(None, "limit", "did you mean limits?")]),
    ("log = 'json'", [(1, "log", "write [log], and below it access_log or access_log_file")]),
    ("[[log]]\naccess_log = 'json'", [(None, "log", "it is a table; write [log]")]),
    ("access_log = 'json'", [(1, "access_log", "it belongs in [log]")]),
    ("access-log = 'json'", [(1, "access-log", "mean access_log, which belongs in [log]?")]),
    ("secret_path = 'long-secret'", [(1, "secret_path", "it belongs in [access]")]),
    ("client_requests = '1/s'", [(1, "client_requests", "it belongs in [limits]")]),
    ("hosts = ['a.b']", [(1, "hosts", 'it belongs in [registry."NAME"]')]),
    ("password_file = 'x'", [(1, "password_file", 'it belongs in [registry."NAME"]')]),
    (
        "[access]\nread_only = true",
        [(2, "access.read_only", "it belongs at the top level, above the first table")],
    ),
    ("[limits]\nca_file = 'x'", [(2, "limits.ca_file", "it belongs at the top level")]),
    (
        '[registry."a.b"]\nread_only = true\nclient_pulls = "1/s"',
        [
            (2, 'registry."a.b".read_only', "it belongs at the top level, above the first table"),
            (3, 'registry."a.b".client_pulls', "it belongs in [limits]"),
        ],
    ),
    ("registry = 'ghcr'", [(1, "registry", "such as ghcr.io")]),
    ("registry = 5", [(1, "registry", "write an array of texts")]),
    ("registries = ['ghcr.io']", [(1, "registries", "did you mean registry?")]),
    ("[registry.ghcr]", [(None, 'registry."ghcr"', "such as ghcr.io")]),
    ('[registry]\n"ghcr.io" = 1', [(None, 'registry."ghcr.io"', "it is a table")]),
    (
        '[registry."a.b"]\nurl = "a.b"\n[registry."c.d"]\nurll = "https://c.d"',
        [
            (2, 'registry."a.b".url', "write for example"),
            (4, 'registry."c.d".urll', "did you mean url?"),
        ],
    ),
    (
        '[registry."a.b"]\nusername = "me"',
        [(2, 'registry."a.b".username', "an account has a username and a password_file")],
    ),
]


def read(text: str) -> tuple[dict[str, Any], list[Problem]]:
    """The options of a file, as if it were in /etc/hubmirror."""
    return parse(text, "/etc/hubmirror", {"CREDENTIALS_DIRECTORY": "/run/credentials"})


class ParseTests(SynchronousTestCase):
    def test_good(self) -> None:
        found, problems = read(GOOD)
        self.assertEqual(problems, [])
        config = MirrorConfig(**found)
        self.assertEqual(config.port, ("ssl:443", "tcp:5000"))
        self.assertEqual((config.read_only, config.connect_timeout, config.resumes), (True, 2.5, 3))
        self.assertEqual(config.max_upload, 10 << 30)
        self.assertEqual(config.ca_file, "/etc/hubmirror/ca.pem")
        self.assertEqual(
            config.registries,
            (
                RegistryConfig(name="ghcr.io"),
                RegistryConfig(
                    name="quay.io",
                    url="https://quay.example",
                    hosts=["quay.mirror.example"],
                    account=[Account(username="me", password_file="/etc/hubmirror/secrets/quay")],
                ),
                RegistryConfig(
                    name="docker.io",
                    account=[
                        Account(username="first", password_file="/run/first"),
                        Account(username="second", password_file="/run/credentials/second"),
                    ],
                ),
            ),
        )

    def test_empty(self) -> None:
        self.assertEqual(read(""), ({}, []))

    def test_registriesByName(self) -> None:
        """Registries without settings can be named in an array, as on the command line."""
        found, problems = read('registry = ["ghcr.io", "QUAY.io"]')
        self.assertEqual(problems, [])
        names = [RegistryConfig(name="ghcr.io"), RegistryConfig(name="quay.io")]
        self.assertEqual(found, {"registries": names})

    def test_secretNotTold(self) -> None:
        """The value of a wrong type is not repeated, because it may be secret."""
        for text in ("secret_path = 31415926", "secret_path = ['31415926']"):
            _, [problem] = read("[access]\n" + text)
            self.assertIn("wrong type; write a", problem.reason)
            self.assertNotIn("31415926", problem.reason)

    def test_wrong(self) -> None:
        """Each problem has a line, a key and a reason that states what to write instead."""
        for text, expected in WRONG:
            _, problems = read(text)
            self.assertEqual(
                [problem[:2] for problem in problems], [each[:2] for each in expected], text
            )
            for problem, (_line, _key, reason) in zip(problems, expected, strict=True):
                self.assertIn(reason, problem.reason)
                self.assertNotIn("\n", problem.describe("x"))

    def test_everyOption(self) -> None:
        """Every option can be set in a file, in its table."""
        for field in options():
            if field.name == "registries":
                continue
            table = field.metadata["table"]
            text = (f"[{table}]\n" if table else "") + f"{field.name} = [[1]]"
            _, problems = read(text)
            self.assertFalse([each for each in problems if "no such option" in each.reason])

    @given(st.text())
    def test_anything(self, text: str) -> None:
        """For any text, there are valid options or problems."""
        found, problems = read(text)
        if not problems:
            MirrorConfig(**found)


class ReadFileTests(SynchronousTestCase):
    def write(self, text: str, mode: int = 0o644) -> str:
        path = os.path.abspath(self.mktemp())
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def test_fromFile(self) -> None:
        """Arguments override the values of the file."""
        path = self.write("resumes = 3\nstall_timeout = 4\n")
        config = MirrorConfig.fromFile(path, resumes=7)
        self.assertEqual((config.resumes, config.stall_timeout), (7, 4.0))

    def test_problems(self) -> None:
        path = self.write("resumes = -1\nx = 1\n")
        error = self.assertRaises(ConfigFileError, readFile, path)
        first, second = str(error).splitlines()
        self.assertTrue(first.startswith(f"{path}:1: resumes: "), first)
        self.assertTrue(second.startswith(f"{path}:2: x: "), second)

    def test_unreadable(self) -> None:
        path = os.path.abspath(self.mktemp())
        error = self.assertRaises(ConfigFileError, readFile, path)
        self.assertEqual(str(error), f"{path}: can't be read: No such file or directory")

    def test_writableByOthers(self) -> None:
        """
        A file with secrets that others may write to is refused: they could make the mirror send
        passwords elsewhere.
        """
        account = 'username = "me"\npassword_file = "x"\n'
        for text in (
            f'[registry."a.b"]\n{account}',
            f'[registry."a.b"]\n[[registry."a.b".account]]\n{account}',
            '[access]\nsecret_path = "long-secret"\n',
        ):
            for mode in (0o664, 0o646):
                error = self.assertRaises(ConfigFileError, readFile, self.write(text, mode))
                self.assertIn("chmod go-w", str(error))
            readFile(self.write(text, 0o640))
            commented = "".join(f"# {line}" for line in text.splitlines(keepends=True))
            readFile(self.write(commented, 0o666))
        readFile(self.write('resumes = 3\n[registry."a.b"]\n', 0o666))
