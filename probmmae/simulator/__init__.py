"""The simulator: populations -> scene -> rendering -> survey, to `Batch` and `Truth`.

Nothing is downloaded and no galaxy is ever drawn twice: a seed and a block number fix each one.
"""

from probmmae.simulator.stream import simulate, simulate_block, stream
from probmmae.simulator.survey import Truth

__all__ = ["Truth", "simulate", "simulate_block", "stream"]
