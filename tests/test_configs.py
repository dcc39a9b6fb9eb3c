"""Every YAML under conf/ is a test case: it composes and fits the code."""

import inspect

import pytest
from omegaconf import OmegaConf

from headstart.cli.check import GIVEN_BY_CODE, call_parameters, check_config
from headstart.cli.conf_files import BASE, CONF
from headstart.cli.schemas import CACHES, COMPONENTS, ROOTS
from headstart.errors import UsageError
from headstart.runs import trust

FILES = sorted(path.relative_to(CONF) for path in CONF.glob("*/*.yaml"))
# Files that only make sense together with others
NEEDS = {
    "data/image_folder.yaml": ["data.root=pictures"],
    "data/text_folder.yaml": ["data.root=texts"],
    "data/text_table.yaml": ["data.root=texts.tsv"],
    "data/table.yaml": ["data.root=labels.csv"],
    "experiment/ulmfit.yaml": ["data.root=texts.tsv"],
    "data/text_lines.yaml": ["data.root=texts.txt"],
    "experiment/adapt_language_model.yaml": ["data.root=texts.txt"],
    "model/timm.yaml": ["model.name=resnet18"],
    "model/torchvision.yaml": ["model.name=resnet18"],
    "model/transformers.yaml": ["model.name=some/encoder"],
    "hparams_search/optuna.yaml": None,  # needs the extra; see below
}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_file_composes_fits_the_signatures_and_may_be_saved(file, composed, read_once):
    extra = NEEDS.get(file.as_posix(), [])
    if extra is None or file.stem == BASE:  # what the other files of a group are built on
        pytest.skip("not to be chosen itself")
    cfg = composed(f"{file.parent.name}={file.stem}", *extra)
    check_config(cfg)
    trust.check_config(OmegaConf.to_container(cfg) | {"paths": OmegaConf.to_container(cfg.paths, resolve=True)})


def test_optuna_search_composes(composed):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    check_config(composed("hparams_search=optuna"))


@pytest.mark.parametrize("name", [*COMPONENTS, *(f"cache.{part}" for part in CACHES)])
def test_every_setting_of_ours_is_in_the_yaml(name, composed):
    """One fact, one key: what a constructor of ours can be told is visible in the config, with a value."""
    node = OmegaConf.select(composed(), name)
    if node is None or not node._target_.startswith("headstart."):
        pytest.skip("not ours")
    from hydra.utils import get_object

    settings = {
        key
        for key, parameter in call_parameters(get_object(node._target_)).items()
        if key not in GIVEN_BY_CODE | {"classes", "class_weights"}
        and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    if name == "data":
        settings |= {"class_weights"}
    assert settings <= set(node), f"conf/{name} does not show {sorted(settings - set(node))}"


def test_no_yaml_is_left_out_of_the_groups():
    assert {path.stem for path in CONF.glob("*.yaml")} == {*ROOTS, "trained_run"}
    assert {path.parent.parent.name for path in CONF.glob("*/*/*.yaml")} == {"hydra"}


@pytest.mark.parametrize("group", sorted(path.parent.name for path in CONF.glob(f"*/{BASE}.yaml")))
def test_a_base_file_is_refused_when_it_is_chosen(group, composed):
    with pytest.raises(UsageError, match=f"{group} has no _target_: choose a file"):
        check_config(composed(f"{group}={BASE}"))
