"""
Tests of the response fields that name the upstream, and are changed to name the mirror.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from hubmirror.downstream.answer import onMirror
from hubmirror.protocol.spelling import Spelling
from tests.wire.support import MemoryCase, Message, answer


class OnMirrorTests(SynchronousTestCase):
    def assertMoved(self, base: bytes, *table: tuple[bytes, bytes, bytes]) -> None:
        """Check references of an upstream, and what they become on the mirror."""
        for reference, path, moved in table:
            self.assertEqual(
                onMirror(reference, base, Spelling(before=path), Spelling()), moved, reference
            )

    def test_table(self) -> None:
        self.assertMoved(
            b"http://m:5000",
            (b"https://hub.example/v2/a?b=%2f&&c", b"", b"http://m:5000/v2/a?b=%2f&&c"),
            (b"http://anything.example:99/v2/a", b"", b"http://m:5000/v2/a"),
            (b"//hub.example/v2/a", b"", b"http://m:5000/v2/a"),
            (b"https://hub.example", b"", b"http://m:5000/"),
            (b"HTTPS://HUB.example/V2/A", b"", b"http://m:5000/V2/A"),
            # A reference without a host is already relative to the mirror.
            (b"/v2/a?b", b"", b"/v2/a?b"),
            (b"a?b", b"", b"a?b"),
            (b"?b", b"", b"?b"),
            (b"", b"", b""),
            # References below a path, which the mirror does not have.
            (b"https://hub.example/sub/v2/a", b"/sub", b"http://m:5000/v2/a"),
            (b"/sub/v2/a", b"/sub", b"http://m:5000/v2/a"),
            (b"https://hub.example/subs/v2/a", b"/sub", b"http://m:5000/subs/v2/a"),
            (b"/subs/a", b"/sub", b"/subs/a"),
        )

    def test_mirrorBelowPath(self) -> None:
        """A mirror whose public URL has a path."""
        self.assertMoved(
            b"https://m/sub",
            (b"https://hub.example/v2/a", b"", b"https://m/sub/v2/a"),
            (b"/v2/a?b", b"", b"/sub/v2/a?b"),
            (b"/x/v2/a?b", b"/x", b"https://m/sub/v2/a?b"),
            (b"a?b", b"", b"a?b"),
        )


class AnswerCase(MemoryCase):
    def get(
        self, status: int, name: bytes, *values: bytes, target: bytes = b"/v2/a", **request: Any
    ) -> list[bytes]:
        """The values of a field that the client receives."""
        reply = answer(status, b"body", tuple((name, value) for value in values))
        return self.exchange(target, reply, **request)[1].values(name)


class LocationTests(AnswerCase):
    def test_upload(self) -> None:
        """The location of an upload leads to the mirror, including its port."""
        upload = b"https://hub.example/v2/a/blobs/uploads/1?_state=a%2Bb%3D&&x"
        for secure, host, moved in (
            (False, b"mirror.example:5000", b"http://mirror.example:5000"),
            (True, b"mirror.example", b"https://mirror.example"),
            (True, b"[::1]:8443", b"https://[::1]:8443"),
        ):
            [location] = self.get(
                202,
                b"Location",
                upload,
                method=b"POST",
                host=host,
                line=self.connect(secure=secure),
            )
            self.assertEqual(location, moved + b"/v2/a/blobs/uploads/1?_state=a%2Bb%3D&&x")

    def test_uploadSingular(self) -> None:
        """GHCR's spelling of the location is kept."""
        location = b"/v2/a/blobs/upload/1?_state=x"
        self.assertEqual(
            self.get(202, b"Location", b"https://hub.example" + location, method=b"POST"),
            [b"http://mirror.example" + location],
        )

    def test_uploadBelowAPath(self) -> None:
        self.configure(registry_url="https://hub.example/sub")
        self.assertEqual(
            self.get(202, b"Location", b"/sub/v2/a/blobs/uploads/1", method=b"POST"),
            [b"http://mirror.example/v2/a/blobs/uploads/1"],
        )

    def test_unfollowedRedirect(self) -> None:
        """A redirect of a push leads to the mirror, too."""
        self.assertEqual(
            self.get(307, b"Location", b"https://cdn.example/x?y", method=b"PUT"),
            [b"http://mirror.example/x?y"],
        )

    def test_link(self) -> None:
        """The link to the next page leads to the mirror, and other parts of the field are kept."""
        for value, moved in (
            (
                b'<https://hub.example/v2/a/tags/list?last=%2f&n=5>; rel="next"',
                b'<http://mirror.example/v2/a/tags/list?last=%2f&n=5>; rel="next"',
            ),
            (b'</v2/a/tags/list?n=5>; rel="next"', b'</v2/a/tags/list?n=5>; rel="next"'),
            (
                b"<https://hub.example/a>; x, <//hub.example/b>;y",
                b"<http://mirror.example/a>; x, <http://mirror.example/b>;y",
            ),
            (b"no link", b"no link"),
        ):
            self.assertEqual(self.get(200, b"Link", value), [moved])

    def test_several(self) -> None:
        self.assertEqual(self.get(200, b"Link", b"</a>", b"</b>"), [b"</a>", b"</b>"])


