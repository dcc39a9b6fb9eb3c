"""Measures the cost of two ways of freezing under DistributedDataParallel (DDP), in turns in the same processes.

again:   freeze, then wrap; wrap again when a stage unfreezes something, as `StagedFinetuning` does.
unused:  wrap once with everything trainable, freeze afterwards, `find_unused_parameters=True`. The usual advice.

python scripts/bench_ddp.py                     two processes on two GPUs (nccl), otherwise on CPUs (gloo)
python scripts/bench_ddp.py --models vit_b_32 --image-size 224 --batch-size 32

The two alternate at every step, so that other work on the machine slows both equally; ratios are within a repeat.
Processes on one machine exchange gradients through memory; over a network this takes longer.
"""

import argparse
import os
import socket
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

# as in headstart/cli/run.py, before torch is imported: waiting threads must leave the core to the other process
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# hides the warning of DDP that find_unused_parameters was not needed
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

import torch
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table
from torch import Tensor, distributed, nn
from torch.distributed import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import headstart.cli.run  # noqa: F401 - memory as in the entry points
from headstart.backbones.torchvision import TorchvisionBackbone
from headstart.cli import resolvers
from headstart.cli.conf_files import CONF
from headstart.finetuning.unfreeze_at import UnfreezeAt
from headstart.tasks.classification import ClassificationTask
from headstart.tasks.from_config import task_from_config

WAYS = ("again", "unused")
STAGES = ("head", "full")
WORLD = 2


@dataclass
class Side:
    """The model of one way, with its current DDP wrapper."""

    way: str
    task: ClassificationTask
    device: torch.device
    wrapped: nn.Module | None = None
    optimizer: torch.optim.Optimizer | None = None
    strategy: UnfreezeAt = field(default_factory=lambda: UnfreezeAt(epoch=1))

    def enter(self, stage: str) -> float:
        """Freezes for the stage, and wraps if this way does; returns the seconds for wrapping."""
        self.strategy.make_plan(self.task)
        if self.way == "unused" and stage == STAGES[0]:
            self.task.requires_grad_(True)
            seconds = self.wrap(find_unused_parameters=True)
            self.freeze(stage)
            return seconds
        self.freeze(stage)
        return self.wrap() if self.way == "again" else 0.0

    def freeze(self, stage: str) -> int:
        """Freezes and unfreezes for the stage; returns the number of trained parameters."""
        self.strategy.progress.stage = STAGES.index(stage)
        self.strategy.apply(self.task)
        learning = [parameter for parameter in self.task.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.SGD(learning, lr=1e-4)
        return sum(parameter.numel() for parameter in learning)

    def wrap(self, **options: bool) -> float:
        """Wraps the model; returns the seconds for it."""
        self.wrapped = None
        started = meet(self.device)
        ids = [self.device.index] if self.device.type == "cuda" else None
        self.wrapped = DistributedDataParallel(self.task, device_ids=ids, **options)
        return meet(self.device) - started

    def step(self, batch: tuple[Tensor, Tensor]) -> None:
        """One optimizer step."""
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.wrapped(batch[0]), batch[1]).backward()
        self.optimizer.step()

    def seconds(self, batch: tuple[Tensor, Tensor]) -> float:
        """Seconds of one step."""
        started = meet(self.device)
        self.step(batch)
        return meet(self.device) - started

    def sent(self, stage: str, batch: tuple[Tensor, Tensor]) -> int:
        """Bytes of gradients in the all-reduce of one step of the stage."""
        sizes: list[int] = []

        def note(group: None, bucket: GradBucket) -> torch.futures.Future[Tensor]:
            sizes.append(bucket.buffer().nbytes)
            return allreduce_hook(group, bucket)

        self.enter(STAGES[0])
        if self.way == "again":
            self.enter(stage)
        else:
            self.freeze(stage)
        self.wrapped.register_comm_hook(None, note)
        self.step(batch)
        return sum(sizes)


