"""Shows the features of the samples in two dimensions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor

from headstart.display.figures import MAX_CLASSES_WITH_OWN_COLOUR, shortened
from headstart.files import Column, with_column, write_table
from headstart.metrics.number_predictions import NumberPredictions
from headstart.metrics.predictions import Predictions
from headstart.tasks.objective import AnyPredictions

MOST_FOR_TSNE = 5_000
"""More samples are shown with PCA: t-SNE would take minutes."""
COMPONENTS = 50
"""Principal components that t-SNE starts from."""
MANY_RINGS = 200
"""More rings are drawn with thinner lines."""


def in_two_dimensions(features: Tensor, seed: int = 0) -> tuple[np.ndarray, str]:
    """The features `(samples, num_features)` as `(samples, 2)`, and the name of the method.

    It is t-SNE (van der Maaten and Hinton 2008) on the first 50 principal components; for more than `MOST_FOR_TSNE`
    samples and for fewer than four it is PCA.
    """
    samples = len(features)
    if samples == 1:
        return np.zeros((1, 2)), "PCA"
    number = min(COMPONENTS, *features.shape)
    reduced = PCA(number, random_state=seed).fit_transform(features.numpy())
    if not 4 <= samples <= MOST_FOR_TSNE:
        flat = np.zeros((samples, 2))
        flat[:, : min(number, 2)] = reduced[:, :2]
        return flat, "PCA"
    perplexity = min(30, (samples - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced), "t-SNE"


def draw_embedding(points: np.ndarray, method: str, predictions: AnyPredictions) -> Figure:
    """One point per sample in the colour of its class, a ring around each mistake.

    With many classes, each name stands in the middle of its points instead of in a legend. For numbers the colour is
    the true value of the first one.
    """
    if isinstance(predictions, NumberPredictions):
        return _draw_numbers(points, method, predictions)
    figure = Figure(figsize=(8.5, 7), layout="constrained")
    axes = figure.subplots()
    place = _shown_class(predictions)
    number = len(predictions.classes)
    colours = colormaps["tab10" if number <= MAX_CLASSES_WITH_OWN_COLOUR else "hsv"]
    for c in range(number):
        here = points[place == c]
        if len(here):
            colour = colours(c if number <= MAX_CLASSES_WITH_OWN_COLOUR else c / number)
            axes.scatter(*here.T, s=12, color=colour, label=shortened(predictions.classes[c]), linewidths=0)
            if MAX_CLASSES_WITH_OWN_COLOUR < number <= 120:
                axes.text(*np.median(here, axis=0), shortened(predictions.classes[c], 14), fontsize=6, ha="center")
    wrong = points[~predictions.is_right.numpy()]
    if len(wrong):
        width = 0.7 if len(wrong) <= MANY_RINGS else 0.3
        axes.scatter(*wrong.T, s=40, facecolors="none", edgecolors="black", linewidths=width, label="mistake")
    axes.set(xticks=[], yticks=[], title=f"features of the backbone, {method}")
    if number <= MAX_CLASSES_WITH_OWN_COLOUR:
        figure.legend(loc="outside right upper", fontsize=8)
    return figure


def _draw_numbers(points: np.ndarray, method: str, predictions: NumberPredictions) -> Figure:
    figure = Figure(figsize=(8.5, 7), layout="constrained")
    axes = figure.subplots()
    drawn = axes.scatter(*points.T, s=12, c=predictions.targets[:, 0].numpy(), cmap="viridis", linewidths=0)
    axes.set(xticks=[], yticks=[], title=f"features of the backbone, {method}")
    figure.colorbar(drawn, ax=axes).set_label(f"true {shortened(predictions.classes[0])}")
    return figure


def _shown_class(predictions: Predictions) -> np.ndarray:
    """The true class; for samples with several labels the first one, -1 if there is none."""
    if not predictions.multi_label:
        return predictions.targets.numpy()
    return np.where(predictions.truth.any(dim=1), predictions.truth.int().argmax(dim=1), -1)


def write_embedding(file: Path, points: np.ndarray, predictions: AnyPredictions) -> None:
    """Writes `path,true,x,y`."""
    rows: list[Sequence[str]] = [
        [path, predictions.true_and_predicted_names(place)[0], f"{x:.4f}", f"{y:.4f}"]
        for place, (path, (x, y)) in enumerate(zip(predictions.paths, points, strict=True))
    ]
    write_table(file, [["path", "true", "x", "y"], *rows])


def write_projector(
    folder: Path,
    features: Tensor,
    predictions: AnyPredictions,
    pictures: Tensor | None,
    contents: Column | None = None,
) -> None:
    """Writes the features for TensorBoard's projector tab, where they can be rotated and searched.

    Args:
        folder: of the files; `tensorboard --logdir` finds it below any parent folder.
        features: `(samples, num_features)`.
        predictions: of the samples.
        pictures: a small picture of each sample, uint8 `(samples, 3, side, side)`; None for points.
        contents: the samples, short, for one more column.
    """
    # imported here: TensorBoard is slow to import, and nothing else in this file needs it
    from torch.utils.tensorboard import SummaryWriter

    rows = [[path, *predictions.true_and_predicted_names(place)] for place, path in enumerate(predictions.paths)]
    header, *table = with_column([["path", "true", "predicted"], *rows], contents)
    plain = [[" ".join(word.encode(errors="replace").decode().split()) or "-" for word in row] for row in table]
    with SummaryWriter(str(folder)) as writer:
        shown = None if pictures is None else pictures / 255
        writer.add_embedding(features, plain, shown, metadata_header=header)
