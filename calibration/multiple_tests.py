"""Many tests at once: p-values that hold for all of them together.

A table of bins answers "is anything wrong?", so one false alarm anywhere is a false alarm: the
chance of any must be bounded. Holm's step-down correction does that, whatever the dependence of
the tests: bins of magnitude and of S/N share their galaxies. Benjamini-Yekutieli would only bound
the share of false alarms among all alarms, which is another question, and pays a factor ln(m).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjusted p-values: rejecting those at most alpha errs anywhere with probability alpha.

    Args:
        p_values: Shape (test,).

    Returns:
        Adjusted p-values in the order given, shape (test,).

    Raises:
        ValueError: Not one-dimensional, or a value outside [0, 1].

    References:
        Holm 1979, "A simple sequentially rejective multiple test procedure",
        https://www.jstor.org/stable/4615733

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(4).tolist()
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=np.float64)
    outside = ~((values >= 0) & (values <= 1))
    if values.ndim != 1 or outside.any():
        raise ValueError(
            f"Expected p-values in [0, 1], shape (test,); got shape {values.shape} with "
            f"{outside.sum()} outside. Leave out tests without a result."
        )
    order = values.argsort(kind="stable")
    scaled = values[order] * np.arange(values.size, 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted
