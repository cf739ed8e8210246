"""
What one registry does otherwise than another.
"""

import enum
from dataclasses import dataclass


class Authentication(enum.Enum):
    """
    What a registry wants to know of those who ask.
    """

    TOKEN = enum.auto()  #: a token of its token service, which the public gets too
    BASIC = enum.auto()  #: name and password with each request, from everybody
    NONE = enum.auto()  #: nothing: everybody may pull and push everything


@dataclass(frozen=True)
class RegistrySettings:
    """
    How a registry behaves.  Without any, it asks for tokens of C{https://auth.NAME/token},
    redirects blobs to C{https://cdn.NAME}, and counts no pulls.

    @ivar authentication: what it wants to know of those who ask.
    @ivar challengesPing: whether it asks for that at C{/v2/} too; else only at what lies below.
    @ivar realm: host and path of its token service, such as C{auth.quay.test/token} or, on the
        registry's own origin, C{quay.test/v2/auth}; empty for the usual one.
    @ivar service: what it calls itself in a challenge; empty for its name.
    @ivar tokenSize: bytes that its tokens have at least; 0 for what they need.
    @ivar redirectsBlobs: whether blobs come from its CDN, by a 307.
    @ivar redirectsManifests: whether manifests do so too.
    @ivar tagsPerPage: tags in one answer when the client names no number; 0 for all.
    @ivar opaqueLinks: whether the C{Link} to the next page of tags has a C{next_page} that only
        the registry can read (and a made-up one is 405), in place of C{last}.
    @ivar officialImages: whether each repository has two components at least, as at the Hub,
        where the image C{alpine} is the repository C{library/alpine}.
    @ivar pulls: what C{ratelimit-limit} says, for each account; 0 for no such fields.
    """

    authentication: Authentication = Authentication.TOKEN
    challengesPing: bool = True
    realm: str = ""
    service: str = ""
    tokenSize: int = 0
    redirectsBlobs: bool = True
    redirectsManifests: bool = False
    tagsPerPage: int = 0
    opaqueLinks: bool = False
    officialImages: bool = False
    pulls: int = 0
