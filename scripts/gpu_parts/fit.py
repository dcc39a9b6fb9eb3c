"""Whole training against a bare loop."""

import shutil
import statistics
import time
from functools import cache
from typing import Any

import torch
from torch import nn

from gpu_parts.bench import (
    CUDA,
    DEVICE,
    PICTURES,
    Bench,
    LeftOut,
    count_photos,
    free_memory,
    peak_memory,
    require_gpu,
    reset_peak_memory,
    synchronise,
)

PRECISIONS = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def fit(bench: Bench) -> None:
    """Full finetuning, whole, against bare steps of the same network; pictures from the cache."""
    sizes = bench.sizes
    first = sizes.networks[0]
    for precision in PRECISIONS:
        bench.measure(f"matrix product, {precision}", lambda precision=precision: matrix_peak(precision, sizes.matrix))
    for number in range(1, sizes.rounds + 1):
        for network in sizes.networks:
            case = f"{network}, bf16-mixed, round {number}"
            bench.measure(case, lambda network=network: against_bare(bench, network, "bf16-mixed"))
    bench.measure(f"{first}, bf16-mixed, waits for the GPU", lambda: waits(bench, first))
    for precision in ("32-true", "16-mixed"):
        bench.measure(f"{first}, {precision}", lambda precision=precision: against_bare(bench, first, precision))
    for network in sizes.networks:
        for name, options in {"channels_last off": {"channels_last": False}, "compiled": {"compiled": True}}.items():
            case = f"{network}, bf16-mixed, bare loop, {name}"
            bench.measure(case, lambda network=network, options=options: bare_alone(bench, network, **options))


def matrix_peak(precision: str, side: int) -> dict[str, Any]:
    """Operations a second of the product of two square matrices."""
    if precision == "16-mixed":
        require_gpu()
    matrix = torch.randn(side, side, device=DEVICE, dtype=PRECISIONS[precision])
    for _ in range(3):
        matrix @ matrix
    synchronise()
    start = time.perf_counter()
    for _ in range(20):
        matrix @ matrix
    synchronise()
    return {"TFLOP/s": 20 * 2 * side**3 / (time.perf_counter() - start) / 1e12}


class BareLoop:
    """Forward, backward and optimizer step on one batch that lies on the device; nothing else."""

    def __init__(self, bench: Bench, network: str, precision: str, channels_last: bool = True, compiled: bool = False):
        size, self.dtype = bench.sizes, PRECISIONS[precision]
        backbone = bench.backbone(network)
        self.net = nn.Sequential(backbone, nn.Linear(backbone.num_features, 2)).to(DEVICE).train()
        self.net.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-5, fused=True)
        self.scaler = torch.amp.GradScaler(DEVICE.type, enabled=precision == "16-mixed")
        self.inputs = torch.randint(0, 256, (size.batch, 3, size.side, size.side), dtype=torch.uint8, device=DEVICE)
        self.targets = torch.arange(size.batch, device=DEVICE) % 2
        self.compile_seconds = None
        if not channels_last:
            self.switch_channels_last_off()
        if compiled:
            self.net.compile()
            start = time.perf_counter()
            self.step()
            self.step()
            synchronise()
            self.compile_seconds = time.perf_counter() - start

    def switch_channels_last_off(self) -> None:
        """Gives the first convolution plain inputs, because the backbone converts them, and looks at all outputs.

        Raises:
            LeftOut: another layer of this network brings channels_last back.
        """
        convolutions = [module for module in self.net.modules() if isinstance(module, nn.Conv2d)]
        convolutions[0].register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
        plain: list[bool] = []
        hooks = [
            module.register_forward_hook(lambda _, __, output: plain.append(output.is_contiguous()))
            for module in convolutions
        ]
        self.step()
        for hook in hooks:
            hook.remove()
        if not all(plain):
            raise LeftOut(f"{plain.count(False)} of {len(plain)} convolutions still use channels_last")

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


@cache
def forward_operations(bench: Bench, network: str) -> int:
    """Floating point operations of a forward pass of one picture."""
    from torch.utils.flop_counter import FlopCounterMode

    backbone = bench.backbone(network).eval()
    with FlopCounterMode(display=False) as counter:  # with gradients: without, attention has kernels it cannot count
        backbone(torch.zeros(1, 3, bench.sizes.side, bench.sizes.side, dtype=torch.uint8))
    return counter.get_total_flops()


def against_bare(bench: Bench, network: str, precision: str) -> dict[str, Any]:
    """Pictures a second of a training run and of the bare loop after it; memory; share of the matrix peak.

    The run is measured twice: whole epochs (without validation), and the steps between the first and the last.
    """
    if precision == "16-mixed":
        require_gpu()
    # BatchNorm in train mode, as in the bare loop
    overrides = ["finetuning=full", "finetuning.batch_norm=train", "finetuning.patience=null"]
    run = bench.train(network, *overrides, f"trainer.precision={precision}", "trainer.max_epochs=3", cache=PICTURES)
    # the first epoch fills the cache and warms up
    epochs = count_photos(bench.photos / "train") / statistics.mean(run["seconds"][1:])
    steps = statistics.mean(run["speed"][1:])
    free_memory()
    reset_peak_memory()
    bare = BareLoop(bench, network, precision).pictures_per_second(bench.sizes.steps)
    peak = bench.results.get(f"matrix product, {precision}", {}).get("TFLOP/s")
    share = {}
    if peak and precision != "32-true":  # there, convolutions use TF32 and matrix products do not
        share = {"share of the matrix peak": f"{3 * forward_operations(bench, network) * steps / 1e12 / peak:.0%}"}
    memory = {"GB": max(run["memory"][1:]), "GB, bare": peak_memory()} if CUDA else {}
    return {
        "pictures/s, epochs": epochs,
        "pictures/s, steps": steps,
        "pictures/s, bare": bare,
        "epochs / bare": epochs / bare,
        "steps / bare": steps / bare,
        **share,
        **memory,
    }


def bare_alone(bench: Bench, network: str, **options: bool) -> dict[str, Any]:
    """The bare loop with another memory format, or compiled, between two measurements of the usual one."""
    if options.get("compiled") and not (shutil.which("cc") or shutil.which("gcc")):
        raise LeftOut("torch.compile needs a C compiler")
    speeds, cost = [], {}
    for changed in ({}, options, {}):
        loop = BareLoop(bench, network, "bf16-mixed", **changed)
        speeds.append(loop.pictures_per_second(bench.sizes.steps))
        if loop.compile_seconds:
            cost = {"compile s": loop.compile_seconds}
        del loop
        free_memory()
    before, other, after = speeds
    usual = (before + after) / 2
    return {"pictures/s, bare": usual, "changed": other, **cost, "ratio to the usual loop": other / usual}


def waits(bench: Bench, network: str) -> dict[str, Any]:
    """How often a training step makes the CPU wait for the GPU, and where."""
    require_gpu()
    overrides = ["finetuning=full", "finetuning.batch_norm=train", "trainer.max_epochs=2"]
    found = bench.train(network, *overrides, cache=PICTURES, watch="Synchronisations")
    places = ", ".join(f"{place} ({number})" for place, number in found["places"].items())
    return {"steps": found["steps"], "waits": sum(found["places"].values()), "where": places or "nowhere"}
