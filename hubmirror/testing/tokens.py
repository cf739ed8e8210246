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

_WRONG = {"details": "incorrect username or password"}
_BASIC = {"WWW-Authenticate": 'Basic realm="hub.docker.com"'}

#: What a token grants: actions, by the name of a repository.
Access = Mapping[str, frozenset[str]]


class Tokens:
    """
    Makes and reads the tokens of one registry: JSON web tokens (RFC 7519) under a key that all
    embedded registries of that name share, since every mirror of the Hub takes the tokens of the
    one Hub, and no other registry does.

    @param name: the registry's.
    @param service: what it calls itself in a challenge.
    @param size: bytes that a token has at least.
    @param seconds: the clock that they expire by.
    @ivar lifetime: for how long a token is good, in seconds.
    """

    _HEAD = {"alg": "HS256", "typ": "JWT"}

    def __init__(self, name: str, service: str, size: int, seconds: Callable[[], float]) -> None:
        self.lifetime = 300
        self.service = service
        self._key = f"the key of {name}'s token service: made up, and no secret".encode()
        self._size = size
        self._seconds = seconds

    def issue(self, account: str, access: Access) -> str:
        """
        A token for so much.
        """
        now = int(self._seconds())
        claims = {
            "iss": self.service,
            "aud": self.service,
            "sub": account,
            "iat": now,
            "exp": now + self.lifetime,
            "access": [
                {"type": "repository", "name": name, "actions": sorted(actions)}
                for name, actions in access.items()
            ],
        }
        token = self._sign(claims)
        missing = self._size - len(token)
        # Three bytes of a claim are four of a token.
        return token if missing <= 0 else self._sign({**claims, "pad": "x" * (missing * 3 // 4)})

    def issueRefresh(self, account: str) -> str:
        """
        A token to get other tokens with; it does not expire.
        """
        return self._sign({"refresh": account})

    def read(self, token: str) -> tuple[str, Access] | None:
        """
        The account that a token was given to, and what it grants; L{None} if it is not good.
        """
        claims = self._verify(token)
        if claims is None or claims.get("exp", 0) <= self._seconds():
            return None
        access = {entry["name"]: frozenset(entry["actions"]) for entry in claims["access"]}
        return claims["sub"], access

    def issued(self, token: str) -> bool:
        """
        Whether a token, to ask with or to get others with, is this registry's, expired or not.
        """
        return self._verify(token) is not None

    def readRefresh(self, token: str) -> str | None:
        """
        Whose refresh token this is; L{None} for nobody's.
        """
        return (self._verify(token) or {}).get("refresh")

    def _sign(self, claims: dict[str, Any]) -> str:
        signed = f"{_encode(_dump(self._HEAD))}.{_encode(_dump(claims))}"
        return f"{signed}.{_encode(hmac.digest(self._key, signed.encode(), sha256))}"

    def _verify(self, token: str) -> dict[str, Any] | None:
        signed, _, signature = token.rpartition(".")
        expected = _encode(hmac.digest(self._key, signed.encode(), sha256))
        if not hmac.compare_digest(signature.encode(), expected.encode()):
            return None
        claims: dict[str, Any] = json.loads(_decode(signed.partition(".")[2]))
        return claims


class TokenService:
    """
    Answers GET with Basic or without, and POST with a form.

    @ivar path: the only one that C{serve} knows.
    """

    def __init__(
        self, path: str, contents: Contents, tokens: Tokens, seconds: Callable[[], float]
    ) -> None:
        self.path = path.encode()
        self._contents = contents
        self._tokens = tokens
        self._seconds = seconds

    def serve(self, request: HubRequest) -> Answer:
        """
        Answer a request to the token service.
        """
        if request.path != self.path:
            return errorAnswer(404, "NOT_FOUND", f"there is only {self.path.decode()} here")
        return self.answer(request)

    def answer(self, request: HubRequest) -> Answer:
        """
        Answer a request that has come here, whatever its path.
        """
        if request.method in (b"GET", b"HEAD"):
            return self._get(request)
        if request.method == b"POST":
            return self._post(parse_qs(request.content.read().decode()))
        return errorAnswer(405, "UNSUPPORTED", "GET or POST", fields={"Allow": "GET, POST"})

    def _get(self, request: HubRequest) -> Answer:
        user = None
        if request.requestHeaders.hasHeader("Authorization"):
            user = self._contents.login(request.getUser().decode(), request.getPassword().decode())
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
            user = self._contents.login(value("username"), value("password"))
        if user is None:
            return jsonAnswer(401, _WRONG, _BASIC)
        return self._grant(user, form, refresh=value("access_type") == "offline")

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
