"""Configs and checkpoints of earlier versions under the names of today."""

import importlib

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from headstart.runs.earlier import MOVED, name_today, translated, translated_callbacks

# every `_target_` of ours that conf/ named before the modules moved
BEFORE_THE_MOVE = (
    "backbones.tiny_resnet.TinyResNet", "backbones.torchvision.TorchvisionBackbone",
    "caching.activations.ActivationCache", "caching.pictures.PictureCache", "callbacks.blend.Blend",
    "callbacks.ema.EMA", "callbacks.histograms.Histograms", "callbacks.interruption.Interruption",
    "callbacks.learning_rate.LearningRates", "callbacks.progress.ProgressBar", "data.augmentation.affine",
    "data.augmentation.flip_crop", "data.augmentation.none", "data.augmentation.trivial_augment",
    "data.cats_dogs.CatsDogs", "data.cifar10.CIFAR10", "data.digits.Digits", "data.fake.Fake",
    "data.image_folder.ImageFolder", "data.letters.Letters", "finetuning.bitfit.BitFit",
    "finetuning.feature_extraction.FeatureExtraction", "finetuning.full.Full", "finetuning.gradual.Gradual",
    "finetuning.lora.LoRA", "finetuning.lp_ft.LinearProbeThenFinetune", "finetuning.probe.Probe",
    "finetuning.scratch.Scratch", "finetuning.surgical.Surgical", "finetuning.top_k.TopK",
    "finetuning.unfreeze_at.UnfreezeAt", "heads.linear.LinearHead", "heads.mlp.MLPHead",
    "reporting.csv_log.CSVLogger", "reporting.curves.Curves", "reporting.dashboard.Dashboard",
    "reporting.sweep.SweepTable", "reporting.tables.LearningTable", "schedules.slanted_triangular",
    "schedules.warmup_cosine", "tasks.classification.ClassificationTask", "tasks.objectives.MultiLabel",
    "tasks.objectives.OneSigmoid", "tasks.objectives.Softmax",
)  # fmt: skip


@pytest.mark.parametrize("target", BEFORE_THE_MOVE)
def test_every_part_that_a_config_could_name_is_there_today(target):
    assert get_object(name_today(f"headstart.{target}")).__name__ == target.rpartition(".")[2]


@pytest.mark.parametrize("name", MOVED.values())
def test_every_name_of_today_exists(name):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        get_object(name)


def test_a_name_that_only_begins_alike_has_not_moved():
    assert name_today("headstart.data.basement.X") == "headstart.data.basement.X"
    assert name_today("torch.optim.SGD") == "torch.optim.SGD"


def test_a_config_keeps_its_interpolations_and_the_argument_stays():
    config = OmegaConf.create(
        {
            "seed": 3,
            "data": {"_target_": "headstart.data.digits.Digits", "seed": "${seed}", "root": "???"},
            "callbacks": {"parts": [{"_target_": "headstart.reporting.tables.LearningTable"}]},
        }
    )
    before = OmegaConf.to_yaml(config)
    found = translated(config)
    assert OmegaConf.to_container(found) == {
        "seed": 3,
        "data": {"_target_": "headstart.datasets.digits.Digits", "seed": "${seed}", "root": "???"},
        "callbacks": {"parts": [{"_target_": "headstart.callbacks.learning_table.LearningTable"}]},
    }
    assert found.data.seed == 3
    assert OmegaConf.to_yaml(config) == before


@pytest.mark.parametrize(
    ("task", "mixing"),
    [
        ({"mixup": 0.2, "cutmix": 0.0}, {"mixup": 0.2, "cutmix": 0.0}),
        ({"mixup": 0.0, "cutmix": 1}, {"mixup": 0.0, "cutmix": 1}),
        ({"mixup": 0.2}, {"mixup": 0.2, "cutmix": 0.0}),
        ({"mixup": 0.0, "cutmix": 0.0}, None),
    ],
)
@pytest.mark.parametrize("kind", [dict, OmegaConf.create])
def test_mixing_became_a_part(kind, task, mixing):
    found = translated(kind({"task": {"layer_lr_decay": 1.0, **task}}))
    part = mixing and {"_target_": "headstart.inputs.images.mixing.Mixing", "_partial_": True, **mixing}
    assert OmegaConf.to_container(found) == {"task": {"layer_lr_decay": 1.0}, "mixing": part}


@pytest.mark.parametrize("flip", [True, False])
def test_the_mirror_image_became_a_part(flip):
    found = translated({"task": {"test_time_flip": flip}})
    part = {"_target_": "headstart.inputs.images.mirror.with_mirror_image", "_partial_": True} if flip else None
    assert OmegaConf.to_container(found) == {"task": {}, "test_time": part}


def test_the_task_no_longer_repeats_other_sections():
    sections = {"head": {"dropout": 0.1}, "optimizer": {"lr": 0.1}, "scheduler": None, "monitor": "val/acc"}
    found = translated({"task": {"layer_lr_decay": 0.5, **sections}, **sections})
    assert OmegaConf.to_container(found) == {"task": {"layer_lr_decay": 0.5}, **sections}


@pytest.mark.parametrize("kind", [dict, OmegaConf.create])
def test_the_rise_after_an_unfreezing_has_another_name(kind):
    assert translated(kind({"task": {"wake_up_steps": 3}})) == {"task": {"unfreeze_warmup_steps": 3}}


def test_a_config_of_today_stays_as_it_is():
    config = {"task": {"layer_lr_decay": 1.0}, "mixing": None, "test_time": None}
    assert OmegaConf.to_container(translated(config)) == config


def test_states_of_callbacks_whose_class_was_renamed():
    states = {"Passes": {"passes": 3}, "Passes{'of': 'val'}": 4, "PassesMore": 5, "ModelCheckpoint{'monitor': None}": 6}
    assert translated_callbacks(states) == {
        "ForwardPassCounter": {"passes": 3}, "ForwardPassCounter{'of': 'val'}": 4, "PassesMore": 5,
        "ModelCheckpoint{'monitor': None}": 6,
    }  # fmt: skip
