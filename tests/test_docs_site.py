"""The reference on the documentation's site has all that `--help` has."""

import re
import sys

import pytest
from documents import ROOT

from headstart.cli.options import groups, run_options
from headstart.cli.schemas import ROOTS
from headstart.cli.settings import settings_of


@pytest.fixture
def site(monkeypatch):
    pytest.importorskip("mkdocs")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    import docs_site

    return docs_site


def test_every_option_is_in_the_reference(site):
    assert all(f"| `{option.name}` |" in site.overview() for option in run_options())
    for group in groups():
        page = site.group_page(group)
        assert all(f"| `{choice.name}` |" in page for choice in group.choices)
        assert all(f"| `{option.name}` | " in page for option, _ in group.options)
    page = site.commands_page()
    for name in ROOTS.keys() - {"train"}:
        section = page.partition(f"## src/{name}.py\n")[2].partition("\n## ")[0]
        assert set(re.findall(r"^\| `([\w.]+)` \|", section, re.M)) == {
            option for option, _ in settings_of(ROOTS[name])
        }


def test_words_in_a_cell_are_not_taken_for_markdown(site):
    assert site._cell("a|b_c <name> [x], type finetuning=auto; y") == (
        "a\\|b\\_c &lt;name&gt; \\[x\\], type `finetuning=auto`; y"
    )


def test_links_out_of_the_documents_lead_to_pages(site):
    text = "[a](../conf) [b](../conf/model) [c](../src/train.py) [d](../CONTRIBUTING.md#words)"
    assert site.on_page_markdown(text) == (
        "[a](reference/index.md) [b](reference/model.md) [c](source/src/train.py.md) [d](contributing.md#words)"
    )
    assert dict(site.source_pages(text)).keys() == {"source/src/train.py.md"}
