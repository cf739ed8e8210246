"""
Tests of several registries in one mirror, with the test as the client and the upstreams.
"""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any
from urllib.parse import parse_qs

from twisted.logger import LogLevel, capturedLogs, formatEvent

from hubmirror import MirrorConfig
from hubmirror.config import Account, RegistryConfig
from tests.wire.support import Line, MemoryCase, Message, answer, read

DIGEST = b"sha256:" + b"0123456789abcdef" * 4
BASIC = b"Basic bWU6c2VjcmV0"


def challenge(realm: bytes, rest: bytes = b"") -> bytes:
    """The 401 of a registry."""
    return answer(401, b"{}", ((b"WWW-Authenticate", b'Bearer realm="%b"%b' % (realm, rest)),))


def token(value: bytes) -> bytes:
    """The response of a token service."""
    return answer(200, b'{"token":"%b"}' % value, ((b"Content-Type", b"application/json"),))


class RegistriesCase(MemoryCase):
    options = {
        "registries": [
            RegistryConfig(
                name="ghcr.test",
                url="https://ghcr.test",
                auth_url="https://ghcr.test/token",
                hosts=["ghcr.mirror.example"],
                fallback=["https://f.example", "https://f.example/v2/ghcr.test"],
            ),
            RegistryConfig(name="quay.test", url="https://quay.test"),
            RegistryConfig(name="passing.test", pass_credentials=True),
        ],
        # Tests that do not need a second upstream must not ask it.
        "failover_on": "503",
    }

    def origin(self, number: int = -1) -> str:
        return str(self.network.origins[number])

    def assertAsked(self, target: bytes, origin: str, own: bytes, **request: Any) -> Message:
        """Check that a request is sent to an origin, with this target."""
        asked, _ = self.exchange(target, answer(200, b"{}"), **request)
        self.assertEqual((self.origin(), asked.target), (origin, own), target)
        return asked


class AddressTests(RegistriesCase):
    def test_ways(self) -> None:
        """Each way of addressing a registry leads to it, with the registry's own target."""
        manifest = b"/v2/o/a/manifests/1"
        for target, host in (
            (manifest + b"?ns=ghcr.test", b"m"),
            (b"/v2/ghcr.test/o/a/manifests/1", b"m"),
            (b"/ghcr.test/v2/o/a/manifests/1", b"m"),
            (manifest, b"ghcr.mirror.example"),
        ):
            self.assertAsked(target, "https://ghcr.test", manifest, host=host)
            self.assertEqual(self.exchanges[-1].registry, "ghcr.test")
        self.assertAsked(manifest, "https://hub.example", manifest)
        self.assertEqual(self.exchanges[-1].registry, "docker.io")

    def test_notMirrored(self) -> None:
        """No upstream is asked."""
        for target in (
            b"/v2/evil.test/o/a/manifests/1",
            b"/evil.test/v2/",
            b"/v2/o/a/manifests/1?ns=evil.test",
            b"/token/evil.test",
        ):
            got = self.local(target)
            self.assertEqual((got.status, got.error), (404, "NAME_UNKNOWN"))
            self.assertIn(b"evil.test is not mirrored here", got.body)

    def test_two(self) -> None:
        got = self.local(b"/v2/ghcr.test/o/a/manifests/1?ns=quay.test")
        self.assertEqual((got.status, got.error), (400, "NAME_INVALID"))

    def test_catalog(self) -> None:
        for target in (b"/v2/ghcr.test/_catalog", b"/ghcr.test/v2/_catalog?n=1"):
            got = self.local(target)
            self.assertEqual((got.status, got.error), (404, "NAME_UNKNOWN"))

    def test_ping(self) -> None:
        """The response to C{/v2/} lists the mirror's registries, whichever it is for."""
        names = b"docker.io, ghcr.test, quay.test, passing.test"
        for target in (b"/v2/", b"/v2/?ns=ghcr.test", b"/v2/ghcr.test/", b"/ghcr.test/v2/"):
            _, got = self.exchange(target, answer(200, b"{}"))
            self.assertEqual(got.values(b"Hubmirror-Registries"), [names], target)

    def test_pingOfHost(self) -> None:
        """Under a host that stands for a registry, the list has this registry alone."""
        for target in (b"/v2/", b"/v2/?ns=quay.test"):
            _, got = self.exchange(target, answer(200, b"{}"), host=b"ghcr.mirror.example")
            self.assertEqual(got.values(b"Hubmirror-Registries"), [b"ghcr.test"], target)

    def test_pingOfOne(self) -> None:
        self.configure(registries=())
        _, got = self.exchange(b"/v2/", answer(200, b"{}"))
        self.assertEqual(got.values(b"Hubmirror-Registries"), [])

    def test_noSearch(self) -> None:
        got = self.local(b"/v1/search?q=a&ns=ghcr.test")
        self.assertEqual((got.status, got.error), (404, "NAME_UNKNOWN"))


