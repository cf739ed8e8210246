"""Tests of the change of a challenge's realm, which leaves everything else unchanged."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.protocol.challenge import bearerParameters, onMirror

REALM = b"https://mirror.example/token"
NEW = b'"' + REALM + b'"'

#: Field values with %b in place of the realm that is changed, and the realm that was there.
CHALLENGES = [
    # Docker Hub, without a scope and with one.
    (b'Bearer realm=%b,service="registry.docker.io"', b'"https://auth.docker.io/token"'),
    (
        b'Bearer realm=%b,service="registry.docker.io",'
        b'scope="repository:library/debian:pull",error="invalid_token"',
        b'"https://auth.docker.io/token"',
    ),
    # Other registries.
    (b'Bearer service="r",scope="repository:a:pull,push",realm=%b', b'"https://a.example/t?x=1"'),
    (b'bearer Realm = %b , error="insufficient_scope"', b'"x"'),
    (b"BEARER realm=%b", b"token"),
    (b"Bearer realm=%b, service=r", b'""'),
    # Escapes, and quotes with commas and equals signs.
    (b'Bearer realm=%b,service="a\\"b, realm=c"', b'"a\\"b\\\\"'),
    (b'Bearer scope="realm=x,Bearer realm=y",realm=%b', b'"https://a.example/?b=c,d"'),
    # Several schemes in one field.
    (b'Basic realm="registry", Bearer realm=%b,service="r"', b'"a"'),
    (b'Bearer realm=%b,service="r", Basic realm="registry"', b'"a"'),
    (b"Negotiate, Bearer realm=%b", b'"a"'),
    (b"Negotiate YWJj==, Bearer realm=%b", b'"a"'),
    # Malformed quoting.
    (b'Bearer realm=%b, service="r"', b"https://a.example/token?x=1"),
    (b"Bearer realm=%b", b'"never closed'),
    (b"Bearer realm=%b", b'"never closed\\'),
]

UNCHANGED = [
    b"",
    b'Basic realm="Registry Realm"',
    b'Digest realm="a", nonce="b"',
    b"Bearer",
    b'Bearer service="r"',
    b'Bearer xrealm="a"',
    b'realm="no scheme"',
    b'"Bearer" realm="a"',
    b"Bearer realm=",
    b'\xff\x00=,"\\',
]

token = st.text("ab-Z9._~!", min_size=1, max_size=6).map(str.encode)
quoted = st.lists(
    st.sampled_from([b"a", b" ", b",", b"=", b"realm=", b"Bearer ", b'\\"', b"\\\\", b"\xe4"])
).map(lambda some: b'"' + b"".join(some) + b'"')
parameter = st.tuples(
    st.one_of(token, st.sampled_from([b"realm", b"Realm", b"service", b"error"])),
    st.sampled_from([b"=", b" = ", b"="]),
    st.one_of(quoted, token),
)
challenge = st.tuples(
    st.sampled_from([b"Bearer", b"bearer", b"Basic", b"X-Other"]),
    st.lists(parameter, min_size=1, max_size=4),
)


class ParameterTests(SynchronousTestCase):
    def test_table(self) -> None:
        for value, parameters in (
            (
                b'Bearer realm="https://a.example/t",Service=r,scope="a:b:pull c"',
                {b"realm": b"https://a.example/t", b"service": b"r", b"scope": b"a:b:pull c"},
            ),
            (b'Basic realm="x", bearer realm = "a\\"b\\\\"', {b"realm": b'a"b\\'}),
            (b'Bearer realm="first",realm="second"', {b"realm": b"first"}),
            (b'Bearer realm=""', {b"realm": b""}),
            (b'Basic realm="x"', {}),
            (b"Bearer", {}),
            (b"", {}),
        ):
            self.assertEqual(bearerParameters(value), parameters, value)


class RealmTests(SynchronousTestCase):
    def test_table(self) -> None:
        for template, realm in CHALLENGES:
            value = template % realm
            self.assertEqual(onMirror(value, REALM, bytes), template % NEW, value)

    def test_unchanged(self) -> None:
        for value in UNCHANGED:
            self.assertEqual(onMirror(value, REALM, bytes), value)

    def test_quoting(self) -> None:
        """A realm with quotes in it is quoted properly."""
        value = onMirror(b'Bearer realm="x",service="y"', b'a"b\\', bytes)
        self.assertEqual(value, b'Bearer realm="a\\"b\\\\",service="y"')

    @given(st.lists(challenge, min_size=1, max_size=3), st.sampled_from([b",", b", ", b" , "]))
    def test_allElseStays(
        self, challenges: list[tuple[bytes, list[tuple[bytes, bytes, bytes]]]], comma: bytes
    ) -> None:
        def written(moved: bool) -> bytes:
            return comma.join(
                scheme
                + b" "
                + comma.join(
                    name
                    + equals
                    + (
                        NEW
                        if moved and (scheme.lower(), name.lower()) == (b"bearer", b"realm")
                        else value
                    )
                    for name, equals, value in parameters
                )
                for scheme, parameters in challenges
            )

        self.assertEqual(onMirror(written(False), REALM, bytes), written(True))

    @given(st.binary())
    def test_anything(self, value: bytes) -> None:
        """A field value without a challenge is not changed."""
        if b"bearer" not in value.lower():
            self.assertEqual(onMirror(value, REALM, bytes), value)

    def test_endless(self) -> None:
        """
        A long token is read only once; reading it again from each of its bytes would take hours.
        """
        for value in (b"a" * 1_000_000 + b'"', b"a" * 500_000 + b'="' + b"b" * 500_000):
            self.assertEqual(onMirror(b"Bearer " + value, REALM, bytes), b"Bearer " + value)
