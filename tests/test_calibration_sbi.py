"""Ranks and expected coverage against sbi.diagnostics on the same arrays, where sbi is installed.

A module of its own, skipped before sbi is imported: importing it changes the process.
"""

import numpy as np
import pytest

sbc = pytest.importorskip("sbi.diagnostics.sbc", reason="sbi is not installed")

import torch  # noqa: E402
from sbi.diagnostics import tarp  # noqa: E402

from probmmae.calibration.ranks import sbc_ranks  # noqa: E402
from probmmae.calibration.tarp import tarp_result  # noqa: E402


def test_ranks_are_those_of_sbi():
    rng = np.random.default_rng(1)
    draws, truth = rng.normal(size=(50, 200, 3)), rng.normal(size=(200, 3))
    theirs = sbc._run_sbc(
        torch.tensor(truth), torch.zeros(200, 1), torch.tensor(draws), show_progress_bar=False
    )
    assert np.array_equal(sbc_ranks(draws, truth, generator=rng), theirs.numpy())


@pytest.mark.parametrize("width", [0.8, 1.0, 1.25])
def test_expected_coverage_is_that_of_sbi_with_the_same_references(width):
    rng = np.random.default_rng(2)
    centre = 2 * rng.normal(size=(2000, 4))
    truth = centre + rng.normal(size=centre.shape)
    draws = centre + width * rng.normal(size=(500, 2000, 4))
    points = rng.uniform(truth.min(axis=0), truth.max(axis=0), size=truth.shape)
    # Both take Euclidean distances once quantities are divided by the spread of the references.
    unit = points.std(axis=0)
    ecp, alpha = tarp._run_tarp(
        *(torch.tensor(array / unit) for array in (draws, truth, points)), num_bins=50
    )
    ours = tarp_result(draws, truth, generator=rng, references=points)
    same = np.interp(ours.levels, alpha.numpy(), ecp.numpy())
    # Theirs steps at multiples of 1 / 500, ours half a rank beside.
    np.testing.assert_allclose(ours.coverage, same, atol=0.01)
