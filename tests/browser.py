"""What a page is in a browser: headless Chromium, as playwright drives it."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SIZES = ((360, 740), (1280, 800))
SCHEMES = ("light", "dark")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


def executable() -> str:
    """The browser; skips the test where there is none, and says why. `HEADSTART_BROWSER` names and demands one."""
    demanded = os.environ.get("HEADSTART_BROWSER")
    if not demanded:
        pytest.importorskip("playwright", reason='needs pip install -e ".[browser]"')
        pytest.importorskip("axe_playwright_python", reason='needs pip install -e ".[browser]"')
    found = demanded or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"there is no browser: none of {', '.join(NAMES)} is on the path")
    return found


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser that reaches nothing but files."""
    path = executable()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Seen:
    """What a page did and looked like.

    Attributes:
        console: warnings and errors.
        requests: addresses that were asked for, beside the page and what it holds itself.
        broken: pictures that did not load.
        nameless: pictures and figures without a text for who does not see them.
        overflow: pixels by which the page is wider than the window.
        violations: what axe-core says against its accessibility, contrast included.
        screenshot: of the whole page.
    """

    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    nameless: list[str] = field(default_factory=list)
    overflow: int = 0
    violations: list[str] = field(default_factory=list)
    screenshot: bytes = b""


def look_at(
    browser: Any, place: Path | str, size: tuple[int, int], scheme: str, act: Callable[[Any], None] = lambda page: None
) -> Seen:
    """Opens a page, a file or an address, in a window of this size, light or dark, and does with it what `act` does."""
    address = place if isinstance(place, str) else place.as_uri()
    from axe_playwright_python.sync_playwright import Axe

    seen, page = (
        Seen(),
        browser.new_page(viewport=dict(zip(("width", "height"), size, strict=True)), color_scheme=scheme),
    )
    page.on("console", lambda message: seen.console.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: seen.console.append(str(error)))
    page.on("request", lambda request: seen.requests.append(request.url))
    page.goto(address, wait_until="load")
    act(page)
    own = (address, "data:", "blob:")  # what a server's page asks of that server included
    seen.requests = [url for url in seen.requests if not url.startswith(own)]
    seen.broken = page.eval_on_selector_all(
        "img", "all => all.filter(i => !i.complete || !i.naturalWidth).map(i => i.alt || i.src.slice(0, 60))"
    )
    seen.nameless = page.eval_on_selector_all(
        "img, svg",
        "all => all.filter(i => !(i.getAttribute('alt') || i.getAttribute('aria-label'))).map(i => i.outerHTML)",
    )
    seen.overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    seen.screenshot = page.screenshot(full_page=True)
    found = Axe().run(page).response["violations"]
    seen.violations = [f"{v['id']}: {v['nodes'][0]['html'][:200]} ({len(v['nodes'])} times)" for v in found]
    page.close()
    return seen
