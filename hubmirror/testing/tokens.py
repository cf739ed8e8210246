"""
The token service, and the tokens that the registry takes.
"""

import base64
import hmac
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs

from hubmirror.testing.answers import Answer, errorAnswer, jsonAnswer
from hubmirror.testing.contents import Contents, User
from hubmirror.testing.wire import HubRequest

#: What the registry calls itself in a challenge.
SERVICE = "registry.docker.io"

_WRONG = {"details": "incorrect username or password"}
_BASIC = {"WWW-Authenticate": 'Basic realm="hub.docker.com"'}

#: What a token grants: actions, by the name of a repository.
Access = Mapping[str, frozenset[str]]


class Tokens:
    """
    Makes and reads tokens: JSON web tokens (RFC 7519) under a key that all embedded Hubs share,
    since every mirror of the Hub takes the tokens of the one Hub.

    @param seconds: the clock that they expire by.
    @ivar lifetime: for how long a token is good, in seconds.
    """

    _KEY = b"the token service's key: made up, and no secret"
    _HEAD = {"alg": "HS256", "typ": "JWT"}

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.lifetime = 300
        self._seconds = seconds

    def issue(self, account: str, access: Access) -> str:
        """
        A token for so much.
        """
        now = int(self._seconds())
        return self._sign(
            {
                "iss": "auth.docker.io",
                "aud": SERVICE,
                "sub": account,
                "iat": now,
                "exp": now + self.lifetime,
                "access": [
                    {"type": "repository", "name": name, "actions": sorted(actions)}
                    for name, actions in access.items()
                ],
            }
        )

    def issueRefresh(self, account: str) -> str:
        """
        A token to get other tokens with; it does not expire.
        """
        return self._sign({"refresh": account})

    def ofRequest(self, request: HubRequest) -> Access | None:
        """
        What the token in a request grants; L{None} if there is none, or none that is good.
        """
        scheme, _, token = request.fieldOf("Authorization").partition(" ")
        claims = self._verify(token) if scheme.lower() == "bearer" else None
        if claims is None or claims.get("exp", 0) <= self._seconds():
            return None
        return {entry["name"]: frozenset(entry["actions"]) for entry in claims["access"]}

    def readRefresh(self, token: str) -> str | None:
        """
        Whose refresh token this is; L{None} for nobody's.
        """
        return (self._verify(token) or {}).get("refresh")

    def _sign(self, claims: dict[str, Any]) -> str:
        signed = f"{_encode(_dump(self._HEAD))}.{_encode(_dump(claims))}"
        return f"{signed}.{_encode(hmac.digest(self._KEY, signed.encode(), sha256))}"

    def _verify(self, token: str) -> dict[str, Any] | None:
        signed, _, signature = token.rpartition(".")
        expected = _encode(hmac.digest(self._KEY, signed.encode(), sha256))
        if not hmac.compare_digest(signature.encode(), expected.encode()):
            return None
        claims: dict[str, Any] = json.loads(_decode(signed.partition(".")[2]))
        return claims


class TokenService:
    """
    Answers at C{/token}: GET with Basic or without, POST with a form.
    """

    def __init__(self, contents: Contents, tokens: Tokens, seconds: Callable[[], float]) -> None:
        self._contents = contents
        self._tokens = tokens
        self._seconds = seconds

    def serve(self, request: HubRequest) -> Answer:
        """
        Answer a request to the token service.
        """
        if request.path != b"/token":
            return errorAnswer(404, "NOT_FOUND", "there is only /token here")
        if request.method in (b"GET", b"HEAD"):
            return self._get(request)
        if request.method == b"POST":
            return self._post(parse_qs(request.content.read().decode()))
        return errorAnswer(405, "UNSUPPORTED", "GET or POST", fields={"Allow": "GET, POST"})

    def _get(self, request: HubRequest) -> Answer:
        user = None
        if request.requestHeaders.hasHeader("Authorization"):
            user = self._login(request.getUser().decode(), request.getPassword().decode())
            if user is None:
                return jsonAnswer(401, _WRONG, _BASIC)
        query = parse_qs(request.query)
        return self._grant(user, query, refresh=query.get("offline_token") == ["true"])

    def _post(self, form: dict[str, list[str]]) -> Answer:
        def value(name: str) -> str:
            return form.get(name, [""])[0]

        if value("grant_type") == "refresh_token":
            user = self._contents.users.get(self._tokens.readRefresh(value("refresh_token")) or "")
        else:
            user = self._login(value("username"), value("password"))
        if user is None:
            return jsonAnswer(401, _WRONG, _BASIC)
        return self._grant(user, form, refresh=value("access_type") == "offline")

    def _login(self, name: str, password: str) -> User | None:
        user = self._contents.users.get(name)
        return user if user is not None and user.password == password else None

    def _grant(self, user: User | None, asked: dict[str, list[str]], *, refresh: bool) -> Answer:
        """
        A token for what is asked for, as far as it is allowed.
        """
        access = {
            name: actions & self._contents.allowed(user, name)
            for name, actions in _scopes(asked.get("scope", []))
        }
        account = user.name if user else ""
        token = self._tokens.issue(account, access)
        answer = {
            "token": token,
            "access_token": token,
            "expires_in": self._tokens.lifetime,
            "issued_at": datetime.fromtimestamp(self._seconds(), timezone.utc).isoformat(),
        }
        if user and refresh:
            answer["refresh_token"] = self._tokens.issueRefresh(account)
        return jsonAnswer(200, answer)


def _scopes(values: Iterable[str]) -> Iterable[tuple[str, frozenset[str]]]:
    """
    Repositories and actions of scopes, several to a value or several values.
    """
    for scope in " ".join(values).split():
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        if kind == "repository":
            yield name, frozenset(actions.split(","))


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
