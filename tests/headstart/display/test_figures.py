"""What the pictures show; how they look is for eyes."""

import pytest
import torch
from matplotlib.text import Text

from headstart.display import figures
from headstart.display.by_sample import as_shown
from headstart.display.contact_sheet import Tile, contact_sheet
from headstart.display.heat_map import placed
from headstart.evaluation.embedding import draw_embedding, in_two_dimensions
from headstart.inputs.images.preprocess import ImagePreprocess
from headstart.metrics.calibration import reliability_bins
from headstart.metrics.predictions import Predictions


def some(samples, classes, present=None):
    random = torch.Generator().manual_seed(0)
    probabilities = torch.randn(samples, classes, generator=random).softmax(dim=1)
    targets = torch.randint(0, present or classes, (samples,), generator=random)
    return Predictions([""] * samples, [f"class {c}" for c in range(classes)], targets, probabilities, False)


def written(figure):
    return [text.get_text() for text in figure.findobj(Text)]


@pytest.mark.parametrize(("classes", "numbered", "named"), [(3, True, True), (40, False, True), (150, False, False)])
def test_a_confusion_matrix_says_what_there_is_room_for(classes, numbered, named, tmp_path):
    matrix = torch.full((classes, classes), 7)
    figure = figures.confusion(matrix, [f"class {c}" for c in range(classes)])
    figure.savefig(tmp_path / "c.png", dpi=20)
    assert ("7" in written(figure)) == numbered
    assert ("class 1" in written(figure)) == named


@pytest.mark.parametrize("draw", [figures.roc, figures.precision_recall])
@pytest.mark.parametrize(
    ("predictions", "curves", "legend"),
    [
        (some(50, 2), 1, 1),  # two classes, one curve
        (some(50, 4), 5, 5),  # and the mean
        (some(50, 4, present=2), 3, 3),  # nothing of the classes that are not there
        (some(200, 30), 36, 6),  # the worst five and the mean have names
        (some(1, 3), 0, 0),
    ],
    ids=["two", "four", "absent", "many", "one sample"],
)
def test_curves_of_the_classes_that_are_there(draw, predictions, curves, legend, tmp_path):
    figure = draw(predictions)
    figure.savefig(tmp_path / "c.png", dpi=20)
    lines = [line for line in figure.axes[0].lines if line.get_linestyle() != "--"]
    assert len(lines) == curves
    assert sum(any(word in text for word in ("AUC", "AP")) for text in written(figure)) == legend


def test_the_area_in_the_legend_is_that_of_the_metric():
    predictions = some(300, 2)
    from sklearn.metrics import average_precision_score, roc_auc_score

    truth, scores = predictions.targets, predictions.probabilities[:, 1]
    assert f"class 1, AUC {roc_auc_score(truth, scores):.3f}" in written(figures.roc(predictions))
    expected = f"class 1, AP {average_precision_score(truth, scores):.3f}"
    assert expected in written(figures.precision_recall(predictions))


def test_a_bin_with_one_sample_is_no_fall_to_zero():
    bins = [(0.2, 0.25, 8), (0.5, 0.0, 1), (0.9, 0.95, 20)]
    above, below = figures.reliability({"": bins}, {"": 0.1}, "accuracy").axes
    (line,) = [each for each in above.lines if each.get_linestyle() != "--"]
    assert line.get_ydata().tolist() == [0.25, 0.95]
    assert sorted(bar.get_height() for bar in below.patches) == [1, 8, 20], "the bin itself is not hidden"
    assert figures.reliability({"": bins[1:2]}, {"": 0.1}, "accuracy").axes[0].lines[-1].get_xdata().size == 0


def test_reliability_before_and_after(tmp_path):
    bins = {name: reliability_bins(some(100, 3), 15) for name in ("before", "after")}
    figure = figures.reliability(bins, {"before": 0.2, "after": 0.1}, "share that is right")
    figure.savefig(tmp_path / "r.png", dpi=20)
    assert {"before, ECE 0.200", "after, ECE 0.100"} <= set(written(figure))


def test_labels_are_drawn(tmp_path):
    counts = {"found": [3, 1], "missed": [0, 2], "seen where it is not": [1, 0]}
    figure = figures.label_confusion(counts, ["x", "y"])
    figure.savefig(tmp_path / "l.png", dpi=20)
    assert sorted(bar.get_width() for bar in figure.axes[0].patches) == [0, 0, 1, 1, 2, 3]


