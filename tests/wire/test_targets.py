"""
Tests of the request target, which is sent upstream byte for byte.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.wire.support import MemoryCase, answer

DIGEST = b"sha256:" + b"0123456789abcdef" * 4

#: Targets that some client, proxy or library changes; each is forwarded unchanged.
TARGETS = (
    b"/",
    b"/v2/?",
    b"/v2/./o/a/manifests/1?",
    b"/v2/./o/a/manifests/1??",
    b"/v2/./o/a/blobs/" + DIGEST,
    b"/v2/./o/a/blobs/sha256%3A00",
    b"/v2/./o/a/blobs/sha256%3a00",
    b"/v2/a%2Fb/tags/list",
    b"/v2/a%2fb/tags/list",
    b"/v2/./o/a/tags/list;",
    b"/v2/./o/a/tags/list;v=1?n=1;",
    b"/v2/./o/a/tags/list#part",
    b"/v2/./o/a/tags/list?last=1#part",
    b"/v2/./o/a+b/tags/list?last=1+2",
    b"/v2/./o/a/tags/list?last=%20",
    b"/v2/./o/a/manifests/%zz",
    b"/v2/./o/a/manifests/%",
    b"/v2/./o/a/manifests/100%?n=5%",
    b"/v2/./o/a//manifests///1",
    b"//v2/o/a/manifests/1",
    b"//host.example/v2/",
    b"/v2/./o/a/manifests/1",
    b"/v2/./o/a/../b/manifests/1",
    b"/v2/./o/a/%2e%2e/b/manifests/1",
    b"/v2/./o/a/manifests/1/..",
    b"/v2/./o/a/manifests/1/.",
    b"/v2/o/%C3%A9/%E2%98%83/tags/list",
    b"/v2/o/%c3%a9/tags/list?last=%e2%98%83",
    b"/v2/./o/a/manifests/[]{}|^`\\",
    b"/v2/./o/a/tags/list?x[]={}|^`\\",
    b"/v2/./o/a/tags/list?\"quoted\"='quoted'<>",
    b"/v2/./o/a/tags/list?=",
    b"/v2/./o/a/tags/list?=&=",
    b"/v2/./o/a/tags/list?&&n=1&&",
    b"/v2/./o/a/tags/list?n",
    b"/v2/./o/a/tags/list?n=",
    b"/v2/./o/a/tags/list?n=1&n=2&n=1",
    b"/v2/./o/a/tags/list?b=1&a=2",
    b"/v2/./o/a/tags/list?redirect=https://other.example/?a=b",
    b"/v2/./o/a/blobs/uploads/1?_state=%2B%2F%3D~%7E-_.!*'()",
    b"/v2/o/A/MANIFESTS/Latest",
    b"/v2/o/a:b@c/manifests/1,2$3",
    b"/~user/%7Euser",
    b"/v2/./o/a/tags/list?" + b"x" * 8000,
    b"/" + b"y" * 8000,
)


class TargetTests(MemoryCase):
    def assertVerbatim(self, target: bytes, host: bytes, sent: bytes) -> None:
        line = self.send(target)
        self.assertEqual(len(self.network.lines), 1, line.value()[:200])
        self.assertEqual(self.network.origins[0].host, host)
        self.assertEqual(self.asked().start, b"GET " + sent + b" HTTP/1.1")

    def test_queryOfTokens(self) -> None:
        """C{/token} stands for the URL of the token service; its query is forwarded unchanged."""
        query = b"?service=a%20b&scope=x:y:pull,push&scope=&&account=%40+;#"
        self.assertVerbatim(b"/token" + query, b"auth.example", b"/token" + query)

    def test_emptyQueryOfTokens(self) -> None:
        self.assertVerbatim(b"/token?", b"auth.example", b"/token?")

    def test_searchKeepsEverythingElse(self) -> None:
        self.assertVerbatim(
            b"/v1/search?&n=25&q=library%2Fa%2fb&x=%zz&page=2&q=c#;",
            b"index.example",
            b"/v1/search?&n=25&q=a%2fb&x=%zz&page=2&q=c#;",
        )

    def test_onlyNamespaceGoes(self) -> None:
        """Only C{ns} is removed."""
        self.assertVerbatim(
            b"/v2/./o/a/manifests/1?a=%2f&ns=docker.io&&b=;?",
            b"hub.example",
            b"/v2/./o/a/manifests/1?a=%2f&&b=;?",
        )

    def test_belowAPath(self) -> None:
        """The URL of an upstream may have a path, to which targets are appended."""
        self.configure(registry_url="https://hub.example/sub/path")
        self.assertVerbatim(b"/v2/a%2fb//c/..?", b"hub.example", b"/sub/path/v2/a%2fb//c/..?")

    def test_fallback(self) -> None:
        """The next upstream is sent the same bytes."""
        self.configure(fallback=("https://second.example/m",))
        target = b"/v2/a%2fb//c/..?x=%zz;#"
        self.send(target)
        self.assertEqual(self.asked(0).target, target)
        self.network.lines[0].says(answer(503))
        self.assertEqual(self.network.origins[1].host, b"second.example")
        self.assertEqual(self.asked(1).target, b"/m" + target)

    def test_redirect(self) -> None:
        """The target of a redirect is signed, and not changed."""
        signed = b"/blob//x/../%2f?Signature=a%2Bb%2fc~%7E&&flag&empty=&x=%zz;?"
        client = self.send(b"/v2/./o/a/blobs/" + DIGEST)
        self.network.lines[0].says(
            answer(307, b"", ((b"Location", b"https://cdn.example" + signed + b"#part"),))
        )
        self.assertEqual(self.network.origins[1].host, b"cdn.example")
        self.assertEqual(self.asked(1).start, b"GET " + signed + b" HTTP/1.1")
        self.network.lines[1].says(answer(200, b"blob"))
        self.assertEqual(self.answered(client).body, b"blob")


def _add(number: int, target: bytes) -> None:
    def test(self: TargetTests) -> None:
        self.assertVerbatim(target, b"hub.example", target)

    test.__doc__ = target[:60].decode()
    setattr(TargetTests, f"test_{number:02}", test)


for _number, _target in enumerate(TARGETS):
    _add(_number, _target)


class TableTests(SynchronousTestCase):
    def test_enough(self) -> None:
        """No two rows of the table test the same."""
        self.assertEqual(len(set(TARGETS)), len(TARGETS))
        self.assertGreaterEqual(len(TARGETS), 33)
