"""Mistakes that are found before torch is loaded."""

import pytest
from omegaconf import OmegaConf

from headstart.cli.early_checks import duration, late_mistakes


def config(**changes):
    plain = {"seed": 0, "model": {}, "data": {}, "trainer": {}, "finetuning": {}, "optimizer": {}, "logger": {}}
    return OmegaConf.create(plain | changes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seed": -1}, "seed=-1: give a whole number from 0 to 4294967295"),
        ({"optimizer": {"lr": -0.1}}, "optimizer.lr=-0.1: give a number of at least 0"),
        ({"head": {"dropout": 1.5}}, "head.dropout=1.5: give a number from 0.0 to 1.0"),
        ({"data": {"batch_size": 0}}, "data.batch_size=0: give a whole number of at least 1"),
        ({"model": {"weights": "gone.pth"}}, "model.weights=gone.pth: there is no such file or folder"),
        ({"trainer": {"accelerator": "gpus"}}, "choose one of auto, cpu, gpu, cuda, mps, tpu"),
        ({"trainer": {"max_time": "soon"}}, "trainer.max_time=soon: give a time such as 10m"),
        ({"trainer": {"max_time": 600}}, "trainer.max_time=600: give a time such as 10m"),
        ({"finetuning": {"_target_": "headstart.finetuning.lora.LoRA"}}, "add model.lora_rank=8"),
        ({"logger": {"x": {"_target_": "pytorch_lightning.loggers.WandbLogger"}}}, 'pip install -e ".[wandb]"'),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_mistake_has_one_sentence(changes, told, monkeypatch):
    monkeypatch.setattr("headstart.cli.early_checks.find_spec", lambda name: None)
    (sentence,) = late_mistakes(config(**changes))
    assert told in sentence


def test_a_folder_that_is_spelt_wrongly(tmp_path):
    (tmp_path / "animals").mkdir()
    data = {"_target_": "headstart.datasets.image_folder.ImageFolder", "root": str(tmp_path / "animal")}
    assert list(late_mistakes(config(data=data))) == [
        f"data.root={tmp_path / 'animal'}: no such folder, did you mean 'animals'?"
    ]
    downloaded = data | {"_target_": "headstart.datasets.cats_dogs.CatsDogs"}
    assert not list(late_mistakes(config(data=downloaded)))
    table = data | {"_target_": "headstart.datasets.text_table.TextTable"}
    assert "animal: no such file or folder, did you mean 'animals'?" in next(late_mistakes(config(data=table)))


def test_a_good_config_has_no_mistake(tmp_path):
    weights = {"weights": str(tmp_path)}
    assert not list(late_mistakes(config(model=weights, trainer={"max_time": "10m", "accelerator": "auto"})))
    assert not list(late_mistakes(config(model={"weights": "IMAGENET1K_V1", "lora_rank": 8})))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("10m", "00:00:10:00"), ("10 min", "00:00:10:00"), ("1h30m", "00:01:30:00"), ("1.5h", "00:01:30:00"),
        ("90s", "00:00:01:30"), ("2d", "02:00:00:00"), ("00:01:00:00", "00:01:00:00"), ("10", None), ("", None),
        ("1:30", None), ("10m and more", None),
    ],
)  # fmt: skip
def test_lengths_of_time(given, expected):
    assert duration(given) == expected
