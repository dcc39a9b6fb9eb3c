"""A saved config can only build what belongs there."""

import copy

import pytest
from omegaconf import OmegaConf

from headstart.cli import resolvers
from headstart.errors import UsageError
from headstart.runs.earlier import translated
from headstart.runs.trust import RESOLVERS, check_config, check_section, is_buildable

PAYLOAD = {"_target_": "torch.utils.collect_env.run", "command": "touch /tmp/never"}


def places(node, path=()):
    """The path of every value of a tree, and of every dictionary in it."""
    yield path
    if isinstance(node, dict):
        for key, value in node.items():
            yield from places(value, (*path, key))


def with_value(tree, path, value):
    changed = copy.deepcopy(tree)
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return changed


@pytest.fixture
def saved(composed):
    """What a run with these overrides writes into its folder."""

    def save(*overrides):
        cfg = composed(*overrides)
        return OmegaConf.to_container(cfg) | {"paths": OmegaConf.to_container(cfg.paths, resolve=True)}

    return save


def test_a_payload_in_any_place_is_refused(saved):
    saved = saved("scheduler=onecycle", "mixing=mixup", "test_time=flip", "callbacks=ema")
    check_config(saved)
    tried = [path for path in places(saved) if path and path[-1] != "_target_"]
    assert len(tried) > 80
    for path in tried:
        with pytest.raises(UsageError, match=r"REFUSED: the saved config (would build|computes)"):
            check_config(with_value(saved, path, PAYLOAD))
        with pytest.raises(UsageError, match=r"REFUSED: the saved config (would build|computes)"):
            check_config(with_value(saved, path, [1, [PAYLOAD]]))
        with pytest.raises(UsageError, match=r"REFUSED: the saved config (would build|computes)"):
            check_config(with_value(saved, path, {"any": {"_target_": 5}}))
        with pytest.raises(UsageError, match=r"computes a value at .*oc\.env:HOME"):
            check_config(with_value(saved, path, "a ${oc.env:HOME}"))


BUILDS = "{_target_:torch.utils.collect_env.run,command:'touch /tmp/never'}"


@pytest.mark.parametrize(
    "text",
    [
        f"${{oc.select:nope,{BUILDS}}}",  # a default may hold a whole section
        "${${name}:" + BUILDS + "}",  # the name of the function is computed
        "${oc.create:" + BUILDS + "}",
        "${oc.decode:" + BUILDS + "}",
        "${unless:" + BUILDS + "}",
        "${best_is:${oc.env:HOME}}",
        "${oc.dict.values:optimizer}",
        "${optimizer}",  # a section in another place
        "${.optimizer}",
        "${paths.${name}}",
        "${oc.env:MLFLOW_TRACKING_URI,'http://elsewhere'}",
        "${hydra:runtime.cwd}",
    ],
)
def test_only_plain_settings_are_referred_to(text, saved):
    saved = saved()
    for path in (("head",), ("model", "weights"), ("callbacks", "any"), ("monitor",)):
        with pytest.raises(UsageError, match="computes a value at"):
            check_config(with_value(saved, path, text))
    with pytest.raises(UsageError, match="computes a value at preprocess"):
        check_section("preprocess", {"image_size": "${seed}"})
    check_config(saved | {"monitor": "${name} and ${best_is:${mode}} and ${unless:${oc.select:trainer.max_steps}}"})


def test_a_saved_config_does_not_decide_what_is_downloaded(saved):
    data = {"_target_": "headstart.datasets.cats_dogs.CatsDogs", "url": "http://elsewhere/x.zip", "sha256": "0"}
    assert set(translated(saved() | {"data": data}).data) == {"_target_"}


@pytest.mark.parametrize(
    ("section", "target"),
    [
        ("model", "os.system"),
        ("model", "headstart.backbones.torchvision.Path"),  # imported there, not defined there
        ("model", "headstart.backbones.weights.Path.write_text"),
        ("model", "headstart.backbones.torchvision.parameters_on_meta"),  # no class
        ("data", "headstart.datasets.download.fetch"),
        ("data", "headstart.backbones.tiny_resnet.TinyResNet"),  # another section's
        ("data", "headstart.datasets.."),
        ("callbacks", "pytorch_lightning.callbacks.model_checkpoint.os"),
        ("callbacks", "pytorch_lightning.callbacks.model_checkpoint"),
        ("optimizer", "torch.optim.adamw.torch.hub.load"),
        ("optimizer", "torch.optim.sgd"),
        ("scheduler", "torch.optim.lr_scheduler.Optimizer"),  # imported there
        ("scheduler", "torch.optim.lr_scheduler.LambdaLR"),  # calls any function
        ("augmentation", "torchvision.transforms.v2.Lambda"),
        ("augmentation", "torchvision.transforms.v2.InterpolationMode"),
        ("callbacks", "pytorch_lightning.callbacks.LambdaCallback"),
        ("trainer", "pytorch_lightning.LIGHTNING_LOGO"),
        ("optimizer", "torch.optim.NoSuch"),
        ("trainer", "pytorch_lightning.trainer.call"),
        ("paths", "headstart.heads.linear.LinearHead"),
        ("model", "${optimizer._target_}"),
        ("model", ["os.system"]),
    ],
)
def test_what_does_not_belong_there_is_not_built(section, target):
    assert not is_buildable(section, target)


@pytest.mark.parametrize(
    ("section", "target"),
    [
        ("optimizer", "torch.optim.RMSprop"),
        ("scheduler", "torch.optim.lr_scheduler.CosineAnnealingWarmRestarts"),
        ("callbacks", "pytorch_lightning.callbacks.LearningRateMonitor"),
        ("preprocess", "headstart.inputs.images.preprocess.ImagePreprocess"),
        ("augmentation", "torchvision.transforms.v2.GaussianBlur"),
        ("callbacks", "pytorch_lightning.callbacks.RichProgressBar"),
        ("logger", "pytorch_lightning.loggers.CSVLogger"),
        ("trainer", "pytorch_lightning.Trainer"),
        ("trainer", "pytorch_lightning.strategies.DDPStrategy"),
        ("trainer", "pytorch_lightning.profilers.SimpleProfiler"),
    ],
)
def test_parts_of_libraries_and_our_own_are(section, target):
    assert is_buildable(section, target)


def test_a_name_that_one_trusts_is_built(monkeypatch):
    assert not is_buildable("data", "my_project.data.Flowers")
    monkeypatch.setenv("HEADSTART_TRUST", "other, my_project.data")
    assert is_buildable("data", "my_project.data.Flowers")
    assert not is_buildable("data", "my_project.database.Flowers")
    monkeypatch.setenv("HEADSTART_TRUST", "torch.optim.lr_scheduler.LambdaLR")
    assert is_buildable("scheduler", "torch.optim.lr_scheduler.LambdaLR")


def test_the_message_is_one_line_whatever_the_name():
    with pytest.raises(UsageError) as refused:
        check_section("model", {"_target_": "a\x1b[2J\nb" * 100})
    assert "\x1b" not in str(refused.value)
    assert len(str(refused.value)) < 600


def test_the_allowed_functions_are_ours():
    assert set(RESOLVERS) <= set(resolvers.RESOLVERS)
