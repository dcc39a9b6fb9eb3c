"""The table of resolvers in CONTRIBUTING.md is what the code and the files of conf/ say."""

import inspect
import re

import pytest

from headstart.cli.conf_files import CONF
from headstart.cli.resolvers import RESOLVERS

GUIDE = CONF.with_name("CONTRIBUTING.md").read_text(encoding="utf-8")
SECTION = GUIDE.split("## Functions in configs")[1].split("## ")[0]
ROWS = re.findall(r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \| ([^|]+) \|$", SECTION, re.MULTILINE)
TABLE = {name: (arguments.split(", "), re.findall(r"`([^`]+)`", files)) for name, arguments, files in ROWS}


def test_the_table_has_all_resolvers_in_order():
    assert list(TABLE) == sorted(RESOLVERS)


@pytest.mark.parametrize("name", RESOLVERS)
def test_the_table_is_right_about_a_resolver(name):
    arguments, files = TABLE[name]
    assert arguments == list(inspect.signature(RESOLVERS[name]).parameters)
    callers = [path for path in CONF.rglob("*.yaml") if f"${{{name}:" in path.read_text(encoding="utf-8")]
    assert files == sorted(path.relative_to(CONF).as_posix() for path in callers)


def test_no_file_calls_an_unknown_resolver():
    called = {name for path in CONF.rglob("*.yaml") for name in re.findall(r"\$\{([\w.]+):", path.read_text("utf-8"))}
    assert called - RESOLVERS.keys() == {"hydra", "now", "oc.env", "oc.select"}
