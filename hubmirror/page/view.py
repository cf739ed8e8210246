"""
Renders the page as HTML, from a template and the values to show.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

import attrs
from twisted.internet.defer import Deferred
from twisted.web.template import Element, Tag, XMLString, flattenString, renderer, tags

from hubmirror.operations.clientconfig import MirrorURL, Unusable, settingsFor
from hubmirror.page.languages import LANGUAGES, translate
from hubmirror.page.search import Found, Hit

_FOLDER = files("hubmirror.page")
_STYLE = (_FOLDER / "page.css").read_bytes()
_SCRIPT = (_FOLDER / "page.js").read_bytes()
_LOADER = XMLString((_FOLDER / "page.html").read_text("utf-8"))
_CLIENTS = {
    "docker": "Docker",
    "containerd": "containerd, nerdctl",
    "podman": "Podman, Buildah, Skopeo",
    "buildkit": "BuildKit",
    "k3s": "k3s",
    "cri-o": "CRI-O",
}


def _hash(content: bytes) -> str:
    return f"'sha256-{b64encode(sha256(content).digest()).decode('ascii')}'"


POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src {_hash(_STYLE)}",
        f"script-src {_hash(_SCRIPT)}",
        "connect-src 'self'",
        "img-src data:",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
).encode("ascii")
"""
The page's C{Content-Security-Policy} (Content Security Policy Level 3).  It allows only the page's
own style and script.  They are part of the document, so that the mirror needs no paths for them.
"""


@attrs.frozen
class RegistryState:
    """
    The state of a registry, as far as it is public.

    @ivar name: the registry's name.
    @ivar state: the state in English, which is one of the texts in L{hubmirror.page.languages}.
    @ivar remaining: how many pulls without an account are left; C{None} when that is not known.
    @ivar limit: how many of them a window has; C{None} when that is not known.
    """

    name: str
    state: str
    remaining: int | None = None
    limit: int | None = None


@attrs.frozen
class View:
    """
    The values that the page shows.

    @ivar language: the tag of one of L{LANGUAGES}.
    @ivar mirror: the mirror's URL for clients.
    @ivar registries: the states of the mirror's registries.
    @ivar streams: the number of responses in progress.
    @ivar searched: the name of the registry whose index is searched; empty when it has none.
    @ivar complete: completes the name of a repository of this registry.
    @ivar term: the search term; may be empty.
    @ivar found: the results; C{None} when the index was not asked or gave no usable response.
    @ivar tokens: the path and query with which the script gets tokens for the registry, to which it
        adds a scope; empty when it needs no token.
    """

    language: str
    mirror: MirrorURL
    registries: Sequence[RegistryState]
    streams: int
    searched: str
    complete: Callable[[bytes], bytes]
    term: str = ""
    found: Found | None = None
    tokens: str = ""


def renderPage(view: View) -> Deferred[bytes]:
    """
    Render the document.

    @return: a deferred that fires with the HTML in UTF-8.
    """

    def completed(html: bytes) -> bytes:
        # The template would escape the style and script.  The first occurrence of each placeholder
        # is the template's own, since both come before any value from outside.
        html = html.replace(b"$STYLE", _STYLE, 1).replace(b"$SCRIPT", _SCRIPT, 1)
        return b"<!DOCTYPE html>\n" + html + b"\n"

    return flattenString(None, _Page(view)).addCallback(completed)


class _Page(Element):
    loader = _LOADER

    def __init__(self, view: View) -> None:
        super().__init__()
        self._view = view
        self._codes = 0

    def _say(self, text: str) -> str:
        return translate(text, self._view.language)

    @renderer
    def say(self, _request: Any, tag: Tag) -> Tag:
        """
        Translate the text of an element.
        """
        text = " ".join("".join(map(str, tag.children)).split())
        tag.clear()
        return tag(self._say(text))

    @renderer
    def document(self, _request: Any, tag: Tag) -> Tag:
        view = self._view
        tag.fillSlots(
            authority=view.mirror.authority,
            language=view.language,
            term=view.term,
            streams=str(view.streams),
        )
        return tag(lang="zh-CN" if view.language == "zh" else view.language)

    @renderer
    def languages(self, _request: Any, tag: Tag) -> Tag:
        view = self._view
        for language, name in LANGUAGES.items():
            query = {"lang": language, **({"q": view.term} if view.term else {})}
            link = tags.a(name, href=f"?{urlencode(query)}", hreflang=language, lang=language)
            tag(link(**{"aria-current": "true"}) if language == view.language else link)
        return tag(**{"aria-label": self._say("Language")})

    @renderer
    def searching(self, _request: Any, tag: Tag) -> Tag | str:
        return tag if self._view.searched else ""

    @renderer
    def searchTitle(self, _request: Any, tag: Tag) -> Tag:
        return tag(self._say("Search {registry}").format(registry=self._view.searched))

    @renderer
    def found(self, _request: Any, tag: Tag) -> Tag | str:
        view = self._view
        if not view.term:
            return ""
        if view.found is None:
            return tag(tags.p(self._say("The search does not answer now. Try again later.")))
        if not view.found.hits:
            return tag(tags.p(self._say("Nothing was found.")))
        tag(tags.ol([self._hit(hit) for hit in view.found.hits], class_="hits"))
        if not view.found.isLast:
            query = {"lang": view.language, "q": view.term, "page": view.found.page + 1}
            tag(
                tags.p(
                    tags.a(self._say("Next page"), href=f"?{urlencode(query)}#search", rel="next")
                )
            )
        return tag

    def _hit(self, hit: Hit) -> Tag:
        mirror = self._view.mirror
        facts = [f"{hit.stars} {self._say('stars')}"]
        if hit.isOfficial:
            facts.insert(0, self._say("official"))
        repository = self._view.complete(hit.name.encode()).decode()
        code, button = self._code(f"docker pull {mirror.authority}{mirror.path}/{hit.name}")
        list_ = f"tags-{self._codes}"
        return tags.li(
            tags.h3(hit.name),
            tags.p(f"{hit.description} ({', '.join(facts)})".strip()),
            code,
            button,
            " ",
            tags.button(
                self._say("Tags"),
                tags.span(f" {hit.name}", class_="aside"),
                type="button",
                hidden="hidden",
                **{
                    "data-repository": repository,
                    "data-list": list_,
                    "data-base": mirror.path,
                    "data-tokens": self._view.tokens,
                },
            ),
            tags.ul(id=list_, class_="tags"),
            class_="hit",
        )

    def _code(self, text: str, of: str = "") -> tuple[Tag, Tag]:
        """
        A text to copy, and the button that copies it.

        @param of: a name for the text, which screen readers read with the button.
        """
        self._codes += 1
        name = f"code-{self._codes}"
        button = tags.button(
            self._say("Copy"),
            tags.span(f" {of or text}", class_="aside"),
            type="button",
            hidden="hidden",
            **{"data-copies": name},
        )
        return tags.pre(text, id=name), button

    @renderer
    def clients(self, _request: Any, tag: Tag) -> Tag:
        for client, name in _CLIENTS.items():
            tag(tags.details(tags.summary(name), [*self._settings(client)]))
        return tag

    def _settings(self, client: str) -> Iterator[Tag]:
        view = self._view
        try:
            names = [registry.name for registry in view.registries]
            settings = settingsFor(client, view.mirror, names)
        except Unusable:
            missing = "There are no settings for this client and this address."
            yield tags.div(tags.p(self._say(missing)), class_="file")
            return
        for file in settings:
            code, button = self._code(file.text, file.path)
            note = "\n".join(map(self._say, file.note.splitlines()))
            yield tags.div(tags.p(tags.code(file.path)), code, button, tags.p(note), class_="file")

    @renderer
    def registries(self, _request: Any, tag: Tag) -> Tag:
        for registry in self._view.registries:
            left = self._say("not known")
            if registry.remaining is not None:
                left = str(registry.remaining)
                if registry.limit is not None:
                    left = self._say("{remaining} of {limit}").format(
                        remaining=registry.remaining, limit=registry.limit
                    )
            cells = (registry.name, self._say(registry.state), left)
            tag(tags.tr([tags.td(cell) for cell in cells]))
        return tag

    @renderer
    def messages(self, _request: Any, tag: Tag) -> Tag:
        """
        Add the messages that the script may show, in the language of the page.
        """
        return tag(
            **{
                "data-copied": self._say("Copied."),
                "data-selected": self._say("Selected; copy it with your keyboard."),
                "data-failed": self._say("The tags can't be had now. Try again later."),
                "data-none": self._say("There are no tags."),
                "data-tags": self._say("tags"),
            }
        )
