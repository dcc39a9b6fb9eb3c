"""What each strategy plans, and when a stage ends."""

import pytest

from headstart.errors import UsageError
from headstart.finetuning.bitfit import BitFit
from headstart.finetuning.contrastive import Contrastive
from headstart.finetuning.feature_extraction import FeatureExtraction
from headstart.finetuning.full import Full
from headstart.finetuning.gradual import Gradual
from headstart.finetuning.lp_ft import LinearProbeThenFinetune
from headstart.finetuning.probe import Probe
from headstart.finetuning.stages import Progress, Stage
from headstart.finetuning.surgical import Surgical
from headstart.finetuning.top_k import TopK
from headstart.finetuning.unfreeze_at import UnfreezeAt

GROUPS = ["stem", "stage1", "stage2", "stage3"]
ALL = frozenset(GROUPS)


@pytest.mark.parametrize(
    ("strategy", "plan"),
    [
        (FeatureExtraction(), [Stage()]),
        (Full(), [Stage(ALL)]),
        (BitFit(), [Stage(ALL)]),
        (UnfreezeAt(epoch=3), [Stage(epochs=3), Stage(ALL)]),
        (Probe(), [Stage(closed_form=True)]),
        (Contrastive(), [Stage(ALL, contrastive=True)]),
        (
            LinearProbeThenFinetune(contrastive=True, soften_head=True),
            [Stage(closed_form=True), Stage(ALL, contrastive=True)],
        ),
        (LinearProbeThenFinetune(), [Stage(closed_form=True), Stage(ALL)]),
        (LinearProbeThenFinetune(solve_head=False, head_patience=3), [Stage(patience=3), Stage(ALL)]),
        (LinearProbeThenFinetune(solve_head=False, head_epochs=5), [Stage(epochs=5, patience=2), Stage(ALL)]),
        (TopK(k=2), [Stage(frozenset({"stage2", "stage3"}))]),
        (Surgical(groups=["stem", "stage2"]), [Stage(frozenset({"stem", "stage2"}))]),
        (Surgical(groups="stem"), [Stage(frozenset({"stem"}))]),
        (
            Gradual(every=2, groups=3),
            [Stage(epochs=2), Stage(frozenset({"stage1", "stage2", "stage3"}), epochs=2), Stage(ALL)],
        ),
    ],
)
def test_the_plan_of_every_strategy(strategy, plan):
    assert strategy.stages(GROUPS) == plan


def test_gradual_unfreezes_one_more_group_from_the_top():
    learning = [sorted(stage.trained) for stage in Gradual().stages(GROUPS)]
    assert learning == [[], ["stage3"], ["stage2", "stage3"], ["stage1", "stage2", "stage3"], sorted(ALL)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UnfreezeAt(epoch=0), r"finetuning.epoch=0: give a whole number of at least 1"),
        (lambda: Gradual(every=0), "finetuning.every=0"),
        (lambda: Full(patience=0), "finetuning.patience=0"),
        (lambda: TopK(k=9).stages(GROUPS), "the backbone has 4 groups: stem, stage1, stage2, stage3"),
        (lambda: Surgical(groups=["stag2"]).stages(GROUPS), "no group 'stag2', did you mean 'stage2'"),
        (lambda: Full(batch_norm=["frozen", "trian"]), "batch_norm=trian, did you mean 'train'"),
        (lambda: Full(batch_norm=[]), "batch_norm=none: choose one of"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_a_stage_ends_after_its_epochs():
    progress = Progress(stage=1, began=3)
    assert progress.end_of(Stage(epochs=2), 4) is None
    assert progress.end_of(Stage(epochs=2), 5) == "2 epochs are over"
    assert progress.end_of(Stage(), 500) is None


@pytest.mark.parametrize(
    ("monitor", "scores"), [("val/acc", [0.5, 0.6, 0.6, 0.55]), ("val/loss", [0.6, 0.5, 0.5, 0.55])]
)
def test_a_stage_ends_when_validation_stops_improving(monitor, scores):
    progress, stage = Progress(), Stage(patience=2)
    ends = []
    for score in scores:
        progress.count(score, monitor)
        ends.append(progress.end_of(stage, 0) is not None)
    assert ends == [False, False, False, True]
    assert progress.best == scores[1]


def test_nan_is_no_improvement():
    progress = Progress()
    for score in (float("nan"), 0.1, float("nan")):
        progress.count(score, "val/acc")
    assert (progress.best, progress.waited) == (0.1, 1)
