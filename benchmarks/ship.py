"""From a finished run to the checkpoint that the package carries, and its model card.

`python benchmarks/ship.py RUN` writes the averaged weights in half precision; called again without
a run it only renews the card from the results.
"""

import argparse
import json
from pathlib import Path

from results_file import RESULTS, commit

from probmmae import checkpoint
from probmmae.config import parse_recipe

CARD = """# Model card: the shipped checkpoint

| | |
|---|---|
| what | the generative model of `probmmae/model.py`, likelihood "{likelihood}" |
| numbers | {parameters:,}, half precision |
| start | code, guide and reader from {start:,} simulated blocks (`probmmae/start.py`) |
| first stage | {first_steps:,} steps of {first.batch} simulated galaxies, seed {first.seed} |
| second stage | {steps:,} steps of {batch}, and {catalogue} catalogue rows each, seed {seed} |
| frozen | {frozen} |
| data | `probmmae/simulator`, {spectra} scattered apertures a galaxy, no galaxy twice |
| made by | `make train-shipped` (recipes `shipped_first` and `shipped`) |
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
        averaged = {name: t for name, t in stored.tensors.items() if name.startswith("model.")}
        first = checkpoint.read(Path(stored.recipe.training.start_from or options.run))
        extra = {
            "commit": commit(),
            "trained_with": stored.info["versions"],
            "first_stage": {"step": first.step, "recipe": first.recipe.to_dict()},
        }
        checkpoint.write(
            checkpoint.SHIPPED, checkpoint.half(averaged), stored.recipe, stored.step, extra
        )
    write_card()


def write_card() -> None:
    """The card of what is shipped, with the numbers that are measured."""
    stored = checkpoint.read(checkpoint.SHIPPED)
    recipe, info = stored.recipe, stored.info
    begun = info["first_stage"]
    first = parse_recipe(begun["recipe"], "the first stage").training
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
        start=first.start_blocks,
        first=first,
        first_steps=begun["step"],
        catalogue=recipe.data.catalogue,
        frozen=", ".join(f"`{name}`" for name in recipe.training.frozen) or "none",
        seed=recipe.training.seed,
        spectra=recipe.data.spectra,
        steps=stored.step,
        batch=recipe.training.batch,
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
