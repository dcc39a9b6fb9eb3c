"""Settings that a Python program gives, as words of the command line: `optimizer__lr=0.1` is `optimizer.lr=0.1`."""

import re
from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from headstart.cli.conf_files import choices_by_group
from headstart.cli.own_conf import own_conf
from headstart.cli.usual_words import data_set_of
from headstart.errors import UsageError, nearest, nearest_path


def words_of(settings: Mapping[str, Any], overrides: Iterable[str] = ()) -> list[str]:
    """The command line for settings by name, with `__` for each dot, and further words as they are typed.

    A value is what it is in Python: only in `overrides` does `${name}` refer to another setting.

    Raises:
        UsageError: a value of a type that no setting has; `overrides` is not a list of words.
    """
    if isinstance(overrides, (str, Mapping)):
        raise UsageError('overrides: give a list of words of the command line, such as ["callbacks=[curves,ema]"]')
    return [*(f"{key.replace('__', '.')}={_word(key, value)}" for key, value in settings.items()), *overrides]


def data_words(data: str | PathLike[str]) -> list[str]:
    """The command line for data: `data=<name>` for a file of `conf/data`, else the kind of data and `data.root`.

    Raises:
        UsageError: there is no such data set, file or folder; or the kind of data cannot be seen.
    """
    given, sets, own = fspath(data), choices_by_group()["data"], own_conf("train")
    if own:
        sets = sorted({*sets, *(file.stem for file in own.glob("data/*.yaml"))})
    if given in sets:
        return [f"data={given}"]
    path = Path(given).expanduser()
    if not path.exists():
        near = nearest_path(path) or nearest(given, sets)
        raise UsageError(f"{given}: no such file, folder or data set{near} (data sets: {', '.join(sets)})")
    kind = data_set_of(path)
    if kind is None:
        raise UsageError(
            f"{given}: it is not clear what it holds. Name the kind of data, such as train(data='table', "
            f"data__root={given!r}): image_folder for pictures in class folders, table for pictures with a table of "
            "labels, text_folder for texts in class folders, text_table for a table of texts"
        )
    return [f"data={kind}", f"data.root={_word('data.root', given)}"]


def _word(key: str, value: Any) -> str:
    """A value in the grammar of Hydra."""
    if hasattr(value, "tolist"):  # a number or an array of NumPy or torch
        value = value.tolist()
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (str, PathLike)):
        return _text(fspath(value))
    if isinstance(value, (list, tuple)):
        return f"[{','.join(_word(key, each) for each in value)}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_text(str(name))}:{_word(key, each)}" for name, each in value.items()) + "}"
    raise UsageError(f"{key}: a {type(value).__name__} is no value of a setting; give a number, a text, a list or None")


def _text(text: str) -> str:
    """A text, in quotes if Hydra would otherwise read something else; `${` in it has no meaning."""
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)  # OmegaConf removes these backslashes
    try:
        read = OverridesParser.create().parse_override(f"key={text}").value()
    except HydraException:
        read = None
    return text if isinstance(read, str) and read == text else QuotedString(text, Quote.single).with_quotes()
