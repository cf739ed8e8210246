"""
C{HUBMIRROR_EXAMPLES} is how many examples hypothesis tries, 100 by default.

With C{HUBMIRROR_PLAIN=1} in the environment, the mirrors of tests with real TLS have the option
C{plain-transport}: they use Twisted's TLS and h2's frames instead of their own.
"""

import os

from hypothesis import settings

PLAIN = os.environ.get("HUBMIRROR_PLAIN") == "1"

# A slow machine is no reason to fail.
settings.register_profile(
    "hubmirror", deadline=None, max_examples=int(os.environ.get("HUBMIRROR_EXAMPLES", 100))
)
settings.load_profile("hubmirror")


def examples(share: float) -> settings:
    """
    The settings of a test that needs more or fewer examples than others.

    @param share: the ratio of its number to the usual one.
    """
    return settings(max_examples=max(1, round(share * settings.default.max_examples)))
