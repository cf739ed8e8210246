"""
The search index of the Hub's first API, which C{docker search} still uses.
"""

from urllib.parse import parse_qs

from hubmirror.testing.answers import Answer, errorAnswer, jsonAnswer
from hubmirror.testing.contents import Contents
from hubmirror.testing.wire import HubRequest


class Search:
    """
    Responds at C{/v1/search}.  The names of official repositories lack C{library/} there, so that a
    search for C{library/hello} finds nothing, as at the Hub.
    """

    def __init__(self, contents: Contents) -> None:
        self._contents = contents

    def serve(self, request: HubRequest) -> Answer:
        """
        Respond to a request to the index.
        """
        if request.path != b"/v1/search":
            return errorAnswer(404, "NOT_FOUND", "there is only /v1/search here")
        query = parse_qs(request.query)
        term = query.get("q", [""])[0]
        size, page = request.number("n", 25, least=1), request.number("page", 1, least=1)
        if size is None or page is None:
            return errorAnswer(400, "INVALID", "n and page are numbers from 1 on")
        found = [entry for entry in self._entries() if term in str(entry["name"])]
        return jsonAnswer(
            200,
            {
                "query": term,
                "num_results": len(found),
                "num_pages": -(-len(found) // size),
                "page": page,
                "page_size": size,
                "results": found[(page - 1) * size : page * size],
            },
        )

    def _entries(self) -> list[dict[str, object]]:
        return [
            {
                "name": name.removeprefix("library/"),
                "description": f"{name}, of the embedded Hub",
                "star_count": 0,
                "is_official": name.startswith("library/"),
                "is_automated": False,
            }
            for name in sorted(self._contents.repositories)
            if not self._contents.isPrivate(name)
        ]
