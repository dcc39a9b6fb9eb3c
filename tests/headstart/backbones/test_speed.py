"""Which precision a machine gets."""

import json
import logging

import pytest
import torch
from omegaconf import OmegaConf

from headstart.backbones import speed
from headstart.backbones.speed import BF16, FP32, choose_precision, faster_precision
from headstart.backbones.tiny_resnet import TinyResNet
from headstart.training.run import train
from headstart.training.settle import _precision_probe as precision_probe


@pytest.mark.parametrize(
    ("asked", "accelerator", "cuda", "cuda_bf16", "cpu_bf16", "expected"),
    [
        ("16-mixed", "cpu", False, False, False, "16-mixed"),
        ("auto", "auto", True, True, True, "bf16-mixed"),
        ("auto", "gpu", True, False, True, "16-mixed"),
        ("auto", "cpu", True, True, False, "32-true"),
        ("auto", "cpu", False, False, True, "measured"),
        ("auto", "auto", False, False, True, "measured"),
        ("auto", "mps", False, False, True, "32-true"),
    ],
)
def test_auto(asked, accelerator, cuda, cuda_bf16, cpu_bf16, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: cuda_bf16)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: cpu_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert choose_precision(asked, accelerator, lambda: "measured") == expected
    if expected == "measured":
        assert choose_precision(asked, accelerator) == FP32


@pytest.mark.parametrize(("bf16", "expected"), [(0.1, BF16), (0.19, FP32), (3.0, FP32)])
def test_bf16_must_be_clearly_faster(bf16, expected, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(speed, "_step", lambda backbone, batch, precision: {FP32: 0.2, BF16: bf16}[precision])
    monkeypatch.setattr(speed, "PROBE_SECONDS", 0.0)
    with caplog.at_level(logging.INFO):
        assert faster_precision(lambda: TinyResNet(weights=None), "tiny", tmp_path / "known.json") == expected
    assert f"precision {expected}: a step of 16 samples takes 0.20 s in fp32, {bf16:.2f} s in bf16" in caplog.text


def test_an_answer_is_remembered_for_the_same_network_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(speed, "_measured", lambda backbone: answers.pop(0))
    answers = [(BF16, "first"), (FP32, "second")]
    ask = lambda key: faster_precision(lambda: None, key, tmp_path / "cache/known.json")  # noqa: E731
    assert [ask("a"), ask("a"), ask("b"), ask("a")] == [BF16, BF16, FP32, BF16]
    assert len(json.loads((tmp_path / "cache/known.json").read_text())) == 2
    (tmp_path / "cache/known.json").write_text("{")
    answers.append((FP32, "third"))
    assert ask("a") == FP32, "a damaged file is as good as none"


def test_short_steps_stay_in_fp32_and_random_numbers_as_they_were(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert faster_precision(lambda: TinyResNet(weights=None), "tiny", tmp_path / "known.json") == FP32
    assert torch.equal(torch.rand(2), expected)


def test_a_run_records_what_it_chose_and_goes_on_with_it(quick, monkeypatch, tmp_path):
    monkeypatch.setattr("headstart.backbones.speed._has_bf16_instructions", lambda: True)
    monkeypatch.setattr("headstart.backbones.speed._measured", lambda backbone: (BF16, "told"))
    train(quick("trainer.max_epochs=1", "trainer.precision=auto"))
    assert OmegaConf.load(tmp_path / "run/config.yaml").trainer.precision == BF16


def test_where_the_backbone_never_learns_nothing_is_measured(quick):
    assert precision_probe(quick("finetuning=probe")) is None
    assert precision_probe(quick("finetuning=feature_extraction")) is None
    assert precision_probe(quick("trainer.devices=2")) is None
    assert precision_probe(quick("+trainer.num_nodes=2")) is None
    assert precision_probe(quick("finetuning=gradual")) is not None
