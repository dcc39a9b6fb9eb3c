"""What TensorBoard is given beside the curves."""

import io

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from headstart.callbacks.dashboard import Dashboard, charts, chosen_settings
from headstart.errors import UsageError
from headstart.training.run import train


def shown(run):
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def test_pictures_settings_and_mistakes_are_there(quick, tmp_path):
    result = train(quick("data.num_classes=3", "trainer.max_epochs=1", "augmentation=flip_crop", "optimizer.lr=1e-6"))
    events = shown(tmp_path / "run")
    images = {"pictures/plain_and_augmented", "val/confusion_matrix", "val/worst_mistakes"}
    assert set(events.Tags()["images"]) == images
    for tag in events.Tags()["scalars"]:
        steps = [(event.step, event.wall_time) for event in events.Scalars(tag)]
        assert len({step for step, _ in steps}) == len(steps), f"{tag} has two points at one step"
    both = np.asarray(Image.open(io.BytesIO(events.Images("pictures/plain_and_augmented")[0].encoded_image_string)))
    assert both.shape == (2 * 18 + 2, 8 * 18 + 2, 3)
    assert (both[:18] != both[18:36]).any(), "augmented pictures differ from plain ones"
    assert events.Scalars("kept/acc")[-1].value == pytest.approx(result.score)
    settings = read_settings(events)
    assert settings["finetuning"].string_value == "full"
    assert settings["data.batch_size"].number_value == 16


def read_settings(events):
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    return HParamsPluginData.FromString(content).session_start_info.hparams


def test_nothing_is_augmented_where_nothing_is_asked_for(quick, tmp_path):
    train(quick("trainer.max_epochs=1", "callbacks.dashboard.mistakes=0"))
    assert shown(tmp_path / "run").Tags()["images"] == ["pictures/plain"]


def test_the_run_is_the_same_with_and_without(quick, tmp_path):
    results = [
        train(quick("augmentation=flip_crop", f"paths.run={tmp_path / name}", *extra)).metrics
        for name, extra in (("with", []), ("without", ["~callbacks.dashboard"]))
    ]
    assert results[0] == results[1]


def test_settings_that_were_typed_are_among_those_shown():
    config = {
        "model": {"_target_": "a.Net", "name": "net"}, "optimizer": {"_target_": "o.SGD", "lr": 0.1},
        "mixing": {"_target_": "m.Mixing", "mixup": 0.2}, "scheduler": None, "seed": 3,
    }  # fmt: skip
    found = chosen_settings(config, ["mixing.mixup=0.2", "model=net", "+x.y=1"], {"optimizer": "sgd"})
    assert found == {
        "model": "Net", "finetuning": "none", "optimizer": "sgd", "scheduler": "none", "augmentation": "none",
        "mixing": "Mixing", "test_time": "none", "head": "none",
        "model.name": "net", "optimizer.lr": 0.1, "seed": 3, "mixing.mixup": 0.2,
    }  # fmt: skip


def test_parts_are_named_as_they_are_typed():
    config = {
        "head": {"_target_": "headstart.heads.linear.LinearHead"},
        "finetuning": {"_target_": "my.strategies.Own"},  # no file builds it
    }
    found = chosen_settings(config, [], {})
    assert (found["head"], found["finetuning"]) == ("linear", "Own")


def test_the_charts_are_those_of_the_task():
    found = charts("r2", "R2")
    assert list(found) == ["loss", "R2", "learning rates", "stage"]
    assert found["R2"] == ["Multiline", ["^train/r2$", "^val/r2$"]]


def test_the_words_are_those_that_the_run_was_started_with(quick, tmp_path):
    run = tmp_path / "run"
    (run / ".hydra").mkdir(parents=True)
    (run / ".hydra/hydra.yaml").write_text("hydra: {runtime: {choices: {finetuning: first_choice}}}")
    (run / ".hydra/overrides.yaml").write_text("[task.backbone_lr_ratio=0.1]")
    train(quick("trainer.max_epochs=1"))
    settings = read_settings(shown(run))
    assert settings["finetuning"].string_value == "first_choice"
    assert settings["task.backbone_lr_ratio"].number_value == pytest.approx(0.1)


def test_a_negative_number_is_refused():
    with pytest.raises(UsageError, match=r"callbacks.dashboard.mistakes=-1: give a number of pictures"):
        Dashboard(mistakes=-1)