@pytest.mark.parametrize("number", [1, 5, 7])
def test_a_contact_sheet_has_every_picture_once(number, tmp_path):
    tiles = [Tile(torch.full((3, 8, 8), i, dtype=torch.uint8), f"picture {i}") for i in range(number)]
    figure = contact_sheet(tiles, 3, "sheet")
    figure.savefig(tmp_path / "s.png", dpi=20)
    assert [int(axes.images[0].get_array()[0, 0, 0]) for axes in figure.axes if axes.images] == list(range(number))
    assert {f"picture {i}" for i in range(number)} <= set(written(figure))


def test_a_map_lies_over_its_picture():
    heat = torch.zeros(8, 8)
    heat[0, 0], heat[7, 7] = 1, torch.nan
    (axes,) = contact_sheet([Tile(torch.zeros(3, 8, 8, dtype=torch.uint8), "", heat)], 1, "").axes
    drawn = axes.images[0].get_array()
    assert drawn[0, 0, 0] > 100 > drawn[5, 5, 0], "what led to the prediction is bright"
    assert drawn[7, 7].tolist() == [100] * 3, "what the network does not see is grey"


@pytest.mark.parametrize("mode", ["crop", "squash", "letterbox"])
@pytest.mark.parametrize("size", [(120, 200), (200, 120)])
def test_a_map_of_the_input_lies_on_the_same_things_of_the_whole_picture(mode, size):
    preprocess = ImagePreprocess(64, 80, resize_mode=mode)
    y, x = torch.meshgrid(*(torch.linspace(0, 255, side) for side in size), indexing="ij")
    picture = torch.stack([y, x, torch.full(size, 255.0)]).to(torch.uint8)
    for channel in (0, 1):
        found = placed(preprocess(picture)[channel].float(), preprocess.seen(*size), *size)
        seen = ~found.isnan()
        assert (found - picture[channel].float())[seen].abs().quantile(0.9) < 5
        share = seen.float().mean().item()
        assert share == (pytest.approx(0.8**2 * 120 / 200, abs=0.01) if mode == "crop" else 1)


def test_a_large_picture_is_shown_smaller():
    assert as_shown(torch.zeros(3, 960, 480, dtype=torch.uint8), None).shape == (3, 480, 240)
    small = torch.zeros(3, 20, 30, dtype=torch.uint8)
    assert as_shown(small, None) is small


@pytest.mark.parametrize(("samples", "method"), [(40, "t-SNE"), (3, "PCA"), (1, "PCA")])
def test_clusters_stay_apart_in_two_dimensions(samples, method, tmp_path):
    predictions = some(samples, 3)
    features = torch.nn.functional.one_hot(predictions.targets, 3) * 20 + torch.rand(samples, 3)
    points, used = in_two_dimensions(features)
    assert (points.shape, used) == ((samples, 2), method)
    draw_embedding(points, used, predictions).savefig(tmp_path / "e.png", dpi=20)
    if samples > 3:
        centres = torch.stack([torch.tensor(points)[predictions.targets == c].mean(dim=0) for c in range(3)])
        nearest = torch.cdist(torch.tensor(points), centres).argmin(dim=1)
        assert (nearest == predictions.targets).float().mean() > 0.95


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cat", "cat"),
        ("$x_$ {y", "$x_$ {y"),
        ("_hidden", " _hidden"),
        ("two\nlines", "two lines"),
        ("a dog on a bicycle in the rain", "a dog on a bicycle in..."),
        ("averyveryveryverylongword next", "averyveryveryverylong..."),
        ("averyveryveryveryverylongword", "averyveryveryveryvery..."),
        ("bad\udcff", "bad?"),
    ],
)
def test_every_class_name_can_be_drawn(name, shown, tmp_path):
    """Folders give the names, and their owners anything."""
    predictions = some(40, 3)
    predictions.classes[2] = name
    for place, figure in enumerate((figures.roc(predictions), figures.confusion(torch.eye(3), predictions.classes))):
        figure.savefig(tmp_path / f"{place}.png", dpi=20)
        assert any(figures.shortened(name) in text for text in written(figure))
    assert figures.shortened(name).replace(r"\$", "$") == shown
    legend = figures.roc(predictions).legends[0]
    assert sum(shown in text.get_text().replace(r"\$", "$") for text in legend.get_texts()) == 1
