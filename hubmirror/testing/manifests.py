"""
Serves the manifests of a registry, and counts pulls.
"""

from collections import defaultdict

from hubmirror.testing.answers import Answer, bytesAnswer, errorAnswer
from hubmirror.testing.contents import Contents
from hubmirror.testing.images import Manifest
from hubmirror.testing.wire import HubRequest, fieldValues


class Manifests:
    """
    Serves manifests.

    @param pulls: the number of pulls that each account has at first; 0 to count none.
    @ivar pullsLeft: the values of C{ratelimit-remaining}, by account; empty for anonymous clients.
        Every GET of a manifest reduces the value by one, but none is refused because of it.
    """

    def __init__(self, contents: Contents, pulls: int) -> None:
        self.pullsLeft: defaultdict[str, int] = defaultdict(lambda: pulls)
        self._contents = contents
        self._pulls = pulls

    def give(self, request: HubRequest, name: str, reference: str, account: str) -> Answer:
        """
        Respond to GET or HEAD of a manifest.

        @param reference: a tag or a digest.
        @param account: the name of the user; empty for anonymous clients.
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
        Count a pull.

        @return: the fields with the number of pulls that are left.
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
    Whether the client accepts the manifest's media type; without C{Accept}, it accepts any.
    """
    values = ",".join(fieldValues(request.requestHeaders, "Accept")).split(",")
    accepted = {value.partition(";")[0].strip() for value in values} - {""}
    return not accepted or not accepted.isdisjoint({manifest.mediaType, "application/*", "*/*"})
