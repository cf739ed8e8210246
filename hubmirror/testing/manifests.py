"""
Manifests as a registry gives them, and the pulls that they count as.
"""

from collections import defaultdict

from hubmirror.testing.answers import Answer, bytesAnswer, errorAnswer
from hubmirror.testing.contents import Contents
from hubmirror.testing.images import Manifest
from hubmirror.testing.wire import HubRequest


class Manifests:
    """
    Gives manifests.

    @param pulls: pulls that each account begins with; 0 to count none.
    @ivar pullsLeft: what C{ratelimit-remaining} says, by account, empty for the public.  Every
        GET of a manifest takes one off; none is ever refused for it.
    """

    def __init__(self, contents: Contents, pulls: int) -> None:
        self.pullsLeft: defaultdict[str, int] = defaultdict(lambda: pulls)
        self._contents = contents
        self._pulls = pulls

    def give(self, request: HubRequest, name: str, reference: str, account: str) -> Answer:
        """
        The manifest of a tag or a digest, for GET or HEAD.

        @param account: who asks, empty for the public.
        """
        manifest = self._contents.repository(name).find(reference)
        if manifest is None:
            return errorAnswer(404, "MANIFEST_UNKNOWN", "manifest unknown", {"Tag": reference})
        if not _accepts(request, manifest):
            message = f"{manifest.mediaType} found, but accept header does not support it"
            return errorAnswer(404, "MANIFEST_UNKNOWN", message)
        etag = f'"{manifest.digest}"'
        fields = {
            "Docker-Content-Digest": manifest.digest,
            "ETag": etag,
            **(self._count(request, account) if self._pulls else {}),
        }
        if etag in request.fieldOf("If-None-Match"):
            return Answer(304, fields)
        return bytesAnswer(200, manifest.mediaType, manifest.body, fields)

    def _count(self, request: HubRequest, account: str) -> dict[str, str]:
        """
        Count a pull; gives the fields that say how many are left.
        """
        if request.method == b"GET":
            self.pullsLeft[account] = max(self.pullsLeft[account] - 1, 0)
        return {
            "ratelimit-limit": f"{self._pulls};w=21600",
            "ratelimit-remaining": f"{self.pullsLeft[account]};w=21600",
            "docker-ratelimit-source": account or request.getClientAddress().host,
        }


def _accepts(request: HubRequest, manifest: Manifest) -> bool:
    """
    Whether the client takes this media type; one that names none takes any.
    """
    values = ",".join(request.requestHeaders.getRawHeaders("Accept", [])).split(",")
    accepted = {value.partition(";")[0].strip() for value in values} - {""}
    return not accepted or not accepted.isdisjoint({manifest.mediaType, "application/*", "*/*"})
