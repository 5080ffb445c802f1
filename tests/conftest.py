"""Fixtures of the test suite."""

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pyro
import pytest
import torch
from torch.distributions import Distribution

# The same examples on every run, and no deadline on a busy machine.
hypothesis.settings.register_profile("probmmae", deadline=None, derandomize=True)
hypothesis.settings.load_profile("probmmae")

REPOSITORY = Path(__file__).parents[1]


def _process_state() -> dict[str, object]:
    """What a library may not change for the whole process."""
    return {
        "torch.distributions validation": Distribution._validate_args,
        "torch default dtype": torch.get_default_dtype(),
        "torch gradient mode": torch.is_grad_enabled(),
        "torch deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "torch threads": torch.get_num_threads(),
        "numpy error handling": np.geterr(),
    }


@pytest.fixture(autouse=True)
def _nothing_leaks() -> Iterator[None]:
    """A fixed seed and no parameters before each test; the process as it was after it."""
    torch.manual_seed(0)
    pyro.clear_param_store()
    before = _process_state()
    yield
    after = _process_state()
    changed = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
    Distribution.set_default_validate_args(before["torch.distributions validation"])
    torch.set_default_dtype(before["torch default dtype"])
    torch.set_grad_enabled(before["torch gradient mode"])
    torch.set_num_threads(before["torch threads"])
    assert not changed, f"The test changed the state of the process: {changed}"


@pytest.fixture
def generator() -> torch.Generator:
    """A torch generator with a fixed seed."""
    return torch.Generator().manual_seed(20260101)


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data beside the repository; skips where there is none."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder
