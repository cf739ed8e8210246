"""
With C{HUBMIRROR_PLAIN_TLS=1} in the environment, the mirrors of the tests that use real TLS have
Twisted's own (C{plain-tls}) in place of theirs.
"""

import os

PLAIN_TLS = os.environ.get("HUBMIRROR_PLAIN_TLS") == "1"
