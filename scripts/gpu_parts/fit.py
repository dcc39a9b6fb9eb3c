"""Whole training against a bare loop."""

import gc
import math
import shutil
import statistics
import time
from typing import Any

import torch
from hydra.utils import instantiate
from torch import nn

from gpu_parts.bench import CUDA, DEVICE, Bench, LeftOut, count_photos, middle_and_range, peak_memory, synchronise

PRECISIONS = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def fit(bench: Bench) -> None:
    """Full finetuning, whole, against bare steps of the same network; pictures from the cache."""
    sizes = bench.sizes
    first = sizes.networks[0]
    for precision in PRECISIONS:
        bench.measure(f"matrix product, {precision}", lambda precision=precision: matrix_peak(precision, sizes.matrix))
    for network in sizes.networks:
        bench.measure(
            f"{network}, bf16-mixed", lambda network=network: against_bare(bench, network, "bf16-mixed", sizes.rounds)
        )
    bench.measure(f"{first}, bf16-mixed, waits for the GPU", lambda: waits(bench, first))
    for precision in ("32-true", "16-mixed"):
        bench.measure(f"{first}, {precision}", lambda precision=precision: against_bare(bench, first, precision, 1))
    for network in sizes.networks:
        for name, options in {"channels_last off": {"channels_last": False}, "compiled": {"compiled": True}}.items():
            case = f"{network}, bf16-mixed, bare loop, {name}"
            bench.measure(case, lambda network=network, options=options: bare_alone(bench, network, **options))


def matrix_peak(precision: str, side: int) -> dict[str, Any]:
    """Operations a second of the product of two square matrices."""
    if precision == "16-mixed" and not CUDA:
        raise LeftOut("fp16 needs a GPU")
    matrix = torch.randn(side, side, device=DEVICE, dtype=PRECISIONS[precision])
    for _ in range(3):
        matrix @ matrix
    synchronise()
    start = time.perf_counter()
    for _ in range(20):
        matrix @ matrix
    synchronise()
    return {"TFLOP/s": round(20 * 2 * side**3 / (time.perf_counter() - start) / 1e12, 2)}


class BareLoop:
    """Forward, backward and optimizer step on one batch that lies on the device; nothing else."""

    def __init__(self, bench: Bench, network: str, precision: str, channels_last: bool = True, compiled: bool = False):
        size, self.dtype = bench.sizes, PRECISIONS[precision]
        backbone = instantiate(bench.config(*bench.words(network)).model)
        self.net = nn.Sequential(backbone, nn.Linear(backbone.num_features, 2)).to(DEVICE).train()
        self.net.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-5, fused=True)
        self.scaler = torch.amp.GradScaler(DEVICE.type, enabled=precision == "16-mixed")
        self.inputs = torch.randint(0, 256, (size.batch, 3, size.side, size.side), dtype=torch.uint8, device=DEVICE)
        self.targets = torch.arange(size.batch, device=DEVICE) % 2
        self.compile_seconds = None
        if compiled:
            self.net.compile()
            start = time.perf_counter()
            self.step()
            self.step()
            synchronise()
            self.compile_seconds = round(time.perf_counter() - start, 1)

    def step(self) -> None:
        """One step."""
        self.optimizer.zero_grad()
        with torch.autocast(DEVICE.type, self.dtype, enabled=self.dtype != torch.float32):
            logits = self.net(self.inputs)
            loss = nn.functional.cross_entropy(logits, self.targets)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def pictures_per_second(self, steps: int) -> float:
        """The speed over some steps, after three that do not count."""
        for _ in range(3):
            self.step()
        synchronise()
        start = time.perf_counter()
        for _ in range(steps):
            self.step()
        synchronise()
        return steps * len(self.targets) / (time.perf_counter() - start)


def forward_operations(bench: Bench, network: str) -> int:
    """Floating point operations of a forward pass of one picture."""
    from torch.utils.flop_counter import FlopCounterMode

    backbone = instantiate(bench.config(*bench.words(network)).model).eval()
    with FlopCounterMode(display=False) as counter:  # with gradients: without, attention has kernels it cannot count
        backbone(torch.zeros(1, 3, bench.sizes.side, bench.sizes.side, dtype=torch.uint8))
    return counter.get_total_flops()


def against_bare(bench: Bench, network: str, precision: str, rounds: int) -> dict[str, Any]:
    """Pictures a second of a whole training run and of the bare loop, in turns; memory; share of the matrix peak."""
    if precision == "16-mixed" and not CUDA:
        raise LeftOut("fp16 with a scaler needs a GPU")
    # BatchNorm in train mode, as in the bare loop
    words = ["finetuning=full", "finetuning.batch_norm=train", "finetuning.patience=null"]
    words += [f"trainer.precision={precision}", "trainer.max_epochs=3"]
    ours, bare, ratios, memory = [], [], [], {}
    number = count_photos(bench.photos / "train")
    for _ in range(rounds):
        run = bench.train(network, *words, cache="pictures")
        ours += [number / seconds for seconds in run["seconds"][1:]]  # the first epoch fills the cache and warms up
        memory["GB"] = max(run["memory"][1:]) if CUDA else None
        if CUDA:
            torch.cuda.reset_peak_memory_stats()
        loop = BareLoop(bench, network, precision)
        bare.append(loop.pictures_per_second(bench.sizes.steps))
        memory["GB, bare"] = peak_memory()
        del loop
        gc.collect()
        ratios.append(statistics.median(ours[-2:]) / bare[-1])
    peak = bench.results.get(f"matrix product, {precision}", {}).get("TFLOP/s", math.nan)
    operations = 3 * forward_operations(bench, network) * statistics.median(ours)
    return {
        "pictures/s": middle_and_range(ours),
        "pictures/s, bare": middle_and_range(bare),
        "ratio": round(statistics.median(ratios), 3),
        "range": f"{min(ratios):.3f}-{max(ratios):.3f}",
        "share of the matrix peak": f"{operations / 1e12 / peak:.0%}",
        **memory,
    }


def bare_alone(bench: Bench, network: str, **options: bool) -> dict[str, Any]:
    """The bare loop with another memory format, or compiled, between two measurements of the usual one."""
    if options.get("compiled") and not (shutil.which("cc") or shutil.which("gcc")):
        raise LeftOut("torch.compile needs a C compiler")
    speeds, seconds = [], None
    for changed in ({}, options, {}):
        loop = BareLoop(bench, network, "bf16-mixed", **changed)
        speeds.append(loop.pictures_per_second(bench.sizes.steps))
        seconds = seconds or loop.compile_seconds
        del loop
        gc.collect()
    before, other, after = speeds
    cost = {"compile s": seconds} if seconds else {}
    ratio = {"changed / usual": round(2 * other / (before + after), 3)}
    return {"pictures/s, bare": middle_and_range([before, after]), "changed": round(other)} | cost | ratio


def waits(bench: Bench, network: str) -> dict[str, Any]:
    """How often a training step makes the CPU wait for the GPU, and where."""
    if not CUDA:
        raise LeftOut("needs a GPU")
    words = ["finetuning=full", "finetuning.batch_norm=train", "trainer.max_epochs=1"]
    found = bench.train(network, *words, cache="pictures", watch="Synchronisations")
    places = ", ".join(f"{place} ({number})" for place, number in found["places"].items())
    return {"steps": found["steps"], "waits": sum(found["places"].values()), "where": places or "nowhere"}
