"""Measures the speed of a backbone on this machine, and chooses the precision."""

import hashlib
import json
import logging
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.utilities import move_data_to_device

from headstart.backbones.base import Backbone
from headstart.files import replacing
from headstart.inputs.base import leaves

log = logging.getLogger(__name__)
FP32, BF16 = "32-true", "bf16-mixed"
WORTH_IT = 1.2
"""bf16 is used on a CPU if it is at least this many times faster; for less, its rounding is not worth it."""
SHORT_STEP = 0.2
"""Seconds: in fp32 steps shorter than this, arithmetic takes the smaller part of the time."""
PROBE_SECONDS = 2.0
PROBE_BATCH = 16


def choose_precision(given: str | int, accelerator: str, measure: Callable[[], str] | None = None) -> str | int:
    """The `precision` of the trainer: as given or, for `auto`, the fastest that is safe on this machine.

    bf16 needs no loss scaling and has the range of fp32; GPUs without bf16 use fp16 with a scaler. On CPUs with bf16
    instructions the faster one depends on the network, so it is measured. All other devices, such as Apple's MPS, use
    fp32.

    Args:
        given: a precision, or `auto`.
        accelerator: `trainer.accelerator`.
        measure: finds the faster of `32-true` and `bf16-mixed` on such a CPU; None: use fp32.
    """
    if given != "auto":
        return given
    if uses_gpu(accelerator):
        return BF16 if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    if measure and accelerator in ("auto", "cpu") and _has_bf16_instructions():
        return measure()
    return FP32


def precision_on_this_machine(trained: str | int, accelerator: str) -> str | int:
    """The precision to use a trained run with: as trained, except `auto` and `16-mixed`, which not every device has."""
    return choose_precision("auto" if trained == "16-mixed" else trained, accelerator)


def uses_gpu(accelerator: str) -> bool:
    """Whether a trainer with this accelerator computes on a CUDA device."""
    return accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def _has_bf16_instructions() -> bool:
    """Whether this CPU has bf16 instructions; without them, bf16 is slower than fp32."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in checks)


def faster_precision(build: Callable[[], Backbone], key: str, known: Path) -> str:
    """`bf16-mixed` if a training step of the backbone is clearly faster with it, else `32-true`.

    The measurement takes about two seconds, on random inputs. The result is saved, so that all jobs of a sweep and
    later runs on this machine use the same precision.

    Args:
        build: builds the backbone; its weights do not matter.
        key: describes the backbone.
        known: JSON file with earlier results.
    """
    machine = [platform.node(), platform.machine(), torch.__version__, torch.get_num_threads(), key]
    place = hashlib.sha256(json.dumps(machine).encode()).hexdigest()[:16]
    answers: dict[str, tuple[str, str]] = {}
    with suppress(OSError, ValueError):  # missing or damaged: measure again
        answers = json.loads(known.read_text())
    if place not in answers:
        log.info("measuring which precision is faster")
        with torch.random.fork_rng(devices=[]):  # the random numbers of the run must not depend on this
            answers[place] = _measured(build())
        try:
            with replacing(known) as stream:
                json.dump(answers, stream, indent=1)
        except OSError as error:
            log.warning("the next run will measure the faster precision again: %s", error)
    chosen, reason = answers[place]
    if reason:
        log.info("precision %s: %s", chosen, reason)
    return chosen


def _measured(backbone: Backbone) -> tuple[str, str]:
    """The faster precision, and a sentence with both times, empty if steps are too short to matter."""
    batch = backbone.preprocess.example(PROBE_BATCH)
    backbone.eval()
    seconds: dict[str, list[float]] = {FP32: [], BF16: []}
    if min(_step(backbone, batch, FP32) for _ in range(3)) < SHORT_STEP:
        return FP32, ""
    _step(backbone, batch, BF16)
    end = time.monotonic() + PROBE_SECONDS
    while len(seconds[BF16]) < 2 or time.monotonic() < end:
        for precision, times in seconds.items():  # in turns, so that other programs slow down both equally
            times.append(_step(backbone, batch, precision))
    fp32, bf16 = (statistics.median(times) for times in seconds.values())
    chosen = BF16 if fp32 / bf16 >= WORTH_IT else FP32
    return chosen, f"a step of {PROBE_BATCH} samples takes {fp32:.2f} s in fp32, {bf16:.2f} s in bf16"


def seconds_per_sample(backbone: Backbone, accelerator: str) -> float:
    """Seconds of a training step per sample, measured on the GPU if the trainer would use one, else on the CPU."""
    on_gpu = uses_gpu(accelerator)
    device = "cuda" if on_gpu else "cpu"
    batch = move_data_to_device(backbone.preprocess.example(PROBE_BATCH), torch.device(device))
    backbone = backbone.eval().to(device)
    precision = BF16 if on_gpu else FP32
    return statistics.median([_step(backbone, batch, precision) for _ in range(4)][1:]) / PROBE_BATCH


def _step(backbone: Backbone, batch: Any, precision: str) -> float:
    """Seconds of one forward and backward pass."""
    device = next(leaves(batch)).device.type
    start = time.perf_counter()
    with torch.autocast(device, torch.bfloat16, enabled=precision == BF16):
        features = backbone(batch)
    features.float().square().mean().backward()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
