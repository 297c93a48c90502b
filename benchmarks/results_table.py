"""Scores and costs over seeds from what `training/evaluate.py --out` wrote, as a Markdown table; one group per model.

    python benchmarks/results_table.py "CNN=runs/cnn-0.json,runs/cnn-1.json" "Transformer=runs/transformer-0.json,..."

A cell is the mean over the group's files, with the standard deviation (n - 1) behind it. Parameters and
multiply-accumulates are the same for all seeds; a result without costs, or PSDS without boxes, shows "-". With --speed
the milliseconds are not those of the evaluation, which other work may have slowed, but those that benchmarks/run.py
measured of a network with as many multiply-accumulates: PyTorch / onnxruntime."""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

SCORES = ("PSDS1", "PSDS2", "event F1 macro", "event F1 micro", "segment F1 macro", "segment F1 micro")
COSTS = ("parameters", "MACs per 10 s", "ms per 10 s, 1 thread")
COUNTS = ("parameters", "macs_per_10_s")


def scores_of(result: dict[str, Any]) -> list[float | None]:
    """The columns of SCORES of one exit of one result; PSDS from boxes."""
    areas = [None if result[name]["boxes"] is None else result[name]["boxes"]["psds"] for name in ("psds1", "psds2")]
    f1 = [result[kind][mean]["f1"] for kind in ("event_based", "segment_based") for mean in ("macro", "micro")]
    return areas + f1


def cell(values: list[float | None], decimals: int = 3) -> str:
    """Mean ± standard deviation, the mean alone of one value, "-" where one is missing."""
    if None in values:
        return "-"
    mean = f"{statistics.mean(values):.{decimals}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{decimals}f}"


def read_speed(path: Path) -> dict[int, str]:
    """{multiply-accumulates per 10 s: "PyTorch / onnxruntime" milliseconds on one thread} of what run.py wrote.

    Raises:
        ValueError: when it is no such file.
        OSError: when it cannot be read.
    """
    try:
        cases = json.loads(path.read_text(encoding="utf-8"))["cases"]["1"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise ValueError(f"{path} must be JSON of benchmarks/run.py --out with cases on 1 thread") from None
    found: dict[int, dict[str, float]] = {}
    for group in (group for name, group in cases.items() if name.startswith("network ")):
        for name, case in group.items():
            found.setdefault(case["macs"], {})[name.split(", ")[1]] = case["ms"]
    return {
        macs: " / ".join(f"{own[name]:.1f}" for name in ("PyTorch", "onnxruntime"))
        for macs, own in found.items()
        if {"PyTorch", "onnxruntime"} <= own.keys()
    }


def cost_cells(costs: list[dict[str, Any] | None], name: str, speed: dict[int, str] | None = None) -> list[str]:
    """The columns of COSTS of one exit, from its costs in every result; milliseconds as in `read_speed` where given.

    Raises:
        ValueError: when the results do not come from networks of one size.
    """
    if None in costs:
        return ["-"] * len(COSTS)
    for count in COUNTS:
        found = sorted({one[count] for one in costs})
        if len(found) > 1:
            raise ValueError(f"the files of group {name!r} must hold networks of one size, got {count} {found}")
    parameters, macs = (costs[0][count] for count in COUNTS)
    own = cell([one["milliseconds_per_10_s"] for one in costs], 1) if speed is None else speed.get(macs, "-")
    return [f"{parameters:,}", f"{macs / 1e6:,.0f} M", own]


def group_rows(name: str, results: list[dict[str, Any]], speed: dict[int, str] | None = None) -> list[str]:
    """One row per exit of a group of results with the same exits.

    Raises:
        ValueError: when the results do not come from networks of one size.
    """
    rows = []
    for exit_name in results[0]["exits"]:
        exits = [result["exits"][exit_name] for result in results]
        cells = [cell(list(values)) for values in zip(*map(scores_of, exits), strict=True)]
        cells += cost_cells([one.get("costs") for one in exits], name, speed)
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


def read_group(text: str) -> tuple[str, list[dict[str, Any]]]:
    """Name and results of NAME=FILE,FILE,...

    Raises:
        ValueError: when the text has not this form, a file holds no result, or exits or classes differ between files.
        OSError: when a file cannot be read.
    """
    name, equals, files = text.partition("=")
    if not equals or not files:
        raise ValueError(f"a group must be NAME=FILE,FILE,..., got {text!r}")
    results = [read_result(Path(file)) for file in files.split(",")]
    for key in ("exits", "classes"):
        found = [list(result[key]) for result in results]
        if any(one != found[0] for one in found):
            raise ValueError(f"the files of group {name!r} must have the same {key}, got {found}")
    return name, results


def read_result(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        result = None
    if not isinstance(result, dict) or not {"exits", "classes"} <= result.keys():
        raise ValueError(f"{path} must be JSON of training/evaluate.py --out with exits and classes: write it again")
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="+", metavar="NAME=FILE,FILE,...")
    parser.add_argument("--speed", type=Path, help="JSON of benchmarks/run.py to take the milliseconds from")
    arguments = parser.parse_args()
    try:
        groups = [read_group(text) for text in arguments.groups]
        speed = None if arguments.speed is None else read_speed(arguments.speed)
        rows = [row for name, results in groups for row in group_rows(name, results, speed)]
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    columns = ("model", "exit", "seeds", *SCORES, *COSTS)
    print("| " + " | ".join(columns) + " |")
    print("| --- " * len(columns) + "|")
    print("\n".join(rows))
    for name, results in groups:
        print(f"\n{name}, deepest exit, per class\n")
        print("\n".join(class_rows(results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
