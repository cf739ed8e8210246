"""What makes ``twistd hubmirror`` known to Twisted."""

from twisted.application.service import ServiceMaker

hubmirror = ServiceMaker(
    "hubmirror",
    "hubmirror.tap",
    "A streaming mirror of Docker Hub.",
    "hubmirror",
)