class SpellingTests(RegistriesCase):
    """
    The responses have the client's spelling of targets.
    """

    def test_location(self) -> None:
        own = b"https://ghcr.test/v2/o/a/blobs/uploads/1?_state=x%3D"
        for target, location in (
            (b"/v2/ghcr.test/o/a", b"/v2/ghcr.test/o/a/blobs/uploads/1?_state=x%3D"),
            (b"/ghcr.test/v2/o/a", b"/ghcr.test/v2/o/a/blobs/uploads/1?_state=x%3D"),
        ):
            for said in (own, own.removeprefix(b"https://ghcr.test")):
                _, got = self.exchange(
                    target + b"/blobs/uploads/",
                    answer(202, b"", ((b"Location", said),)),
                    method=b"POST",
                )
                self.assertIn(location, got.values(b"Location")[0])
        _, got = self.exchange(
            b"/v2/o/a/blobs/uploads/?ns=ghcr.test",
            answer(202, b"", ((b"Location", own),)),
            method=b"POST",
        )
        self.assertEqual(
            got.values(b"Location"),
            [b"http://mirror.example/v2/o/a/blobs/uploads/1?_state=x%3D&ns=ghcr.test"],
        )

    def test_locationElsewhere(self) -> None:
        """
        An upload that a registry takes outside of C{/v2/}, as Google's does, stays with the
        registry, and its signed query is the registry's.
        """
        own = b"/artifacts-uploads/namespaces/p/1?upload_id=a%2Bb%3D&&x"
        for target in (b"/v2/ghcr.test/o/a", b"/ghcr.test/v2/o/a"):
            for said in (own, b"https://ghcr.test" + own):
                _, got = self.exchange(
                    target + b"/blobs/uploads/",
                    answer(202, b"", ((b"Location", said),)),
                    method=b"POST",
                )
                [location] = got.values(b"Location")
                location = location.removeprefix(b"http://mirror.example")
                self.assertAsked(location, "https://ghcr.test", own, method=b"PUT", body=b"x")

    def test_link(self) -> None:
        """
        The link to the next page of tags leads to the same registry, with its opaque part
        unchanged.
        """
        for said in (
            b'</v2/o/a/tags/list?next_page=gAAA%3D%3D>; rel="next"',
            b'<https://ghcr.test/v2/o/a/tags/list?next_page=gAAA%3D%3D>; rel="next"',
        ):
            for target, page in (
                (b"/v2/ghcr.test/o/a/tags/list", b"/v2/ghcr.test/o/a/tags/list?"),
                (b"/ghcr.test/v2/o/a/tags/list", b"/ghcr.test/v2/o/a/tags/list?"),
            ):
                _, got = self.exchange(target, answer(200, b"{}", ((b"Link", said),)))
                self.assertIn(page + b"next_page=gAAA%3D%3D>", got.values(b"Link")[0])
        _, got = self.exchange(
            b"/v2/o/a/tags/list?ns=ghcr.test", answer(200, b"{}", ((b"Link", b"<?n=1>"),))
        )
        self.assertEqual(got.values(b"Link"), [b"<?n=1&ns=ghcr.test>"])

    def test_challenge(self) -> None:
        said = challenge(
            b"https://ghcr.test/token", b',service="ghcr.test",scope="repository:o/a:pull"'
        )
        for target, scope in (
            (b"/v2/ghcr.test/o/a/manifests/1", b"ghcr.test/o/a"),
            (b"/ghcr.test/v2/o/a/manifests/1", b"o/a"),
            (b"/v2/o/a/manifests/1?ns=ghcr.test", b"o/a"),
        ):
            _, got = self.exchange(target, said)
            self.assertEqual(
                got.values(b"WWW-Authenticate"),
                [
                    b'Bearer realm="http://mirror.example/token/ghcr.test",service="ghcr.test",'
                    b'scope="repository:%b:pull"' % scope
                ],
            )

    def test_basic(self) -> None:
        """The challenge of a registry with Basic authentication is passed on unchanged."""
        value = b'Basic realm="Registry"'
        _, got = self.exchange(
            b"/passing.test/v2/", answer(401, b"{}", ((b"WWW-Authenticate", value),))
        )
        self.assertEqual(got.values(b"WWW-Authenticate"), [value])

    def test_shortName(self) -> None:
        """
        At the Hub a name of one component is completed with C{library/}, and the client is sent its
        own name.
        """
        said = challenge(
            b"https://auth.example/token", b',service="s",scope="repository:library/a:pull"'
        )
        asked, got = self.exchange(b"/v2/a/manifests/1", said)
        self.assertEqual(asked.target, b"/v2/library/a/manifests/1")
        self.assertIn(b'scope="repository:a:pull"', got.values(b"WWW-Authenticate")[0])
        location = b"https://hub.example/v2/library/a/blobs/uploads/1?x"
        asked, got = self.exchange(
            b"/v2/a/blobs/uploads/?mount=%b&from=b" % DIGEST,
            answer(202, b"", ((b"Location", location),)),
            method=b"POST",
        )
        self.assertEqual(
            asked.target, b"/v2/library/a/blobs/uploads/?mount=%b&from=library/b" % DIGEST
        )
        self.assertEqual(got.values(b"Location"), [b"http://mirror.example/v2/a/blobs/uploads/1?x"])
        asked, got = self.exchange(
            b"/v2/a/tags/list?n=1",
            answer(200, b"{}", ((b"Link", b"</v2/library/a/tags/list?n=1&last=x>"),)),
        )
        self.assertEqual(got.values(b"Link"), [b"</v2/a/tags/list?n=1&last=x>"])

    def test_shortNameElsewhere(self) -> None:
        self.assertAsked(b"/v2/ghcr.test/a/manifests/1", "https://ghcr.test", b"/v2/a/manifests/1")


