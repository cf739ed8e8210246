"""Tests of the page in memory: which clients get it, and what it contains."""

import json
import re
from base64 import b64encode
from hashlib import sha256
from html import unescape
from importlib.resources import files
from typing import Any
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.config import RegistryConfig
from hubmirror.operations.clientconfig import CLIENTS, MirrorURL, Unusable, settingsFor
from hubmirror.page import languages, view
from hubmirror.page.languages import chooseLanguage, translate
from hubmirror.page.search import readFound
from tests.wire.support import MemoryCase, answer

HTML = ((b"Accept", b"text/html,application/xhtml+xml,*/*;q=0.8"),)
ACCEPTED = b"application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"
INDEX = {
    "num_pages": 3,
    "results": [
        {"name": "nginx", "description": "<b>web</b> & more", "star_count": 7, "is_official": True},
        {"name": "bitnami/nginx", "description": None, "star_count": 2, "is_official": False},
    ],
}


def found(document: Any = INDEX) -> Any:
    return answer(200, json.dumps(document).encode())


class PageCase(MemoryCase):
    def page(self, target: bytes = b"/", *fields: tuple[bytes, bytes], **other: Any) -> str:
        """Get the page, for which no upstream is asked."""
        got = self.local(target, fields=(*HTML, *fields), **other)
        self.assertEqual(got.status, 200)
        self.assertEqual(got.values(b"Content-Type"), [b"text/html; charset=utf-8"])
        self.got = got
        return got.body.decode()


class RouteTests(PageCase):
    options = {"registries": ["ghcr.io"]}

    def test_browser(self) -> None:
        html = self.page()
        self.assertTrue(html.startswith("<!DOCTYPE html>"))
        self.assertIn("http://mirror.example", html)
        self.assertEqual(self.exchanges[-1].status, 200)

    def test_head(self) -> None:
        got = self.local(b"/", fields=HTML, method=b"HEAD")
        self.assertEqual((got.status, got.body), (200, b""))

    def test_clients(self) -> None:
        """Clients of registries still get the registry's response."""
        for fields in ((), ((b"Accept", ACCEPTED),), ((b"Accept", b"*/*"),)):
            asked, got = self.exchange(b"/", answer(404, b"none"), fields=fields)
            self.assertEqual((asked.target, got.status), (b"/", 404))

    def test_elsewhere(self) -> None:
        """There is a page only at the root."""
        for target in (b"/v2/", b"/x", b"/v2/library/a/manifests/1", b"/ghcr.io/v2/"):
            _, got = self.exchange(target, answer(404, b"none"), fields=HTML)
            self.assertEqual((got.status, got.body), (404, b"none"), target)

    def test_methods(self) -> None:
        _, got = self.exchange(b"/", answer(404, b"none"), fields=HTML, method=b"POST", body=b"")
        self.assertEqual(got.status, 404)

    def test_off(self) -> None:
        self.configure(page=False)
        _, got = self.exchange(b"/", answer(404, b"none"), fields=HTML)
        self.assertEqual(got.body, b"none")

    def test_fields(self) -> None:
        """The policy allows the style and script in the document, and nothing else."""
        html = self.page()
        [policy] = self.got.values(b"Content-Security-Policy")
        self.assertNotIn(b"unsafe", policy)
        self.assertIn(b"default-src 'none'", policy)
        for name, tag in ((b"style-src", "style"), (b"script-src", 'script type="module"')):
            _, _, rest = html.partition(f"<{tag}>")
            content = rest.partition(f"</{tag.split()[0]}>")[0]
            digest = b64encode(sha256(content.encode()).digest())
            self.assertIn(name + b" 'sha256-" + digest + b"'", policy)
        self.assertEqual(re.findall(r" (?:style|on\w+)=", html), [])
        self.assertEqual(re.findall(r'(?:src|href)="(?!\?|data:,)', html), [])
        for name, value in (
            (b"Cache-Control", b"no-store"),
            (b"Referrer-Policy", b"no-referrer"),
            (b"X-Content-Type-Options", b"nosniff"),
            (b"Vary", b"Accept, Accept-Language"),
        ):
            self.assertEqual(self.got.values(name), [value])
        self.assertEqual(self.got.values(b"Access-Control-Allow-Origin"), [])

    def test_denied(self) -> None:
        """The operator's rules apply to the page."""
        self.configure(deny_client=["192.0.2.0/24"])
        got = self.local(b"/", fields=HTML)
        self.assertEqual((got.status, got.error), (403, "DENIED"))


