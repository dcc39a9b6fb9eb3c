import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from headstart.training import preview as shown
from headstart.training.build import build_data, build_task
from headstart.training.preview import chosen, counts, preview, sizes

SRC = Path(__file__).parents[3] / "src"


def test_no_script_hides_a_module_of_python():
    """The folder of a script comes first in the search path: src/inspect.py would break every library."""
    assert not {path.stem for path in SRC.glob("*.py")} & sys.stdlib_module_names


def test_a_preview_is_one_picture_and_no_run(quick, tmp_path, capsys):
    file = preview(quick("augmentation=flip_crop", f"paths.logs={tmp_path / 'logs'}", "finetuning=probe"))
    with Image.open(file) as picture:
        assert picture.width > picture.height / 2
    assert [path.name for path in (tmp_path / "logs").rglob("*") if path.is_file()] == [file.name]
    assert not (tmp_path / "run").exists()
    assert "class_0" in capsys.readouterr().err


@pytest.fixture
def data(quick):
    cfg = quick("augmentation=flip_crop", "data.num_classes=3", "data.image_size=40")
    made = build_data(cfg)
    build_task(cfg, made)
    return made


def test_each_row_shows_what_the_network_gets(data):
    raw, plain, *draws = [entry.sample for entry in shown._entries(data, 0)]
    picture = data.samples.load(data.splits["train"][0])
    assert torch.equal(raw, picture)
    assert torch.equal(plain, data.eval_transform(picture))
    assert len(draws) == shown.DRAWS
    assert not torch.equal(draws[0], draws[1])
    torch.manual_seed(1)
    assert torch.equal(draws[1], data.train_transform(picture)), "a draw of the training's own transform"
    data.train_transform = data.eval_transform
    assert len(shown._entries(data, 0)) == 2, "without augmentation there is nothing to draw"


def test_the_classes_are_shown_in_turns(data):
    labels = [data.samples.label_of(data.splits["train"][position]) for position in chosen(data, 6)]
    assert sorted(labels[:3]) == sorted(labels[3:]) == data.classes
    assert len(chosen(data, 1000)) == data.num_samples["train"]


def test_counts_and_sizes_in_words(data):
    assert counts(data) == "56 train, 12 val, 12 test; in train class_0 19, class_1 19, class_2 18"
    assert counts(data, most=2) == "56 train, 12 val, 12 test"
    assert sizes(data) == "all are 40 x 40 pixels"
    pictures = [torch.zeros(3, 10 + index, 20, dtype=torch.uint8) for index in range(80)]
    data.samples.load = pictures.__getitem__
    assert sizes(data).startswith("from 20 x 1")


def test_texts_are_shown_with_what_is_cut_off(quick, tmp_path, monkeypatch, capsys):
    import tiny_text

    monkeypatch.setenv("HEADSTART_TRUST", "tiny_text")
    cfg = tiny_text.on_reviews(quick(), tmp_path)
    cfg.model.max_length = 6
    assert preview(cfg) is None
    told = capsys.readouterr().err
    assert "tokens" in told
    assert "cut off" in told
    assert " %" in told
