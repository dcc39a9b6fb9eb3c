import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV

from headstart.heads.ridge_regression import PENALTIES, solve


def problem(samples, size, numbers, noise=0.5, seed=0):
    random = torch.Generator().manual_seed(seed)
    features = 3 + 7 * torch.randn(samples, size, generator=random)
    truth = torch.randn(size, numbers, generator=random)
    targets = features @ truth / 7 + noise * torch.randn(samples, numbers, generator=random)
    return features, (targets - targets.mean(0)) / targets.std(0)


def scale_of(features):
    """scikit-learn's penalty for a penalty of 1."""
    centred = features.double() - features.double().mean(0)
    return len(features) * centred.square().sum(1).mean().item()


@pytest.mark.parametrize(("samples", "size", "numbers"), [(200, 20, 1), (200, 20, 3), (60, 300, 2), (40, 40, 1)])
def test_it_is_the_ridge_regression_of_scikit_learn(samples, size, numbers):
    features, targets = problem(samples, size, numbers)
    found = solve(features, targets)
    factor = scale_of(features)
    reference = RidgeCV(alphas=[factor * penalty for penalty in PENALTIES])
    reference.fit(features.double().numpy(), targets.double().numpy())
    assert found.penalty * factor == pytest.approx(reference.alpha_)
    np.testing.assert_allclose(found.weight, np.atleast_2d(reference.coef_), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found.bias, np.atleast_1d(reference.intercept_), rtol=1e-3, atol=1e-4)
    assert -found.losses[found.penalty] == pytest.approx(reference.best_score_, rel=1e-3)


def test_a_held_out_prediction_is_of_a_layer_that_was_fitted_without_the_sample():
    features, targets = problem(30, 5, 1)
    found = solve(features, targets)
    predicted, truth = found.held_out
    assert torch.equal(truth, targets)
    for held in (0, 11, 29):
        others = [index for index in range(30) if index != held]
        # the features are scaled by all samples, so the penalty is the same
        layer = Ridge(alpha=found.penalty * scale_of(features)).fit(features[others].double(), targets[others].double())
        assert predicted[held].item() == pytest.approx(layer.predict(features[[held]].double()).item(), abs=1e-4)


def test_more_noise_has_a_stronger_penalty():
    assert solve(*problem(80, 60, 1, noise=5)).penalty > solve(*problem(80, 60, 1, noise=0.01)).penalty


def test_two_samples_hold_none_out():
    found = solve(*problem(2, 5, 1))
    assert found.held_out is None
    assert torch.isfinite(found.weight).all()