class SecretTests(PageCase):
    options = {"secret_path": "k3yk3yk3yk3yk3yk3yk3y"}

    def test_only(self) -> None:
        """If there is a secret path, the page is only below it."""
        for target in (b"/k3yk3yk3yk3yk3yk3yk3y", b"/k3yk3yk3yk3yk3yk3yk3y/"):
            self.assertIn("/k3yk3yk3yk3yk3yk3yk3y", self.page(target))
        got = self.local(b"/", fields=HTML)
        self.assertEqual(got.status, 404)
        self.assertNotIn(b"<html", got.body)


class ContentTests(PageCase):
    options = {
        "registries": ["ghcr.io"],
        "public_url": "https://mirror.example/hub",
        "auth_url": "https://auth.docker.io/token",
    }

    def test_settings(self) -> None:
        """The settings are those of client-config, for the mirror's own address."""
        html = unescape(self.page())
        url = MirrorURL("https", "mirror.example", "/hub")
        for client in ("docker", "containerd", "podman", "buildkit", "k3s", "cri-o"):
            for file in settingsFor(client, url, ["docker.io", "ghcr.io"]):
                self.assertIn(f">{file.text}</pre>", html)
                self.assertIn(f"<code>{file.path}</code>", html)

    def test_host(self) -> None:
        """Without a public URL, the address is the one that the browser used."""
        self.configure()
        self.assertIn("http://mirror.example:8080", self.page(host=b"mirror.example:8080"))

    def test_languages(self) -> None:
        self.assertIn('<html lang="en">', self.page())
        html = self.page(b"/", (b"Accept-Language", b"zh-CN,zh;q=0.9,en;q=0.8"))
        self.assertIn('<html lang="zh-CN">', html)
        self.assertIn("客户端设置", html)
        self.assertIn('<html lang="en">', self.page(b"/?lang=en", (b"Accept-Language", b"zh")))
        self.assertIn('<html lang="zh-CN">', self.page(b"/?lang=zh"))

    def test_search(self) -> None:
        """The search works without a script; the index is sent none of the browser's fields."""
        fields = (*HTML, (b"Cookie", b"a=b"), (b"Authorization", b"Basic eDp5"))
        asked, got = self.exchange(b"/?q=library/ngin%78&lang=en", found(), fields=fields)
        self.assertEqual(asked.target, b"/v1/search?q=nginx&n=25&page=1")
        self.assertEqual(asked.values(b"Accept"), [b"application/json"])
        for name in (b"Cookie", b"Authorization", b"User-Agent"):
            self.assertEqual(asked.values(name), [])
        html = got.body.decode()
        self.assertEqual(got.status, 200)
        self.assertIn("&lt;b&gt;web&lt;/b&gt; &amp; more (official, 7 stars)", html)
        self.assertIn(">docker pull mirror.example/hub/nginx</pre>", html)
        self.assertIn(">docker pull mirror.example/hub/bitnami/nginx</pre>", html)
        self.assertIn('data-repository="library/nginx"', html)
        self.assertIn('data-repository="bitnami/nginx"', html)
        self.assertIn('href="?lang=en&amp;q=library%2Fnginx&amp;page=2#search"', html)

    def test_lastPage(self) -> None:
        asked, got = self.exchange(b"/?q=nginx&page=3", found(), fields=HTML)
        self.assertTrue(asked.target.endswith(b"page=3"))
        self.assertNotIn("page=4", got.body.decode())

    def test_manyPages(self) -> None:
        """The last page that the mirror asks for has no link to another one."""
        for page, isLast in ((99, False), (100, True), (101, True)):
            asked, got = self.exchange(
                b"/?q=nginx&page=%d" % page, found({**INDEX, "num_pages": 4000}), fields=HTML
            )
            self.assertTrue(asked.target.endswith(b"page=%d" % min(page, 100)))
            self.assertEqual("Next page" not in got.body.decode(), isLast)

    def test_ofAnother(self) -> None:
        """
        A registry with an index of its own, which a host of the mirror stands for, is not the Hub.
        """
        registry = RegistryConfig(
            name="quay.test",
            url="https://quay.test",
            auth_url="https://quay.test/token",
            search_url="https://quay.test",
            hosts=["quay.example"],
        )
        self.configure(registries=[registry])
        client = self.send(b"/?q=library/nginx", fields=HTML, host=b"quay.example")
        self.assertEqual(self.asked().target, b"/v1/search?q=library%2Fnginx&n=25&page=1")
        self.network.lines[-1].says(found())
        # The service of the token service is not known.
        self.network.lines[-1].says(answer(200, b"{}"))
        html = self.answered(client).body.decode()
        self.assertIn(">Search quay.test</h2>", html)
        self.assertIn('data-repository="nginx"', html)
        self.assertIn(">Search Docker Hub</h2>", self.page())

    def test_nothing(self) -> None:
        _, got = self.exchange(b"/?q=x", found({"results": []}), fields=HTML)
        self.assertIn("Nothing was found.", got.body.decode())

    def test_brokenIndex(self) -> None:
        """If the search fails, the rest of the page is shown."""
        for reply in (
            answer(200, b"<html>"),
            answer(200, b"{}"),
            answer(200, b"[" * 60000),
            answer(404, b"none"),
        ):
            _, got = self.exchange(b"/?q=x", reply, fields=HTML)
            html = got.body.decode()
            self.assertGreaterEqual(got.status, 500)
            self.assertIn("The search does not answer now.", html)
            self.assertIn("daemon.json", html)

    def test_noIndex(self) -> None:
        self.network.refuses.add(b"index.example")
        got = self.local(b"/?q=x", fields=HTML)
        self.assertEqual(got.status, 502)
        self.assertIn("The search does not answer now.", got.body.decode())

    def test_limit(self) -> None:
        """
        A search that exceeds the operator's limits is refused and counted like other requests.
        """
        self.configure(client_streams=1, queue_timeout=1)
        self.send(b"/v2/library/a/blobs/sha256:" + b"0" * 64)
        client = self.send(b"/?q=x", fields=HTML)
        self.clock.advance(1)
        got = self.answered(client)
        self.assertEqual((got.status, got.error), (429, "TOOMANYREQUESTS"))
        self.assertEqual(self.exchanges[-1].rule, "client-streams")

    def test_queries(self) -> None:
        """Unknown or invalid parameters are ignored."""
        for query in (b"a=b", b"q=", b"page=-1", b"page=%F0", b"&".join([b"a=1"] * 50), b"lang=xx"):
            self.assertNotIn("does not answer", self.page(b"/?" + query))

    def test_noSearch(self) -> None:
        """There is no search when the mirror's name stands for a registry without an index."""
        registry = RegistryConfig(name="ghcr.io", hosts=["ghcr.example"])
        self.configure(registries=[registry])
        html = self.page(b"/?q=x", host=b"ghcr.example")
        self.assertNotIn("<form", html)

    def test_hostOfAnother(self) -> None:
        """Under a host that stands for a registry, there are settings for this registry alone."""
        registry = RegistryConfig(name="ghcr.io", hosts=["ghcr.example"])
        self.configure(registries=[registry])
        html = self.page(host=b"ghcr.example")
        self.assertIn("certs.d/ghcr.io/hosts.toml", html)
        self.assertNotIn("docker.io", html)
        self.assertNotIn("registry-mirrors", html)


