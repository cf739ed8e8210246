"""
With C{HUBMIRROR_PLAIN=1} in the environment, the mirrors of tests with real TLS have the option
C{plain-transport}: they use Twisted's TLS and h2's frames instead of their own.
"""

import os

PLAIN = os.environ.get("HUBMIRROR_PLAIN") == "1"
