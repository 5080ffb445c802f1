"""How many goals are met, and which are not, in Markdown: the end of every table of README.md."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Figure = Mapping[str, Any]


def goals_told(
    figures: Sequence[Figure],
    number: Callable[[Figure], str],
    name: Callable[[Figure], str] = lambda one: str(one["name"]),
) -> list[str]:
    """Lines; `number` and `name` say how a figure's value and name are written."""
    goals = [one for one in figures if one["goal"]]
    missed = [one for one in goals if not one["met"]]
    return [
        f"{len(goals) - len(missed)} of {len(goals)} goals are met."
        + (" Missed:" if missed else ""),
        "",
        *(f"- {name(one)}: {number(one)} (goal: {one['goal']})" for one in missed),
    ]


def number_told(one: Figure | None, kind: str) -> str:
    """A figure's value in a format; a dash where there is none."""
    return "-" if one is None or one["value"] is None else format(one["value"], kind)


def ending(name: str, results: Mapping[str, Any]) -> list[str]:
    """What is met and missed, and what made NAME.json."""
    return [
        "",
        *goals_told(results["figures"], lambda one: number_told(one, ".3g")),
        "",
        f"From `benchmarks/results/{name}.json`: `{results['command']}`, commit "
        f"{str(results.get('commit', ''))[:10]}.",
    ]