class StateTests(PageCase):
    options = {"fallback": ["https://other.example"]}

    def state(self) -> list[str]:
        html = self.page()
        [row] = re.findall(r"<tbody><tr>(.*?)</tr>", html)
        return re.findall(r"<td>(.*?)</td>", row)

    def test_known(self) -> None:
        self.assertEqual(self.state(), ["docker.io", "reachable", "not known"])

    def test_quota(self) -> None:
        """The page shows the pulls that are left to all, and not those of an account."""
        for subject, left, shown in (
            ("alice", 150, "not known"),
            ("", 70, "70 of 100"),
            ("alice", 149, "70 of 100"),
        ):
            payload = b64encode(json.dumps({"sub": subject}).encode()).rstrip(b"=")
            quota = (
                (b"RateLimit-Limit", b"%d;w=21600" % (200 if subject else 100)),
                (b"RateLimit-Remaining", b"%d;w=21600" % left),
            )
            _, got = self.exchange(
                b"/v2/library/a/manifests/1",
                answer(200, b"{}", quota),
                fields=((b"Authorization", b"Bearer e30." + payload + b".x"),),
            )
            self.assertEqual(got.status, 200)
            self.assertEqual(self.state(), ["docker.io", "reachable", shown])

    def test_down(self) -> None:
        """The page reveals neither the upstreams nor the reason why one is down."""
        [registry] = self.mirror.service._mirror.settings.registries.values()
        hub, other = registry.upstreams
        registry.health.failed(hub, "search", "secret reason")
        self.assertEqual(self.state()[1], "reachable")
        registry.health.failed(hub, "token", "secret reason")
        self.assertEqual(self.state()[1], "reachable through another upstream")
        registry.health.failed(other, "blobs", "secret reason")
        self.assertEqual(self.state()[1], "not reachable now")
        self.assertNotIn("secret reason", self.page())
        self.assertNotIn("other.example", self.page())


