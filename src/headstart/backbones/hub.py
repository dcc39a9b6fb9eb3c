"""Files on the Hugging Face hub, downloaded once; the files of a text encoder may also be in a folder."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import requests

from headstart.errors import UsageError, nearest_path
from headstart.files import HUB_ADDRESS, WEIGHT_SUFFIXES
from headstart.inputs.text.tokenizer_file import refusing

log = logging.getLogger(__name__)
ANSWER_SECONDS = 20
CONFIG, TOKENIZER, WEIGHTS = "config.json", "tokenizer.json", ("model.safetensors", "pytorch_model.bin")
PUSHED_OR_USUAL = ("checkpoints/best.ckpt", *WEIGHTS)
"""Files with weights, in the order in which they are looked for: first the one that src/push.py uploads."""
MOST_BYTES = 100_000_000
"""Largest `config.json` or `tokenizer.json`."""
READABLE = (*WEIGHT_SUFFIXES, ".bin")
"""How files with weights end."""


class ModelFiles:
    """The files of one model, each found or downloaded when it is asked for.

    Args:
        name: of a model on the hub, such as `google-bert/bert-base-uncased`, or a folder.
    """

    def __init__(self, name: str):
        path = Path(name).expanduser()
        is_local = path.is_dir() or path.is_absolute() or name.startswith((".", "~")) or len(path.parts) > 2
        self.name, self.folder = name, path if is_local else None

    def config(self) -> dict[str, Any]:
        """The content of `config.json`.

        Raises:
            UsageError: there is no such file, it cannot be downloaded, or it is not a JSON object.
        """
        path = self._needed(CONFIG)
        try:
            content = json.loads(_text_of(path))
        except RecursionError as error:
            raise UsageError(f"{path} cannot be read: too many lists or objects inside each other") from error
        except ValueError as error:
            raise UsageError(f"{path} cannot be read: {error}") from error
        if not isinstance(content, dict):
            raise UsageError(f"{path} cannot be read: it holds no JSON object")
        return content

    def tokenizer(self) -> str:
        """The content of `tokenizer.json`; older models without it are converted by `transformers`.

        Raises:
            UsageError: there is no such file, and it cannot be made; or it cannot be read.
        """
        path = self._found(TOKENIZER)
        return self._converted() if path is None else _text_of(path)

    def weights(self) -> Path:
        """The file with the weights.

        Raises:
            UsageError: there is none.
        """
        return self._found(WEIGHTS[0]) or self._found(WEIGHTS[1]) or self._needed(WEIGHTS[0])

    def _converted(self) -> str:
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise UsageError(
                f'{self.name} has no {TOKENIZER}; to make one, type pip install -e ".[transformers]"'
            ) from error
        with refusing(f"{self.name} has no {TOKENIZER}, and transformers cannot make one"):
            found = AutoTokenizer.from_pretrained(self.folder or self.name, trust_remote_code=False)
            return found.backend_tokenizer.to_str()

    def _needed(self, file: str) -> Path:
        path = self._found(file)
        if path is not None:
            return path
        if self.folder is None:
            raise UsageError(f"{self.name} has no {file} on the Hugging Face hub: give another model.name")
        hint = nearest_path(self.folder) or "." if not self.folder.is_dir() else ""
        missing = f"there is no folder{hint}" if not self.folder.is_dir() else f"it has no {file}."
        raise UsageError(
            f"model.name={self.name}: {missing} Give a folder with {CONFIG}, {TOKENIZER} and {WEIGHTS[0]}, or a name "
            "on the Hugging Face hub"
        )

    def _found(self, file: str) -> Path | None:
        """A file of the model; None if the model does not have it."""
        if self.folder is not None:
            path = self.folder / file
            return path if path.is_file() else None
        return from_hub(
            self.name,
            file,
            needs='texts need the package huggingface_hub: pip install -e ".[text]"',
            unknown=f"model.name={self.name}: the Hugging Face hub has no such model, or it is not public (then set "
            "HF_TOKEN). Give a name such as google-bert/bert-base-uncased, or a folder",
            instead=f"model.name=<a folder with {CONFIG}, {TOKENIZER} and {WEIGHTS[0]}>",
        )


def _text_of(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UsageError(f"{path} is larger than {MOST_BYTES / 1e6:g} MB, which is the most that is read")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def from_hub(repository: str, file: str, needs: str, unknown: str, instead: str, newest: bool = False) -> Path | None:
    """A file on the hub, downloaded once to the cache of `huggingface_hub`; None if the repository does not have it.

    Args:
        repository: such as `google-bert/bert-base-uncased`.
        file: its name.
        needs: the error if `huggingface_hub` is not installed.
        unknown: the error if there is no such repository.
        instead: what can be typed without a network.
        newest: whether the hub is asked if it has another file by now; without a network, the file from before counts.

    Raises:
        UsageError: no package, no repository or no network.
    """
    try:
        from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError
    except ImportError as error:
        raise UsageError(needs) from error
    cache = constants.HF_HUB_CACHE
    known = try_to_load_from_cache(repository, file, cache_dir=cache)
    before = Path(known) if isinstance(known, str) else None
    if known is not None and not newest:  # downloaded before, or the hub has answered before that there is none
        return before
    try:
        # asked first, because the package would try again for half a minute without a network
        requests.head(constants.ENDPOINT, timeout=ANSWER_SECONDS)
        return Path(hf_hub_download(repository, file, cache_dir=cache))
    except RepositoryNotFoundError as error:
        raise UsageError(unknown) from error
    except EntryNotFoundError as error:
        if not isinstance(error, LocalEntryNotFoundError):  # the hub has answered: there is no such file
            return None
        cause: Exception = error
    except Exception as error:  # the errors of its HTTP library differ between versions
        cause = error
    if before is not None:
        log.warning("%s cannot be reached: %s of %s is the copy from before", constants.ENDPOINT, file, repository)
    if known is not None:
        return before
    reason = (str(cause).splitlines() or [type(cause).__name__])[0]
    raise UsageError(
        f"cannot download {file} of {repository} from {constants.ENDPOINT}: {reason}\n"
        f"With a network once: hf download {repository}, which keeps it in {_shown(constants.HF_HUB_CACHE)};\n"
        f"or type {instead}."
    ) from cause


def weights_on_hub(address: str) -> Path:
    """The file with the weights at an address, downloaded once; it is read as plain data, like any other file.

    Args:
        address: `hf://owner/name`, for the model of a run that was pushed or the usual files; or
            `hf://owner/name/<file>`.

    Raises:
        UsageError: not such an address, no such repository or file, no package, or no network.
    """
    owner, name, file = (*address.removeprefix(HUB_ADDRESS).split("/", 2), "", "")[:3]
    if not owner or not name or (file and not file.endswith(READABLE)):
        raise UsageError(
            f"model.weights={address}: give {HUB_ADDRESS}<owner>/<name>, or {HUB_ADDRESS}<owner>/<name>/<file> with a "
            f"file that ends in {', '.join(READABLE)}"
        )
    repository, files = f"{owner}/{name}", (file,) if file else PUSHED_OR_USUAL
    for each in files:
        found = from_hub(
            repository,
            each,
            needs=f'{HUB_ADDRESS} needs the package huggingface_hub: pip install -e ".[hub]"',
            unknown=f"model.weights={address}: the Hugging Face hub has no {repository}, or it is not public (then set "
            "HF_TOKEN)",
            instead="model.weights=<path of a file>",
            newest=True,
        )
        if found is not None:
            return found
    raise UsageError(f"model.weights={address}: {repository} on the Hugging Face hub has no {' or '.join(files)}")


def _shown(path: str) -> str:
    home = os.path.expanduser("~")
    return path.replace(home, "~", 1) if path.startswith(home) else path
