"""The training of a run: the network, stages and learning rates, curves, cost, command."""

import csv
import math
import shlex
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from hydra.utils import instantiate
from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.figure import Figure
from omegaconf import DictConfig

from headstart.cli.conf_files import typed_name
from headstart.display import curves
from headstart.display.page import inline_svg, style
from headstart.errors import duration_in_words
from headstart.files import HUB_ADDRESS
from headstart.finetuning.stages import Stage
from headstart.inference.facts import network_name
from headstart.runs.directory import Run
from headstart.tasks.classification import ClassificationTask

WIDTH = 4.3
"""Width of a figure in inches; the text is readable on a phone."""
MOST_RATES = 12
"""With more layer groups, the learning rates of only about this number are drawn."""


@dataclass
class TrainingCard:
    """The contents of the section about the training.

    Attributes:
        model: property of the model, its value in words.
        stages: number, start, trained parts, learning rates.
        curves: figures of accuracy, loss and learning rates; empty if the run wrote no table of its epochs.
        cost: property of the training, its value in words.
        command: starts such a run again; None if it is not known.
        choices: sentences of finetuning=auto about the settings it chose.
    """

    model: list[tuple[str, str]]
    stages: list[tuple[str, str, str, str]]
    curves: list[Markup]
    cost: list[tuple[str, str]]
    command: str | None
    choices: list[str]


def training_card(run: Run, trained: DictConfig, task: ClassificationTask) -> TrainingCard:
    """The section about the training of a run, from its files, its config and its trained model."""
    table = run.history_file
    history = curves.read(table) if table.is_file() else curves.History()
    drawn = _curves(history, _rates(table)) if history.points else []
    sample_name = task.backbone.preprocess.sample_name
    return TrainingCard(
        _model(run, trained, task),
        _stages(trained, task, history),
        drawn,
        _cost(run, history, trained, sample_name),
        command(run),
        run.choices_file.read_text(encoding="utf-8").splitlines() if run.choices_file.is_file() else [],
    )


def _kept(run: Run, trained: DictConfig) -> str:
    if run.kept is None:  # a run of an earlier version
        return f"the best epoch by {trained.monitor}"
    untouched = "; its backbone is as it was before the training" if run.kept.is_linear_probe else ""
    return run.kept.sentence + untouched


def _model(run: Run, trained: DictConfig, task: ClassificationTask) -> list[tuple[str, str]]:
    model, preprocess = trained.model, task.backbone.preprocess
    weights = model.get("weights")
    head = sum(parameter.numel() for parameter in task.head.parameters())
    whole = sum(parameter.numel() for parameter in task.parameters())

    def named(part: str) -> str:
        node = trained.get(part)
        return typed_name(part, node["_target_"], run.choices) if node else "none"

    rows = [
        ("network", network_name(task, trained)),
        ("head", named("head")),
        ("started from", _weights_in_words(weights)),
        ("parameters", f"{whole:,}, including {head:,} in the head"),
        ("input", preprocess.describe()["summary"]),
        ("output", f"{len(task.classes)} {_unit(task)}, {_meaning(task)}"),
        ("strategy", named("finetuning")),
        ("optimizer", named("optimizer")),
        ("learning rate", f"{trained.optimizer.lr:g} for the head"),
        ("augmentation", named("augmentation")),
        ("kept model", _kept(run, trained)),
    ]  # fmt: skip
    if task.objective.temperature != 1:
        rows.append(("temperature", f"{task.objective.temperature:.3f}, fitted on val after training"))
    return rows


def _weights_in_words(weights: str | None) -> str:
    """Where a network started: an address on the hub, or the name without the folders of this machine."""
    if weights is None:
        return "random weights"
    if weights == "DEFAULT":
        return "the published weights (DEFAULT)"
    return weights if str(weights).startswith(HUB_ADDRESS) else PureWindowsPath(str(weights)).name


def _unit(task: ClassificationTask) -> str:
    return ("number" if len(task.classes) == 1 else "numbers") if task.objective.numbers else "classes"


def _meaning(task: ClassificationTask) -> str:
    return "standardised inside" if task.objective.numbers else type(task.objective).__name__.lower()


def _stages(trained: DictConfig, task: ClassificationTask, history: curves.History) -> list[tuple[str, str, str, str]]:
    """One row per stage: number, start, trained parts, learning rates; includes planned stages that never began."""
    strategy = instantiate(trained.finetuning)
    strategy.make_plan(task)
    base = trained.optimizer.lr
    rows = []
    for number, stage in enumerate(strategy.plan, start=1):
        began = history.stages.get(number)
        when = f"after epoch {began}" if began else "from the start" if number == 1 else "never began"
        if not history.stages and number > 1:
            when = "not recorded"
        learning = [group.name for group in task.layer_groups if group.name in stage.trained]
        rates = [] if stage.closed_form or stage.contrastive else [f"head {base:g}"]
        if learning:
            ratios = [task.lr_ratios[name] * base for name in learning]
            low, high = min(ratios), max(ratios)
            rates.append(f"backbone {low:.2g}" + (f" to {high:.2g}" if not math.isclose(low, high) else ""))
        rows.append(
            (str(number), when, _trained_parts(stage, learning, len(task.layer_groups)), ", ".join(rates) or "none")
        )
    return rows


