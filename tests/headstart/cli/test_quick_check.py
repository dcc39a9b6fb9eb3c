"""What is refused before torch is loaded would also be refused once the signatures are known."""

import re

import pytest
from hydra.utils import get_object
from omegaconf import open_dict

from headstart.cli import quick_check
from headstart.cli.check import call_parameters
from headstart.cli.conf_files import choices_by_group
from headstart.cli.quick_check import ALSO_TEXT, MAY_BE_AUTO, check_without_imports, nodes, parts
from headstart.errors import UsageError

NEEDED = {"image_folder": ["data.root=x"], "torchvision": ["model.name=x"]}
CHOICES = [(group, name) for group, names in choices_by_group().items() for name in names if name != "optuna"]


@pytest.mark.slow
def test_only_the_listed_settings_take_a_text_where_a_file_has_a_number(composed):
    """`weights: 3` in a file must not make `weights=best` a mistake if the signature says int | str."""
    found, text = set(), re.compile(r"\bstr\b|Literal|Any|_empty")
    for group, name in CHOICES:
        for part, plain in parts(composed(f"{group}={name}", *NEEDED.get(name, []))):
            for where, node in nodes(part, plain):
                parameters = call_parameters(get_object(node["_target_"])) if "_target_" in node else {}
                found |= {
                    f"{where}.{key}"
                    for key, value in node.items()
                    if isinstance(value, (bool, int, float)) and key[0] != "_"
                    and text.search(str(parameters[key].annotation))
                }  # fmt: skip
    assert found == ALSO_TEXT | MAY_BE_AUTO


@pytest.fixture
def refusal(composed, monkeypatch):
    """What the check says of a command line; None if it passes."""

    def of(*overrides: str) -> str | None:
        monkeypatch.setattr(quick_check, "command_line_overrides", lambda: list(overrides))
        try:
            return check_without_imports(composed(*overrides))
        except UsageError as error:
            return str(error)

    return of


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["optimizer.lr=fast"], "optimizer.lr=fast: this must be a number"),
        (["optimizer=sgd", "optimizer.nesterov=maybe"], "optimizer.nesterov=maybe: this must be true or false"),
        (["finetuning=gradual", "finetuning.every=often"], "finetuning.every=often: this must be a number"),
        (["callbacks=ema", "callbacks.ema.decay=slow"], "callbacks.ema.decay=slow: this must be a number"),
        (["data.seed=x"], "data.seed=x: this must be a number"),
        (["data=image_folder"], "data.root must be given: add data.root=<value>"),
        (["model=torchvision"], "model.name must be given: add model.name=<value>"),
        (["+seeed=1"], "there is no key 'seeed', did you mean 'seed'?"),
        (["lr_find=true", "trainer.devices=2"], "lr_find=true runs on one device"),
        (["data.batch_size=large"], "data.batch_size=large: this must be a number or auto"),
        (["data.batch_size=auto", "trainer.devices=2"], "data.batch_size=auto is for one device"),
        (["cache.pictures=off"], "cache.pictures=off has no _target_; to leave it out write cache.pictures=null"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_refused(overrides, told, refusal):
    assert told in refusal(*overrides)


def test_all_mistakes_are_told_at_once(refusal):
    told = refusal("optimizer.lr=fast", "data.batch_size=lots", "mode=min", "+seeed=1")
    for key in ("optimizer.lr=fast", "data.batch_size=lots", "mode=min", "seeed"):
        assert key in told


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["trainer.devices=auto"],
        ["trainer.deterministic=warn"],
        ["data.batch_size=auto"],
        ["trainer.fast_dev_run=3"],
        ["trainer.max_epochs=null"],
        ["debug=overfit", "trainer.overfit_batches=0.5"],
        ["data=image_folder", "data.root=.", "data.num_workers=0"],
        ["optimizer.lr=${optimizer.weight_decay}"],
        ["finetuning=full", "finetuning.batch_norm=[frozen,train]"],
        ["+trainer.profiler=simple"],
        ["~callbacks.dashboard", "model.weights=null"],
    ],
    ids=" ".join,
)
def test_what_may_be_right_passes(overrides, refusal):
    assert refusal(*overrides) is None


def test_a_callback_without_a_target_is_refused(composed):
    config = composed()
    with open_dict(config):
        config.callbacks.early_stoping = {"patience": 3}
    with pytest.raises(UsageError, match=r"callbacks.early_stoping has no _target_; .* write ~callbacks.early_stoping"):
        check_without_imports(config)


@pytest.mark.parametrize(
    ("overrides", "is_one"),
    [
        (["trainer.devices=1"], True),
        (["trainer.devices=[1]"], True),  # the second GPU alone
        (["trainer.devices=[0,1]"], False),
        (["trainer.devices=auto"], False),
        (["trainer.devices=1", "+trainer.num_nodes=2"], False),
    ],
)
def test_one_process_is_one_device_of_one_machine(overrides, is_one, composed):
    assert quick_check.has_one_process(composed(*overrides)) is is_one