class TokenTests(RegistriesCase):
    def ask(self, target: bytes, reply: bytes, **request: Any) -> tuple[Message, Any]:
        """
        Send a token request.

        @return: the JSON of the response to the client.
        """
        asked, got = self.exchange(target, reply, **request)
        return asked, json.loads(got.body)

    def test_ofTheHub(self) -> None:
        """The Hub's tokens are not changed; short names in scopes are completed."""
        asked, got = self.ask(
            b"/token?service=s&scope=repository:a:pull&scope=repository%3Ao%2Fb%3Apull",
            token(b"abc"),
            fields=((b"Authorization", BASIC),),
        )
        self.assertEqual(
            asked.target,
            b"/token?service=s&scope=repository:library/a:pull&scope=repository%3Ao%2Fb%3Apull",
        )
        self.assertEqual(asked.values(b"Authorization"), [BASIC])
        self.assertEqual(got, {"token": "abc"})

    def test_form(self) -> None:
        form = b"grant_type=password&username=me&password=p&scope=repository%3Aa%3Apull"
        asked, _ = self.ask(b"/token", token(b"abc"), method=b"POST", body=form)
        self.assertEqual(
            asked.body, form.replace(b"repository%3Aa%3Apull", b"repository:library/a:pull")
        )
        self.assertEqual(asked.values(b"Content-Length"), [b"%d" % len(asked.body)])

    def test_ofAnother(self) -> None:
        """
        Prefixes, passwords and scopes of other registries are removed from the request, and the
        token is marked.
        """
        asked, got = self.ask(
            b"/token/ghcr.test?service=g&scope=repository:ghcr.test/o/a:pull"
            b"&scope=repository:o/a:pull&scope=repository:quay.test/o/b:pull",
            token(b"abc"),
            fields=((b"Authorization", BASIC),),
        )
        self.assertEqual(self.origin(), "https://ghcr.test")
        self.assertEqual(asked.target, b"/token?service=g&scope=repository:o/a:pull")
        self.assertEqual(asked.values(b"Authorization"), [])
        self.assertEqual(got, {"token": "ghcr.test~abc"})

    def test_markedComesBack(self) -> None:
        for authorization, seen in (
            (b"Bearer ghcr.test~abc", [b"Bearer abc"]),
            (b"Bearer quay.test~abc", []),
            (b"Bearer abc", []),
            (BASIC, []),
        ):
            asked = self.assertAsked(
                b"/v2/ghcr.test/o/a/manifests/1",
                "https://ghcr.test",
                b"/v2/o/a/manifests/1",
                fields=((b"Authorization", authorization),),
            )
            self.assertEqual(asked.values(b"Authorization"), seen)

    def test_markedGoesNotToTheHub(self) -> None:
        """A marked token is not sent to the Hub, whose response is then the right challenge."""
        asked, got = self.exchange(
            b"/v2/o/a/manifests/1",
            challenge(b"https://auth.example/token"),
            fields=((b"Authorization", b"Bearer ghcr.test~abc"),),
        )
        self.assertEqual(asked.values(b"Authorization"), [])
        self.assertEqual(got.status, 401)
        self.assertIn(b'"http://mirror.example/token"', got.values(b"WWW-Authenticate")[0])

    def test_byScope(self) -> None:
        """
        dockerd and podman use only the challenge of C{/v2/}: the scope determines the registry,
        which is asked once for its service.
        """
        for times in range(2):
            client = self.send(
                b"/token?service=registry.docker.io&scope=repository:ghcr.test/o/a:pull",
                fields=((b"Authorization", BASIC),),
            )
            if times == 0:
                self.assertEqual(
                    (self.origin(), self.asked().target), ("https://ghcr.test", b"/v2/")
                )
                self.say(challenge(b"https://evil.example/", b',service="g"'))
            asked = self.asked()
            self.assertEqual(self.origin(), "https://ghcr.test")
            self.assertEqual(asked.target, b"/token?scope=repository:o/a:pull&service=g")
            self.assertEqual(asked.values(b"Authorization"), [])
            self.say(token(b"abc"))
            self.assertEqual(json.loads(self.answered(client).body), {"token": "ghcr.test~abc"})

    def test_byScopeWithAnyService(self) -> None:
        """The service of a challenge may have characters that a request line must not have."""
        query = b"service=registry.docker.io&scope=repository:quay.test/o/a:pull"
        for request in (
            {"target": b"/token?" + query},
            {"target": b"/token", "method": b"POST", "body": b"grant_type=x&" + query},
        ):
            self.configure(**self.options)
            client = self.send(**request)
            self.asked()
            self.say(challenge(b"https://auth.quay.test/t", b',service="SUSE \\"Linux\\" & c\xf6"'))
            asked = self.asked()
            sent = asked.body or asked.target.partition(b"?")[2]
            self.assertEqual(
                parse_qs(sent.decode("ascii"), encoding="latin-1")["service"],
                ['SUSE "Linux" & c\xf6'],
            )
            self.assertEqual(len(asked.start.split(b" ")), 3)
            self.say(token(b"abc"))
            self.assertEqual(self.answered(client).status, 200)

    def test_byScopeWithoutService(self) -> None:
        """If the registry can't be asked, the request to its token service has no service."""
        for times in range(2):
            client = self.send(b"/token?service=x&scope=repository:ghcr.test/o/a:pull")
            self.assertEqual(self.asked().target, b"/v2/")
            self.say(answer(503, b"{}"))
            self.assertEqual(self.asked().target, b"/token?scope=repository:o/a:pull")
            self.say(token(b"abc"))
            self.assertEqual(self.answered(client).status, 200, times)

    def say(self, reply: bytes) -> None:
        self.network.lines[-1].says(reply)

    def pullWithOwnToken(self, body: bytes) -> Line:
        """Pull with the token that the mirror issued for quay.test."""
        members = json.loads(body)
        self.assertEqual(members["token"], members["access_token"])
        authorization = b"Bearer " + members["token"].encode()
        return self.send(
            b"/v2/quay.test/o/a/manifests/1", fields=((b"Authorization", authorization),)
        )

    def test_byScopeWhereNoTokensAre(self) -> None:
        """
        dockerd and podman require a token: the mirror issues one itself, and asks the registry
        without a token.
        """
        _, got = self.exchange(
            b"/token?service=x&scope=repository:quay.test/o/a:pull", answer(200, b"{}")
        )
        client = self.pullWithOwnToken(got.body)
        asked = self.asked()
        self.assertEqual(
            (asked.target, asked.values(b"Authorization")), (b"/v2/o/a/manifests/1", [])
        )
        self.say(answer(200, b"{}"))
        self.assertEqual(self.answered(client).status, 200)

    def test_challengeOnRealRequestsOnly(self) -> None:
        """
        If that registry requires a token nevertheless, the mirror gets it, and from then on knows
        the token service.
        """
        _, got = self.exchange(
            b"/token?service=x&scope=repository:quay.test/o/a:pull", answer(200, b"{}")
        )
        client = self.pullWithOwnToken(got.body)
        self.assertEqual(self.asked().values(b"Authorization"), [])
        self.say(
            challenge(b"https://quay.test/v2/auth", b',service="q",scope="repository:o/a:pull"')
        )
        self.assertEqual(self.asked().target, b"/v2/auth?service=q&scope=repository%3Ao%2Fa%3Apull")
        self.say(token(b"abc"))
        self.assertEqual(self.asked().values(b"Authorization"), [b"Bearer abc"])
        self.say(answer(200, b"{}"))
        self.assertEqual(self.answered(client).status, 200)
        asked, _ = self.exchange(b"/token/quay.test?service=q", token(b"abc"))
        self.assertEqual(asked.target, b"/v2/auth?service=q")

    def test_learnedOnTheWay(self) -> None:
        """A client that sends ns is sent the registry's challenge, and uses its token service."""
        _, got = self.exchange(
            b"/v2/o/a/manifests/1?ns=quay.test", challenge(b"https://auth.quay.test/t")
        )
        self.assertIn(
            b'"http://mirror.example/token/quay.test"', got.values(b"WWW-Authenticate")[0]
        )
        asked, _ = self.exchange(b"/token/quay.test?service=q", token(b"abc"))
        self.assertEqual((self.origin(), asked.target), ("https://auth.quay.test", b"/t?service=q"))

    def test_notLearned(self) -> None:
        """A realm of another host, or in the challenge of a fallback, is not learned."""
        self.exchange(b"/v2/o/a/manifests/1?ns=quay.test", challenge(b"https://evil.example/t"))
        self.send(b"/token/quay.test")
        self.assertEqual((self.origin(), self.asked().target), ("https://quay.test", b"/v2/"))

    def test_formByScope(self) -> None:
        """
        After a login at the mirror, dockerd sends the Hub's refresh token, and gives up when it is
        refused: it is issued a token, which permits what is public.
        """
        got = self.exchange(
            b"/token",
            answer(200, b"{}"),
            method=b"POST",
            body=b"grant_type=refresh_token&refresh_token=hub&scope=repository:quay.test/o/a:pull",
        )[1]
        self.pullWithOwnToken(got.body)
        self.assertEqual(self.asked().values(b"Authorization"), [])
        for line in self.network.lines:
            self.assertNotIn(b"hub", line.hears())

    def test_refreshTokenOfAnother(self) -> None:
        """A refresh token is sent only to the registry that issued it."""
        for target, refresh in (
            (b"/token", b"ghcr.test~abc"),
            (b"/token/ghcr.test", b"quay.test~abc"),
            (b"/token/passing.test", b"quay.test~abc"),
            (b"/token/passing.test", b"hub"),
        ):
            form = b"grant_type=refresh_token&service=x&refresh_token=" + refresh
            got = self.local(target, method=b"POST", body=form)
            self.assertEqual((got.status, got.error), (401, "UNAUTHORIZED"), (target, refresh))

    def test_passwordsPassed(self) -> None:
        """Passwords are passed on only if the operator allows it."""
        asked = self.assertAsked(
            b"/passing.test/v2/o/a/manifests/1",
            "https://passing.test",
            b"/v2/o/a/manifests/1",
            fields=((b"Authorization", BASIC),),
        )
        self.assertEqual(asked.values(b"Authorization"), [BASIC])

    def test_passwordInAForm(self) -> None:
        """
        A form with a password is refused if the registry must not be sent it, so that the client
        tries without.
        """
        got = self.local(
            b"/token/ghcr.test",
            method=b"POST",
            body=b"grant_type=password&username=me&password=p&service=x",
        )
        self.assertEqual((got.status, got.error), (401, "UNAUTHORIZED"))

    def test_long(self) -> None:
        """A token of 12 KiB works."""
        _, got = self.ask(b"/token/ghcr.test", token(b"x" * 12_000))
        self.assertEqual(got, {"token": "ghcr.test~" + "x" * 12_000})

    def test_learned(self) -> None:
        """The mirror learns an unknown token service once, from the registry's own challenge."""
        for times in range(2):
            before = len(self.network.lines)
            client = self.send(b"/token/quay.test?scope=repository:o/a:pull")
            if times == 0:
                self.assertEqual(self.asked().target, b"/v2/")
                self.network.lines[-1].says(
                    challenge(b"https://auth.quay.test/t", b',service="quay.test"')
                )
            self.assertEqual(self.origin(), "https://auth.quay.test")
            line = self.network.lines[-1]
            line.says(token(b"abc"))
            got = self.answered(client)
            self.assertEqual(json.loads(got.body), {"token": "quay.test~abc"})
            self.assertLessEqual(len(self.network.lines) - before, 2)

    def test_notBelieved(self) -> None:
        """If a registry names the token service of another host, that is sent no password."""
        for realm in (
            b"https://auth.example/token",
            b"https://evil-quay.test/token",
            b"http://quay.test/token",
            b"https://quay.test.evil.example/",
        ):
            client = self.send(b"/token/quay.test", fields=((b"Authorization", BASIC),))
            self.asked()
            self.network.lines[-1].says(challenge(realm))
            got = self.answered(client)
            self.assertEqual((got.status, got.error), (502, "UNAVAILABLE"))
            self.assertEqual(self.origin(), "https://quay.test")

    def test_none(self) -> None:
        """A registry without tokens has no token service."""
        client = self.send(b"/token/quay.test")
        self.network.lines[-1].says(answer(200, b"{}"))
        self.assertEqual(self.answered(client).status, 404)


