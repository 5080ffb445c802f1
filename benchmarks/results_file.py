"""One shape for every benchmark result: benchmarks/results/NAME.json.

A file holds the command that made it, the commit, the seed, the versions, and the figures, each
with its interval, its sample size, and the goal that it met or missed.
"""

import json
import math
import os
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypedDict

RESULTS = Path(__file__).parent / "results"

_PACKAGES = ("probmmae", "torch", "pyro-ppl", "numpy", "scipy", "speclite", "qp-prob")


class Figure(TypedDict):
    """One number of a benchmark."""

    name: str
    value: float | None
    interval: list[float] | None
    n: int | None
    goal: str | None
    met: bool | None


def figure(
    name: str,
    value: float,
    *,
    interval: Sequence[float] | None = None,
    n: int | None = None,
    goal: str | None = None,
    met: bool | None = None,
) -> Figure:
    """A figure of a results file.

    Args:
        name: What was measured, with its unit where it has one.
        value: The number; NaN (not measurable) is stored as null.
        interval: Lower and upper end of its 95 % interval.
        n: Number of galaxies, spectra or repetitions behind it.
        goal: The goal in words, such as "at most 1.05".
        met: Whether the goal is met; see `within`, `at_most`, `at_least`.

    Raises:
        ValueError: `interval` has not two ends, or `met` is given without a goal.
    """
    if interval is not None and len(interval) != 2:
        raise ValueError(f"Expected an interval of two ends; got {len(interval)}. Give low, high.")
    if met is not None and goal is None:
        raise ValueError(f"Expected the goal in words; got none for {name!r}. Say what was met.")
    ends = None if interval is None else [float(end) for end in interval]
    if ends is not None and not all(math.isfinite(end) for end in ends):
        ends = None
    return Figure(
        name=name,
        value=float(value) if math.isfinite(value) else None,
        interval=ends,
        n=None if n is None else int(n),
        goal=goal,
        met=None if met is None else bool(met),
    )


def pit_figure(name: str, pit: Any, *, goals: bool) -> Figure:
    """The KS distance of a `PitResult`, with its 99 % band as the goal if so."""
    return figure(
        f"{name}: PIT KS distance",
        pit.distance,
        n=pit.n,
        goal=f"at most {pit.limit:.4f} (99 % band)" if goals else None,
        met=pit.passed if goals else None,
    )


def score_figure(
    score: Any, *, name: str | None = None, goal: str | None = None, met: bool | None = None
) -> Figure:
    """A figure from a result that has `value`, `low`, `high` and `n` (a Score or a Coverage)."""
    return figure(
        name or score.name,
        score.value,
        interval=(score.low, score.high),
        n=score.n,
        goal=goal,
        met=met,
    )


def within(value: float, low: float, high: float) -> bool:
    """True where `value` lies between `low` and `high`, ends included; False for NaN."""
    return low <= value <= high


def at_most(value: float, limit: float) -> bool:
    """True where `value` does not exceed `limit`; False for NaN."""
    return value <= limit


def at_least(value: float, limit: float) -> bool:
    """True where `value` reaches `limit`; False for NaN."""
    return value >= limit


def write_results(
    name: str,
    command: str,
    *,
    seed: int | None,
    figures: Sequence[Figure],
    folder: Path = RESULTS,
) -> Path:
    """Write NAME.json into `folder`, whole or not at all.

    Args:
        name: File name without suffix.
        command: What to type, from the root of the repository, to make the file again.
        seed: Seed of the run; None where nothing is random.
        figures: The numbers, made by `figure`.
        folder: Where to write; made where it does not exist.

    Returns:
        The path of the file.
    """
    content = {
        "command": command,
        "commit": commit(),
        "seed": seed,
        "versions": versions(),
        "figures": list(figures),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name}.", suffix=".json")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1, allow_nan=False)
            file.write("\n")
        # mkstemp makes private files; a result is for everybody.
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def commit() -> str:
    """The commit of the repository, with "+" where tracked files differ; "unknown" outside git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.decode().strip() + ("+" if changed.stdout.strip() else "")


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that decide numbers."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
