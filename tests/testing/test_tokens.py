"""
Tests of the token service.
"""

from base64 import b64encode
from urllib.parse import urlencode

from tests.testing.support import MemoryCase, Reply

HELLO = "repository:library/hello:pull"
SECRET = "repository:alice/secret:pull"


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}"}


class TokenTests(MemoryCase):
    def setUp(self) -> None:
        super().setUp()
        self.hub.addImage("library/hello", "latest", layers=[b"hello"])
        self.hub.addImage("alice/secret", "latest", layers=[b"secret"])
        self.hub.private.add("alice/secret")
        self.hub.addUser("alice", "rabbit", push=["alice/*"])
        self.hub.addUser("bob", "hole", pull=["alice/secret"])

    def get(self, query: str, fields: dict[str, str] | None = None) -> Reply:
        return self.ask("GET", f"{self.hub.authURL}?{query}", fields)

    def post(self, **form: str) -> Reply:
        body = urlencode(form).encode()
        return self.ask("POST", self.hub.authURL, body=body)

    def allows(self, token: str, method: str, path: str) -> bool:
        """
        Whether the registry accepts a token for a request.
        """
        return self.ask(method, self.hub.registryURL + path, token=token).status not in (401, 403)

    def assertPulls(self, token: str, *expected: str) -> None:
        names = ("library/hello", "alice/secret")
        pulled = [n for n in names if self.allows(token, "GET", f"/v2/{n}/manifests/latest")]
        self.assertEqual(pulled, list(expected))

    def test_anonymous(self) -> None:
        reply = self.get(f"service=registry.docker.io&scope={HELLO}")
        self.assertEqual(reply.status, 200)
        self.assertEqual(reply.json()["token"], reply.json()["access_token"])
        self.assertEqual(reply.json()["expires_in"], 300)
        self.assertEqual(reply.json()["issued_at"], "1970-01-01T00:00:00+00:00")
        self.assertPulls(reply.json()["token"], "library/hello")

    def test_anonymousSeesNothingPrivate(self) -> None:
        self.assertPulls(self.get(f"scope={HELLO}&scope={SECRET}").json()["token"], "library/hello")

    def test_scopes(self) -> None:
        """
        Several scopes may be in one parameter or in several.
        """
        for query in (f"scope={HELLO}&scope={SECRET}", f"scope={HELLO}%20{SECRET}"):
            token = self.get(query, basic("bob", "hole")).json()["token"]
            self.assertPulls(token, "library/hello", "alice/secret")

    def test_push(self) -> None:
        scope = "scope=repository:alice/secret:pull,push"
        for user, password, expected in (("alice", "rabbit", True), ("bob", "hole", False)):
            token = self.get(scope, basic(user, password)).json()["token"]
            self.assertIs(self.allows(token, "POST", "/v2/alice/secret/blobs/uploads/"), expected)

    def test_wrongPassword(self) -> None:
        for reply in (
            self.get(f"scope={HELLO}", basic("alice", "hole")),
            self.get(f"scope={HELLO}", basic("nobody", "rabbit")),
            self.post(grant_type="password", username="alice", password="hole"),
            self.post(grant_type="refresh_token", refresh_token="x.y.z"),
        ):
            self.assertEqual(reply.status, 401)
            self.assertEqual(reply.json(), {"details": "incorrect username or password"})
            self.assertEqual(reply.field("WWW-Authenticate"), 'Basic realm="hub.docker.com"')

    def test_post(self) -> None:
        """
        A password yields a refresh token, and that yields tokens.
        """
        reply = self.post(
            grant_type="password", username="alice", password="rabbit", access_type="offline"
        )
        refresh = reply.json()["refresh_token"]
        reply = self.post(grant_type="refresh_token", refresh_token=refresh, scope=SECRET)
        self.assertPulls(reply.json()["access_token"], "alice/secret")

    def test_offlineToken(self) -> None:
        query = f"scope={SECRET}&offline_token=true"
        self.assertIn("refresh_token", self.get(query, basic("alice", "rabbit")).json())
        self.assertNotIn("refresh_token", self.get(query).json())

    def test_refreshTokenIsNoToken(self) -> None:
        reply = self.get("offline_token=true", basic("alice", "rabbit"))
        self.assertPulls(reply.json()["refresh_token"])

    def test_expires(self) -> None:
        token = self.token(HELLO)
        self.clock.advance(self.hub.tokens.lifetime)
        self.assertPulls(token)

    def test_forged(self) -> None:
        head, claims, signature = self.token(HELLO).split(".")
        self.assertPulls(f"{head}.{claims}.{signature[::-1]}")
        self.assertPulls("nonsense")

    def test_otherHub(self) -> None:
        """
        The mirrors of the Hub accept each other's tokens.
        """
        token = self.token(HELLO)
        self.hub = type(self.hub)(self.clock)
        self.hub.addImage("library/hello", "latest", layers=[b"hello"])
        self.agent = self.hub.agent()
        self.assertPulls(token, "library/hello")

    def test_elsewhere(self) -> None:
        self.assertEqual(self.ask("GET", f"{self.hub.token.url}/other").status, 404)
        self.assertEqual(self.ask("PUT", self.hub.authURL).status, 405)