def _trained_parts(stage: Stage, learning: list[str], number: int) -> str:
    if stage.closed_form:
        return "the head, in closed form on the frozen features"
    if stage.contrastive:
        parts = "the whole backbone" if len(learning) == number else ", ".join(learning)
        return f"{parts} on pairs of samples, the head in closed form"
    if len(learning) == number:
        return "the whole backbone and the head"
    return f"the head and {', '.join(learning)}" if learning else "the head"


def _rates(file: Path) -> dict[str, list[tuple[int, float]]]:
    """Layer group -> `(step, learning rate)` from the table of a run; empty if it has no learning rates."""
    found: dict[str, list[tuple[int, float]]] = {}
    with file.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            for key, value in row.items():
                if key and key.startswith("lr/") and value:
                    found.setdefault(key.removeprefix("lr/"), []).append((int(row["step"]), float(value)))
    return found


def _curves(history: curves.History, rates: dict[str, list[tuple[int, float]]]) -> list[Markup]:
    figures = []
    for title, name in curves.panels_of(history).items():
        with style():
            figure = Figure(figsize=(WIDTH, 3), layout="constrained")
            curves.panel(figure.subplots(), history, title, name)
        figures.append(inline_svg(figure, title, _spoken(history, title, name)))
    if any(rate for points in rates.values() for _, rate in points):
        label = f"Learning rate of {len(rates)} layer groups over the optimizer steps"
        figures.append(inline_svg(_draw_rates(rates), "rates", label))
    return figures


def _spoken(history: curves.History, title: str, name: str) -> str:
    """Description of a curve for screen readers: its first and last value."""
    parts = []
    for split in curves.SPLIT_COLOURS:
        if points := history.points.get(f"{split}/{name}"):
            parts.append(f"{split} from {points[0][1]:.3f} to {points[-1][1]:.3f}")
    return f"{title} over the epochs: {', '.join(parts) or 'not recorded'}"


def _draw_rates(rates: dict[str, list[tuple[int, float]]]) -> Figure:
    """One line per layer group; with many groups the head and some of the others, evenly spaced."""
    order = sorted(rates, key=lambda name: max(rate for _, rate in rates[name]))
    shown = order if len(order) <= MOST_RATES else [*order[:: len(order) // MOST_RATES + 1], order[-1]]
    with style():
        figure = Figure(figsize=(WIDTH, 3), layout="constrained")
        axes = figure.subplots()
        for rank, name in enumerate(dict.fromkeys(shown)):
            ends = name in (shown[0], shown[-1])
            colour = colormaps["viridis"](0.25 + 0.6 * rank / max(len(shown) - 1, 1))
            dot = "." if len(rates[name]) == 1 else None  # a line through one point is invisible
            axes.plot(*zip(*rates[name], strict=True), color=colour, marker=dot, label=name if ends else None)
        axes.set(title="learning rates", xlabel="steps")
        axes.grid(alpha=0.3)
        axes.ticklabel_format(axis="y", scilimits=(-2, 3))
        axes.legend()
    return figure


def _cost(run: Run, history: curves.History, trained: DictConfig, sample_name: str) -> list[tuple[str, str]]:
    metrics = run.metrics
    epochs = max((math.ceil(points[-1][0]) for points in history.points.values()), default=None)
    rows = [("time", f"{duration_in_words(metrics['seconds'])}, from reading the data to the end of the test"),
            ("epochs", "not recorded" if epochs is None else f"{epochs} of at most {trained.trainer.max_epochs}"),
            ("precision", str(trained.trainer.precision)),
            ("parameters", f"{metrics['parameters']:,}")]  # fmt: skip
    if "passes" in metrics:  # older runs did not count them
        rows.append(
            (
                f"{sample_name}s through the network",
                f"{metrics['passes']:,}, in training, in validation and for the cache",
            )
        )
    size = run.best.stat().st_size
    return [*rows, ("checkpoint", f"{size / 1e6:.1f} MB")]


def command(run: Run) -> str | None:
    """The command line; for a job of a sweep, with the overrides of that job. None if it was not recorded."""
    overrides = run.launched.overrides
    return None if overrides is None else " ".join(["python src/train.py", *map(shlex.quote, overrides)])
