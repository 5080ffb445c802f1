"""What holds for every test: the ones in tests/, the doctests and the notebooks."""

import os

import pytest

# Before any test imports them: no window, no accelerator that a test did not ask for.
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# The links probmmae/inference and probmmae/calibration lead to these under their installed names.
collect_ignore = ["inference", "calibration", "benchmarks"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A notebook starts a kernel and is slow whatever it does."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.slow)
