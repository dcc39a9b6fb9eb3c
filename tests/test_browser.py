"""The pages in headless Chromium, on a phone and on a desk, light and dark.

`HEADSTART_SCREENSHOTS=<folder>` keeps what they look like.
"""

import os
import sys
from pathlib import Path

import pytest
from browser import SCHEMES, SIZES, chromium, executable, look_at
from photos import pictures

import compare
from headstart.training import train

LONG = ['<b>bold & "quoted"', "Donaudampfschifffahrtsgesellschaftskapitaenswitwe", "c d e"]


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture
def page(composed, tmp_path):
    """The page about a run of two stages on pictures whose class names are as bad as they may be."""
    executable()
    pictures(tmp_path / "photos", LONG, 12)
    train(composed(
        "data=image_folder", f"data.root={tmp_path / 'photos'}", "trainer=cpu", "trainer.max_epochs=2",
        "model.image_size=16", "trainer.enable_progress_bar=false", "finetuning=unfreeze_at", "finetuning.epoch=1",
        "report=true",
    ))  # fmt: skip
    return tmp_path / "run" / "report.html"


def check(browser, page, name):
    kept = os.environ.get("HEADSTART_SCREENSHOTS")
    for size in SIZES:
        for scheme in SCHEMES:
            seen = look_at(browser, page, size, scheme)
            where = f"{name}_{size[0]}_{scheme}"
            if kept:
                (Path(kept) / f"{where}.png").write_bytes(seen.screenshot)
            for what in ("console", "requests", "broken", "nameless", "violations"):
                assert getattr(seen, what) == [], f"{where}: {what}"
            assert seen.overflow <= 0, f"{where} is {seen.overflow} pixels too wide"
            assert len(seen.screenshot) > 20_000, where


def test_the_report(browser, page):
    check(browser, page, "report")


def test_the_comparison(browser, quick, tmp_path, monkeypatch):
    for place, name in enumerate(("full", "feature_extraction")):
        train(quick(f"finetuning={name}", f"paths.run={tmp_path / str(place)}", "trainer.max_epochs=1", "report=true"))
    monkeypatch.setattr(
        sys, "argv", ["compare.py", str(tmp_path / "0"), str(tmp_path / "1"), "--output", str(tmp_path)]
    )
    compare.main()
    assert (tmp_path / "comparison.html").read_text().count("<tr>") == 3 + 2 + 3
    check(browser, tmp_path / "comparison.html", "comparison")


def test_the_report_on_paper_is_light_and_not_cut_off(browser, page):
    opened = browser.new_page(viewport={"width": 720, "height": 1000}, color_scheme="dark")
    opened.goto(page.as_uri())
    opened.emulate_media(media="print", color_scheme="dark")
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert opened.evaluate("document.documentElement.scrollWidth") <= 720
    assert opened.pdf(format="A4").startswith(b"%PDF")


def test_the_check_notices_what_is_wrong(browser, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<!doctype html><html lang="en"><title>x</title><main><h1>x</h1><p style="color:#ccc;background:#fff">pale</p>'
        '<img src="http://localhost:9/x.png"><div style="width:2000px">wide</div></main>'
        "<script>console.error('no')</script></html>"
    )
    seen = look_at(browser, bad, SIZES[0], "light")
    assert any("no" in line for line in seen.console)
    assert seen.requests == ["http://localhost:9/x.png"]
    assert len(seen.broken) == len(seen.nameless) == 1
    assert seen.overflow > 1000
    assert {line.split(":")[0] for line in seen.violations} >= {"color-contrast", "image-alt"}
