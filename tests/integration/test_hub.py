"""
Tests of the stand-in Hub: it is as strict as the other tests rely on.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from urllib.parse import urlencode, urlsplit

from tests.integration.mirror import Answer, ask
from tests.integration.programs import CommandFailed, run, withHosts
from tests.integration.tokens import PASSWORD, SERVICE, USER
from tests.integration.world import IntegrationTestCase


class HubTests(IntegrationTestCase):
    """Requests without a mirror."""

    def ask(self, url: str, fields: dict[str, str] | None = None, method: str = "GET") -> Answer:
        parts = urlsplit(url)
        assert parts.port is not None
        context = ssl.create_default_context(cafile=str(self.world.authority.bundle))
        context.check_hostname = False
        connection = http.client.HTTPSConnection(
            "127.0.0.1", parts.port, context=context, timeout=30
        )
        try:
            target = url.partition(parts.netloc)[2]
            return ask(connection, target, {"Host": parts.netloc, **(fields or {})}, method)
        finally:
            connection.close()

    def token(self, scope: str, credentials: str = "") -> Answer:
        query = urlencode({"service": SERVICE, "scope": scope})
        fields = {"Authorization": basic(credentials)} if credentials else {}
        return self.ask(f"{self.hub.tokenUrl}?{query}", fields)

    def location(self) -> str:
        """The target of the registry's redirect for the configuration or layer of an image."""
        digest = min(self.hub.images["library/one:latest"].blobs)
        bearer = self.bearer("repository:library/one:pull")
        answer = self.ask(f"{self.hub.registryUrl}/v2/library/one/blobs/{digest}", bearer)
        self.assertEqual(answer.status, 307)
        return answer.headers["Location"]

    def bearer(self, scope: str, credentials: str = "") -> dict[str, str]:
        token = json.loads(self.token(scope, credentials).body)["token"]
        return {"Authorization": f"Bearer {token}"}

    def test_challenge(self) -> None:
        answer = self.ask(f"{self.hub.registryUrl}/v2/library/one/manifests/latest")
        self.assertEqual(answer.status, 401)
        self.assertIn(f'realm="{self.hub.tokenUrl}"', answer.headers["WWW-Authenticate"])

    def test_privateRepository(self) -> None:
        url = f"{self.hub.registryUrl}/v2/alice/secret/manifests/latest"
        scope = "repository:alice/secret:pull"
        self.assertEqual(self.ask(url, self.bearer(scope)).status, 401)
        self.assertEqual(self.ask(url, self.bearer(scope, f"{USER}:{PASSWORD}")).status, 200)
        self.assertEqual(self.token(scope, f"{USER}:wrong").status, 401)

    def test_pushNeedsItsOwner(self) -> None:
        url = f"{self.hub.registryUrl}/v2/library/one/blobs/uploads/"
        fields = self.bearer("repository:library/one:pull,push", f"{USER}:{PASSWORD}")
        self.assertEqual(self.ask(url, fields, "POST").status, 401)

    def test_cdn(self) -> None:
        location = self.location()
        unsigned, _, query = location.partition("?")
        for url, fields, status in (
            (location, {}, 200),
            (location, {"Range": "bytes=0-3"}, 206),
            (location, {"Authorization": "Bearer x"}, 400),
            (location, {"Cookie": "a=b"}, 400),
            (location, {"Host": "mirror.test"}, 403),
            (unsigned, {}, 403),
            (f"{unsigned}?{query.replace('%2f', '%2F')}", {}, 403),
            (f"{unsigned}?{query.rstrip(';')}", {}, 403),
            (f"{unsigned}?{query.replace('&&', '&')}", {}, 403),
        ):
            self.assertEqual(self.ask(url, fields).status, status, (url, fields))

    def test_limited(self) -> None:
        url = f"{self.hub.registryUrl}/v2/library/one/manifests/latest"
        self.addCleanup(self.hub.front.switchOff, self.hub.front.LIMITED)
        self.hub.front.switchOn(self.hub.front.LIMITED)
        self.assertEqual(self.ask(url).status, 401)
        answer = self.ask(url, self.bearer("repository:library/one:pull"))
        self.assertEqual((answer.status, answer.headers["Retry-After"]), (429, "30"))
        self.assertEqual(json.loads(answer.body)["errors"][0]["code"], "TOOMANYREQUESTS")

    def test_clientsCannotReachIt(self) -> None:
        for name in ("registry.hub.test", "cdn.hub.test"):
            with self.assertRaises(CommandFailed):
                run(withHosts(self.world.clientHosts, ["getent", "hosts", name]))
        run(withHosts(self.world.clientHosts, ["getent", "hosts", "mirror.test"]))


def basic(credentials: str) -> str:
    return "Basic " + base64.b64encode(credentials.encode()).decode()
