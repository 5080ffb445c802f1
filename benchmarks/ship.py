"""From a finished run to the checkpoint that the package carries, and its model card.

`python benchmarks/ship.py RUN` writes the averaged weights in half precision; called again without a run
it only renews the card from the results.
"""

import argparse
import json
from pathlib import Path

from results_file import RESULTS, commit

from probmmae import checkpoint

CARD = """# Model card: the shipped checkpoint

| | |
|---|---|
| what | the generative model of `probmmae/model.py`, likelihood "{likelihood}" |
| parameters | {parameters:,} |
| trained on | the simulator (`probmmae/simulator`), seed {seed}: {galaxies:,} galaxies with {spectra} scattered \
apertures each, {catalogue:,} more as catalogue photometry, none seen twice |
| steps | {steps:,} of {batch} galaxies, Adam, cosine from {rate}, averaged weights (EMA {ema}) |
| made by | `make train-shipped` (recipe `probmmae/recipes/shipped.toml`), code at commit {commit} |
| versions | {versions} |
| weights | {weights}, half precision, SHA-256 {sha256} |

Galaxies of other seeds tune (2), are kept for recalibration (3) and are reported (4): a simulated
galaxy's identity is (seed, block, row).

## What it was never shown

Stars, quasars, mergers, z above 0.65 or below 0.01, bands outside 4800-9800 Angstrom, real data of any kind.

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
        extra = {"commit": commit(), "trained_with": stored.info["versions"]}
        checkpoint.write(
            checkpoint.SHIPPED, checkpoint.half(averaged), stored.recipe, stored.step, extra
        )
    write_card()


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
        seed=recipe.training.seed,
        galaxies=stored.step * recipe.training.batch,
        spectra=recipe.data.spectra,
        catalogue=stored.step * recipe.data.catalogue,
        steps=stored.step,
        batch=recipe.training.batch,
        rate=recipe.training.rate,
        ema=recipe.training.ema,
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
