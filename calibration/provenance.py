"""What made a report: the command, the data, how they were divided, and the versions.

From what the user gave to the names and values at the end of the report.
"""

import hashlib
import platform
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from probmmae.calibration import held_out
from probmmae.calibration.answers import Job
from probmmae.calibration.judgement import CONFIDENCE
from probmmae.calibration.report import SEED
from probmmae.checkpoint import SHIPPED, read, versions
from probmmae.dataset import Dataset
from probmmae.inference.repair import Repair

_JOBS = {
    "redshift": "images (photometry where there are none) to redshift",
    "spectra": "images and the redshift to the galaxy's first spectrum, noise included",
}


def described(
    jobs: Sequence[Job],
    *,
    checkpoint: str | None,
    data: Path | None,
    draws: Path | None,
    output: Path,
    repair: Repair | None = None,
) -> dict[str, str]:
    """Names and values, ready for a table.

    Args:
        jobs: The answers that were judged.
        checkpoint: Folder of the model, or "shipped"; None for an archive.
        data: Folder of the dataset; None for an archive.
        draws: The archive; None for a model.
        output: The report.
        repair: What is kept with the model.
    """
    command = ["probmmae", "calibrate"]
    found = {}
    if draws is not None:
        command += ["--draws", str(draws)]
        found["archive"] = f"{draws}, SHA-256 {_digest(draws)}"
    if checkpoint is not None and data is not None:
        command += [checkpoint, str(data)]
        stored = read(SHIPPED if checkpoint == "shipped" else Path(checkpoint))
        recipe, dataset = stored.recipe.to_dict(), Dataset(data)
        found["model"] = f"{checkpoint}, step {stored.step}, SHA-256 {stored.info['sha256']}"
        found["network"] = _listed(recipe["model"])
        found["last training"] = _listed(
            {name: recipe["training"][name] for name in ("steps", "batch", "rate", "seed")}
        )
        found["answers"] = (
            f"{held_out.DRAWS} draws of every spectrum; redshift densities without Monte Carlo"
        )
        found["dataset"] = f"{data}, {len(dataset):,} galaxies"
        found["split"] = (
            "by the hash of a galaxy's name: "
            f"80 % train ({dataset.count('train'):,} galaxies), "
            f"8 % tune ({dataset.count('tune'):,}), "
            f"6 % recalibrate ({dataset.count('recalibrate'):,}"
            f"{', fits the repair' if repair is None else ''}), "
            f"6 % report ({dataset.count('report'):,})"
        )
        if repair is not None:
            found["repair"] = f"kept with the model, fitted on {repair.source}"
    for job in jobs:
        fitted = int(job.for_repair.sum())
        counted = f"{job.for_repair.size - fitted:,} galaxies reported"
        counted += f", {fitted:,} for the repair" if repair is None else ""
        asked = f"{_JOBS[job.name]}; " if checkpoint is not None else ""
        found[job.name] = asked + counted
    found["conditions"] = ", ".join(dict.fromkeys(name for job in jobs for name in job.conditions))
    found["report"] = (
        f"a job of exact posteriors is called miscalibrated with a probability of "
        f"{100 * (1 - CONFIDENCE):.0f} %; seed {SEED} of ties, folds, permutations and bootstrap"
    )
    found["command"] = shlex.join([*command, "-o", str(output)])
    found["versions"] = _listed({"Python": platform.python_version(), **versions()})
    found["made"] = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {name: value for name, value in found.items() if value}


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
