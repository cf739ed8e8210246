"""
Tests of every route, under the mirror's own site and under Twisted's, where an embedder may put the
resource.
"""

from __future__ import annotations

from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data

from hubmirror.exchange import Outcome
from hubmirror.protocol.target import Kind
from tests.wire.support import MemoryCase, Message, answer

#: Spellings of the catalog that some server interprets as such.
CATALOGS = (
    b"/v2/_catalog",
    b"/v2/_catalog?",
    b"/v2/_catalog?n=5&last=a",
    b"/v2/_catalog?ns=docker.io",
    b"/v2/_catalog/",
    b"/v2/_catalog//",
    b"/v2//_catalog",
    b"//v2/_catalog",
    b"/v2/%5Fcatalog",
    b"/v2/%5fcatalog",
    b"/v2/%255Fcatalog",
    b"/v2/_cat%61log",
    b"/%76%32/_catalog",
    b"/v2%2F_catalog",
    b"/v2/./_catalog",
    b"/v2/%2e/_catalog",
    b"/v2/a/../_catalog",
    b"/v2/a/%2e%2e/_catalog",
    b"/v2/_catalog/.",
    b"/v2/_catalog/a/..",
    b"/x/../v2/_catalog",
    b"/v2/_catalog#part",
    b"/v2/x#/../_catalog",
    b"/v2/_catalog;x=1",
    b"/v2/_catalog%3Bx=1",
    b"/v2;x=1/_catalog",
    b"/v2/;x/_catalog;y",
)


