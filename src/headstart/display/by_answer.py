"""Chooses how the answers of a model are shown, by what they are: classes or numbers."""

from matplotlib.figure import Figure

from headstart.display import figures, number_figures
from headstart.metrics import per_class
from headstart.metrics.number_predictions import NumberPredictions
from headstart.metrics.predictions import Predictions


def overview(predictions: Predictions | NumberPredictions) -> tuple[str, Figure] | None:
    """The name of the one figure that says most about all predictions, and the figure; None if there is none."""
    if isinstance(predictions, NumberPredictions):
        return "predicted_against_true", number_figures.predicted_against_true(predictions)
    if predictions.multi_label or len(predictions.classes) > per_class.MOST_CLASSES_IN_MATRIX:
        return None
    return "confusion_matrix", figures.confusion(per_class.confusion_matrix(predictions), predictions.classes)
