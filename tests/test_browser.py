"""The pages in headless Chromium, on a phone and on a desk, light and dark.

`HEADSTART_SCREENSHOTS=<folder>` keeps what they look like.
"""

import os
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from browser import SCHEMES, SIZES, chromium, executable, look_at
from hydra import compose, initialize_config_dir
from photos import pictures

import compare
from headstart.cli.conf_files import CONF
from headstart.evaluation.evaluate import evaluate
from headstart.evaluation.explanations.attribution import has_captum
from headstart.inference.classifier import Classifier
from headstart.inference.facts import facts_of
from headstart.report.build import report
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
                Path(kept).mkdir(parents=True, exist_ok=True)
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
    train(quick("trainer.max_epochs=1"))
    with served(tmp_path / "run") as found:
        yield found


@contextmanager
def served(run):
    """The address of the demo page of a run."""
    uvicorn = pytest.importorskip("uvicorn", reason='needs pip install -e ".[serve]"')
    from headstart.inference.app import Model, build_app

    task, trained = checkpoint.load_task(run / "checkpoints/best.ckpt")
    model, facts = Model(Classifier(task), torch.device("cpu")), facts_of(task, trained, run / "checkpoints/best.ckpt")
    app = build_app(model, max_bytes=10**6, top_k=5, maps=has_captum(), facts=facts)
    config = uvicorn.Config(app, port=0, log_level="warning")
    socket, server = config.bind_socket(), uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()


def one_picture(folder):
    """The file of a picture."""
    pictures(folder / "photos", ["cat"], 1)
    (picture,) = (folder / "photos").rglob("*.*")
    return picture


def give(page, *files):
    """Gives files to the demo page, and waits for the answers."""
    if has_captum():
        page.check("#with-map")
    page.set_input_files("#file", files)
    page.wait_for_function(
        "() => document.querySelector('.result table')"
        " && !document.getElementById('status').textContent.includes('...')"
    )


def test_the_demo_page_answers_with_classes_and_a_map(browser, address, tmp_path):
    picture = one_picture(tmp_path)

    def ask(page):
        give(page, picture)
        assert page.locator(".result tbody tr").count() == 2
        assert page.locator("#status").inner_text().endswith("%")
        page.wait_for_function("() => [...document.images].every(image => image.complete)")
        sizes = page.eval_on_selector_all("img", "all => all.map(image => [image.naturalWidth, image.naturalHeight])")
        assert sizes == [[30, 20]] * (2 if has_captum() else 1)
        page.click("summary")
        assert page.locator("pre").inner_text() == f"curl -F file=@cat.jpg -F file=@dog.jpg {address}predict"

    check(browser, address, "demo", act=ask)


def test_the_demo_page_answers_to_several_files(browser, address, tmp_path):
    picture = one_picture(tmp_path)

    def ask(page):
        give(page, picture, picture)
        assert page.locator(".result").count() == 2
        assert page.locator("#status").inner_text().startswith("2 pictures: class_")

    check(browser, address, "demo_several", act=ask)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG no more")
    page = browser.new_page()
    page.goto(address)
    give(page, picture, broken)
    assert page.locator("#status").inner_text().endswith(" 1, without an answer 1")
    assert page.locator(".result .bad").inner_text().startswith("this picture cannot be read: ")
    page.close()


def test_the_demo_page_says_what_is_wrong_with_a_file(browser, address, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no more")
    page = browser.new_page()
    page.goto(address)
    page.set_input_files("#file", tmp_path / "broken.png")
    page.wait_for_selector("#status.bad")
    assert page.locator("#status").inner_text().startswith("this picture cannot be read: ")
    (tmp_path / "large.png").write_bytes(bytes(10**6 + 1))
    page.set_input_files("#file", tmp_path / "large.png")
    page.wait_for_function("() => document.getElementById('status').textContent.startsWith('This file has 1.0 MB')")
    page.close()


@pytest.fixture
def texts_run(quick, tmp_path, monkeypatch):
    """A run on texts with some mistakes."""
    monkeypatch.setenv("HEADSTART_TRUST", "tiny_text")
    tiny_text = pytest.importorskip("tiny_text")
    train(tiny_text.on_reviews(quick("optimizer.lr=0.01", "trainer.max_epochs=2", "report=true"), tmp_path, wrong=8))
    return tmp_path / "run"


def test_pages_about_texts(browser, texts_run):
    words = ["neighbours=2", "split=val"] + (["explain=true"] if has_captum() else [])
    with initialize_config_dir(str(CONF), version_base="1.3"):
        asked = compose("evaluate", [f"run={texts_run}", *words])
    evaluate(asked, texts_run / "checkpoints/best.ckpt")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        report(compose("report", [f"run={texts_run}"]), texts_run / "checkpoints/best.ckpt")
    check(browser, texts_run / "report.html", "report_texts")
    folder = texts_run / "evaluation_val"
    for name in ("neighbours", *(["explanations"] if has_captum() else [])):
        check(browser, folder / f"{name}.html", f"texts_{name}")


def test_the_demo_page_answers_about_a_text(browser, texts_run):
    text = "<b>superb</b> & <img src=x onerror=alert(1)> awful films " + "word " * 40

    def ask(page):
        if has_captum():
            page.check("#with-map")
        page.fill("#text", text)
        page.press("#text", "Control+Enter")
        page.wait_for_selector("#classes:not([hidden])")
        assert page.locator("#classes tbody tr").count() == 2
        assert page.locator("#status").inner_text().endswith("%")
        assert page.locator("main img, main b").count() == 0, "a text has become HTML"
        if has_captum():
            assert page.locator("#words").text_content() == text
            assert page.locator("#words .for, #words .against").count() > 5
            assert page.locator("#words .unread").count() == 1
            assert page.locator("#strongest").inner_text().startswith("For ")

    with served(texts_run) as address:
        check(browser, address, "demo_text", act=ask)


def test_the_demo_page_says_what_is_wrong_with_a_text(browser, texts_run):
    with served(texts_run) as address:
        page = browser.new_page()
        page.goto(address)
        page.click("button")
        page.wait_for_selector("#status.bad")
        assert page.locator("#status").inner_text() == "Write a text first."
        page.fill("#text", "x" * (10**6 + 1))
        page.click("button")
        page.wait_for_function("() => document.getElementById('status').textContent.startsWith('This text has 1.0 MB')")
        page.fill("#text", "superb")
        page.click("button")
        page.wait_for_selector("#classes:not([hidden])")
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


def test_pages_about_numbers(browser, quick, tmp_path):
    train(quick("task=regression", "data.numbers=true", "finetuning=probe", "report=true"))
    check(browser, tmp_path / "run/report.html", "report_numbers")
    picture = one_picture(tmp_path)

    def ask(page):
        give(page, picture)
        assert page.locator(".result thead th").all_inner_texts() == ["number", "value"]
        assert page.locator(".result tbody th").all_inner_texts() == ["number_0", "number_1"]
        assert page.locator("#status").inner_text().startswith("number_0 ")
        assert "%" not in page.locator("main").inner_text()
        assert page.locator(".result img").count() == (2 if has_captum() else 1)
        page.wait_for_function("() => [...document.images].every(image => image.complete)")

    with served(tmp_path / "run") as address:
        check(browser, address, "demo_numbers", act=ask)
