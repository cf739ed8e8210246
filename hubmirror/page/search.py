"""
Reads the results of a search (Docker Registry HTTP API V1, "Search").
"""

from __future__ import annotations

import json
from typing import Any

import attrs

PAGE_SIZE = 25
"""
The number of hits on a page.
"""

MOST_PAGES = 100
"""
The number of the last page that can be requested.
"""


@attrs.frozen
class Hit:
    """
    A repository that a search has found.

    @ivar name: the repository's name, at the Hub without C{library/}.
    @ivar description: its description; may be empty.
    @ivar stars: how many users have starred it.
    @ivar isOfficial: whether it is an official image.
    """

    name: str
    description: str
    stars: int
    isOfficial: bool


@attrs.frozen
class Found:
    """
    One page of the results of a search.

    @ivar hits: the hits on the page.
    @ivar page: the number of the page; the first is 1.
    @ivar isLast: whether it is the last page.
    """

    hits: tuple[Hit, ...]
    page: int = 1
    isLast: bool = True


def readFound(body: bytes, page: int) -> Found:
    """
    Read the body of the index's response.  Malformed hits are left out.

    @param page: the number of the page that was requested.
    @raise ValueError: when the body is not JSON with a list of results.
    """
    try:
        answer = json.loads(body)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None
    results = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(results, list):
        raise ValueError("no list of results")
    pages = answer.get("num_pages")
    isLast = not isinstance(pages, int) or page >= min(pages, MOST_PAGES)
    hits = tuple(hit for each in results[:PAGE_SIZE] if (hit := _hit(each)) is not None)
    return Found(hits, page, isLast)


def _hit(result: Any) -> Hit | None:
    if not isinstance(result, dict) or not isinstance(result.get("name"), str):
        return None
    description, stars = result.get("description"), result.get("star_count")
    return Hit(
        result["name"],
        description if isinstance(description, str) else "",
        stars if isinstance(stars, int) else 0,
        result.get("is_official") is True,
    )
