"""From a finished run to the checkpoint that the package carries, and its model card.

`python benchmarks/ship.py RUN` writes the averaged weights in half precision; called again without
a run it only renews the card from the results.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from leftover import settle
from results_file import RESULTS, commit

from probmmae import checkpoint
from probmmae.config import parse_recipe
from probmmae.footprint import Footprint
from probmmae.sources import footprint

CARD = """# Model card: the shipped checkpoint

| | |
|---|---|
| what | the generative model of `probmmae/model.py`, likelihood "{likelihood}" |
| numbers | {parameters:,}, half precision |
{stages}
| positions | {positions} |
| scatter | measured on seed 2 (`benchmarks/leftover.py`): {scatter} |
| data | `probmmae/simulator`, {spectra} scattered apertures a galaxy, no galaxy twice |
| made by | `make train-shipped` (recipes `shipped_first`, `_second`, `_third`, `shipped`) |
| code | commit {commit} |
| versions | {versions} |
| weights | {weights}, SHA-256 {sha256} |

Galaxies of other seeds tune (2), are kept for recalibration (3) and are reported (4): a simulated
galaxy's identity is (seed, block, row).

## What it was never shown

Stars, quasars, mergers, z above 0.65 or below 0.01, bands outside 4800-9800 Angstrom, real data.

## Measured

From `benchmarks/results/main_job.json` (`{command}`), with the goals that it meets and misses.

| figure | value | goal | met |
|---|---|---|---|
{rows}
"""


def main() -> None:
    """Write weights and card."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, nargs="?")
    options = parser.parse_args()
    if options.run is not None:
        stored = checkpoint.read(options.run)
        if stored.step != stored.recipe.training.steps:
            print(f"note: {options.run} stopped at step {stored.step}, before its last")
        network = checkpoint.load_model(options.run)
        scatter = settle(network)
        averaged = {f"model.{name}": part for name, part in network.state_dict().items()}
        before = stages(options.run)
        seen = where_it_looked(before)
        extra = {
            "commit": commit(),
            "trained_with": stored.info["versions"],
            "stages": before,
            "scatter": scatter,
            "footprint": None if seen is None else seen.to_dict(),
        }
        checkpoint.write(
            checkpoint.SHIPPED, checkpoint.half(averaged), stored.recipe, stored.step, extra
        )
    write_card()


def stages(run: Path) -> list[dict[str, Any]]:
    """Steps and recipe of a run and, before it, of those that it goes on from."""
    stored = checkpoint.read(run)
    earlier = stored.recipe.training.start_from
    own = {"step": stored.step, "recipe": stored.recipe.to_dict()}
    return [*(stages(Path(earlier)) if earlier else []), own]


def where_it_looked(before: list[dict[str, Any]]) -> Footprint | None:
    """Where on galaxies the apertures of all stages lay, by the law that scattered them."""
    seen: Footprint | None = None
    for number, stage in enumerate(before, 1):
        own = footprint(parse_recipe(stage["recipe"], f"stage {number}"))
        seen = seen if own is None else own.joined(seen)
    return seen


def told(number: int, stage: dict[str, Any]) -> str:
    """A row of the card."""
    recipe = parse_recipe(stage["recipe"], f"stage {number}")
    training = recipe.training
    begun = ""
    if number == 1:
        begun = (
            f"{training.start_blocks} blocks for code and readers, {training.start_catalogue:,} "
            "catalogue galaxies for p(z, photometry), "
        )
    frozen = ", ".join(f"`{name}`" for name in training.frozen)
    return (
        f"| stage {number} | {begun}{stage['step']:,} steps of {training.batch} galaxies and "
        f"{recipe.data.catalogue} catalogue rows, seed {training.seed}; frozen: {frozen} |"
    )


def write_card() -> None:
    """The card of what is shipped, with the numbers that are measured."""
    stored = checkpoint.read(checkpoint.SHIPPED)
    recipe, info = stored.recipe, stored.info
    path = RESULTS / "main_job.json"
    results = json.loads(path.read_text()) if path.is_file() else {"figures": [], "command": "-"}
    rows = [
        f"| {one['name']} | {one['value']:.4g} | {one['goal']} | {'yes' if one['met'] else 'no'} |"
        for one in results["figures"]
        if one["goal"] is not None and one["value"] is not None
    ]
    card = CARD.format(
        likelihood=recipe.model.likelihood,
        parameters=sum(part.numel() for part in stored.tensors.values()),
        stages="\n".join(told(number, stage) for number, stage in enumerate(info["stages"], 1)),
        scatter=", ".join(f"{name} {part:.2%}" for name, part in info["scatter"].items()),
        positions="not recorded" if stored.footprint is None else stored.footprint.describe(),
        spectra=max(stage["recipe"]["data"]["spectra"] for stage in info["stages"]),
        commit=info.get("commit", "unknown"),
        versions=", ".join(f"{name} {number}" for name, number in info["versions"].items()),
        weights=info["weights"],
        sha256=info["sha256"],
        command=results["command"].partition("  #")[0],
        rows="\n".join(rows) or "| not measured yet | | | |",
    )
    (checkpoint.SHIPPED / "card.md").write_text(card)


if __name__ == "__main__":
    main()
