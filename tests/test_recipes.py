"""Recipes are what they say: layers, rates, what is frozen, pictures; each takes two steps."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision
from hydra import compose, initialize_config_dir
from torch import nn
from torch.optim.lr_scheduler import StepLR

from headstart.backbones.weights import StateDict
from headstart.cli.check import check_config
from headstart.cli.conf_files import CONF
from headstart.finetuning.base import strategy_of
from headstart.training.build import build_data, build_task, build_trainer

RECIPES = (
    *("vgg16_cifar10", "vgg16_gap_cifar10", "vgg16_flatten_binary", "vgg16_sigmoid_binary", "gradual_unfreezing"),
    *("resnet50_cats_dogs_finetuning", "resnet50_cats_dogs_feature_extraction", "transfer_vs_scratch"),
)


@pytest.fixture(autouse=True)
def _weights(monkeypatch):
    """In the place of a download: what has the names and shapes of the published file, its classifier left out."""

    def tensors(url: str) -> StateDict:
        with torch.device("meta"):
            state = torchvision.models.get_model(Path(url).name.split("-")[0]).state_dict()
        return StateDict({
            name: torch.randn(t.shape) / t[0].numel() ** 0.5 if t.ndim > 1 else torch.ones(t.shape, dtype=t.dtype)
            for name, t in state.items()
            if not name.startswith(("classifier.", "fc."))
        })  # fmt: skip

    monkeypatch.setattr("headstart.backbones.torchvision.fetch", lambda url: url)
    monkeypatch.setattr("headstart.backbones.torchvision.load_state_dict_file", tensors)


@pytest.fixture
def trial(composed):
    """Two training steps of a recipe on made-up pictures, with all that came of it."""

    def run(recipe: str, pixels: int, classes: int, *overrides: str) -> SimpleNamespace:
        cfg = composed(f"experiment={recipe}", *overrides)
        made_up = composed(
            f"experiment={recipe}", "data=fake", f"data.image_size={pixels}", f"data.num_classes={classes}",
            "data.num_samples=24", "data.batch_size=2", "data.num_workers=0", "trainer=cpu", "trainer.fast_dev_run=2",
            "trainer.precision=32-true", "trainer.enable_progress_bar=false", *overrides,
        )  # fmt: skip
        data = build_data(made_up)
        task, trainer = build_task(made_up, data), build_trainer(made_up)
        before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
        trainer.fit(task, data)
        changed = {name for name, tensor in task.state_dict().items() if not torch.equal(tensor, before[name])}
        return SimpleNamespace(cfg=cfg, data=data, task=task, trainer=trainer, changed=changed)

    return run


def layers(head: nn.Module) -> list[str]:
    sizes = {nn.Linear: lambda m: f"{m.in_features}-{m.out_features}", nn.Dropout: lambda m: m.p, nn.ReLU: lambda m: ""}
    return [f"{type(m).__name__} {sizes[type(m)](m)}".strip() for m in head]


def rates(trainer) -> dict[str, float]:
    (optimizer,) = trainer.optimizers
    return {group["name"].removesuffix("/no_decay"): group["lr"] for group in optimizer.param_groups}


def learned(recipe) -> set[str]:
    """`backbone`, `head` or both: where weights are not what they were."""
    return {name.split(".")[0] for name in recipe.changed}


def random_changes(recipe) -> list[nn.Module]:
    return list(recipe.data.train_transform.random.transforms)


def check_length(recipe, epochs: int) -> None:
    assert recipe.cfg.data.batch_size == 32
    assert recipe.cfg.trainer.max_epochs == epochs
    assert recipe.cfg.finetuning.patience is None


def check_cifar_pixels(recipe) -> None:
    picture = torch.randint(256, (3, 32, 32), dtype=torch.uint8)
    assert torch.equal(recipe.data.train_transform(picture), picture)
    assert torch.equal(recipe.data.eval_transform(picture), picture)


def test_vgg16_cifar10(trial):
    recipe = trial("vgg16_cifar10", 32, 10, "trainer.fast_dev_run=1")  # 134 M parameters learn
    assert layers(recipe.task.head) == [
        "Linear 25088-4096", "ReLU", "Dropout 0.5", "Linear 4096-4096", "ReLU", "Dropout 0.5", "Linear 4096-10"
    ]  # fmt: skip
    assert type(recipe.trainer.optimizers[0]) is torch.optim.SGD
    assert {group["momentum"] for group in recipe.trainer.optimizers[0].param_groups} == {0.9}
    assert set(rates(recipe.trainer).values()) == {1e-3}
    assert recipe.cfg.scheduler is None
    assert {"backbone.net.features.0.weight", "head.0.weight"} <= recipe.changed
    check_cifar_pixels(recipe)
    check_length(recipe, 10)


def test_vgg16_gap_cifar10(trial):
    recipe = trial("vgg16_gap_cifar10", 32, 10)
    assert layers(recipe.task.head) == ["Linear 512-1024", "ReLU", "Dropout 0.5", "Linear 1024-10"]
    assert type(recipe.trainer.optimizers[0]) is torch.optim.Adam
    assert rates(recipe.trainer)["head"] == 1e-3
    assert recipe.cfg.scheduler is None
    assert learned(recipe) == {"head"}
    check_cifar_pixels(recipe)
    check_length(recipe, 10)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("resnet50_cats_dogs_finetuning", {"backbone", "head"}),
        ("resnet50_cats_dogs_feature_extraction", {"head"}),
    ],
)
def test_resnet50_cats_dogs(name, parts, trial):
    recipe = trial(name, 300, 2)
    assert recipe.cfg.data._target_.endswith("CatsDogs")
    assert recipe.cfg.name == name
    assert layers(recipe.task.head) == ["Linear 2048-2"]
    assert learned(recipe) == parts
    assert ("backbone.net.bn1.running_mean" in recipe.changed) == ("backbone" in parts)
    assert type(recipe.trainer.optimizers[0]) is torch.optim.SGD
    assert {group["momentum"] for group in recipe.trainer.optimizers[0].param_groups} == {0.9}
    assert set(rates(recipe.trainer).values()) == {1e-3}
    schedule = recipe.trainer.lr_scheduler_configs[0].scheduler
    assert isinstance(schedule.inner, StepLR)
    assert (schedule.inner.step_size, schedule.inner.gamma, schedule.interval) == (7, 0.1, "epoch")
    crop, flip = random_changes(recipe)
    assert (crop.size, crop.scale, flip.p) == ((224, 224), (0.08, 1.0), 0.5)
    preprocess = recipe.task.backbone.preprocess
    assert (preprocess.resize_size, preprocess.image_size) == (256, 224)
    check_length(recipe, 25)


def test_vgg16_flatten_binary(trial):
    recipe = trial("vgg16_flatten_binary", 224, 2)
    assert layers(recipe.task.head) == ["Linear 25088-256", "ReLU", "Linear 256-2"]
    assert recipe.task.backbone.preprocess.image_size == 224
    assert type(recipe.trainer.optimizers[0]) is torch.optim.Adam
    assert learned(recipe) == {"head"}
    affine, flip = random_changes(recipe)
    assert (affine.degrees, affine.shear, affine.scale, flip.p) == ([0.0, 0.0], [-11.5, 11.5], (0.8, 1.2), 0.5)
    check_length(recipe, 10)


def test_vgg16_sigmoid_binary(trial):
    recipe = trial("vgg16_sigmoid_binary", 64, 2, "model.image_size=64")
    assert layers(recipe.task.head) == ["Linear 512-1024", "ReLU", "Linear 1024-1"]
    loss = recipe.task.objective.loss(torch.tensor([[0.3], [-2.0]]), torch.tensor([1, 0]))
    assert loss == nn.BCEWithLogitsLoss()(torch.tensor([0.3, -2.0]), torch.tensor([1.0, 0.0]))
    assert type(recipe.trainer.optimizers[0]) is torch.optim.Adam
    assert learned(recipe) == {"head"}
    affine, flip = random_changes(recipe)
    assert (affine.degrees, affine.shear, affine.scale, flip.p) == ([-20.0, 20.0], None, (0.8, 1.2), 0.5)
    assert recipe.cfg.callbacks.curves.file.endswith("run/curves.png")
    check_length(recipe, 10)


def test_gradual_unfreezing(trial):
    recipe = trial("gradual_unfreezing", 64, 2, "model.image_size=64")
    blocks = ["layer4", "layer3", "layer2", "layer1", "stem"]
    plan = strategy_of(recipe.trainer).plan
    assert [stage.trained for stage in plan] == [frozenset(blocks[:number]) for number in range(len(blocks) + 1)]
    assert len(plan) < recipe.cfg.trainer.max_epochs
    assert learned(recipe) == {"head"}  # so far
    ratios = [recipe.task.lr_ratios[block] for block in blocks]
    assert ratios == pytest.approx([0.1 * 0.7**depth for depth in range(5)])
    assert "curves" in recipe.cfg.callbacks


@pytest.mark.parametrize("name", RECIPES)
def test_commands_in_the_comments_compose(name, composed):
    text = (CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    commands = re.findall(r"^#   python src/train\.py (.+?)(?:  .*)?$", text, re.MULTILINE)
    assert commands[0] == f"experiment={name}"
    assert re.search(r"^# measured: \S", text, re.MULTILINE)
    for command in commands:
        if "<" not in command:
            check_config(composed(*command.split()))


def test_adam_of_the_resnet50_recipes(trial):
    recipe = trial("resnet50_cats_dogs_feature_extraction", 64, 2, "model.image_size=64", "optimizer=adam")
    assert type(recipe.trainer.optimizers[0]) is torch.optim.Adam
    assert rates(recipe.trainer)["head"] == 1e-3


def test_transfer_vs_scratch(composed):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        hydra = compose("train", ["experiment=transfer_vs_scratch"], return_hydra_config=True).hydra
    assert hydra.mode.name == "MULTIRUN"
    assert hydra.sweeper.params == {
        "data.shots_per_class": "5,10,50,100,null", "finetuning": "scratch,probe,full", "seed": "0,1,2"
    }  # fmt: skip
    weights = {}
    for strategy in ("scratch", "probe", "full"):
        cfg = composed("experiment=transfer_vs_scratch", f"finetuning={strategy}", "data.shots_per_class=5")
        check_config(cfg)
        weights[strategy] = cfg.model.weights
        assert not cfg.compare_scratch
        assert cfg.finetuning.patience is None
    assert weights == {"scratch": None, "probe": "letters", "full": "letters"}
