"""
Tests of what the fuzzer calls, which only CI runs.
"""

from twisted.trial.unittest import SynchronousTestCase

from tests.fuzzing import READERS

SEEDS = (
    b"",
    b"GET /v2/library/a/manifests/1 HTTP/1.1\r\nHost: a.example\r\n\r\n",
    b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nForwarded: for="\r\n\r\n{}',
    b"\xff\x00\r\n" * 10,
)


class ReaderTests(SynchronousTestCase):
    def test_seeds(self) -> None:
        for read in READERS:
            for seed in SEEDS:
                read(seed)
                self.assertEqual(self.flushLoggedErrors(), [], (read, seed))
