"""
With C{HUBMIRROR_PLAIN=1} in the environment, the mirrors of the tests that use real TLS have
C{plain-transport}: Twisted's TLS and h2's frames in place of their own.
"""

import os

PLAIN = os.environ.get("HUBMIRROR_PLAIN") == "1"
