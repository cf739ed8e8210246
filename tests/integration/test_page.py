"""
The page in a real browser: headless Chromium, driven by playwright, with the checks of axe-core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright
from twisted.internet import reactor
from twisted.internet.threads import deferToThreadPool

from tests.integration.programs import require
from tests.operations.support import MirrorCase

WIDTHS = (360, 768, 1440)


class PageTests(MirrorCase):
    timeout = 240

    async def setUp(self) -> None:
        require("chromium")
        await super().setUp()
        self.hub.addImage("library/busybox", "musl", sizes=[1000])
        self.hub.addImage("tools/" + "long-name-" * 20 + "box", "1", sizes=[1000])

    def serve(self, **options: object) -> str:
        url = self.startMirror(port="tcp:0:interface=127.0.0.1", **options)
        return url.replace("https", "http")

    async def browse(self, look: Callable[[Any], None]) -> None:
        """
        Call a function with the browser, in a thread.
        """

        def work() -> None:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path="/usr/bin/chromium", args=["--no-sandbox"]
                )
                with browser:
                    look(browser)

        await deferToThreadPool(reactor, reactor.getThreadPool(), work)

    @contextmanager
    def opened(self, browser: Any, url: str, **options: Any) -> Iterator[Page]:
        """
        Open a page, on which the console must stay empty and no request may fail.
        """
        said: list[str] = []
        with browser.new_context(**options) as context, context.new_page() as page:
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("requestfailed", lambda request: said.append(request.url))
            page.goto(url)
            yield page
            self.assertEqual(said, [])

    async def test_everyWidth(self) -> None:
        """
        In light and dark mode, in both languages, with and without the script: nothing is cut off,
        and axe-core finds nothing.
        """
        url = self.serve(registries=["ghcr.io", "registry.k8s.io"])

        def look(browser: Any) -> None:
            axe = Axe()
            for width, scheme, locale, script in product(
                WIDTHS, ("light", "dark"), ("en-GB", "zh-CN"), (True, False)
            ):
                with self.opened(
                    browser,
                    f"{url}/?q=box",
                    viewport={"width": width, "height": 900},
                    color_scheme=scheme,
                    locale=locale,
                    java_script_enabled=script,
                ) as page:
                    place = (width, scheme, locale, script)
                    self.assertEqual(page.locator("html").get_attribute("lang")[:2], locale[:2])
                    self.assertEqual(page.locator("li.hit").count(), 2, place)
                    for summary in page.locator("summary").all():
                        summary.click()
                    box = page.locator("body").bounding_box()
                    self.assertLessEqual(box["width"], width)
                    for name in ("pre", "table", "h3", "button:visible", "form"):
                        for element in page.locator(name).all():
                            box = element.bounding_box()
                            self.assertLessEqual(box["x"] + box["width"], width, (place, name))
                    self.assertEqual(page.locator("button[data-copies]").first.is_visible(), script)
                    if script:
                        found = axe.run(page)
                        self.assertEqual(found.violations_count, 0, found.generate_report())

        await self.browse(look)

    async def test_copy(self) -> None:
        """
        The button copies the text beside it, and the reader is told.
        """
        url = self.serve()

        def look(browser: Any) -> None:
            permissions = ["clipboard-read", "clipboard-write"]
            with self.opened(browser, url, permissions=permissions) as page:
                page.get_by_text("Docker", exact=True).click()
                page.get_by_role("button", name="Copy /etc/docker/daemon.json").click()
                page.get_by_text("Copied.").wait_for()
                copied = page.evaluate("navigator.clipboard.readText()")
                self.assertIn(f'"registry-mirrors": [\n    "{url}"', copied)
            # Without the permission, and in a browser without a clipboard for such a page.
            for script in ("0", "delete Navigator.prototype.clipboard"):
                with self.opened(browser, url, permissions=[]) as page:
                    page.evaluate(script)
                    page.get_by_text("Docker", exact=True).click()
                    page.get_by_role("button", name="Copy /etc/docker/daemon.json").click()
                    page.get_by_text("Selected; copy it with your keyboard.").wait_for()
                    self.assertIn(url, page.evaluate("getSelection().toString()"))

        await self.browse(look)

    async def test_search(self) -> None:
        """
        A search works with the keyboard alone, and so do the tags of its results; also below a
        secret path.
        """
        secret = "k3yk3yk3yk3yk3yk3yk3y"
        urls = [f"{self.serve()}/", f"{self.serve(secret_path=secret)}/{secret}"]

        def look(browser: Any) -> None:
            for url in urls:
                with self.opened(browser, url) as page:
                    page.get_by_label("Name of an image").focus()
                    page.keyboard.type("alpine")
                    page.keyboard.press("Enter")
                    pull = page.locator("li.hit pre")
                    pull.wait_for()
                    address = url.removeprefix("http://").rstrip("/")
                    self.assertEqual(pull.text_content(), f"docker pull {address}/alpine")
                    self.assertIn("q=alpine", page.url)
                    page.get_by_role("button", name="Tags alpine").press("Enter")
                    page.get_by_text("3 tags").wait_for()
                    found = page.locator("ul.tags li").all_text_contents()
                    self.assertEqual(sorted(found), ["amd64", "arm64", "latest"])

        await self.browse(look)

    async def test_language(self) -> None:
        """
        Changing the language keeps the search.
        """
        url = self.serve()

        def look(browser: Any) -> None:
            with self.opened(browser, f"{url}/?q=alpine") as page:
                page.get_by_role("link", name="中文").click()
                page.get_by_role("heading", name="搜索 Docker Hub").wait_for()
                self.assertEqual(page.locator("li.hit").count(), 1)

        await self.browse(look)

    async def test_failedTags(self) -> None:
        """
        The reader is told when the tags are not available.
        """
        url = self.serve()

        def look(browser: Any) -> None:
            with browser.new_context() as context, context.new_page() as page:
                page.goto(f"{url}/?q=alpine")
                context.set_offline(True)
                page.get_by_role("button", name="Tags alpine").click()
                page.get_by_text("The tags can't be had now. Try again later.").wait_for()

        await self.browse(look)
