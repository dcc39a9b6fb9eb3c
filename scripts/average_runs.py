"""Averages the weights of several runs; the average is as fast as one of the models.

python scripts/average_runs.py logs/train/multiruns/<date> --out logs/averages/<name>

The greedy soup of Wortsman et al. 2022 (https://arxiv.org/abs/2203.05482, section 2): starting with the best run, each
run is added to the average if the validation metric does not get worse. The runs need the same initial weights, the
same classes and the same validation and test samples. So vary `seed`, but not `data.seed`:

python src/train.py -m finetuning=lp_ft data.seed=0 seed=0,1,2 model=... data=...

`--out` becomes a run directory; python src/evaluate.py run=<out> tests it.
"""

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from headstart.backbones.speed import choose_precision
from headstart.cli.run import quiet
from headstart.data.split_file import read_rows
from headstart.data.trained_run import load_data
from headstart.errors import UsageError
from headstart.runs.directory import Run, find_runs
from headstart.tasks import checkpoint
from headstart.tasks.checkpoint_io import SafeCheckpointIO

State = dict[str, Tensor]


def find(folders: list[Path]) -> list[Run]:
    """The runs in these folders and below them."""
    found = [run for folder in folders for run in find_runs(folder)]
    if len(found) < 2:
        raise UsageError(f"{', '.join(map(str, folders))}: found {len(found)} runs, but an average needs two or more")
    return found


def held_out_samples(run: Run) -> dict[str, str]:
    """The samples of val and test: name -> split."""
    return {row.name: row.split for row in read_rows(run.split_file) if row.split != "train"}


def check(runs: list[Run], contents: list[dict[str, Any]]) -> None:
    """Raises a UsageError if the weights cannot be averaged, or if training samples would be used for validation."""
    first, *others = zip(runs, contents, strict=True)
    first_name = first[0].folder
    for run, content in others:
        name = run.folder
        mine, wanted = content["hyper_parameters"], first[1]["hyper_parameters"]
        for key, same in (
            ("classes", mine["classes"] == wanted["classes"]),
            ("preprocess", checkpoint.preprocess_of(mine) == checkpoint.preprocess_of(wanted)),
        ):
            if not same:
                raise UsageError(f"{name} and {first_name} differ in their {key}: their weights cannot be averaged")
        if any(".parametrizations." in key for key in content["state_dict"]):
            raise UsageError(f"{name} has low-rank updates; their averages are not the average of the weights")
        shapes, wanted = ({k: v.shape for k, v in c["state_dict"].items()} for c in (content, first[1]))
        if shapes != wanted:
            raise UsageError(f"{name} and {first_name} have different networks: their weights cannot be averaged")
        if held_out_samples(run) != held_out_samples(first[0]):
            raise UsageError(
                f"{name} and {first_name} have different val and test samples, so one may be trained on the "
                "samples of the other: give all runs the same data.seed, and vary seed"
            )


def average(states: list[State]) -> State:
    """The mean of each floating-point tensor; other tensors (counters) from the first state."""
    return {
        name: sum(state[name] for state in states) / len(states) if value.is_floating_point() else value
        for name, value in states[0].items()
    }


class Validation:
    """Computes the validation metrics of weights, with the task and the val split of the first run."""

    def __init__(self, run: Run):
        self.task, config = checkpoint.load_task(run.checkpoint("best"))
        self.task.objective.temperature = 1.0  # it was fitted for the weights of this run
        config.data.split_file = str(run.split_file)
        data = load_data(config.data, self.task.classes, self.task.backbone.preprocess, "val")
        self.loader = data.loader("val")
        self.trainer = _trainer(config)

    def __call__(self, state: State) -> dict[str, float]:
        """Metrics `val/<name>` of these weights."""
        self.task.load_state_dict(state)
        (metrics,) = self.trainer.validate(self.task, self.loader, verbose=False)
        return metrics


def _trainer(config: DictConfig) -> Any:
    config.trainer.update({"devices": 1, "strategy": "auto", "limit_val_batches": None, "fast_dev_run": False})
    config.trainer.precision = choose_precision("auto", config.trainer.accelerator)
    config.trainer.enable_progress_bar = False
    return instantiate(config.trainer, logger=False, enable_checkpointing=False)


def soup(states: list[State], validate: Any, monitor: str, sign: int) -> tuple[list[int], State, dict[str, float]]:
    """The greedy soup of states, best first: indices of the averaged states, the average, and its metrics."""
    joined, best, metrics = [0], states[0], validate(states[0])
    for place in range(1, len(states)):
        tried = average([states[index] for index in [*joined, place]])
        found = validate(tried)
        if sign * found[monitor] >= sign * metrics[monitor]:
            joined, best, metrics = [*joined, place], tried, found
    return joined, best, metrics


def main() -> None:
    """Averages the runs and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run directories, or the directory of a sweep")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    quiet()
    if options.out.exists():
        raise UsageError(f"{options.out} already exists: give another --out")
    found = [(run, checkpoint.read(run.checkpoint("best"))) for run in find(options.runs)]
    config = found[0][1]["hyper_parameters"]["config"]
    monitor, sign = config["monitor"], 1 if config["mode"] == "max" else -1
    found.sort(key=lambda pair: -sign * pair[1]["metrics"][monitor])
    runs, contents = [run for run, _ in found], [content for _, content in found]
    check(runs, contents)
    validate = Validation(runs[0])
    joined, state, metrics = soup([content["state_dict"] for content in contents], validate, monitor, sign)
    options.out.mkdir(parents=True)
    out = Run(options.out)
    for file in (runs[0].config_file, runs[0].split_file, runs[0].classes_file):
        shutil.copy(file, out.folder / file.name)
    out.checkpoints_folder.mkdir()
    kept = {key: contents[0][key] for key in ("epoch", "global_step", "pytorch-lightning_version", "hyper_parameters")}
    for name in ("temperature", "thresholds"):  # they were fitted for the weights of one run
        kept["hyper_parameters"].pop(name, None)
    saved = kept | {"state_dict": state, "metrics": metrics, "averaged": [str(runs[index].folder) for index in joined]}
    SafeCheckpointIO().save_checkpoint(saved, out.best)
    for run, content in found:
        print(f"{run.folder}: {monitor} {content['metrics'][monitor]:.4f}")
    print(f"average of {len(joined)} of {len(runs)}: {monitor} {metrics[monitor]:.4f}, in {options.out}")


if __name__ == "__main__":
    try:
        main()
    except UsageError as error:
        sys.exit(f"error: {error}")
