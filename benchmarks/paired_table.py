"""Difference between two recipes at every exit, paired by seed, as a Markdown table.

    python benchmarks/paired_table.py "plain=a0.json,a1.json,a2.json" "distilled=b0.json,b1.json,b2.json"

The files are those of `training/evaluate.py --out`, in the same order of seeds. A cell is the mean over seeds of second
minus first, with its 95 % t interval; it is bold where the interval leaves out zero. In the last row every seed's
differences are averaged over the exits first."""

import argparse
import math
import statistics
import sys
from typing import Any

from results_table import SCORES, read_group, scores_of

# 97.5 % quantiles of Student's t with 1 to 30 degrees of freedom.
# Source: NIST/SEMATECH, e-Handbook of Statistical Methods, section 1.3.6.7.2.
T_QUANTILES = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


def t_interval(values: list[float]) -> tuple[float, float, float]:
    """Mean and both ends of its 95 % interval, for 2 to 31 values."""
    mean = statistics.mean(values)
    reach = T_QUANTILES[len(values) - 2] * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - reach, mean + reach


def cell(differences: list[float | None]) -> str:
    """The mean and its interval, "-" where a value is missing."""
    if None in differences:
        return "-"
    mean, low, high = t_interval(differences)
    text = f"{mean:+.3f}".replace("-", "−")
    interval = f"({low:+.3f} to {high:+.3f})".replace("-", "−")
    return f"{text if low <= 0 <= high else f'**{text}**'} {interval}"


def difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else second - first


def mean_over_exits(differences: list[float | None]) -> float | None:
    return None if None in differences else statistics.mean(differences)


def check_pairs(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> None:
    """Checks that every file of one group has its partner in the other.

    Raises:
        ValueError: when the numbers of files, or a pair's exits, classes, data or seeds, do not fit.
    """
    most = len(T_QUANTILES) + 1
    if len(first) != len(second) or not 2 <= len(first) <= most:
        raise ValueError(
            f"both groups must have the same number of files, 2 to {most}, got {len(first)} and {len(second)}"
        )
    for number, pair in enumerate(zip(first, second, strict=True), start=1):
        traits = {
            "exits": [list(result["exits"]) for result in pair],
            "classes": [result["classes"] for result in pair],
            "split and number of events": [(result.get("split"), result.get("num_references")) for result in pair],
            "seed": [seed_of(result) for result in pair],
        }
        for trait, (one, other) in traits.items():
            if one != other:
                raise ValueError(f"pair {number} must have the same {trait}, got {one} and {other}: reorder the files")


def seed_of(result: dict[str, Any]) -> Any:
    """The seed of the training, as the checkpoint's provenance tells it."""
    provenance = result.get("provenance")
    return None if provenance is None else provenance.get("seed")


def paired_rows(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> list[str]:
    """One row per exit, and one for the mean over exits."""
    exits = list(first[0]["exits"])
    differences = [
        [list(map(difference, scores_of(one["exits"][name]), scores_of(other["exits"][name]))) for name in exits]
        for one, other in zip(first, second, strict=True)
    ]
    # seeds x exits x scores
    rows = []
    for position, name in enumerate(exits):
        columns = zip(*(of_seed[position] for of_seed in differences), strict=True)
        rows.append(f"| {name} | " + " | ".join(cell(list(values)) for values in columns) + " |")
    means = [[mean_over_exits(list(values)) for values in zip(*of_seed, strict=True)] for of_seed in differences]
    rows.append("| mean | " + " | ".join(cell(list(values)) for values in zip(*means, strict=True)) + " |")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", metavar="NAME=FILE,FILE,...", help="what is subtracted")
    parser.add_argument("second", metavar="NAME=FILE,FILE,...", help="from what, the same seeds in the same order")
    arguments = parser.parse_args()
    try:
        (first_name, first), (second_name, second) = read_group(arguments.first), read_group(arguments.second)
        check_pairs(first, second)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    seeds = ", ".join("?" if seed_of(result) is None else str(seed_of(result)) for result in first)
    num_cells = len(SCORES) * len(first[0]["exits"])
    print(f"{second_name} − {first_name}: mean over {len(first)} seeds ({seeds}), paired, with its 95 % t interval")
    print(f"(bold: the interval leaves out zero; of {num_cells} cells, about {0.05 * num_cells:.0f} do so by chance)\n")
    print("| exit | " + " | ".join(SCORES) + " |")
    print("| --- " * (len(SCORES) + 1) + "|")
    print("\n".join(paired_rows(first, second)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
