"""
The token service of a registry, and its tokens.
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
_HEAD = {"alg": "HS256", "typ": "JWT"}
_BASIC = {"WWW-Authenticate": 'Basic realm="hub.docker.com"'}

#: The actions that a token grants, by the name of a repository.
Access = Mapping[str, frozenset[str]]


class Tokens:
    """
    Issues and verifies the tokens of one registry: JSON web tokens (RFC 7519).  All embedded
    registries of the same name share the key, because the mirrors of a registry accept its tokens,
    and no other registry does.

    @param name: the registry's name.
    @param service: the C{service} in challenges.
    @param size: the least length of a token in bytes.
    @param seconds: returns the present time, in seconds.
    @ivar lifetime: how long a token is valid, in seconds.
    """

    def __init__(self, name: str, service: str, size: int, seconds: Callable[[], float]) -> None:
        self.lifetime = 300
        self.service = service
        self._key = f"the key of {name}'s token service: made up, and no secret".encode()
        self._size = size
        self._seconds = seconds

    def issue(self, account: str, access: Access) -> str:
        """
        Issue a token.

        @param account: the name of the user; empty for anonymous clients.
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
        # base64 turns three bytes of a claim into four of the token.
        return token if missing <= 0 else self._sign({**claims, "pad": "x" * (missing * 3 // 4)})

    def issueRefresh(self, account: str) -> str:
        """
        Issue a refresh token, which does not expire.
        """
        return self._sign({"refresh": account})

    def read(self, token: str) -> tuple[str, Access] | None:
        """
        The account and the permissions of a token; L{None} if it is invalid or has expired.
        """
        claims = self._verify(token)
        if claims is None or claims.get("exp", 0) <= self._seconds():
            return None
        access = {entry["name"]: frozenset(entry["actions"]) for entry in claims["access"]}
        return claims["sub"], access

    def issued(self, token: str) -> bool:
        """
        Whether this registry has issued a token or refresh token, even if it has expired.
        """
        return self._verify(token) is not None

    def readRefresh(self, token: str) -> str | None:
        """
        The account of a refresh token; L{None} if it is invalid.
        """
        return (self._verify(token) or {}).get("refresh")

    def _sign(self, claims: dict[str, Any]) -> str:
        signed = f"{_encode(_dump(_HEAD))}.{_encode(_dump(claims))}"
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
    Issues tokens: by GET, with a user's name and password or without, and by POST with a form.

    @ivar path: the only path that C{serve} accepts.
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
        Respond to a request to the token service.
        """
        if request.path != self.path:
            return errorAnswer(404, "NOT_FOUND", f"there is only {self.path.decode()} here")
        return self.answer(request)

    def answer(self, request: HubRequest) -> Answer:
        """
        Respond to a request, whatever its path.
        """
        if request.method in (b"GET", b"HEAD"):
            return self._get(request)
        if request.method == b"POST":
            return self._post(parse_qs(request.content.read().decode(errors="replace")))
        return errorAnswer(405, "UNSUPPORTED", "GET or POST", fields={"Allow": "GET, POST"})

    def _get(self, request: HubRequest) -> Answer:
        user = None
        if request.requestHeaders.hasHeader("Authorization"):
            user = self._contents.login(*request.login())
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
        Respond with a token for those of the requested actions that the user is allowed.
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
    The repositories and actions of scopes.  A value may contain several scopes.
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
