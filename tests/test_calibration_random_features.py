"""Regression on random features: it learns, and never from the galaxy that it predicts."""

import numpy as np

from probmmae.calibration import random_features as features


def generator(seed):
    return np.random.default_rng(seed)


def test_standardised_columns_say_what_is_missing_and_drop_what_is_constant():
    inputs = np.array([[1.0, 5.0, 2.0], [3.0, 5.0, np.nan], [5.0, 5.0, 4.0]])
    columns = features.standardised(inputs)
    spread = np.sqrt(1.5)
    np.testing.assert_allclose(columns[:, 0], [-spread, 0, spread])
    np.testing.assert_allclose(columns[:, 1], [-spread, 0, spread])
    np.testing.assert_allclose(columns[:, 2], np.array([-1, 2, -1]) / np.sqrt(2))
    assert columns.shape == (3, 3)


def test_a_smooth_function_is_learned_from_other_galaxies():
    rng = generator(1)
    columns = rng.normal(size=(3000, 2))
    truth = np.sin(columns[:, 0]) * columns[:, 1]
    basis = features.random_features(columns, generator=rng)
    guess = features.cross_fitted(basis, truth[:, None], generator=rng)[:, 0]
    assert np.corrcoef(guess, truth)[0, 1] > 0.9


def test_no_galaxy_is_predicted_from_itself():
    rng = generator(2)
    basis = features.random_features(rng.normal(size=(400, 2)), generator=rng)
    noise = rng.normal(size=(400, 50))
    guess = features.cross_fitted(basis, noise, generator=rng)
    # In-sample predictions would follow the noise; out of fold they cannot.
    assert np.mean(guess * noise) < 3 / np.sqrt(noise.size) * np.std(guess * noise)