class UnknownTokenServiceTests(MemoryCase):
    """
    Tests of a registry whose token service has not been learned yet, and that has a fallback.
    """

    options = {
        "registries": [
            RegistryConfig(
                name="quay.test", url="https://quay.test", fallback=["https://f.example"]
            )
        ]
    }

    def assertIssued(self, client: Line, target: bytes) -> None:
        self.assertEqual(str(self.network.origins[-1]), "https://f.example")
        self.assertEqual(self.asked().target, target)
        self.network.lines[-1].says(token(b"abc"))
        self.assertEqual(json.loads(self.answered(client).body), {"token": "quay.test~abc"})

    def test_registryDown(self) -> None:
        """The fallback issues the token, so that a pull can begin."""
        self.network.refuses.add(b"quay.test")
        for target in (b"/token/quay.test?", b"/token?service=x&"):
            client = self.send(target + b"scope=repository:quay.test/o/a:pull")
            self.assertIssued(client, b"/token?scope=repository:o/a:pull&ns=quay.test")

    def test_registryHangs(self) -> None:
        client = self.send(b"/token/quay.test?scope=repository:o/a:pull")
        self.assertEqual(self.asked().target, b"/v2/")
        self.clock.advance(4.5)
        self.assertIssued(client, b"/token?scope=repository:o/a:pull&ns=quay.test")

    def test_registryHangsForClientsOfTheHub(self) -> None:
        """
        dockerd waits no longer than others, and only for a probe of the registry.
        """
        for seconds in (4.5, 0, 4.5, 0, 0):
            client = self.send(b"/token?service=x&scope=repository:quay.test/o/a:pull")
            if seconds:
                self.assertEqual(str(self.network.origins[-1]), "https://quay.test")
                self.assertEqual(self.asked().target, b"/v2/")
                self.clock.advance(seconds)
            self.assertIssued(client, b"/token?scope=repository:o/a:pull&ns=quay.test")
            self.network.lines[-1].leaves()
            self.clock.advance(1)
        self.send(b"/v2/quay.test/o/a/manifests/1")
        self.assertEqual(str(self.network.origins[-1]), "https://f.example")

    def test_registryAnswersAgain(self) -> None:
        """The challenge ends the mark of a registry that was down."""
        self.network.refuses.add(b"quay.test")
        self.send(b"/v2/quay.test/o/a/manifests/1")
        self.network.refuses.clear()
        self.clock.advance(2)
        client = self.send(b"/token?scope=repository:quay.test/o/a:pull")
        self.assertEqual(self.asked().target, b"/v2/")
        self.network.lines[-1].says(challenge(b"https://quay.test/token"))
        self.assertEqual(self.asked().target, b"/token?scope=repository:o/a:pull")
        self.network.lines[-1].says(token(b"abc"))
        self.assertEqual(self.answered(client).status, 200)
        self.send(b"/v2/quay.test/o/a/manifests/1")
        self.assertEqual(self.asked().target, b"/v2/o/a/manifests/1")
        self.assertEqual(str(self.network.origins[-1]), "https://quay.test")

    def test_markedDown(self) -> None:
        """A registry that is marked down is not asked for its challenge."""
        self.network.refuses.add(b"quay.test")
        self.send(b"/v2/quay.test/o/a/manifests/1")
        self.network.refuses.clear()
        self.network.lines.clear()
        self.network.origins.clear()
        client = self.send(b"/token?service=x&scope=repository:quay.test/o/a:pull")
        self.assertIssued(client, b"/token?scope=repository:o/a:pull&ns=quay.test")
        self.assertEqual(len(self.network.lines), 1)

    def test_password(self) -> None:
        """A password is sent to no fallback, even if it is not known whom it is for."""
        self.configure(
            registries=[
                RegistryConfig(
                    name="quay.test", fallback=["https://f.example"], pass_credentials=True
                )
            ]
        )
        self.network.refuses.add(b"quay.test")
        got = self.local(b"/token/quay.test", fields=((b"Authorization", BASIC),))
        self.assertEqual((got.status, got.error), (502, "UNAVAILABLE"))

    def test_withoutFallback(self) -> None:
        """A registry that is alone is asked even when it is marked down."""
        self.configure(registries=[RegistryConfig(name="quay.test", url="https://quay.test")])
        self.network.refuses.add(b"quay.test")
        for _ in range(2):
            got = self.local(b"/token?scope=repository:quay.test/o/a:pull")
            self.assertEqual((got.status, got.error), (502, "UNAVAILABLE"))
        self.network.refuses.clear()
        self.send(b"/token?scope=repository:quay.test/o/a:pull")
        self.assertEqual(self.asked().target, b"/v2/")


