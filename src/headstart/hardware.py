"""Choices that depend on the machine."""

import torch


def choose_precision(asked: str | int, accelerator: str) -> str | int:
    """The trainer's `precision`: what was asked for or, for `auto`, the fastest that is safe on this machine.

    bf16 needs no loss scaling and has fp32's range; GPUs that lack it get fp16 with a scaler. CPUs and Apple's MPS
    stay in fp32: there bf16 is faster for some networks and slower for others.
    """
    if asked != "auto":
        return asked
    on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    if not on_gpu:
        return "32-true"
    return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
