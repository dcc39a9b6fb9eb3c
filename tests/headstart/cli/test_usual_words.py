"""Words of other tools get the right words as an answer, and the right words work."""

import pytest
from hydra.errors import HydraException

from headstart.cli.messages import explain
from headstart.cli.quick_check import plain_problems
from headstart.cli.usual_words import SETTINGS, translations

OURS = [setting for setting in SETTINGS if "." in setting and setting not in ("data.root",)]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("epochs=3", "epochs=3: type trainer.max_epochs=3"),
        ("lr=0.1", "lr=0.1: type optimizer.lr=0.1"),
        ("imgsz=128", "imgsz=128: type model.image_size=128"),
        ("batch=16", "batch=16: type data.batch_size=16"),
        ("pretrained=false", "pretrained=false: type model.weights=null"),
        ("pretrained=True", "pretrained=True: leave it out, weights are pretrained here"),
        (
            "data=my/train.TSV",
            "data=my/train.TSV: type data=table (pictures) or data=text_table (texts), and data.root=my/train.TSV",
        ),
        ("data=my/pictures", "data=my/pictures: type data=image_folder data.root=my/pictures"),
        ("data.root=my/pictures", "data.root=my/pictures: type data=image_folder data.root=my/pictures"),
        ("arch=resnet50", "arch=resnet50: type model=resnet50"),
        ("device=cuda:0", "device=cuda:0: type trainer=gpu"),
        ("device=0", "device=0: type trainer=gpu"),
        ("device=cpu", "device=cpu: type trainer=cpu"),
        ("time=00:01:00:00", "time=00:01:00:00: type trainer.max_time=00:01:00:00"),
        ("max_time=10m", "max_time=10m: type trainer.max_time=10m"),
        (
            "time=5",
            "time=5: type trainer.max_time=<time>, such as trainer.max_time=10m or trainer.max_time=1h30m",
        ),
        ("data=my/holiday photos", "data=my/holiday photos: type data=image_folder 'data.root=my/holiday photos'"),
        ("weights=my file.pt", "weights=my file.pt: type 'model.weights=my file.pt'"),
    ],
)
def test_the_answer(typed, told, composed):
    with pytest.raises(HydraException) as refused:
        composed(typed)
    assert explain(refused.value, "train", [typed]) == told


def test_the_beginning_of_a_table_says_what_it_holds(tmp_path):
    for content, data in (("a nice film\tpos\n", "text_table"), ("file,label\nx/1.JPG,cat\n", "table")):
        (file := tmp_path / "train.csv").write_text(content)
        assert list(translations([f"data={file}"])) == [f"data={file}: type data={data} data.root={file}"]


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ("ulmfit", 0),
        ("resnet50_cats_dogs_feature_extraction", 0),  # by the recipe that it is built on
        ("auto", 1),
        ("no_such_recipe", 1),
        ("long" * 100, 1),
    ],
)
def test_a_recipe_may_choose_the_data(recipe, told):
    for plus in ("", "+"):
        assert len(list(translations([f"{plus}experiment={recipe}", "data.root=my/reviews"]))) == told


def test_a_key_that_is_added_gets_the_same_answer(composed):
    """Hydra adds any key with a plus; the check of the config finds it."""
    assert "epochs=3: type trainer.max_epochs=3" in list(plain_problems(composed("+epochs=3")))
    assert list(translations(["+epochs=3"])) == ["+epochs=3: type trainer.max_epochs=3"]


def test_the_words_of_this_project_are_left_alone():
    assert list(translations(["data=cats_dogs", "data.root=a/b", "model=resnet50", "seed=3", "-m"])) == []


@pytest.mark.parametrize("setting", OURS)
def test_what_it_says_to_type_exists(setting, composed):
    composed("data=image_folder", "data.root=x", f"{setting}=1")
