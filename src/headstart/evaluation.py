"""A trained run on a split, from nothing but its directory."""

import json
import logging
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from headstart import checkpoint
from headstart.callbacks.progress import ProgressBar
from headstart.config import check_config
from headstart.data.base import SPLITS, DataModule
from headstart.errors import UsageError, nearest
from headstart.hardware import choose_precision
from headstart.tasks.classification import ClassificationTask

log = logging.getLogger(__name__)


def evaluate(cfg: DictConfig, path: Path) -> dict[str, float]:
    """The metrics `<split>/<name>` of a run's checkpoint on one split.

    They are also written to `metrics_<split>.json` of the run (`metrics_<split>_<checkpoint>.json` for another than the
    best), unless `data.root` or `test_time_flip` asks for something else than the run's own test.
    """
    if cfg.split not in SPLITS:
        raise UsageError(f"split={cfg.split}{nearest(cfg.split, SPLITS)}: choose one of {', '.join(SPLITS)}")
    home = path.parents[1] if (path.parents[1] / "split.csv").is_file() else None
    if home is None and cfg.data.root is None:
        log.warning("no split.csv two folders above %s: the data are split anew, which may mix seen and unseen", path)
    task, trained = checkpoint.load_task(path)
    if cfg.test_time_flip is not None:
        task.test_time_flip = cfg.test_time_flip
    # one process, for a distributed sampler would count some samples twice; and all of the split
    trained.trainer.update({"devices": 1, "strategy": "auto", "limit_test_batches": None, "fast_dev_run": False})
    for part in ("data", "trainer"):
        given = {key: value for key, value in cfg[part].items() if value is not None}
        trained[part] = OmegaConf.merge(trained[part], given)
    if cfg.data.root is None:
        trained.data.split_file = str(home / "split.csv") if home else None
    else:  # other pictures: how the run cut its own does not apply to them
        trained.data.update({"split_file": None, "val_fraction": 0, "test_fraction": 0, "train_fraction": 1})
        trained.data.update({"shots_per_class": None, "fold": None, "num_folds": None})
    check_config(trained)
    data = build_evaluation_data(trained, task, cfg.split)
    if trained.trainer.precision in ("auto", "16-mixed"):  # no CPU has the latter; all else stays as the run had it
        trained.trainer.precision = choose_precision("auto", trained.trainer.accelerator)
    trainer = instantiate(
        trained.trainer,
        callbacks=[ProgressBar()] if trained.trainer.enable_progress_bar else None,
        logger=False,
        enable_checkpointing=False,
    )
    (tested,) = trainer.test(task, dataloaders=data.loader(cfg.split), verbose=False)
    metrics = {f"{cfg.split}/{name.removeprefix('test/')}": value for name, value in tested.items()}
    if home and cfg.data.root is None and cfg.test_time_flip is None:
        name = cfg.split if path.stem == "best" else f"{cfg.split}_{path.stem}"
        target = home / f"metrics_{name}.json"
        target.write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    return metrics


def build_evaluation_data(trained: DictConfig, task: ClassificationTask, split: str) -> DataModule:
    """The run's data, or other pictures under the run's class map."""
    data = instantiate(trained.data, classes=task.classes)
    data.prepare_data()
    data.setup("test")
    data.connect(task.backbone.preprocess, task.backbone.preprocess)
    if (
        not data.num_samples[split]
        and trained.data.split_file is None
        and sum(map(bool, data.num_samples.values())) == 1
    ):
        # other pictures that lie in class folders alone, not in split folders: all of them are what was asked for
        data.splits = {split: next(filter(None, data.splits.values()))}
    return data
