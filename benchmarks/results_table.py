"""Mean and range over seeds of what `training/evaluate.py --out` wrote, as a Markdown table; one group per model.

    python benchmarks/results_table.py "CNN=runs/cnn_0.json,runs/cnn_1.json" "CNN, plain=runs/plain_0.json,..."

Every cell is the mean over the group's files, with half of the range between the smallest and the largest behind it."""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

COLUMNS = ("PSDS1", "PSDS2", "event F1 macro", "event F1 micro", "segment F1 macro", "segment F1 micro")


def figures(scores: dict[str, Any]) -> list[float]:
    """The columns of one exit of one result; PSDS from boxes."""
    areas = [scores[scenario]["boxes"]["psds"] for scenario in ("psds1", "psds2")]
    f1 = [scores[kind][mean]["f1"] for kind in ("event_based", "segment_based") for mean in ("macro", "micro")]
    return areas + f1


def cell(values: list[float]) -> str:
    half_range = (max(values) - min(values)) / 2
    return f"{statistics.mean(values):.3f}" + (f" ± {half_range:.3f}" if len(values) > 1 else "")


def group_rows(name: str, results: list[dict[str, Any]]) -> list[str]:
    """One row per exit of a group of results with the same exits."""
    rows = []
    for exit_name in results[0]["exits"]:
        columns = zip(*(figures(result["exits"][exit_name]) for result in results), strict=True)
        cells = [cell(list(values)) for values in columns]
        rows.append(f"| {name} | {exit_name} | {len(results)} | " + " | ".join(cells) + " |")
    return rows


def class_rows(results: list[dict[str, Any]]) -> list[str]:
    """One row per class at the deepest exit of one group."""
    deepest = [list(result["exits"].values())[-1] for result in results]
    rows = ["| class | event F1 | segment F1 |", "| --- | --- | --- |"]
    for label in results[0]["classes"]:
        cells = [
            cell([scores[kind]["class_wise"][label]["f1"] for scores in deepest])
            for kind in ("event_based", "segment_based")
        ]
        rows.append(f"| {label} | {cells[0]} | {cells[1]} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("groups", nargs="+", metavar="NAME=FILE,FILE,...")
    arguments = parser.parse_args()
    print("| model | exit | seeds | " + " | ".join(COLUMNS) + " |")
    print("| --- " * (len(COLUMNS) + 3) + "|")
    tables = []
    for group in arguments.groups:
        name, _, files = group.partition("=")
        results = [json.loads(Path(file).read_text(encoding="utf-8")) for file in files.split(",")]
        print("\n".join(group_rows(name, results)))
        tables.append((name, class_rows(results)))
    for name, rows in tables:
        print(f"\n{name}, deepest exit, per class\n")
        print("\n".join(rows))


if __name__ == "__main__":
    main()
