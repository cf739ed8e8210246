"""
Tests of how the CDN parses C{Range}.
"""

from twisted.trial.unittest import SynchronousTestCase

from hubmirror.testing.ranges import parseRange


class RangeTests(SynchronousTestCase):
    def test_table(self) -> None:
        for value, expected in (
            ("bytes=0-", [(0, 100)]),
            ("bytes=0-0", [(0, 1)]),
            ("Bytes=10-19", [(10, 20)]),
            ("bytes=10-1000", [(10, 100)]),
            ("bytes=-10", [(90, 100)]),
            ("bytes=-1000", [(0, 100)]),
            ("bytes=0-1, 50-,-1", [(0, 2), (50, 100), (99, 100)]),
            ("bytes=5-6,200-300", [(5, 7)]),
            ("bytes=100-", []),
            ("bytes=-0", []),
            ("", None),
            ("bytes=", None),
            ("bytes=-", None),
            ("bytes=9-8", None),
            ("bytes=x-8", None),
            ("lines=0-8", None),
        ):
            self.assertEqual(parseRange(value, 100), expected, value)
