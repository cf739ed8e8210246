"""
Reading what the index has found (Docker Registry HTTP API V1, "Search").
"""

from __future__ import annotations

import json
from typing import Any

import attrs

PAGE_SIZE = 25
"""
How many hits a page has.
"""


@attrs.frozen
class Hit:
    """
    @ivar name: the repository's name, as the Hub shows it: without C{library/}.
    """

    name: str
    description: str
    stars: int
    isOfficial: bool


@attrs.frozen
class Found:
    """
    @ivar hits: those of one page.
    @ivar page: its number, from 1 on.
    @ivar isLast: there is no page after it.
    """

    hits: tuple[Hit, ...]
    page: int = 1
    isLast: bool = True


def readFound(body: bytes, page: int) -> Found:
    """
    Read an answer of the index.  What has another form than it should is left out.

    @raise ValueError: when the answer is not what an index sends.
    """
    try:
        answer = json.loads(body)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None
    results = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(results, list):
        raise ValueError("no list of results")
    pages = answer.get("num_pages")
    hits = tuple(hit for each in results[:PAGE_SIZE] if (hit := _hit(each)) is not None)
    return Found(hits, page, not isinstance(pages, int) or page >= pages)


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