def meet(device: torch.device) -> float:
    """Waits for all work and for the other process; returns the time."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    distributed.barrier()
    return time.perf_counter()


def build(name: str, size: int, device: torch.device) -> ClassificationTask:
    """A task with random weights that are marked as pretrained: the values of the weights do not matter for speed."""
    resolvers.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["paths.run=unused"])
    torch.manual_seed(0)
    backbone = TorchvisionBackbone(name, weights=None, image_size=size)
    backbone.pretrained = True
    return task_from_config(cfg, backbone, [str(number) for number in range(10)], class_weights=None).to(device)


def measure(name: str, arguments: argparse.Namespace, device: torch.device) -> dict[str, list[float]]:
    """`<way> <stage> step` and `... wrap` of one model, in seconds per repeat; `... bytes`; `<stage> trained`."""
    sides = [Side(way, build(name, arguments.image_size, device), device) for way in WAYS]
    pictures = torch.rand(arguments.batch_size, 3, arguments.image_size, arguments.image_size, device=device)
    batch = pictures, torch.arange(arguments.batch_size, device=device) % 10
    found: dict[str, list[float]] = defaultdict(list)
    for repeat in range(arguments.repeats + 1):
        if distributed.get_rank() == 0:
            print(f"\r{name}: {repeat} of {arguments.repeats} ", end="", file=sys.stderr, flush=True)
        for stage in STAGES:
            for key, seconds in take_turns(sides if repeat % 2 else sides[::-1], stage, batch, arguments.steps).items():
                if repeat:  # repeat 0 is the warm-up
                    found[key].append(seconds)
    for stage in STAGES:
        found[f"{stage} trained"] = [sides[0].freeze(stage)]
        for side in sides:
            found[f"{side.way} {stage} bytes"] = [side.sent(stage, batch)]
    return found


def take_turns(sides: list[Side], stage: str, batch: tuple[Tensor, Tensor], steps: int) -> dict[str, float]:
    """For each way, the seconds for wrapping and the mean seconds of a step in this stage."""
    found = {f"{side.way} {stage} wrap": side.enter(stage) for side in sides}
    for side in sides:
        side.step(batch)  # the first step after wrapping rebuilds the buckets
    found |= {f"{side.way} {stage} step": 0.0 for side in sides}
    for _ in range(steps):
        for side in sides:
            found[f"{side.way} {stage} step"] += side.seconds(batch) / steps
    return found


def spread(values: list[float], unit: float = 1, digits: int = 0) -> str:
    """Median and quartiles."""
    low, middle, high = (value / unit for value in statistics.quantiles(values, method="inclusive"))
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def add_rows(table: Table, name: str, found: dict[str, list[float]]) -> None:
    """One row per stage."""
    for stage in STAGES:
        again, unused = (found[f"{way} {stage} step"] for way in WAYS)
        ratios = [b / a for a, b in zip(again, unused, strict=True)]
        sent = [f"{found[f'{way} {stage} bytes'][0] / 1e6:.2f}" for way in WAYS]
        wrap = found[f"again {stage} wrap"]
        in_steps = [seconds / step for seconds, step in zip(wrap, again, strict=True)]
        trained = f"{found[f'{stage} trained'][0]:,.0f}"
        times = [spread(again, 1e-3), spread(unused, 1e-3), spread(ratios, digits=2)]
        table.add_row(name, stage, trained, *times, *sent, spread(wrap, 1e-3), spread(in_steps, digits=2))


def work(rank: int, arguments: argparse.Namespace, port: int) -> None:
    """One of the two processes; the first prints the table."""
    on_gpus = torch.cuda.device_count() >= WORLD
    device = torch.device("cuda", rank) if on_gpus else torch.device("cpu")
    if on_gpus:
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max((os.cpu_count() or 1) // WORLD, 1))
    backend = "nccl" if on_gpus else "gloo"
    distributed.init_process_group(backend, init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD)
    where = torch.cuda.get_device_name(device) if on_gpus else f"CPU, {torch.get_num_threads()} thread(s) each"
    table = Table(title=f"{WORLD} processes, {backend}, {where}; {arguments.batch_size} pictures of "
                        f"{arguments.image_size} px each; median (quartiles) of {arguments.repeats}")  # fmt: skip
    for column in ("model", "trained", "parameters", "again ms/step", "unused ms/step", "unused/again",
                   "again MB/step", "unused MB/step", "wrap again ms", "in steps"):  # fmt: skip
        table.add_column(column, justify="left" if column in ("model", "trained") else "right")
    for name in arguments.models:
        add_rows(table, name, measure(name, arguments, device))
    if rank == 0:
        print(file=sys.stderr)
        Console(width=170).print(table)
    distributed.destroy_process_group()


def main() -> None:
    """Starts the two processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet18", "mobilenet_v2"], help="names of torchvision")
    parser.add_argument("--image-size", type=int, default=64, help="height and width in pixels (default: 64)")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures per step and process (default: 16)")
    parser.add_argument("--steps", type=int, default=5, help="steps of each way per repeat (default: 5)")
    parser.add_argument("--repeats", type=int, default=12, help="number of repeats (default: 12)")
    arguments = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(work, (arguments, port), nprocs=WORLD)


if __name__ == "__main__":
    main()
