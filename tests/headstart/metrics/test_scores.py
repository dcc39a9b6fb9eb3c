import math

import pytest

from headstart.metrics.scores import goodness, is_better, no_mistake


@pytest.mark.parametrize(
    ("score", "other", "monitor", "better"),
    [
        (0.6, 0.5, "val/acc", True),
        (0.5, 0.5, "val/acc", False),
        (0.5, 0.6, "val/loss", True),
        (0.6, 0.5, "ece", False),
        (9.0, 10.0, "val/perplexity", True),
        (0.1, None, "val/acc", True),
        (0.1, math.nan, "val/acc", True),
        (math.nan, None, "val/loss", False),
        (math.nan, 9.0, "val/loss", False),
    ],
)
def test_a_better_score_is_higher_or_for_losses_lower(score, other, monitor, better):
    assert is_better(score, other, monitor) is better


def test_scores_are_sorted_with_the_unknown_last():
    assert sorted([0.3, None, 0.1, math.nan], key=lambda score: -goodness(score, "val/loss"))[:2] == [0.1, 0.3]


def test_only_metrics_of_wrong_answers_have_a_perfect_score():
    assert [no_mistake(name) for name in ("val/acc", "val/acc_macro", "val/loss", "val/auroc_macro")] == [
        1,
        1,
        None,
        None,
    ]
