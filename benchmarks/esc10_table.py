"""Clip accuracy of ESC-10's five folds as Markdown tables, from what training/crossvalidate.py wrote.

    python benchmarks/esc10_table.py "CNN, plain=plain.json" "CNN, self-distilled=distilled.json" ...

Accuracy: mean over seeds of the mean over folds, ± standard deviation over seeds. Groups whose names begin alike (up to
the comma) are compared as well: second less first, paired by seed and fold, with a 95 % t interval."""

import argparse
import itertools
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from paired_table import t_interval

VIEWS = ("plain", "mc", "shifts", "mc+shifts")


def accuracies(results: dict[str, Any], exit_name: str, view: str) -> dict[tuple[int, str], float]:
    """{(seed, fold): accuracy in percent}."""
    return {(run["seed"], run["fold"]): 100 * run["exits"][exit_name][view]["accuracy"] for run in results["runs"]}


def mean_and_spread(values: dict[tuple[int, str], float]) -> str:
    """Mean over seeds of the five-fold mean ± standard deviation over seeds (none for one seed)."""
    seeds = sorted({seed for seed, _ in values})
    means = [statistics.mean(value for (seed, _), value in values.items() if seed == one) for one in seeds]
    spread = f" ± {statistics.stdev(means):.2f}" if len(means) > 1 else ""
    return f"{statistics.mean(means):.2f}{spread}"


def check_complete(name: str, results: dict[str, Any]) -> None:
    """Raises:
    ValueError: when a seed lacks a fold.
    """
    folds = {run["fold"] for run in results["runs"]}
    seeds = {run["seed"] for run in results["runs"]}
    if len(results["runs"]) != len(folds) * len(seeds) or len(folds) != 5:
        raise ValueError(
            f"{name} must hold five folds of every seed, got {len(results['runs'])} runs of {len(seeds)} seeds"
        )


def rows_of(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """{exit: its cost}; all exits together cost what the deepest costs with all heads."""
    rows = {str(cost["exit"]): cost for cost in results["costs"]}
    if "ensemble" in results["runs"][0]["exits"]:
        rows["ensemble"] = results["costs"][-1]
    return rows


def accuracy_table(groups: dict[str, dict[str, Any]]) -> list[str]:
    """One row per group and exit: parameters, MACs, accuracy of every view."""
    lines = [
        "| network | exit | parameters | MMACs per 10 s | plain | 20 Monte Carlo passes | 5 shifts | both |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, results in groups.items():
        for exit_name, cost in rows_of(results).items():
            cells = [mean_and_spread(accuracies(results, exit_name, view)) for view in VIEWS]
            size = f"{cost['parameters']:,} | {cost['macs_per_10_s'] / 1e6:.0f}"
            lines.append(f"| {name} | {exit_name} | {size} | " + " | ".join(cells) + " |")
    return lines


def paired_rows(first: dict[str, Any], second: dict[str, Any], title: str) -> list[str]:
    """One row per exit, and one for the mean over exits: second less first, paired by seed and fold."""
    rows, by_run = [], {}
    for exit_name in rows_of(first):
        one, other = (accuracies(results, exit_name, "plain") for results in (first, second))
        if one.keys() != other.keys():
            raise ValueError(f"{title}: both must hold the same seeds and folds, got {len(one)} and {len(other)} runs")
        differences = {run: other[run] - one[run] for run in one}
        if exit_name != "ensemble":
            for run, value in differences.items():
                by_run.setdefault(run, []).append(value)
        rows.append(f"| {title} | {exit_name} | {interval(list(differences.values()))} |")
    means = [statistics.mean(values) for values in by_run.values()]
    return [*rows, f"| {title} | mean of all | {interval(means)} |"]


def interval(values: list[float]) -> str:
    mean, low, high = t_interval(values)
    text = f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"
    return text.replace("-", "−")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="+", metavar="NAME=FILE")
    arguments = parser.parse_args()
    try:
        groups = {}
        for group in arguments.groups:
            name, _, path = group.rpartition("=")
            groups[name] = json.loads(Path(path).read_text(encoding="utf-8"))
            check_complete(name, groups[name])
        lines = accuracy_table(groups)
        pairs = [(a, b) for a, b in itertools.combinations(groups, 2) if a.partition(",")[0] == b.partition(",")[0]]
        if pairs:
            lines += ["", "| difference in points | exit | mean (95 % interval) |", "| --- | --- | --- |"]
        for a, b in pairs:
            lines += paired_rows(groups[a], groups[b], f"{b} less {a}")
    except (ValueError, OSError) as error:
        print(f"esc10_table.py: error: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
