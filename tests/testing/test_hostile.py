"""
Requests that no client should send.  The response to each is an error of the client, because a
traceback in the log would fail the test in which the client is.
"""

import json
from base64 import b64encode

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.testing import Authentication, EmbeddedHub, RegistrySettings

HERE = IPv4Address("TCP", "127.0.0.1", 50000)
LONG = b"9" * 5000
RANGE = b"bytes=0-" + LONG
NAMES = [b"library/hello", b"library/new", b"%FF/%0A%22", b"a/b%2F..", b"hello"]
PATHS = [
    b"/v1/search",
    b"/token",
    b"/v2",
    b"/v2/",
    b"/v2/_catalog",
    b"/v2/%s/tags/list",
    b"/v2/%s/manifests/1",
    b"/v2/%s/manifests/%%FF",
    b"/v2/%s/blobs/sha256:0",
    b"/v2/%s/blobs/uploads/",
    b"/v2/%s/blobs/uploads/0",
    b"/v2/%s/referrers/x",
    b"/v2/artifacts/%s/manifests/1",
    b"/registry-v2/docker/registry/v2/blobs/sha256/00/" + b"0" * 64 + b"/data",
    b"*",
    b"http://a.test/v2/",
]
PARAMETERS = (
    b"n page q last next_page mount from digest _state scope service account offline_token"
    b" grant_type username password refresh_token Expires"
).split()
FIELDS = [
    b"Authorization",
    b"Range",
    b"If-Range",
    b"Content-Range",
    b"Content-Type",
    b"Accept",
    b"If-None-Match",
    b"Cookie",
    b"Host",
]
BYTES = st.binary(max_size=40)
WORDS = (
    b"|abc|0|-1|2|\xb2|\xe9|%ED%A0%80|library/hello|repository:library/hello:pull,push"
    b"|password|refresh_token|true"
)
VALUES = BYTES | st.sampled_from([*WORDS.split(b"|"), LONG])
AUTHORIZATIONS = st.sampled_from([b"Basic ", b"Bearer ", b"basic", b""]).flatmap(
    lambda scheme: (VALUES | VALUES.map(b64encode)).map(lambda value: scheme + value)
) | st.just(b"Basic " + b64encode(b"alice:rabbit"))
RANGES = VALUES.map(lambda value: b"bytes=%s-%s" % (value, value))
QUERIES = st.lists(st.tuples(st.sampled_from(PARAMETERS), VALUES), max_size=4).map(
    lambda pairs: b"&".join(b"%s=%s" % pair for pair in pairs)
)
JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["layers", "manifests", "config", "digest", "x"]), inner, max_size=3
        )
    ),
)
BODIES = (
    BYTES | QUERIES | JSON.map(lambda value: json.dumps(value).encode()) | st.just(b"[" * 100_000)
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    path = draw(st.sampled_from(PATHS) | BYTES.map(lambda value: b"/" + value))
    if b"%s" in path:
        path %= draw(st.sampled_from(NAMES))
    target = b"%s?%s" % (path, draw(QUERIES))
    fields = [
        (
            name,
            draw({b"Authorization": AUTHORIZATIONS, b"Range": RANGES | VALUES}.get(name, VALUES)),
        )
        for name in draw(st.lists(st.sampled_from(FIELDS), max_size=4))
    ]
    method = draw(st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"X"]))
    return compose(method, target, fields, draw(BODIES))


def compose(method: bytes, target: bytes, fields: list[tuple[bytes, bytes]], body: bytes) -> bytes:
    """
    A request that Twisted's parser accepts, whatever is in it.
    """
    table = bytes.maketrans(b"\0\r\n", b"...")
    target = target.translate(bytes.maketrans(b"\0\r\n\t\x0b\x0c ", b"......."))
    lines = [b"%s: %s\r\n" % (name, value.translate(table)) for name, value in fields]
    return b"%s %s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s" % (
        method,
        target,
        b"".join(lines),
        len(body),
        body,
    )


class HostileTests(SynchronousTestCase):
    def setUp(self) -> None:
        hub = EmbeddedHub(Clock())
        basic = hub.addRegistry("basic.test", RegistrySettings(Authentication.BASIC))
        free = hub.addRegistry(
            "free.test", RegistrySettings(Authentication.NONE, opaqueLinks=True, pulls=1)
        )
        for registry in (hub, basic, free):
            registry.addUser("alice", "rabbit", push=["*"])
            self.image = registry.addImage("library/hello", "1", sizes=[10])
        self.origins = [
            hub.registry,
            hub.token,
            hub.search,
            hub.cdn,
            hub.mirror,
            basic.registry,
            free.registry,
            free.mirror,
        ]

    def status(self, origin: int, request: bytes) -> int:
        channel = self.origins[origin].site.buildProtocol(HERE)
        transport = StringTransport(peerAddress=HERE)
        channel.makeConnection(transport)
        channel.dataReceived(request)
        return int(transport.value().split(b" ", 2)[1])

    def test_table(self) -> None:
        registry, token, search, _cdn, mirror, basic, free, freeMirror = range(8)
        latin = [(b"Authorization", b"Basic " + b64encode(b"alice:\xe9"))]
        mounts = b"mount=a&mount=b&from=c&from=d"
        manifest = b"/v2/library/hello/manifests/2"
        blob = next(iter(self.image.layers)).digest.encode()
        for origin, method, target, fields, body, status in (
            (search, b"GET", b"/v1/search?n=abc", [], b"", 400),
            (search, b"GET", b"/v1/search?n=" + LONG, [], b"", 400),
            (search, b"GET", b"/v1/search?page=abc", [], b"", 400),
            (search, b"GET", b"/v1/search?page=0", [], b"", 400),
            (free, b"GET", b"/v2/library/hello/tags/list?n=x", [], b"", 400),
            (free, b"GET", b"/v2/library/hello/tags/list?n=-1", [], b"", 400),
            (free, b"GET", b"/v2/library/hello/tags/list?n=0", [], b"", 200),
            (basic, b"GET", b"/v2/", latin, b"", 401),
            (token, b"GET", b"/token", latin, b"", 401),
            (registry, b"GET", b"/v2/", [(b"Authorization", b"Bearer \xe9")], b"", 401),
            (token, b"POST", b"/token", [], b"username=alice&password=\xe9", 401),
            (mirror, b"POST", b"/token", [], b"username=alice&password=%E9", 401),
            (free, b"POST", b"/v2/library/hello/blobs/uploads/?" + mounts, [], b"", 202),
            (freeMirror, b"GET", b"/v2/library/hello/blobs/" + blob, [(b"Range", RANGE)], b"", 200),
            (free, b"PUT", manifest, [], b"[" * 100_000, 400),
            (free, b"PUT", manifest, [], b'{"config":{"digest":[]}}', 400),
            (free, b"PUT", manifest, [], b'{"layers":[1]}', 400),
        ):
            request = compose(method, target, fields, body)
            self.assertEqual(self.status(origin, request), status, request[:100])
            self.assertEqual(self.flushLoggedErrors(), [], request[:100])

    @given(st.integers(0, 7), requests())
    @settings(max_examples=300, deadline=None)
    def test_any(self, origin: int, request: bytes) -> None:
        status = self.status(origin, request)
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertLess(status, 500)