class FallbackTests(RegistriesCase):
    def test_spellings(self) -> None:
        """Each fallback is sent requests for the right registry, in its spelling."""
        client = self.send(b"/v2/ghcr.test/o/a/manifests/1?x")
        for origin, target, status in (
            ("https://ghcr.test", b"/v2/o/a/manifests/1?x", 503),
            ("https://f.example", b"/v2/o/a/manifests/1?x&ns=ghcr.test", 503),
            ("https://f.example", b"/v2/ghcr.test/o/a/manifests/1?x", 200),
        ):
            self.assertEqual((self.origin(), self.asked().target), (origin, target))
            self.network.lines[-1].says(answer(status, b"{}"))
        self.assertEqual(self.answered(client).status, 200)

    def test_challenge(self) -> None:
        """The challenge of a fallback is converted from the fallback's spelling."""
        self.network.refuses.add(b"ghcr.test")
        for target, scope in (
            (b"/v2/ghcr.test/o/a/manifests/1", b"ghcr.test/o/a"),
            (b"/ghcr.test/v2/o/a/manifests/1", b"o/a"),
        ):
            client = self.send(target)
            self.network.lines[-1].says(answer(503, b""))
            self.network.lines[-1].says(
                challenge(b"https://f.example/token", b',scope="repository:ghcr.test/o/a:pull"')
            )
            [got] = self.answered(client).values(b"WWW-Authenticate")
            self.assertIn(b',scope="repository:%b:pull"' % scope, got)

    def test_oneDown(self) -> None:
        """If one registry is unavailable, requests for it are not sent to another."""
        self.network.refuses.add(b"ghcr.test")
        self.network.refuses.add(b"f.example")
        for _ in range(3):
            client = self.send(b"/v2/ghcr.test/o/a/manifests/1")
            self.assertEqual(self.answered(client).status, 502)
        self.assertAsked(b"/v2/o/a/manifests/1", "https://hub.example", b"/v2/o/a/manifests/1")

    def test_limitOfOne(self) -> None:
        """A 429 of one registry does not affect the others."""
        limit = answer(429, b"{}", ((b"Content-Type", b"application/json"),))
        self.exchange(b"/v2/quay.test/o/a/manifests/1", limit)
        self.assertAsked(b"/v2/o/a/manifests/1", "https://hub.example", b"/v2/o/a/manifests/1")

    def test_hubDown(self) -> None:
        """
        Clients begin with C{/v2/} for all registries; they are challenged even if the Hub is
        unavailable.
        """
        self.network.refuses.add(b"hub.example")
        got = self.local(b"/v2/")
        self.assertEqual(got.status, 401)
        self.assertIn(b'realm="http://mirror.example/token"', got.values(b"WWW-Authenticate")[0])

    def test_downWithoutTokens(self) -> None:
        """
        Without a token service for the challenge, the client gets what the registry answered.
        """
        reply = answer(500, b"their error", ((b"Retry-After", b"7"),))
        self.configure(**self.options, auth_url=None)
        for second in (answer(200, b"{}"), answer(503, b""), challenge(b"http://evil.example/")):
            client = self.send(b"/v2/")
            self.network.lines[-1].says(reply)
            self.assertEqual(self.asked().target, b"/v2/")
            self.network.lines[-1].says(second)
            got = self.answered(client)
            self.assertEqual((got.status, got.body), (500, b"their error"))
            self.assertEqual(got.values(b"Retry-After"), [b"7"])
        self.network.lines[-1].leaves()
        self.clock.advance(0)
        self.network.refuses.add(b"hub.example")
        got = self.local(b"/v2/")
        self.assertEqual((got.status, got.error), (502, "UNAVAILABLE"))
        self.assertIn(b"hub.example", got.body)

    def test_downAndClientLeaves(self) -> None:
        """The response that was kept for the client does not keep its connection."""
        self.configure(**self.options, auth_url=None)
        client = self.send(b"/v2/")
        first = self.network.lines[-1]
        first.says(b"HTTP/1.1 500 Status\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.assertEqual(len(self.network.lines), 2)
        client.leaves()
        self.clock.pump([0, 0, 60])
        self.assertEqual(first.ended, "aborted")

    def test_hubDownWithAnyService(self) -> None:
        """The service that the registry has named is quoted in the challenge."""
        self.configure(**self.options, auth_url=None)
        service = b',service="a \\"b\\\\"'
        self.exchange(b"/v2/", challenge(b"https://hub.example/token", service))
        client = self.send(b"/v2/")
        self.network.lines[-1].says(answer(500, b""))
        [got] = self.answered(client).values(b"WWW-Authenticate")
        self.assertEqual(got, b'Bearer realm="http://mirror.example/token"' + service)


class AccountTests(MemoryCase):
    """
    Tests of the operator's accounts.
    """

    def setUp(self) -> None:
        self.accounts = []
        for name in ("first", "second"):
            path = self.mktemp()
            with open(path, "w") as file:
                file.write(f"password of {name}\n")
            self.accounts.append(Account(username=name, password_file=path))
        super().setUp()

    def configure(self, **options: Any) -> None:
        registry = RegistryConfig(
            name="ghcr.test",
            auth_url=options.pop("auth_url", "https://ghcr.test/token"),
            account=self.accounts[: options.pop("accounts", 1)],
            **options,
        )
        super().configure(registries=[registry], failover_on="503")

    def pull(self, target: bytes = b"/v2/ghcr.test/o/a/manifests/1", **request: Any) -> Any:
        return self.send(target, **request)

    def say(self, reply: bytes) -> Message:
        """Respond to the only request that the mirror has sent."""
        [line] = [line for line in self.network.lines if line.value()]
        asked = read(line.hears())
        line.says(reply)
        return asked

    def test_pull(self) -> None:
        """The client needs no token, and its credentials are not sent to the registry."""
        client = self.pull(fields=((b"Authorization", BASIC),))
        asked = self.say(
            challenge(b"https://x.example/", b',service="g",scope="repository:o/a:pull"')
        )
        self.assertEqual(asked.values(b"Authorization"), [])
        asked = self.asked()
        self.assertEqual(
            asked.target, b"/token?service=g&scope=repository%3Ao%2Fa%3Apull&account=first"
        )
        self.assertEqual(
            asked.values(b"Authorization"), [b"Basic Zmlyc3Q6cGFzc3dvcmQgb2YgZmlyc3Q="]
        )
        self.network.lines[-1].says(token(b"abc"))
        self.assertEqual(self.say(answer(200, b"{}")).values(b"Authorization"), [b"Bearer abc"])
        self.assertEqual(self.answered(client).status, 200)
        # The token is kept, and requested again shortly before it expires.
        client = self.pull()
        self.assertEqual(self.say(answer(200, b"{}")).values(b"Authorization"), [b"Bearer abc"])
        self.answered(client)
        self.clock.advance(55)
        self.pull()
        self.assertEqual(self.asked().values(b"Authorization"), [])

    def test_fallback(self) -> None:
        """A fallback that is told the registry by C{ns} is asked so for its token, too."""
        self.configure(fallback=["https://f.example/?ns"])
        client = self.pull()
        self.say(answer(503, b""))
        asked = self.say(
            challenge(b"https://x.example/", b',service="f",scope="repository:o/a:pull"')
        )
        self.assertEqual(asked.target, b"/v2/o/a/manifests/1?ns=ghcr.test")
        self.assertEqual(
            self.say(token(b"abc")).target,
            b"/token?service=f&scope=repository%3Ao%2Fa%3Apull&ns=ghcr.test",
        )
        self.assertEqual(self.say(answer(200, b"{}")).values(b"Authorization"), [b"Bearer abc"])
        self.assertEqual(self.answered(client).status, 200)

    def test_cookies(self) -> None:
        """Cookies for the mirror's own account are not sent to clients."""
        client = self.pull()
        self.say(answer(200, b"{}", ((b"Set-Cookie", b"session=secret"),)))
        got = self.answered(client)
        self.assertEqual((got.status, got.values(b"Set-Cookie")), (200, []))

    def test_ping(self) -> None:
        """No client is challenged."""
        got = self.local(b"/ghcr.test/v2/")
        self.assertEqual((got.status, got.body), (200, b"{}"))

    def test_token(self) -> None:
        """A client that requests a token is issued one without any permissions."""
        got = self.local(b"/token?scope=repository:ghcr.test/o/a:pull")
        value = json.loads(got.body)["token"]
        self.assertEqual(value, "ghcr.test~mirror")
        self.pull(fields=((b"Authorization", b"Bearer " + value.encode()),))
        self.assertEqual(self.asked().values(b"Authorization"), [])

    def test_noPush(self) -> None:
        got = self.local(b"/v2/ghcr.test/o/a/blobs/uploads/", method=b"POST")
        self.assertEqual((got.status, got.error), (403, "DENIED"))

    def test_mayPush(self) -> None:
        self.configure(account_may_push=True)
        self.send(b"/v2/ghcr.test/o/a/blobs/uploads/", method=b"POST")
        self.assertEqual(self.asked().target, b"/v2/o/a/blobs/uploads/")

    def test_pushWithExpiredToken(self) -> None:
        """A body can't be sent twice, so the token is renewed before the body is sent."""
        self.configure(account_may_push=True)
        client = self.send(b"/v2/ghcr.test/o/a/blobs/uploads/", method=b"POST")
        self.say(challenge(b"https://x.example/", b',scope="repository:o/a:pull,push"'))
        self.say(token(b"one"))
        self.say(answer(202, b""))
        self.answered(client)
        self.clock.advance(55)
        client = self.send(b"/v2/ghcr.test/o/a/manifests/1", method=b"PUT", body=b"{}")
        asked = self.say(token(b"two"))
        self.assertEqual(
            asked.target, b"/token?scope=repository%3Ao%2Fa%3Apull%2Cpush&account=first"
        )
        asked = self.say(answer(201, b""))
        self.assertEqual((asked.body, asked.values(b"Authorization")), (b"{}", [b"Bearer two"]))
        self.assertEqual(self.answered(client).status, 201)

    def test_pushIsRepeated(self) -> None:
        """A client whose body was challenged has success when it repeats the request."""
        self.configure(account_may_push=True)
        target = b"/v2/ghcr.test/o/a/manifests/1"
        client = self.send(target, method=b"PUT", body=b"{}")
        self.say(challenge(b"https://x.example/"))
        self.assertEqual(self.answered(client).status, 401)
        client = self.send(target, method=b"PUT", body=b"{}")
        self.say(token(b"abc"))
        self.assertEqual(self.say(answer(201, b"")).values(b"Authorization"), [b"Bearer abc"])
        self.assertEqual(self.answered(client).status, 201)

    def test_fetchedOnce(self) -> None:
        """A token is requested once, however many requests wait for it."""
        clients = [self.pull() for _ in range(3)]
        for line in list(self.network.lines):
            line.says(challenge(b"https://x.example/"))
        heard = [line.hears() for line in self.network.lines]
        [fetching] = [number for number, text in enumerate(heard) if b"GET /token" in text]
        self.network.lines[fetching].says(token(b"abc"))
        for line in self.network.lines:
            self.assertIn(b"Authorization: Bearer abc", line.hears())
            line.says(answer(200, b"{}"))
        for client in clients:
            self.assertEqual(self.answered(client).status, 200)

    def test_mostPullsLeft(self) -> None:
        """The account with the most pulls left is used, and another one when it has none."""
        self.configure(accounts=2)
        seen = []
        for remaining in (b"5;w=21600", b"9;w=21600", b"8;w=21600", b"4;w=21600"):
            client = self.pull()
            asked = self.asked()
            if not asked.values(b"Authorization"):
                self.network.lines[-1].says(challenge(b"https://x.example/"))
                account = b"first" if b"account=first" in self.asked().target else b"second"
                self.network.lines[-1].says(token(account))
                asked = self.asked()
            seen.append(asked.values(b"Authorization")[0])
            fields = ((b"RateLimit-Remaining", remaining),)
            self.network.lines[-1].says(answer(200, b"{}", fields))
            self.answered(client)
        self.assertEqual(
            seen, [b"Bearer first", b"Bearer second", b"Bearer second", b"Bearer second"]
        )
        # After a 429 of one account, another account is used.
        client = self.pull()
        self.assertEqual(self.asked().values(b"Authorization"), [b"Bearer first"])
        limit = ((b"Content-Type", b"application/json"), (b"Retry-After", b"60"))
        self.network.lines[-1].says(answer(429, b"{}", limit))
        self.assertEqual(self.asked().values(b"Authorization"), [b"Bearer second"])
        self.network.lines[-1].says(answer(200, b"{}"))
        self.assertEqual(self.answered(client).status, 200)

    def test_refused(self) -> None:
        """An account that is refused is skipped, and the client is not challenged."""
        client = self.pull()
        self.network.lines[-1].says(challenge(b"https://x.example/"))
        self.asked()
        with capturedLogs() as events:
            self.network.lines[-1].says(answer(401, b"{}"))
        lines = [str(formatEvent(event)) for event in events]
        self.assertIn("ghcr.test rejected the account first; until", lines[0])
        got = self.answered(client)
        self.assertEqual(got.status, 502)
        self.assertEqual(got.values(b"WWW-Authenticate"), [])
        self.assertNotIn(b"password", got.body)

    def pullAfterRefusal(self, *replies: bytes) -> list[bytes]:
        """
        Pull, with these responses to the requests of the mirror, and then once more.

        @return: the C{Authorization} of the token requests of the second pull.
        """
        client = self.pull()
        for reply in replies:
            self.say(reply)
        self.assertEqual(self.answered(client).values(b"WWW-Authenticate"), [])
        self.pull()
        registry = self.network.lines[0]
        self.assertIn(b"GET /v2/", registry.hears())
        registry.says(challenge(b"https://ghcr.test/token"))
        return read(registry.hears()).values(b"Authorization")

    FIRST, SECOND = (
        b"Basic " + b64encode(b"%b:password of %b" % (name, name)) for name in (b"first", b"second")
    )
    NOT_BEARER = answer(401, b"{}", ((b"WWW-Authenticate", b'Basic realm="r"'),))

    def test_nextAccount(self) -> None:
        """The other accounts are used for the same request, and the refusal is logged."""
        self.configure(accounts=2)
        with capturedLogs() as logs:
            client = self.pull()
            self.say(challenge(b"https://ghcr.test/token"))
            self.assertEqual(self.say(answer(401)).values(b"Authorization"), [self.FIRST])
            self.say(challenge(b"https://ghcr.test/token"))
            self.assertEqual(self.say(token(b"abc")).values(b"Authorization"), [self.SECOND])
            self.say(answer(200, b"{}"))
            self.assertEqual(self.answered(client).status, 200)
        [text] = [formatEvent(each) for each in logs if each["log_level"] is LogLevel.error]
        self.assertIn("first", text)

    def test_refusedByFallback(self) -> None:
        """What a fallback's token service refuses is not the account: it is asked anonymously."""
        for status in (401, 403):
            self.network.lines.clear()
            self.configure(accounts=2, fallback=["https://f.example", "https://g.example"])
            seen = self.pullAfterRefusal(
                answer(503),
                challenge(b"https://x.example/"),
                answer(status),
                # The client would get no challenge, so the next fallback is asked.
                answer(200, b"{}"),
            )
            self.assertEqual(seen, [self.FIRST])

    def test_forbidden(self) -> None:
        """A 403 is for what is asked for, not for the account.  Another account may read it."""
        self.configure(accounts=2)
        denials = challenge(b"https://ghcr.test/token"), answer(403)
        seen = self.pullAfterRefusal(*denials, *denials)
        self.assertEqual(seen, [self.FIRST])
        client = self.pull(b"/v2/ghcr.test/o/b/manifests/1")
        for reply in (*denials, denials[0], token(b"abc")):
            self.say(reply)
        self.assertEqual(self.say(answer(200, b"{}")).values(b"Authorization"), [b"Bearer abc"])
        self.assertEqual(self.answered(client).status, 200)

    def test_forbiddenByToken(self) -> None:
        """A token without the permission is like a token service that refuses it."""
        self.configure(accounts=2)
        client = self.pull()
        for value in (b"one", b"two"):
            self.say(challenge(b"https://ghcr.test/token"))
            self.say(token(value))
            asked = self.say(challenge(b"x") if value == b"one" else answer(200, b"{}"))
            self.assertEqual(asked.values(b"Authorization"), [b"Bearer " + value])
        self.assertEqual(self.answered(client).status, 200)

    def test_tokenServiceFails(self) -> None:
        """
        A token service that fails is a failure of the registry, for which the fallback serves; but
        the registry itself has responded, and is not marked down.
        """
        self.configure(auth_url="https://auth.test/token", fallback=["https://f.example"])
        for reply in (None, None, answer(503), answer(429), answer(200, b"{}")):
            self.network.refuses = set() if reply else {b"auth.test"}
            client = self.pull()
            self.say(challenge(b"https://x.example/"))
            if reply:
                self.assertEqual(self.say(reply).target, b"/token?account=first")
            self.assertEqual(
                self.say(answer(200, b"{}")).target, b"/v2/o/a/manifests/1?ns=ghcr.test"
            )
            self.assertEqual(self.answered(client).status, 200)

    def test_tokenServiceFailsAlone(self) -> None:
        self.configure(auth_url="https://auth.test/token")
        self.network.refuses.add(b"auth.test")
        client = self.pull()
        self.say(challenge(b"https://x.example/"))
        got = self.answered(client)
        self.assertEqual((got.status, got.error), (502, "UNAVAILABLE"))
        self.assertIn(b"ghcr.test: auth.test: connection refused", got.body)

    def test_tokenServiceOutOfReach(self) -> None:
        """A lack of file descriptors is reported as such, and is no failure of the registry."""
        self.configure(auth_url="https://auth.test/token")
        client = self.pull()
        self.network.short = True
        self.say(challenge(b"https://x.example/"))
        got = self.answered(client)
        self.assertEqual((got.status, got.values(b"Retry-After")), (503, [b"5"]))
        self.assertIn(b"ghcr.test: no file descriptor left", got.body)

    def test_registryAnswersAgain(self) -> None:
        """A challenge ends the mark of a registry that was down, even if no token can be got."""
        demand = challenge(b"https://x.example/")
        for auth, replies in (
            (None, [demand]),
            ("https://auth.test/token", [demand, answer(200, b"{}")]),
        ):
            self.configure(auth_url=auth, fallback=["https://f.example"])
            self.network.refuses.add(b"ghcr.test")
            self.pull()
            self.network.refuses.clear()
            self.say(answer(200, b"{}"))
            self.clock.advance(2)
            client = self.pull()
            for reply in (*replies, answer(200, b"{}")):
                self.say(reply)
            self.assertEqual(self.answered(client).status, 200)
            self.pull()
            self.assertEqual(self.say(answer(200, b"{}")).target, b"/v2/o/a/manifests/1")
            self.assertEqual(self.exchanges[-1].upstream, "ghcr.test")

    def test_refusedPassword(self) -> None:
        """A registry without tokens rejects a password itself."""
        self.configure(accounts=2)
        for seen in ([None, self.FIRST, None, self.SECOND, self.SECOND], [self.SECOND]):
            client = self.pull()
            for value in seen:
                isRight = value == self.SECOND
                asked = self.say(answer(200, b"{}") if isRight else self.NOT_BEARER)
                self.assertEqual(asked.values(b"Authorization"), [value] if value else [])
            self.assertEqual(self.answered(client).status, 200)

    def test_passwordNoLongerAccepted(self) -> None:
        self.configure(accounts=2)
        self.pull()
        self.say(self.NOT_BEARER)
        self.say(answer(200, b"{}"))
        self.say(answer(200, b"{}"))
        self.clock.advance(6)
        client = self.pull()
        for value in (self.FIRST, self.FIRST, None, self.SECOND, self.SECOND):
            isRight = value == self.SECOND
            asked = self.say(answer(200, b"{}") if isRight else self.NOT_BEARER)
            self.assertEqual(asked.values(b"Authorization"), [value] if value else [])
        self.assertEqual(self.answered(client).status, 200)

    def test_forbiddenByPassword(self) -> None:
        """
        A registry without tokens that accepts an account at C{/v2/} has refused it only the
        repository.
        """
        self.configure(accounts=2)
        client = self.pull()
        for account in (self.FIRST, self.SECOND):
            self.say(self.NOT_BEARER)
            asked = self.say(answer(200, b"{}"))
            self.assertEqual(asked.target, b"/v2/")
            self.assertEqual(asked.values(b"Authorization"), [account])
            self.say(self.NOT_BEARER)
        got = self.answered(client)
        self.assertEqual((got.status, got.values(b"WWW-Authenticate")), (401, []))

    def test_passwordForAllRepositories(self) -> None:
        """
        A password that was accepted is sent for every repository, and checked again only if it is
        refused a few seconds later.
        """
        self.test_forbiddenByPassword()
        target = b"/v2/ghcr.test/o/b/manifests/1"
        for checks in (0, 1, 0):
            client = self.pull(target)
            asked = self.say(self.NOT_BEARER)
            self.assertEqual(asked.target, b"/v2/o/b/manifests/1")
            self.assertEqual(asked.values(b"Authorization"), [self.FIRST])
            if checks:
                self.assertEqual(self.say(answer(200, b"{}")).target, b"/v2/")
                self.say(self.NOT_BEARER)
            self.assertEqual(self.say(answer(200)).values(b"Authorization"), [self.SECOND])
            self.assertEqual(self.answered(client).status, 200)
            if not checks:
                self.clock.advance(6)

    def test_passwordToNoFallback(self) -> None:
        self.configure(fallback=["https://f.example"])
        self.pull()
        for reply in (self.NOT_BEARER, answer(200, b"{}"), answer(503)):
            self.say(reply)
        asked = self.say(answer(200, b"{}"))
        self.assertEqual(asked.target, b"/v2/o/a/manifests/1?ns=ghcr.test")
        self.assertEqual(asked.values(b"Authorization"), [])

    def deny(self, scope: bytes, *replies: bytes) -> None:
        """Pull with a token that is refused, and then with these responses."""
        client = self.pull()
        asked = self.say(challenge(b"https://x.example/", b',scope="%b"' % scope))
        self.assertEqual(len(asked.values(b"Authorization")), 1)
        for reply in replies:
            self.say(reply)
        self.assertEqual(self.answered(client).status, 401)

    def test_deniedWithNewToken(self) -> None:
        """
        A token that is refused is replaced, except if it is new and the challenge is the one that
        demanded it.
        """
        client = self.pull()
        refusal = challenge(b"https://x.example/", b',scope="repository:o/a:pull"')
        for reply in (refusal, token(b"abc"), refusal):
            self.say(reply)
        self.assertEqual(self.answered(client).status, 401)
        self.deny(b"repository:o/a:pull")
        self.deny(b"repository:o/a:pull repository:o/b:pull", token(b"def"), refusal)
        self.clock.advance(6)
        self.deny(b"repository:o/a:pull", token(b"ghi"), refusal)

    def test_tokenIssuedMeanwhile(self) -> None:
        """A request that was sent before a token was issued uses that token."""
        clients = [self.pull() for _ in range(2)]
        one, two = list(self.network.lines)
        one.hears(), two.hears()
        one.says(challenge(b"https://x.example/"))
        self.say(token(b"abc"))
        self.say(answer(200, b"{}"))
        two.says(challenge(b"https://x.example/"))
        self.assertEqual(self.say(answer(200, b"{}")).values(b"Authorization"), [b"Bearer abc"])
        for client in clients:
            self.assertEqual(self.answered(client).status, 200)

    def test_challenge(self) -> None:
        """A client gets no challenge, whatever the registry wants."""
        self.configure(account_may_push=True)
        for replies in (
            (challenge(b"https://ghcr.test/token"), answer(403)),
            (challenge(b"https://ghcr.test/token"), token(b"abc"), challenge(b"https://g/")),
        ):
            client = self.pull()
            for reply in replies:
                self.say(reply)
            got = self.answered(client)
            self.assertEqual((got.status, got.values(b"WWW-Authenticate")), (401, []))
        _, got = self.exchange(
            b"/v2/ghcr.test/o/a/manifests/1",
            challenge(b"https://ghcr.test/token"),
            method=b"PUT",
            body=b"{}",
        )
        self.assertEqual((got.status, got.values(b"WWW-Authenticate")), (401, []))

    def test_clientLeaves(self) -> None:
        """No connection is left behind by a client that leaves while its token is requested."""
        client = self.pull()
        # The rest of the body is not read as long as the response may still be passed on.
        self.say(challenge(b"https://ghcr.test/token")[:-1])
        self.assertEqual(self.asked().target, b"/token?account=first")
        client.leaves()
        self.clock.advance(0)
        self.network.lines[-1].says(token(b"abc"))
        for seconds in (75, 0):
            self.clock.advance(seconds)
        self.assertEqual({line.ended for line in self.network.lines}, {"aborted"})
        self.assertEqual(self.pool.connections, 0)

    def test_noRealm(self) -> None:
        """A challenge that names no token service is like one whose token service fails."""
        self.configure(auth_url=None)
        client = self.pull()
        nameless = answer(401, b"{}", ((b"WWW-Authenticate", b'Bearer service="g"'),))
        self.say(nameless)
        self.assertEqual(self.say(nameless).target, b"/v2/")
        self.assertEqual(self.answered(client).status, 401)

    def test_passwordInNoRepr(self) -> None:
        self.assertNotIn("password of", repr(vars(self.mirror.service)))
        self.assertNotIn("password of", repr(MirrorConfig(registries=[])))


class SecretPathTests(MemoryCase):
    """
    Tests of a mirror with a secret path.
    """

    options = {
        "secret_path": "k3/secret",
        "registries": [RegistryConfig(name="ghcr.test", auth_url="https://ghcr.test/token")],
        "failover_on": "503",
    }

    def test_served(self) -> None:
        """The path works in both positions, with every way of addressing a registry."""
        hub, ghcr, manifest = "https://hub.example", "https://ghcr.test", b"/v2/o/a/manifests/1"
        for target, origin, own in (
            (b"/k3/secret/v2/a/manifests/1", hub, b"/v2/library/a/manifests/1"),
            (b"/v2/k3/secret/o/a/manifests/1", hub, manifest),
            (b"/k3/secret/v2/o/a/manifests/1?ns=ghcr.test", ghcr, manifest),
            (b"/v2/k3/secret/ghcr.test/o/a/manifests/1", ghcr, manifest),
            (
                b"/k3/secret/token?scope=repository%3Ak3%2Fsecret%2Fo%2Fa%3Apull",
                "https://auth.example",
                b"/token?scope=repository:o/a:pull",
            ),
        ):
            asked, _ = self.exchange(
                target,
                answer(200, b"{}"),
                fields=((b"Referer", b"https://m/k3/secret/"), (b"Authorization", b"Bearer x")),
            )
            # A token of the Hub is not sent to another registry, which then sends a challenge.
            self.assertEqual((str(self.network.origins[-1]), asked.target), (origin, own))
            self.assertNotIn(b"secret", asked.start + repr(asked.fields).encode())
            self.assertNotIn(b"secret", self.exchanges[-1].target)

    def test_nothingElse(self) -> None:
        """All other targets look like those of an empty server; no upstream is asked."""
        for target in (b"/v2/o/a/manifests/1", b"/token", b"/", b"/v1/_ping", b"//k3/secret/v2/"):
            got = self.local(target)
            self.assertEqual((got.status, got.error), (404, "NOT_FOUND"))
            self.assertNotIn(b"secret", self.exchanges[-1].target)
        got = self.local(b"*", method=b"OPTIONS")
        self.assertEqual(got.status, 400)

    def test_ping(self) -> None:
        """
        podman and skopeo send their first request without the path, and require this response.
        """
        got = self.local(b"/v2/")
        self.assertEqual((got.status, got.body), (200, b"{}"))
        self.assertEqual(got.values(b"WWW-Authenticate"), [])
        client = self.send(b"/v2/k3/secret/o/a/manifests/1")
        self.assertEqual(self.asked().values(b"Authorization"), [])
        self.network.lines[-1].says(
            challenge(b"https://auth.example/token", b',service="s",scope="repository:o/a:pull"')
        )
        self.assertIn(b"/token?service=s", self.asked().target)
        self.network.lines[-1].says(token(b"abc"))
        self.assertEqual(self.asked(0).values(b"Authorization"), [b"Bearer abc"])
        self.network.lines[0].says(answer(200, b"{}"))
        self.assertEqual(self.answered(client).status, 200)

    def test_challenge(self) -> None:
        """
        The challenge names the token service below the path.  A client that begins there gets
        it, and can log in.
        """
        for fields in ((), ((b"Authorization", b"Bearer x"),)):
            _, got = self.exchange(
                b"/k3/secret/v2/", challenge(b"https://auth.example/token"), fields=fields
            )
            self.assertEqual(got.status, 401)
            self.assertEqual(
                got.values(b"WWW-Authenticate"),
                [b'Bearer realm="http://mirror.example/k3/secret/token"'],
            )
