"""
hubmirror, a streaming mirror of Docker Hub.

It is a Twisted plugin; L{HubMirror} and L{makeSite} embed a mirror in another Twisted service.
"""

__version__ = "0.1.0"

from hubmirror.config import MirrorConfig
from hubmirror.service import HubMirror, makeSite

__all__ = ["HubMirror", "MirrorConfig", "__version__", "makeSite"]
