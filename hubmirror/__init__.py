"""
hubmirror, a streaming mirror of Docker Hub: a Twisted plugin, and parts to put into other services.
"""

__version__ = "0.1.0"

from hubmirror.config import MirrorConfig
from hubmirror.service import HubMirror, makeSite

__all__ = ["HubMirror", "MirrorConfig", "__version__", "makeSite"]
