"""Choices that depend on the machine."""

import hashlib
import json
import logging
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from headstart.backbones.base import Backbone
from headstart.files import replacing

log = logging.getLogger(__name__)
FP32, BF16 = "32-true", "bf16-mixed"
# A CPU computes in bf16 where that is so many times faster; less is not worth its rounding
WORTH_IT = 1.2
# Where steps are this short in fp32 (seconds), other things than arithmetic take the time
SHORT_STEP = 0.2
PROBE_SECONDS = 2.0
PROBE_BATCH = 16


def choose_precision(asked: str | int, accelerator: str, measure: Callable[[], str] | None = None) -> str | int:
    """The trainer's `precision`: what was asked for or, for `auto`, the fastest that is safe on this machine.

    bf16 needs no loss scaling and has fp32's range; GPUs that lack it get fp16 with a scaler. On CPUs with instructions
    for bf16 it depends on the network, so it is measured. All else, Apple's MPS too, stays in fp32.

    Args:
        asked: a precision, or `auto`.
        accelerator: the trainer's.
        measure: finds the faster of `32-true` and `bf16-mixed` on such a CPU; None stays in fp32.
    """
    if asked != "auto":
        return asked
    if _takes_gpu(accelerator):
        return BF16 if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    if measure and accelerator in ("auto", "cpu") and _computes_bf16():
        return measure()
    return FP32


def _takes_gpu(accelerator: str) -> bool:
    """Whether a trainer with this accelerator computes on a CUDA device."""
    return accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def _computes_bf16() -> bool:
    """Whether this CPU has instructions for it; emulated it is slower than fp32."""
    questions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in questions)


def faster_precision(build: Callable[[], Backbone], key: str, known: Path) -> str:
    """`bf16-mixed` where a training step of the backbone is clearly faster in it, else `32-true`.

    Measured in about two seconds on random pictures. Jobs of a sweep and later runs on this machine find the answer in
    a file, so that they compute alike.

    Args:
        build: the backbone; its weights do not matter.
        key: what was built.
        known: a JSON file of answers.
    """
    on = [platform.node(), platform.machine(), torch.__version__, torch.get_num_threads(), key]
    place = hashlib.sha256(json.dumps(on).encode()).hexdigest()[:16]
    answers: dict[str, tuple[str, str]] = {}
    with suppress(OSError, ValueError):  # not there yet, or damaged: then it is measured again
        answers = json.loads(known.read_text())
    if place not in answers:
        with torch.random.fork_rng(devices=[]):  # a run's random numbers do not depend on whether this was known
            answers[place] = _measured(build())
        try:
            with replacing(known) as stream:
                json.dump(answers, stream, indent=1)
        except OSError as error:
            log.warning("the next run will measure the faster precision again: %s", error)
    chosen, told = answers[place]
    if told:
        log.info("precision %s: %s", chosen, told)
    return chosen


def _measured(backbone: Backbone) -> tuple[str, str]:
    """The choice, and the reason for it where it had to be thought of."""
    side = backbone.preprocess.image_size
    pictures = torch.randint(0, 256, (PROBE_BATCH, 3, side, side), dtype=torch.uint8)
    backbone.eval()
    seconds: dict[str, list[float]] = {FP32: [], BF16: []}
    if min(_step(backbone, pictures, FP32) for _ in range(3)) < SHORT_STEP:
        return FP32, ""
    _step(backbone, pictures, BF16)
    end = time.monotonic() + PROBE_SECONDS
    while len(seconds[BF16]) < 2 or time.monotonic() < end:
        for precision, times in seconds.items():  # in turns, so that other work slows both alike
            times.append(_step(backbone, pictures, precision))
    fp32, bf16 = (statistics.median(times) for times in seconds.values())
    chosen = BF16 if fp32 / bf16 >= WORTH_IT else FP32
    return chosen, f"a step of {PROBE_BATCH} pictures takes {fp32:.2f} s in fp32, {bf16:.2f} s in bf16"


def seconds_a_picture(backbone: Backbone, image_size: int, accelerator: str) -> float:
    """How long learning from one picture takes about, on the GPU if the trainer would take one, else on the CPU.

    Args:
        backbone: takes pictures of that size.
        image_size: side in pixels.
        accelerator: the trainer's.
    """
    on_gpu = _takes_gpu(accelerator)
    device = "cuda" if on_gpu else "cpu"
    pictures = torch.randint(0, 256, (PROBE_BATCH, 3, image_size, image_size), dtype=torch.uint8, device=device)
    backbone = backbone.eval().to(device)
    precision = BF16 if on_gpu else FP32
    return statistics.median([_step(backbone, pictures, precision) for _ in range(4)][1:]) / PROBE_BATCH


def _step(backbone: Backbone, pictures: torch.Tensor, precision: str) -> float:
    """Seconds for forward and backward."""
    start = time.perf_counter()
    with torch.autocast(pictures.device.type, torch.bfloat16, enabled=precision == BF16):
        features = backbone(pictures)
    features.float().square().mean().backward()
    if pictures.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start
