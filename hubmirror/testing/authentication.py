"""
The ways in which a registry authenticates clients, and its responses to those who lack permission.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from hubmirror.testing.answers import Answer, errorAnswer
from hubmirror.testing.contents import PUSH, Contents
from hubmirror.testing.tokens import Tokens
from hubmirror.testing.wire import HubRequest


@dataclass(frozen=True)
class Visitor:
    """
    The user that the credentials of a request stand for.

    @ivar account: the user's name; empty for an anonymous user.
    @ivar allowed: returns the actions that the user may take on a repository.
    """

    account: str
    allowed: Callable[[str], frozenset[str]]


class Authenticator(Protocol):
    """
    A way to authenticate clients.
    """

    def visitor(self, request: HubRequest) -> Visitor | None:
        """
        The user of a request; L{None} when the request has no valid credentials.
        """

    def refuse(
        self, request: HubRequest, name: str | None, needed: frozenset[str], known: bool
    ) -> Answer:
        """
        The response to a request that is not permitted.

        @param name: the repository; L{None} for the registry itself.
        @param needed: the actions that the request requires.
        @param known: whether the request's credentials are valid, but do not permit it.
        """


class ByToken:
    """
    Authentication with tokens of a token service, whose URL is in the challenge (distribution
    project, "Token Authentication Specification").

    @param realm: returns the URL of the token service.
    """

    def __init__(self, tokens: Tokens, realm: Callable[[], str]) -> None:
        self._tokens = tokens
        self._realm = realm

    def visitor(self, request: HubRequest) -> Visitor | None:
        scheme, _, token = request.fieldOf("Authorization").partition(" ")
        granted = self._tokens.read(token) if scheme.lower() == "bearer" else None
        if granted is None:
            return None
        account, access = granted
        return Visitor(account, lambda name: access.get(name, frozenset()))

    def refuse(
        self, request: HubRequest, name: str | None, needed: frozenset[str], known: bool
    ) -> Answer:
        challenge = f'Bearer realm="{self._realm()}",service="{self._tokens.service}"'
        if name is not None:
            challenge += f',scope="repository:{name}:{",".join(sorted(needed))}"'
        if known:
            challenge += ',error="insufficient_scope"'
        elif request.requestHeaders.hasHeader("Authorization"):
            challenge += ',error="invalid_token"'
        return _unauthorized(challenge, name, needed)


class ByPassword:
    """
    Authentication with a user's name and password in each request (RFC 7617), without anonymous
    access.

    @param origin: returns the registry's own origin, which is the realm.
    """

    def __init__(self, contents: Contents, origin: Callable[[], str]) -> None:
        self._contents = contents
        self._origin = origin

    def visitor(self, request: HubRequest) -> Visitor | None:
        user = self._contents.login(*request.login())
        if user is None:
            return None
        return Visitor(user.name, lambda name: self._contents.allowed(user, name))

    def refuse(
        self, request: HubRequest, name: str | None, needed: frozenset[str], known: bool
    ) -> Answer:
        if known:
            return errorAnswer(403, "DENIED", "requested access to the resource is denied")
        return _unauthorized(f'Basic realm="{self._origin()}/"', name, needed)


class ByNothing:
    """
    No authentication: every client may pull and push everything.
    """

    def visitor(self, request: HubRequest) -> Visitor | None:
        return Visitor("", lambda name: PUSH)

    def refuse(
        self, request: HubRequest, name: str | None, needed: frozenset[str], known: bool
    ) -> Answer:
        raise AssertionError("nobody is refused")


def _unauthorized(challenge: str, name: str | None, needed: frozenset[str]) -> Answer:
    detail = [{"Type": "repository", "Name": name, "Action": action} for action in sorted(needed)]
    return errorAnswer(
        401,
        "UNAUTHORIZED",
        "authentication required",
        detail if name else None,
        {"WWW-Authenticate": challenge},
    )
