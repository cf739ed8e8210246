"""
What the fuzzer calls (C{.ci/fuzz.py}): everything that reads foreign bytes.  Each function may
raise nothing, whatever its bytes are, and log no failure.
"""

import contextlib
from collections.abc import Callable

from twisted.web.http_headers import Headers

from hubmirror.page.languages import chooseLanguage
from hubmirror.page.search import readFound
from hubmirror.protocol.challenge import bearerParameters, onMirror
from hubmirror.protocol.credentials import authorizationFor, formFor, markAnswer
from hubmirror.protocol.errors import MirrorError
from hubmirror.protocol.forwarded import findClient
from hubmirror.protocol.proxyheader import readHeader
from hubmirror.protocol.scopes import changeForm
from hubmirror.protocol.target import readTarget, searchTarget
from hubmirror.protocol.tokens import readToken
from hubmirror.protocol.url import resolve, splitURL
from tests.wire.support import MemoryCase


def parsers(data: bytes) -> None:
    """
    The parsers, which may refuse, each with its own error.
    """
    headers = Headers()
    for name in (b"Forwarded", b"X-Forwarded-For"):
        headers.setRawHeaders(name, [data])
    findClient(None, headers, ())
    bearerParameters(data)
    onMirror(data, b"https://mirror.example/token", lambda name: name)
    changeForm(data, lambda name: name)
    searchTarget(data)
    for change in (authorizationFor, formFor):
        change(b"ghcr.io", data, isDefault=False, passCredentials=False)
    chooseLanguage([], [data.decode("latin-1")])
    parse: Callable[[bytes], object]
    for parse in (
        readTarget,
        readHeader,
        readToken,
        splitURL,
        lambda url: resolve(b"https://a.example/b", url),
        lambda body: markAnswer(b"ghcr.io", body),
        lambda body: readFound(body, 1),
    ):
        with contextlib.suppress(ValueError, MirrorError):
            parse(data)


def client(data: bytes) -> None:
    """
    A client of a mirror in memory.
    """
    case = MemoryCase()
    case.setUp()
    line = case.connect()
    line.says(data)
    case.clock.advance(100)


def upstream(data: bytes) -> None:
    """
    An upstream of a mirror in memory.
    """
    case = MemoryCase()
    case.setUp()
    case.send(b"/v2/library/a/blobs/sha256:" + b"0" * 64)
    case.network.lines[-1].says(data)
    case.clock.advance(100)


READERS = (parsers, client, upstream)
