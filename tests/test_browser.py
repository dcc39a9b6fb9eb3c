"""The pages in headless Chromium, on a phone and on a desk, light and dark.

`HEADSTART_SCREENSHOTS=<folder>` keeps what they look like.
"""

import os
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from browser import SCHEMES, SIZES, chromium, executable, look_at
from photos import pictures

import compare
from headstart.evaluation.explanations.attribution import has_captum
from headstart.inference.classifier import Classifier
from headstart.tasks import checkpoint
from headstart.training.run import train

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


def check(browser, page, name, **options):
    kept = os.environ.get("HEADSTART_SCREENSHOTS")
    for size in SIZES:
        for scheme in SCHEMES:
            seen = look_at(browser, page, size, scheme, **options)
            where = f"{name}_{size[0]}_{scheme}"
            if kept:
                (Path(kept) / f"{where}.png").write_bytes(seen.screenshot)
            for what in ("console", "requests", "broken", "nameless", "violations"):
                assert getattr(seen, what) == [], f"{where}: {what}"
            assert seen.overflow <= 0, f"{where} is {seen.overflow} pixels too wide"
            assert len(seen.screenshot) > 20_000, where


def test_the_report(browser, page):
    check(browser, page, "report")
    opened = browser.new_page(viewport={"width": 360, "height": 740})
    opened.goto(page.as_uri())
    assert cut_off(opened) <= {"Confusion matrix on test", "Confusion matrix on val"}
    check_paper(opened)


def cut_off(page):
    """Which tables and pictures of a page are wider than their place and must be moved to be read."""
    return set(page.eval_on_selector_all(
        ".scroll", "all => all.filter(e => e.scrollWidth > e.clientWidth).map(e => e.getAttribute('aria-label'))"
    ))  # fmt: skip


def check_paper(page):
    """Paper is light, and nothing is cut off on it."""
    page.set_viewport_size({"width": 720, "height": 1000})
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.scrollWidth") <= 720
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_the_comparison(browser, quick, tmp_path, monkeypatch):
    for place, name in enumerate(("full", "feature_extraction")):
        train(quick(f"finetuning={name}", f"paths.run={tmp_path / str(place)}", "trainer.max_epochs=1", "report=true"))
    monkeypatch.setattr(
        sys, "argv", ["compare.py", str(tmp_path / "0"), str(tmp_path / "1"), "--output", str(tmp_path)]
    )
    compare.main()
    assert (tmp_path / "comparison.html").read_text().count("<tr>") == 3 + 2 + 3
    check(browser, tmp_path / "comparison.html", "comparison")


@pytest.fixture
def address(quick, tmp_path):
    """Where the demo page of a small run is served."""
    uvicorn = pytest.importorskip("uvicorn", reason='needs pip install -e ".[serve]"')
    from headstart.inference.app import Model, build_app

    train(quick("trainer.max_epochs=1"))
    task, _ = checkpoint.load_task(tmp_path / "run/checkpoints/best.ckpt")
    app = build_app(Model(Classifier(task), torch.device("cpu")), max_bytes=10**6, top_k=5, maps=has_captum())
    config = uvicorn.Config(app, port=0, log_level="warning")
    socket, server = config.bind_socket(), uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{socket.getsockname()[1]}/"
    server.should_exit = True
    thread.join()


def test_the_demo_page_answers_with_classes_and_a_map(browser, address, tmp_path):
    pictures(tmp_path / "photos", ["cat"], 1)
    (picture,) = (tmp_path / "photos").rglob("*.*")

    def ask(page):
        if has_captum():
            page.check("#with-map")
        page.set_input_files("#file", picture)
        page.wait_for_selector("#classes:not([hidden])")
        assert page.locator("#classes tbody tr").count() == 2
        assert page.locator("#status").inner_text().endswith("%")
        assert page.locator("#pictures img").count() == (2 if has_captum() else 1)
        page.wait_for_function("[...document.images].every(image => image.complete)")

    check(browser, address, "demo", act=ask)


def test_the_demo_page_says_what_is_wrong_with_a_file(browser, address, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no more")
    page = browser.new_page()
    page.goto(address)
    page.set_input_files("#file", tmp_path / "broken.png")
    page.wait_for_selector("#status.bad")
    assert page.locator("#status").inner_text().startswith("this picture cannot be read: ")
    (tmp_path / "large.png").write_bytes(bytes(10**6 + 1))
    page.set_input_files("#file", tmp_path / "large.png")
    page.wait_for_function("document.getElementById('status').textContent.startsWith('This file has 1.0 MB')")
    page.close()


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