class TextTests(SynchronousTestCase):
    def test_complete(self) -> None:
        """Each text has a Chinese translation, and no translation is unused."""
        said = set()

        def note(text: str, language: str) -> str:
            said.add(text)
            return translate(text, language)

        self.patch(view, "translate", note)
        url = MirrorURL("https", "m.example", "/p")
        states = ("reachable", "reachable through another upstream", "not reachable now")
        for mirror in (url, MirrorURL("http", "m.example", "/P")):
            for results in (None, {"results": []}, INDEX):
                shown = view.View(
                    "zh",
                    mirror,
                    [view.RegistryState("docker.io", state, 1, 2) for state in states],
                    0,
                    "Docker Hub",
                    bytes,
                    term="x",
                    found=None if results is None else readFound(json.dumps(results).encode(), 1),
                )
                self.successResultOf(view.renderPage(shown))
        plain = view.View("zh", url, [view.RegistryState("a", "reachable")], 0, "", bytes)
        self.successResultOf(view.renderPage(plain))
        self.assertEqual(said, set(languages._CHINESE))

    def test_allNotes(self) -> None:
        for client in CLIENTS:
            try:
                settings = settingsFor(client, MirrorURL("http", "m", ""), ["docker.io", "a.b"])
            except Unusable:
                continue
            for file in settings:
                for line in file.note.splitlines():
                    translate(line, "zh")

    def test_template(self) -> None:
        """Every text of the template is marked for translation."""
        text = (files("hubmirror.page") / "page.html").read_text("utf-8")
        name = "{http://twistedmatrix.com/ns/twisted.web.template/0.1}render"
        for element in ElementTree.fromstring(text).iter():
            if (element.text or "").strip(" \n") and element.tag not in ("style", "script"):
                self.assertEqual(element.get(name), "say", element.text)

    def test_chosen(self) -> None:
        for asked, accepted, language in (
            ([], [], "en"),
            ([], ["zh"], "zh"),
            ([], ["zh-TW;q=0.5, en;q=0.4"], "zh"),
            ([], ["zh;q=0.4, en-GB;q=0.5"], "en"),
            ([], ["de, zh;q=0.1"], "zh"),
            ([], ["zh;q=0"], "en"),
            ([], ["zh;q=x, *"], "en"),
            ([], ["zh;level=1"], "en"),
            ([], ["en", "zh"], "en"),
            (["zh"], ["en"], "zh"),
            (["fr", "zh"], ["en"], "zh"),
        ):
            self.assertEqual(chooseLanguage(asked, accepted), language, (asked, accepted))

    @given(st.lists(st.text()), st.lists(st.text()))
    def test_anyLanguage(self, asked: list[str], accepted: list[str]) -> None:
        self.assertIn(chooseLanguage(asked, accepted), languages.LANGUAGES)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.sampled_from(["results", "name", "num_pages"]) | st.text(), inner)
    ),
)


class SearchTests(SynchronousTestCase):
    @given(st.binary() | JSON.map(lambda found: json.dumps(found).encode()))
    def test_any(self, body: bytes) -> None:
        """Any response of an index is read or refused."""
        try:
            read = readFound(body, 1)
        except ValueError:
            return
        for hit in read.hits:
            self.assertIsInstance(hit.name, str)
            self.assertIsInstance(hit.description, str)

    def test_tooMany(self) -> None:
        hits = [{"name": str(number)} for number in range(100)]
        self.assertEqual(len(readFound(json.dumps({"results": hits}).encode(), 1).hits), 25)