class RouteTests(MemoryCase):
    """
    Routes under the mirror's own site.
    """

    def assertGoesTo(self, url: bytes, target: bytes, **request: Any) -> Message:
        """Check that a request is sent to this URL, and that its response is passed on."""
        asked, got = self.exchange(target, answer(200, b"served"), **request)
        origin = self.network.origins[-1]
        self.assertEqual(b"%b://%b%b" % (origin.scheme, origin.host, asked.target), url)
        self.assertEqual(got.status, 200)
        if request.get("method") != b"HEAD":
            self.assertEqual(got.body, b"served")
        return asked

    def assertRefused(self, target: bytes, status: int, code: str, **request: Any) -> Message:
        """Check that the mirror itself refuses a request with a registry's error."""
        got = self.local(target, **request)
        self.assertEqual((got.status, got.error), (status, code), target)
        self.assertEqual(got.values(b"Content-Type"), [b"application/json"])
        self.assertEqual(got.values(b"Content-Length"), [b"%d" % len(got.body)])
        self.assertEqual(got.values(b"Docker-Distribution-API-Version"), [b"registry/2.0"], target)
        self.assertEqual([len(got.values(name)) for name in (b"Date", b"Server")], [1, 1])
        self.assertEqual(got.values(b"WWW-Authenticate"), [])
        self.assertIs(self.exchanges[-1].outcome, Outcome.REFUSED)
        self.assertEqual(self.exchanges[-1].sent, len(got.body))
        return got

    # The registry

    def test_registry(self) -> None:
        for target in (
            b"/v2/",
            b"/v2/library/hello/manifests/latest",
            b"/v2/library/hello/blobs/sha256:00",
            b"/v2/o/a/tags/list?n=5",
            b"/v2/o/a/referrers/sha256:00",
            b"/v2/token/a/manifests/1",
            b"/v2/v1/search/manifests/1",
            b"/",
            b"/favicon.ico",
            b"/tokens",
            b"/v1/repositories/a/images",
        ):
            self.assertGoesTo(b"https://hub.example" + target, target)

    def test_version(self) -> None:
        """C{/v2} is sent as C{/v2/}: the Hub would redirect it, and many proxies fail."""
        self.assertGoesTo(b"https://hub.example/v2/", b"/v2")
        self.assertGoesTo(b"https://hub.example/v2/?a", b"/v2?a")

    def test_methods(self) -> None:
        for method in (b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"):
            asked = self.assertGoesTo(b"https://hub.example/v2/a", b"/v2/a", method=method)
            self.assertTrue(asked.start.startswith(method + b" "))

    def test_otherMethods(self) -> None:
        for method in (b"TRACE", b"BREW", b"get"):
            got = self.assertRefused(b"/v2/", 405, "UNSUPPORTED", method=method)
            self.assertEqual(
                got.values(b"Allow"), [b"GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE"]
            )

    def test_connect(self) -> None:
        """CONNECT does not open a tunnel."""
        self.assertRefused(b"hub.example:443", 405, "UNSUPPORTED", method=b"CONNECT")

    def test_catalog(self) -> None:
        for target in CATALOGS:
            self.assertRefused(target, 404, "NAME_UNKNOWN")
            self.assertRefused(target, 404, "NAME_UNKNOWN", method=b"POST")

    def test_noCatalog(self) -> None:
        """Names that only resemble the catalog are repositories."""
        for target in (b"/v2/o/_catalog/tags/list", b"/v2/a/_catalog", b"/v2/_catalogs"):
            self.assertGoesTo(b"https://hub.example" + target, target)

    def test_nul(self) -> None:
        self.assertRefused(b"/v2/a%00/manifests/1", 400, "BAD_REQUEST")

    # Pushes

    def test_readOnly(self) -> None:
        self.configure(read_only=True)
        for method in (b"POST", b"PUT", b"PATCH", b"DELETE"):
            got = self.assertRefused(b"/v2/a", 405, "UNSUPPORTED", method=method)
            self.assertEqual(got.values(b"Allow"), [b"GET, HEAD, OPTIONS"])
        self.assertGoesTo(b"https://hub.example/v2/a", b"/v2/a")

    def test_readOnlyLogin(self) -> None:
        """Logging in to a read-only mirror works."""
        self.configure(read_only=True)
        self.assertGoesTo(b"https://auth.example/token", b"/token", method=b"POST")

    # The token service

    def test_token(self) -> None:
        query = b"?service=registry.docker.io&scope=a&scope=b"
        for target in (b"/token" + query, b"/token/" + query, b"//token" + query):
            self.assertGoesTo(b"https://auth.example/token" + query, target)
        self.assertGoesTo(b"https://auth.example/token", b"/token")

    def test_tokenOf(self) -> None:
        """The URL of the token service may have any path."""
        self.configure(auth_url="https://auth.example/sub/jwt")
        self.assertGoesTo(b"https://auth.example/sub/jwt?a=b", b"/token?a=b")

    def test_tokenMethods(self) -> None:
        for method in (b"PUT", b"PATCH", b"DELETE"):
            got = self.assertRefused(b"/token", 405, "UNSUPPORTED", method=method)
            self.assertEqual(got.values(b"Allow"), [b"GET, HEAD, OPTIONS, POST"])

    # The index

    def test_search(self) -> None:
        """C{library/} is removed from the term of a search; other parameters are kept."""
        for query, sent in (
            (b"q=hello&n=25", b"q=hello&n=25"),
            (b"n=25&q=library/hello&page=2", b"n=25&q=hello&page=2"),
            (b"q=library%2Fhello", b"q=hello"),
            (b"q=library%2fhello", b"q=hello"),
            (b"q=library/", b"q=library"),
            (b"q=library%2F", b"q=library"),
            (b"q=library", b"q=library"),
            (b"q=librarian/x", b"q=librarian/x"),
            (b"q=a/library/b", b"q=a/library/b"),
            (b"q=library/library/a", b"q=library/a"),
            (b"xq=library/a", b"xq=library/a"),
            (b"q=", b"q="),
        ):
            self.assertGoesTo(b"https://index.example/v1/search?" + sent, b"/v1/search?" + query)

    def test_searchMethods(self) -> None:
        self.assertRefused(b"/v1/search?q=a", 405, "UNSUPPORTED", method=b"POST")

    def test_searchPing(self) -> None:
        """
        dockerd pings before a search: without the field in the response, it would send its
        credentials.
        """
        got = self.local(b"/v1/_ping")
        self.assertEqual((got.status, got.body), (200, b"true"))
        self.assertEqual(got.values(b"X-Docker-Registry-Standalone"), [b"false"])
        self.assertEqual(got.values(b"Content-Type"), [b"application/json"])
        self.assertIs(self.exchanges[-1].kind, Kind.SEARCH_PING)
        self.assertIs(self.exchanges[-1].outcome, Outcome.COMPLETE)

    def test_searchPingHead(self) -> None:
        got = self.local(b"/v1/_ping", method=b"HEAD")
        self.assertEqual((got.status, got.body), (200, b""))
        self.assertEqual(got.values(b"Content-Length"), [b"4"])
        self.assertEqual(self.exchanges[-1].sent, 0)

    # Namespaces

    def test_namespace(self) -> None:
        for name in (b"docker.io", b"registry-1.docker.io", b"index.docker.io", b"Docker.IO"):
            for target in (b"/v2/o/a/manifests/1", b"/v2/o/a/blobs/sha256:00", b"/v2/"):
                self.assertGoesTo(b"https://hub.example" + target, target + b"?ns=" + name)

    def test_namespaceOfTheRegistry(self) -> None:
        self.configure(registry_url="https://hub.example:8443")
        self.assertGoesTo(b"https://hub.example/v2/a", b"/v2/a?ns=hub.example:8443")
        self.assertGoesTo(b"https://hub.example/v2/a", b"/v2/a?ns=hub.example%3A8443")

    def test_foreignNamespace(self) -> None:
        """
        The response makes the client try its next host, so that it gets no image of another
        registry.
        """
        for query in (
            b"ns=ghcr.io",
            b"ns=",
            b"ns=docker.io&ns=quay.io",
            b"ns=docker.io.evil.example",
            b"a&ns=hub.example:444",
        ):
            self.assertRefused(b"/v2/a/manifests/1?" + query, 404, "NAME_UNKNOWN")

    # CORS

    def preflight(self, target: bytes, method: bytes = b"GET") -> Message:
        return self.local(
            target,
            method=b"OPTIONS",
            fields=(
                (b"Origin", b"https://page.example"),
                (b"Access-Control-Request-Method", method),
                (b"Access-Control-Request-Headers", b"authorization,x-own"),
            ),
        )

    def test_preflight(self) -> None:
        for target in (b"/v2/a/manifests/1", b"/token?a", b"/v1/search?q=a", b"/v1/_ping", b"/"):
            got = self.preflight(target)
            self.assertEqual((got.status, got.body), (204, b""))
            self.assertEqual(got.values(b"Access-Control-Allow-Origin"), [b"*"])
            self.assertEqual(
                got.values(b"Access-Control-Allow-Methods"),
                [b"GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE"],
            )
            self.assertEqual(got.values(b"Access-Control-Allow-Headers"), [b"authorization,x-own"])
            self.assertEqual(got.values(b"Access-Control-Max-Age"), [b"86400"])
            self.assertEqual(got.values(b"Content-Length"), [])
            self.assertIs(self.exchanges[-1].outcome, Outcome.COMPLETE)

    def test_preflightReadOnly(self) -> None:
        self.configure(read_only=True)
        got = self.preflight(b"/v2/a", b"PUT")
        self.assertEqual(got.values(b"Access-Control-Allow-Methods"), [b"GET, HEAD, OPTIONS"])

    def test_noPreflight(self) -> None:
        """C{OPTIONS} that is no preflight is passed on to the registry."""
        self.assertGoesTo(
            b"https://hub.example/v2/",
            b"/v2/",
            method=b"OPTIONS",
            fields=((b"Origin", b"https://page.example"),),
        )

    def test_noCORS(self) -> None:
        self.configure(no_cors=True)
        self.assertGoesTo(
            b"https://hub.example/v2/",
            b"/v2/",
            method=b"OPTIONS",
            fields=((b"Origin", b"null"), (b"Access-Control-Request-Method", b"GET")),
        )
        got = self.local(b"/v1/_ping")
        self.assertEqual(got.values(b"Access-Control-Allow-Origin"), [])

    def test_errorsAreReadable(self) -> None:
        """A page can read the mirror's own responses, too."""
        for target in (b"/v1/_ping", b"/v2/_catalog"):
            got = self.local(target)
            self.assertEqual(got.values(b"Access-Control-Allow-Origin"), [b"*"])
            self.assertEqual(got.values(b"Access-Control-Expose-Headers"), [b"*"])

    # Absolute targets

    def test_absolute(self) -> None:
        """An absolute target that names the mirror is served."""
        self.assertGoesTo(b"https://hub.example/v2/a?b", b"http://192.0.2.1:5000/v2/a?b")
        self.assertGoesTo(b"https://auth.example/token?b", b"http://192.0.2.1:5000/token?b")
        self.assertGoesTo(
            b"https://index.example/v1/search?q=a",
            b"http://192.0.2.1:5000/v1/search?q=library/a",
        )
        self.assertRefused(b"http://192.0.2.1:5000/v2/_catalog", 404, "NAME_UNKNOWN")

    def test_absoluteByPublicURL(self) -> None:
        self.configure(public_url="https://mirror.example/secret")
        self.assertGoesTo(b"https://hub.example/v2/a", b"https://mirror.example/v2/a")

    def test_absoluteForOthers(self) -> None:
        """An absolute target that names another host is refused, whatever C{Host} is."""
        for target in (
            b"http://other.example/v2/",
            b"https://hub.example/v2/",
            b"http://192.0.2.1/v2/",
            b"http://user:secret@192.0.2.1:5000/v2/",
            b"ftp://192.0.2.1:5000/v2/",
            b"v2/",
        ):
            got = self.assertRefused(target, 400, "BAD_REQUEST", host=b"other.example")
            self.assertNotIn(b"secret", got.body)

    # Heads

    def test_headOfAnError(self) -> None:
        """The response to HEAD has the fields of that to GET, also for an error."""
        error = self.local(b"/v2/_catalog")
        got = self.local(b"/v2/_catalog", method=b"HEAD")
        self.assertEqual((got.status, got.body), (404, b""))
        self.assertEqual(got.values(b"Content-Length"), [b"%d" % len(error.body)])
        self.assertEqual(got.values(b"Content-Type"), [b"application/json"])

    def test_malformedHost(self) -> None:
        for host in (b"a b", b"user@host", b"host:99999", b"host/path", b"[::1"):
            self.assertRefused(b"/v2/", 400, "BAD_REQUEST", host=host)


class PlainSiteRouteTests(RouteTests):
    """
    Routes under Twisted's own site.
    """

    def makeSite(self) -> Site:
        return Site(self.mirror.resource, reactor=self.clock)


class BesideTests(MemoryCase):
    """
    A resource beside the mirror takes precedence.
    """

    def test_beside(self) -> None:
        self.mirror.resource.putChild(b"status", Data(b"fine", "text/plain"))
        got = self.local(b"/status")
        self.assertEqual((got.status, got.body), (200, b"fine"))
        asked, _ = self.exchange(b"/statuses", answer(200))
        self.assertEqual(asked.target, b"/statuses")

    def test_bodyOfTheOther(self) -> None:
        """A resource that is not the mirror's gets the whole body, as under any site."""

        class Echo(Resource):
            isLeaf = True

            def render_POST(self, request: Any) -> bytes:
                request.setHeader(b"Content-Length", b"5")
                return bytes(request.content.read())

        self.mirror.resource.putChild(b"echo", Echo())
        client = self.connect()
        client.says(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12")
        self.assertEqual(client.hears(), b"")
        client.says(b"345")
        self.assertEqual(self.answered(client).body, b"12345")

    def test_limitsOfTheOther(self) -> None:
        """The limits of the configuration apply to its body."""
        self.configure(max_upload=5)
        self.mirror.resource.putChild(b"echo", Resource())
        client = self.connect()
        client.says(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n")
        self.assertEqual(self.answered(client).status, 413)