CHALLENGE = (
    b'Bearer realm="https://auth.example/token",service="registry.docker.io",'
    b'scope="repository:a/b:pull,push",error="insufficient_scope"'
)


class ChallengeTests(AnswerCase):
    """
    In a registry's challenge, only the realm changes.
    """

    def challenged(self, **request: Any) -> Message:
        reply = answer(401, b"body", ((b"WWW-Authenticate", CHALLENGE),))
        return self.exchange(b"/v2/a", reply, **request)[1]

    def assertRealm(self, realm: bytes, **request: Any) -> None:
        [challenge] = self.challenged(**request).values(b"WWW-Authenticate")
        self.assertEqual(challenge, CHALLENGE.replace(b"https://auth.example/token", realm))

    def test_host(self) -> None:
        """The realm has the host and port that the client used."""
        for host in (b"mirror.example", b"mirror.example:5000", b"192.0.2.1:80", b"[::1]:5000"):
            self.assertRealm(b"http://" + host + b"/token", host=host)

    def test_tls(self) -> None:
        self.assertRealm(
            b"https://mirror.example:8443/token",
            host=b"mirror.example:8443",
            line=self.connect(secure=True),
        )

    def test_publicURL(self) -> None:
        self.configure(public_url="https://public.example:444/secret/")
        self.assertRealm(b"https://public.example:444/secret/token", host=b"other.example")

    def test_trustedProxy(self) -> None:
        self.configure(trusted_proxy=("192.0.2.7",))
        for fields in (
            ((b"X-Forwarded-Proto", b"https"), (b"X-Forwarded-Host", b"front.example:8443")),
            ((b"Forwarded", b'proto=https;host="front.example:8443";for=198.51.100.1'),),
        ):
            self.assertRealm(b"https://front.example:8443/token", fields=fields)
        self.assertRealm(
            b"https://mirror.example/token", fields=((b"X-Forwarded-Proto", b"https"),)
        )

    def test_untrusted(self) -> None:
        """
        C{X-Forwarded-Host} of an untrusted peer is ignored: it could send a client's login to
        another server.
        """
        self.configure(trusted_proxy=("198.51.100.0/24",))
        for fields in (
            ((b"X-Forwarded-Proto", b"https"), (b"X-Forwarded-Host", b"evil.example")),
            ((b"Forwarded", b"proto=https;host=evil.example"),),
        ):
            self.assertRealm(b"http://mirror.example/token", fields=fields)

    def test_malformedFromTrusted(self) -> None:
        self.configure(trusted_proxy=("192.0.2.7",))
        got = self.local(b"/v2/", fields=((b"X-Forwarded-Host", b'evil"example'),))
        self.assertEqual((got.status, got.error), (400, "BAD_REQUEST"))

    def test_withoutHost(self) -> None:
        """An HTTP/1.0 request may have no Host; then the address of the connection is used."""
        client = self.connect()
        client.says(b"GET /v2/ HTTP/1.0\r\n\r\n")
        self.network.lines[0].says(answer(401, b"", ((b"WWW-Authenticate", CHALLENGE),)))
        [challenge] = self.answered(client).values(b"WWW-Authenticate")
        self.assertIn(b'realm="http://192.0.2.1:5000/token"', challenge)

    def test_otherSchemes(self) -> None:
        basic = b'Basic realm="Registry"'
        self.assertEqual(self.get(401, b"WWW-Authenticate", basic), [basic])

    def test_head(self) -> None:
        got = self.challenged(method=b"HEAD")
        self.assertEqual(len(got.values(b"WWW-Authenticate")), 1)

    def test_onlyWith401(self) -> None:
        for status in (200, 400, 403, 404, 429, 500):
            self.setUp()
            self.assertEqual(self.get(status, b"WWW-Authenticate", CHALLENGE), [], status)

    def test_onlyFromTheRegistry(self) -> None:
        """Challenges of the token service and the index are not passed on."""
        for target in (b"/token?a", b"/v1/search?q=a"):
            self.assertEqual(self.get(401, b"WWW-Authenticate", CHALLENGE, target=target), [])

    def test_notFromTheCDN(self) -> None:
        """Challenges of the target of a redirect are not passed on."""
        client = self.send(b"/v2/a/blobs/sha256:1")
        self.network.lines[0].says(answer(307, b"", ((b"Location", b"https://cdn.example/"),)))
        self.network.lines[1].says(answer(401, b"", ((b"WWW-Authenticate", b'Basic realm="x"'),)))
        self.assertEqual(self.answered(client).values(b"WWW-Authenticate"), [])
