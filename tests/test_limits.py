"""Tests of how many connections fit into a process's file descriptors."""

from __future__ import annotations

import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hubmirror import MirrorConfig
from hubmirror.limits import Limits, limitsOf, mostDescriptors, shortage

TABLE: list[tuple[int, dict[str, int], tuple[int, int, int, int]]] = [
    # The number of open files and the options; the connections of all clients and of one, and to
    # all upstreams and for one client.
    (128, {}, (26, 13, 26, 13)),
    (256, {}, (80, 40, 80, 40)),
    (1024, {}, (404, 202, 404, 202)),
    (4096, {}, (1697, 848, 1697, 848)),
    (20_000, {}, (8192, 1024, 8192, 1024)),
    (sys.maxsize, {}, (8192, 1024, 8192, 1024)),
    # With too few descriptors, the least limits apply, although they do not fit.
    (40, {}, (4, 2, 4, 2)),
    (0, {}, (4, 2, 4, 2)),
    # If one limit is set, the other gets the remaining descriptors.
    (1024, {"max_connections": 100}, (100, 50, 625, 312)),
    (1024, {"max_upstream_connections": 100}, (823, 411, 100, 50)),
    (1024, {"max_connections": 1000}, (1000, 500, 4, 2)),
    (1024, {"max_connections": 1, "max_upstream_connections": 1}, (1, 1, 1, 1)),
    (
        1024,
        {"max_connections_per_client": 7, "max_upstream_connections_per_client": 5},
        (404, 7, 404, 5),
    ),
]


class LimitsTests(SynchronousTestCase):
    def limits(self, files: int, **options: Any) -> Limits:
        return limitsOf(MirrorConfig(**options), files)

    def test_table(self) -> None:
        """Limits that are set are kept, and the others are computed."""
        for files, options, expected in TABLE:
            self.assertEqual(self.limits(files, **options), Limits(*expected), (files, options))

    @given(st.integers(128, 100_000))
    def test_fits(self, files: int) -> None:
        """For any number of open files, the connections of clients and upstreams fit into it."""
        limits = self.limits(files)
        self.assertLessEqual(limits.descriptors, files)
        self.assertIsNone(shortage(limits, files))

    @given(st.integers(128, 100_000), st.integers(1, 100))
    def test_fitsBeside(self, files: int, percent: int) -> None:
        """Computed limits fit, too, if the limit that is set leaves enough."""
        given = max(1, (files - 100) * percent // 300)
        for name in ("max_connections", "max_upstream_connections"):
            limits = self.limits(files, **{name: given})
            self.assertLessEqual(limits.descriptors, files)

    def test_shortage(self) -> None:
        """If the limits that are set do not fit, a warning of one line states what to do."""
        limits = self.limits(1024, max_connections=8192, max_upstream_connections=1000)
        self.assertEqual(
            shortage(limits, 1024),
            "8192 connections of clients and 1000 to upstreams need 9631 open files, but this"
            " process may have 1024: raise that limit (ulimit -n, LimitNOFILE=), or lower"
            " --max-connections and --max-upstream-connections",
        )
        self.assertIsNone(shortage(limits, 9631))

    def test_useful(self) -> None:
        """A process needs no more open files than this, unless higher limits are set."""
        most = mostDescriptors(MirrorConfig())
        self.assertEqual(self.limits(most), Limits(8192, 1024, 8192, 1024))
        self.assertNotEqual(self.limits(most - 1).clients, 8192)
        self.assertGreater(mostDescriptors(MirrorConfig(max_connections=100_000)), 100_000)
