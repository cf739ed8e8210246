"""
A mirror and another page on the same port: C{twistd --nodaemon --python beside.py}.
"""

import os

from twisted.application.service import Application
from twisted.internet import reactor
from twisted.web.static import Data

from hubmirror import HubMirror, MirrorConfig

port = os.environ.get("PORT", "tcp:5000:interface=127.0.0.1")
mirror = HubMirror(reactor, MirrorConfig(port=(port,)))
mirror.resource.putChild(b"status", Data(b"all is well\n", "text/plain"))

application = Application("beside")
mirror.service.setServiceParent(application)
