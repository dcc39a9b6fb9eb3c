import warnings

import numpy as np
import pytest
from sklearn.model_selection import KFold, StratifiedKFold

from headstart.heads.folds import folds, stratified_folds


def of_sklearn(kind, classes, number, seed):
    found = np.full(len(classes), -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for fold, (_, held) in enumerate(kind(number, shuffle=True, random_state=seed).split(classes, classes)):
            found[held] = fold
    return found


@pytest.mark.parametrize("seed", range(20))
def test_folds_equal_the_ones_of_scikit_learn(seed):
    """So a probe has the same penalty as before."""
    random = np.random.default_rng(seed)
    number = int(random.integers(2, 6))
    classes = random.integers(0, random.integers(2, 30), int(random.integers(20, 300))) * 3
    classes[:number] = 7  # at least one class has as many samples as there are folds
    assert np.array_equal(folds(len(classes), number, seed), of_sklearn(KFold, classes, number, seed))
    assert np.array_equal(stratified_folds(classes, number, seed), of_sklearn(StratifiedKFold, classes, number, seed))
