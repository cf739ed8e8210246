"""
Serves lists of tags in pages.
"""

import base64
import hmac
from hashlib import sha256
from urllib.parse import parse_qs, quote

from hubmirror.testing.answers import Answer, errorAnswer, jsonAnswer
from hubmirror.testing.contents import Contents
from hubmirror.testing.settings import RegistrySettings
from hubmirror.testing.wire import HubRequest

_KEY = b"the key of links: made up, and no secret"


class TagPages:
    """
    Responds at C{/v2/NAME/tags/list}, with a C{Link} to the next page (RFC 8288) when there is one.
    """

    def __init__(self, contents: Contents, settings: RegistrySettings) -> None:
        self._contents = contents
        self._settings = settings

    def serve(self, request: HubRequest, name: str) -> Answer:
        """
        Respond with one page.
        """
        query = {key: values[0] for key, values in parse_qs(request.query).items()}
        last = self._last(query, name)
        if last is None:
            return errorAnswer(405, "UNSUPPORTED", "Invalid parameter next_page")
        tags = sorted(tag for tag in self._contents.repository(name).tags if tag > last)
        size = request.number("n", self._settings.tagsPerPage or len(tags), least=0)
        if size is None:
            return errorAnswer(400, "PAGINATION_NUMBER_INVALID", "invalid number of results")
        page = tags[:size]
        fields = {}
        if page and len(page) < len(tags):
            next = self._next(name, page)
            fields["Link"] = f'</v2/{name}/tags/list?{next}>; rel="next"'
        return jsonAnswer(200, {"name": name, "tags": page}, fields)

    def _next(self, name: str, page: list[str]) -> str:
        if self._settings.opaqueLinks:
            return f"next_page={quote(_seal(name, page[-1]), safe='')}&n={len(page)}"
        return f"last={quote(page[-1])}&n={len(page)}"

    def _last(self, query: dict[str, str], name: str) -> str | None:
        """
        The tag after which the page begins; L{None} when C{next_page} is invalid.
        """
        if not self._settings.opaqueLinks:
            return query.get("last", "")
        return _unseal(name, query["next_page"]) if "next_page" in query else ""


def _seal(name: str, tag: str) -> str:
    """
    A signed text that stands for a tag of one repository.  It ends with C{=}, so that it becomes
    invalid if a client or mirror decodes the link.
    """
    signature = hmac.digest(_KEY, f"{name}:{tag}".encode(), sha256)[:10]
    sealed = base64.b64encode(signature + tag.encode()).decode()
    return f"{sealed}=" if not sealed.endswith("=") else sealed


def _unseal(name: str, sealed: str) -> str | None:
    try:
        tag = base64.b64decode(sealed.rstrip("=") + "===")[10:].decode()
    except ValueError:
        return None
    return tag if hmac.compare_digest(_seal(name, tag).encode(), sealed.encode()) else None
