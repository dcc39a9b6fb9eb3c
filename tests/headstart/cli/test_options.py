"""The options of training and their comments, as they are found in the files of conf/."""

import pytest
from omegaconf import OmegaConf

from headstart.cli import conf_files
from headstart.cli.options import Option, choice, groups, run_options
from headstart.cli.schemas import TrainConfig

FILE = """\
# A thing that exists. It has more sentences
# on another line.
#   python src/train.py part=whole
defaults:
  - base

# how hot: it matters
degrees: 180              # in Celsius
rooms: [1, 2]             # a list
of_stone: ${oc.env:STONE,'a/b'}
follows: ${seed}
computed: ${best_is:${monitor}}   # found
oven:                     # a part
  _target_: x.Oven
  door: ???   # must be given
"""


@pytest.fixture
def conf(tmp_path, monkeypatch):
    (tmp_path / "part").mkdir()
    (tmp_path / "part/whole.yaml").write_text(FILE)
    (tmp_path / "part/base.yaml").write_text("# for others\n\n# of the base\ndegrees: 1\nsalt: 2  # in grams\n")
    (tmp_path / "part/other.yaml").write_text("# @package _global_\n# sets\nseed: 3\npart:\n  depth: 4  # in metres\n")
    monkeypatch.setattr(conf_files, "CONF", tmp_path)
    choice.cache_clear()
    yield
    choice.cache_clear()


def test_comments_above_and_beside_an_option_are_found(conf):
    assert choice("part", "whole").options == (
        Option("part.degrees", "180", "how hot: it matters; in Celsius"),
        Option("part.salt", "2", "in grams"),
        Option("part.rooms", "[1, 2]", "a list"),
        Option("part.of_stone", "a/b", ""),
        Option("part.computed", "<computed>", "found"),
        Option("part.oven", "", "a part"),
        Option("part.oven.door", "<value>", "must be given"),
    )


def test_the_summary_is_the_first_sentence_without_commands(conf):
    whole = choice("part", "whole")
    assert whole.summary == "A thing that exists"
    assert whole.description[2] == "  python src/train.py part=whole"


def test_a_file_of_several_groups_has_only_the_options_of_its_own(conf):
    assert choice("part", "other").options == (Option("part.depth", "4", "in metres"),)
    assert choice("part", "other").summary == "sets"


def test_every_group_choice_and_option_of_conf_says_what_it_means():
    silent = [option.name for option in run_options() if not option.comment]
    for group in groups():
        silent += [group.name] if not group.comment else []
        silent += [f"{group.name}={each.name}" for each in group.choices if not each.summary]
        silent += [
            f"{each.name}: {option.name}" for each in group.choices for option in each.options if not option.comment
        ]
    assert silent == []


def test_the_options_are_those_of_the_composed_config(composed):
    config = composed("experiment=auto", "data=image_folder", "data.root=x")
    known = {option.name for group in groups() for option, _ in group.options} | {each.name for each in run_options()}
    missing = [name for name in known if name.partition(".")[0] not in TrainConfig.__dataclass_fields__]
    assert missing == []
    defaults = {group.name: group.default for group in groups()}
    for name in ("data", "finetuning", "augmentation", "trainer"):
        chosen = choice(name, "image_folder" if name == "data" else defaults[name])
        composed_keys = {f"{name}.{key}" for key in config[name] if not key.startswith("_")}
        assert {option.name for option in chosen.options} >= composed_keys - {"trainer.max_epoch"}, name


def test_the_default_recipe_decides_the_defaults(composed):
    defaults = {group.name: group.default for group in groups()}
    assert (defaults["finetuning"], defaults["augmentation"], defaults["callbacks"]) == ("auto", "flip_crop", "blend")
    patience = {option.name: option for group in groups() for option, _ in group.options}["finetuning.patience"]
    assert patience.default == "null"
    assert OmegaConf.select(composed("experiment=auto"), "finetuning.patience") is None
