import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

from headstart.cli.check import call_parameters, check_config
from headstart.cli.conf_files import CONF
from headstart.cli.overrides import translate_null_choices
from headstart.errors import UsageError
from headstart.metrics.scores import best_is
from headstart.training.run import train


def refusal(cfg) -> str:
    with pytest.raises(UsageError) as caught:
        check_config(cfg)
    return str(caught.value)


def test_sound_config_passes(composed):
    check_config(composed())


def test_all_mistakes_are_told_at_once(composed):
    cfg = composed()
    with open_dict(cfg):
        cfg.trainer.max_epoch = 3
        cfg.optimizer.lrr = 1
        cfg.callbacks.early_stoping = {"patience": 3}
        cfg.seeed = 1
    told = refusal(cfg)
    assert "trainer takes no 'max_epoch', did you mean 'max_epochs'?" in told
    assert "optimizer takes no 'lrr', did you mean 'lr'?" in told
    assert "callbacks.early_stoping has no _target_; to leave one out write ~callbacks.early_stoping" in told
    assert "there is no key 'seeed', did you mean 'seed'?" in told


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr=abc", "optimizer.lr=abc: this must be a number"),
        ("trainer.max_epochs=ten", "trainer.max_epochs=ten: this must be a whole number"),
        ("trainer.max_epochs=1.5", "trainer.max_epochs=1.5: this must be a whole number"),
        ("data.num_workers=big", "data.num_workers=big: this must be a whole number"),
        ("head.dropout=none", "head.dropout=none: this must be a number"),
        ("data.batch_size=null", "data.batch_size=None: this must be a whole number"),
        ("data.batch_size=[1]", "data.batch_size=[1]: this must be a whole number"),
        ("optimizer.lr=null", "optimizer.lr=None: this must be a number"),
        ("cache.pictures=off", "cache.pictures=off has no _target_; to leave it out write cache.pictures=null"),
        ("+cache.pictures.rot=x", "cache.pictures takes no 'rot', did you mean 'root'?"),
        ("mode=min", "mode=min contradicts monitor=val/acc"),
        ("monitor=val/loss mode=max", "mode=max contradicts monitor=val/loss"),
        ("data=image_folder", "Missing mandatory value: data.root"),
        ("~head", "there is no head: choose a file of conf/head, head=<name>"),
    ],
)
def test_a_mistake_is_refused_with_what_to_type(override, message, composed):
    if "Missing" in message:
        message = "data.root must be given: add data.root=<value>"
    assert message in refusal(composed(*override.split()))


def test_numbers_may_be_whole_where_a_float_is_meant(composed):
    check_config(composed("head.dropout=0", "optimizer.lr=1", "data.val_fraction=0"))


def test_target_that_does_not_exist(composed):
    assert "head._target_=headstart.heads.linear.Lineer cannot be imported" in refusal(
        composed("head._target_=headstart.heads.linear.Lineer")
    )


def test_required_argument_is_asked_for(composed):
    cfg = composed("data=image_folder", "data.root=x")
    with open_dict(cfg):
        del cfg.data.root
    assert "data needs 'root': add data.root=<value>" in refusal(cfg)


def test_options_passed_on_to_a_base_class_are_known():
    from headstart.datasets.digits import Digits
    from headstart.datasets.image_folder import ImageFolder

    assert {"root", "on_bad", "batch_size", "seed"} <= set(call_parameters(ImageFolder))
    assert "root" not in call_parameters(Digits)
    assert "lr" in call_parameters(torch.optim.AdamW)


@pytest.mark.parametrize(("monitor", "best"), [("val/loss", "min"), ("val/ece", "min"), ("val/acc", "max")])
def test_direction_follows_from_the_metric(monitor, best, composed):
    assert best_is(monitor) == best
    assert composed(f"monitor={monitor}").mode == best


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_optimizers_are_fused_unless_gradients_are_clipped(name, composed):
    assert composed(f"optimizer={name}").optimizer.fused is True
    assert composed(f"optimizer={name}", "trainer.gradient_clip_val=0").optimizer.fused is True
    assert composed(f"optimizer={name}", "trainer.gradient_clip_val=0.5").optimizer.fused is False


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_clipping_under_mixed_precision_trains(name, quick):
    cfg = quick(f"optimizer={name}", "trainer.precision=bf16-mixed", "trainer.gradient_clip_val=0.1", "debug=fast")
    train(cfg)


def test_seed_zero_is_a_seed(composed):
    cfg = composed("seed=0")
    assert cfg.seed == 0
    assert cfg.data.seed == 0
    assert OmegaConf.get_type(cfg).__name__ == "TrainConfig"


@pytest.mark.parametrize(
    ("words", "auto"),
    [
        ([], True),
        (["data=image_folder", "data.root=x"], True),
        (["optimizer=adam"], True),
        (["finetuning=auto"], True),
        (["~experiment"], False),
        (["finetuning=full"], False),
        (["experiment=gradual_unfreezing"], False),
        (["experiment=gradual_unfreezing", "finetuning=auto"], True),
    ],
    ids=str,
)
def test_the_default_recipe_chooses_by_the_data_unless_the_words_say_how_to_train(words, auto):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", words)
    assert cfg.auto == auto


def test_a_named_strategy_is_that_strategy_and_nothing_of_auto(composed):
    """Neither augmentation nor patience nor averages of weights come with it."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert compose("train", ["finetuning=full", "paths.run=x"]) == compose("train", ["~experiment", "paths.run=x"])


def test_an_optimizer_keeps_its_own_learning_rate(composed):
    assert composed("optimizer=sgd").optimizer.lr == 0.01


@pytest.mark.parametrize(
    ("argument", "for_hydra"),
    [("experiment=null", ["~experiment"]), ("debug=null", []), ("hparams_search=null", []), ("seed=1", ["seed=1"])],
)
def test_a_recipe_of_null_is_translated_for_hydra(argument, for_hydra):
    assert translate_null_choices(["-m", argument, "x=2"]) == ["-m", *for_hydra, "x=2"]
