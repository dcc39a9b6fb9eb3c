"""Uploads a trained run to the Hugging Face hub. Nothing leaves the machine before it was listed and confirmed."""

import logging
import mmap
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from headstart.cli.schemas import ReportConfig
from headstart.errors import Failure, UsageError, printable
from headstart.files import relative_to_cwd
from headstart.report.build import report
from headstart.runs.directory import Run
from headstart.runs.places import check_links

log = logging.getLogger(__name__)
HOMES = re.compile(
    rb"(https?://[\w.:-]+)?((?:/home/|/Users/|/root/|[A-Za-z]:\\{1,2}Users\\{1,2})[\w.@%+~/\\ -]{1,100})"
)
"""Paths in a home directory, on any system, with the address of a site before them if there is one."""
PATH = re.compile(r"(?:/|[A-Za-z]:\\).+")
UNITS = (10**6, "MB"), (10**3, "KB"), (1, "B")
LISTED = 4
"""Places that are listed for each file."""


@dataclass(frozen=True)
class Upload:
    """One file of an upload.

    Attributes:
        file: on this machine.
        name: in the repository.
        places: paths of this machine that the file names.
        remark: what else a person should know about its content.
    """

    file: Path
    name: str
    places: tuple[str, ...] = ()
    remark: str = ""


def push(cfg: DictConfig, path: Path) -> str:
    """Lists the files, uploads them if that is confirmed, and returns the address of the repository.

    Args:
        cfg: of `conf/push.yaml`.
        path: the best checkpoint of a run.

    Raises:
        UsageError: it is not the best checkpoint of a run, or the upload was not confirmed. Nothing was uploaded.
        Failure: the hub has refused the upload, or cannot be reached.
    """
    from huggingface_hub import constants

    run = Run.of(path)
    if run is None or path != run.best.resolve():
        raise UsageError(f"run={cfg.run}: push needs a whole run; give its directory, logs/<name>/runs/<date>")
    check_links(run.folder)  # a link in it could name any file of this machine
    if not run.model_card_file.is_file():
        report(OmegaConf.structured(ReportConfig(run=str(run.folder), logs="")), path)
    elif run.model_card_file.stat().st_mtime < path.stat().st_mtime:
        log.warning(
            "%s is older than the checkpoint; for a new one: python src/report.py run=%s",
            *(run.model_card_file.name, relative_to_cwd(run.folder)),
        )
    uploads = uploads_of(run, cfg.report)
    kind = "private" if cfg.private else "PUBLIC"
    print(f"To {cfg.repo} ({kind}) on {constants.ENDPOINT}:\n" + "\n".join(map(_line, uploads)), file=sys.stderr)
    if not cfg.confirm and not _agreed(cfg.repo):
        raise UsageError("nothing was uploaded. If all of this may leave this machine, add confirm=true")
    return _upload(cfg, uploads)


def uploads_of(run: Run, with_report: bool) -> list[Upload]:
    """The files of a run that are uploaded: model card, checkpoint, class names, exports, and the report if wanted."""
    exports = sorted(file for file in run.export_folder.glob("*") if file.is_file() and not file.name.startswith("."))
    names = {run.model_card_file: "README.md"} | {
        file: file.relative_to(run.folder).as_posix() for file in (run.best, run.classes_file, *exports)
    }
    log.info("looking for local paths in the files")
    places, changed = known_places(run), run.best.stat().st_mtime
    found = [Upload(file, name, _places_of(file, places), _age(file, changed)) for file, name in names.items()]
    if with_report:
        if not run.report_file.is_file():
            raise UsageError(f"report=true: there is no {run.report_file}; type python src/report.py run={run.folder}")
        remark = "; ".join(filter(None, ("shows samples of the data", _age(run.report_file, changed))))
        found.append(Upload(run.report_file, run.report_file.name, _places_of(run.report_file, places), remark))
    return found


def _age(file: Path, changed: float) -> str:
    return "OLDER than the checkpoint" if file.stat().st_mtime < changed else ""


def _places_of(file: Path, places: list[str]) -> tuple[str, ...]:
    """Like `places_in`, without a copy of the file in memory."""
    if not file.stat().st_size:  # cannot be mapped
        return ()
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return places_in(content, places)


def known_places(run: Run) -> list[str]:
    """Paths of this machine that files of a run may name: those in its config, its folder, and the home directory."""
    config = OmegaConf.to_container(run.config, resolve=False)
    own = {str(run.folder), str(run.folder.resolve()), str(Path.home()), str(Path.cwd())}
    return sorted((_paths_in(config) | own) - {"/"})


def _paths_in(node: Any) -> set[str]:
    if isinstance(node, dict):
        return {path for value in node.values() for path in _paths_in(value)}
    if isinstance(node, (list, tuple)):
        return {path for value in node for path in _paths_in(value)}
    return {node} if isinstance(node, str) and PATH.fullmatch(node) and "${" not in node and len(node) > 2 else set()


def places_in(content: bytes | mmap.mmap, places: list[str]) -> tuple[str, ...]:
    """The paths of this machine that a file names, text or binary."""
    known = {place for place in places if content.find(place.encode(errors="surrogateescape")) >= 0}
    homes = {found.decode(errors="replace").rstrip() for site, found in HOMES.findall(content) if not site}
    found = sorted({place.rstrip("/") for place in known | homes})
    # /a/b says no more than /a/b/c
    return tuple(place for place in found if not any(other.startswith(f"{place}/") for other in found))


def _line(upload: Upload) -> str:
    size = upload.file.stat().st_size
    unit, name = next((each for each in UNITS if size >= each[0]), UNITS[-1])
    remarks = [upload.remark] if upload.remark else []
    if upload.places:
        more = f" and {len(upload.places) - LISTED} more" if len(upload.places) > LISTED else ""
        remarks.append(f"names known folders of this machine: {', '.join(upload.places[:LISTED])}{more}")
    return printable(f"  {upload.name:<28} {size / unit:>6.3g} {name:<2}  {'; '.join(remarks)}".rstrip())


def _agreed(repo: str) -> bool:
    """Whether a person at a terminal says yes."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    sys.stderr.write(f"Upload these files to {repo}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _upload(cfg: DictConfig, uploads: list[Upload]) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi, constants

    api = HfApi(endpoint=constants.ENDPOINT)
    try:
        api.create_repo(cfg.repo, private=cfg.private, exist_ok=True)
        if cfg.private and not api.model_info(cfg.repo).private:
            raise UsageError(f"{cfg.repo} exists and is PUBLIC. Nothing was uploaded. If that is right: private=false")
        files = [CommitOperationAdd(upload.name, str(upload.file)) for upload in uploads]
        api.create_commit(cfg.repo, files, commit_message="Upload a model trained with Headstart")
    except UsageError:
        raise
    except Exception as error:  # the errors of its HTTP library differ between versions
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise Failure(
            f"the upload to {cfg.repo} failed: {reason}. Log in with hf auth login, or set HF_TOKEN; then run the same "
            "command again"
        ) from error
    return f"{constants.ENDPOINT}/{cfg.repo}"
