"""
The settings in which registries differ.
"""

import enum
from dataclasses import dataclass


class Authentication(enum.Enum):
    """
    The authentication that a registry requires.
    """

    TOKEN = enum.auto()  #: a token of its token service, which anonymous clients can get, too
    BASIC = enum.auto()  #: a name and password in each request; no anonymous access
    NONE = enum.auto()  #: none: every client may pull and push everything


@dataclass(frozen=True)
class RegistrySettings:
    """
    The behaviour of a registry.  By default, it requires tokens of C{https://auth.NAME/token},
    redirects requests for blobs to C{https://cdn.NAME}, and counts no pulls.

    @ivar authentication: the authentication that the registry requires.
    @ivar challengesPing: whether C{/v2/} requires authentication as well as the paths below it.
    @ivar realm: the host and path of the token service, such as C{auth.quay.test/token} or, on the
        registry's own origin, C{quay.test/v2/auth}; empty for C{auth.NAME/token}.
    @ivar service: the C{service} in challenges; empty for the registry's name.
    @ivar tokenSize: the least length of a token in bytes; 0 for no padding.
    @ivar redirectsBlobs: whether requests for blobs are redirected to the CDN (307).
    @ivar redirectsManifests: whether requests for manifests are redirected to the CDN (307).
    @ivar tagsPerPage: the number of tags in a response when the client does not send C{n}; 0 for
        all tags.
    @ivar opaqueLinks: whether the C{Link} to the next page of tags has an opaque C{next_page} in
        place of C{last}.  The response to an invalid C{next_page} is 405.
    @ivar officialImages: whether the name of each repository must have two components or more, as
        at the Hub, where the image C{alpine} is the repository C{library/alpine}.
    @ivar pulls: the value of C{ratelimit-limit} for each account; 0 for no such fields.
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
