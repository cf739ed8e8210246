"""
The token service and index of a stand-in registry, in one process: C{python -m
tests.integration.tokens FOLDER}.  (Debian has no programs for these two.)

The token service issues tokens for docker-registry's C{auth: token}: JWTs whose header has the
certificate.  Its only user may push and pull repositories below his name; all clients may pull the
others.

C{tokens.log} has a line of JSON for each request, which is written before the response.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from twisted.internet import endpoints, reactor
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from tests.integration.ca import selfSigned


class Realm(NamedTuple):
    """
    The settings of a token service.

    @ivar service: the C{service} in the registry's challenge.
    @ivar issuer: the C{iss} in tokens.
    @ivar user: its only user, who owns the repositories below his name.
    @ivar padding: bytes of padding in each token.
    """

    service: str
    issuer: str
    user: str
    password: str
    padding: int = 0


HUB = Realm("registry.docker.io", "auth.docker.io", "alice", "correct horse")
SERVICE, ISSUER, USER, PASSWORD, _ = HUB

#: The results of the index for every search.
FOUND = "library/one"


class Signer:
    """Signs the registry's tokens.  The key is in a folder that the service and the tests share."""

    def __init__(self, folder: Path, realm: Realm) -> None:
        self._realm = realm
        key = serialization.load_pem_private_key((folder / "token.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key
        pem = (folder / "token.crt").read_text().splitlines()
        self._certificate = "".join(line for line in pem if not line.startswith("-----"))

    @staticmethod
    def makeKey(folder: Path) -> Path:
        """
        Create the key.

        @return: the certificate that the registry trusts.
        """
        key, certificate = selfSigned("token service")
        (folder / "token.key").write_bytes(key)
        bundle = folder / "token.crt"
        bundle.write_bytes(certificate)
        return bundle

    def token(self, user: str, access: list[dict[str, object]]) -> str:
        """A JWT (RFC 7519, ES256) for five minutes."""
        now = int(time.time())
        header = {"typ": "JWT", "alg": "ES256", "x5c": [self._certificate]}
        claims = {
            "iss": self._realm.issuer,
            "sub": user,
            "aud": self._realm.service,
            "nbf": now - 10,
            "iat": now,
            "exp": now + 300,
            "jti": secrets.token_hex(8),
            "access": access,
            "padding": "x" * self._realm.padding,
        }
        signed = b".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
        r, s = utils.decode_dss_signature(self._key.sign(signed, ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return (signed + b"." + _base64(signature)).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def access(user: str, scopes: Iterable[str], owner: str) -> list[dict[str, object]]:
    """
    The permissions of a user for some scopes.

    @param user: the user; empty for anonymous clients.
    @param owner: the user whose repositories are private.
    @param scopes: values of C{scope}, each with one or several C{repository:NAME:ACTION,ACTION},
        separated by spaces.
    """
    granted: list[dict[str, object]] = []
    for scope in " ".join(scopes).split():
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        first = name.partition("/")[0]
        allowed = {"pull", "push"} if first == user else {"pull"} if first != owner else set()
        given = sorted(allowed.intersection(actions.split(",")))
        if kind == "repository" and given:
            granted.append({"type": kind, "name": name, "actions": given})
    return granted


class _Logged(Resource):
    """Logs each request with its credentials."""

    isLeaf = True

    def __init__(self, log: Path) -> None:
        super().__init__()
        self._log = log

    def note(self, request: Request, **more: object) -> None:
        scheme, _, _ = (request.getHeader("authorization") or "").partition(" ")
        seen = {
            "method": request.method.decode(),
            "uri": request.uri.decode(),
            "authorization": scheme,
            "credentials": request.getHeader("authorization") or "",
            "forwardedFor": request.getHeader("x-forwarded-for") or "",
            **more,
        }
        with self._log.open("a") as log:
            log.write(json.dumps(seen) + "\n")


class TokenResource(_Logged):
    """
    C{/token}: the GET of the token specification and the POST of its OAuth2 form.
    """

    def __init__(self, log: Path, signer: Signer, realm: Realm) -> None:
        super().__init__(log)
        self._signer = signer
        self._realm = realm
        self._refreshTokens = {secrets.token_hex(16)}

    def render_GET(self, request: Request) -> bytes:
        self.note(request)
        user, password = request.getUser().decode(), request.getPassword().decode()
        known = not user or _same(password, self._realm.password)
        return self._answer(request, user, known)

    def render_POST(self, request: Request) -> bytes:
        grant = _argument(request, "grant_type")
        user, password = _argument(request, "username"), _argument(request, "password")
        self.note(request, grant=grant, form=f"{user}:{password}" if password else "")
        if grant == "password":
            return self._answer(request, user, _same(password, self._realm.password))
        known = _argument(request, "refresh_token") in self._refreshTokens
        return self._answer(request, self._realm.user, grant == "refresh_token" and known)

    def _answer(self, request: Request, user: str, known: bool) -> bytes:
        request.setHeader("content-type", "application/json")
        if user not in ("", self._realm.user) or not known:
            request.setResponseCode(401)
            return b'{"details":"incorrect username or password"}\n'
        if _argument(request, "service") != self._realm.service:
            request.setResponseCode(400)
            return b'{"details":"unknown service"}\n'
        scopes = [scope.decode() for scope in request.args.get(b"scope", [])]
        token = self._signer.token(user, access(user, scopes, self._realm.user))
        answer: dict[str, object] = {"token": token, "access_token": token, "expires_in": 300}
        if user and "true" in (_argument(request, "offline_token")):
            answer["refresh_token"] = next(iter(self._refreshTokens))
        return json.dumps(answer).encode()


class IndexResource(_Logged):
    """C{/v1/search}: returns one image for every search."""

    def render_GET(self, request: Request) -> bytes:
        self.note(request)
        request.setHeader("content-type", "application/json")
        found = {"name": FOUND, "description": "one layer", "star_count": 7, "is_official": True}
        return json.dumps({"num_results": 1, "query": "", "results": [found]}).encode()


def _argument(request: Request, name: str) -> str:
    values: list[bytes] = request.args.get(name.encode(), [b""])
    return values[0].decode()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def main(folder: Path) -> None:
    """Serve with the settings in C{services.json} in the folder."""
    settings = json.loads((folder / "services.json").read_text())
    log, realm = folder / "tokens.log", Realm(*settings["realm"])
    for resource, port in (
        (TokenResource(log, Signer(folder, realm), realm), settings["tokenPort"]),
        (IndexResource(log), settings["searchPort"]),
    ):
        description = f"ssl:{port}:interface=127.0.0.1:privateKey={settings['certificate']}"
        endpoints.serverFromString(reactor, description).listen(Site(resource))
    reactor.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
