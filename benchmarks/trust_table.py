"""The trust figures of several seeds, from what `training/evaluate.py --report DIR --out FILE` wrote, as Markdown.

    python benchmarks/trust_table.py runs/cnn-0.json runs/cnn-1.json runs/cnn-2.json

Mean over the files; with half of the range between the smallest and the largest behind it where it is one figure."""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from modeling_easysed.metrics import aurc, brier_score, expected_calibration_error, negative_log_likelihood

Trust = dict[str, Any]
DEFAULT = "auto, mc+shifts"
COLUMNS: dict[str, Callable[[Trust], float]] = {
    "events": lambda one: one["num_reported"],
    "right": lambda one: one["share_right"],
    "ECE": lambda one: one["confidence"]["ece"],
    "ECE by chance": lambda one: one["ece_by_chance"],
    "Brier": lambda one: one["confidence"]["brier"],
    "NLL": lambda one: one["confidence"]["nll"],
    "AURC": lambda one: one["confidence"]["aurc"],
    "AURC of the score": lambda one: one["raw"]["aurc"],
    "onsets inside": lambda one: one["onset"]["coverage"],
    "offsets inside": lambda one: one["offset"]["coverage"],
    "accepted": lambda one: one["decisions"]["share_kept"],
    "accepted right": lambda one: one["decisions"]["accept"]["share_right"],
    "event F1": lambda one: one["event_f1"],
    "segment F1 micro": lambda one: one.get("segment_f1_micro"),
    "ms": lambda one: one["milliseconds"],
}


def cell(values: list[float], digits: int = 3) -> str:
    """Mean and half range."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    half = (max(known) - min(known)) / 2
    return f"{statistics.mean(known):.{digits}f} ± {half:.{digits}f}"


def raw_figures(trust: Trust) -> dict[str, float]:
    """Of the plain pass's raw score on the events that its own thresholds report: all there is without calibration."""
    rows = trust["events"]["plain"]
    above = np.array(rows["above_threshold"], bool)
    score, right = np.array(rows["score"])[above], np.array(rows["right"], bool)[above]
    return {
        "events": float(above.sum()),
        "right": float(right.mean()),
        "ece": expected_calibration_error(score, right, variant="positive_class"),
        "brier": brier_score(score, right),
        "nll": negative_log_likelihood(score, right),
        "aurc": aurc(-score, ~right),
    }


def headline(all_trust: list[Trust]) -> list[str]:
    """Raw score of the plain pass, the default's score with and without temperature, and its confidence."""
    default = [trust["settings"][DEFAULT] for trust in all_trust]
    plain = [raw_figures(trust) for trust in all_trust]
    measures = ("ece", "brier", "nll", "aurc")
    deepest = max(name for name in all_trust[0]["settings"] if name.endswith(", none"))
    sources = {
        "raw score, plain pass": [trust["settings"][deepest]["raw"] for trust in all_trust],
        "raw score, plain pass, only events above its own thresholds": plain,
        "raw score, default setting": [one["raw"] for one in default],
        "temperature scaling alone, default setting": [one["temperature"] for one in default],
        "confidence, default setting": [one["confidence"] for one in default],
    }
    rows = {name: [[one[key] for one in own] for key in measures] for name, own in sources.items()}
    lines = ["| what is believed | ECE | Brier | NLL | AURC |", "| --- | --- | --- | --- | --- |"]
    return lines + [
        f"| {name} | " + " | ".join(cell(values) for values in columns) + " |" for name, columns in rows.items()
    ]


def setting_rows(all_trust: list[Trust]) -> list[str]:
    """One row per setting."""
    lines = ["| setting | " + " | ".join(COLUMNS) + " |", "| --- " * (len(COLUMNS) + 1) + "|"]
    for name in all_trust[0]["settings"]:
        cells = []
        for column, figure in COLUMNS.items():
            values = [figure(trust["settings"][name]) for trust in all_trust]
            known = [value for value in values if value is not None]
            digits = 0 if column in ("events", "ms") else 3
            cells.append(f"{statistics.mean(known):.{digits}f}" if known else "-")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def check_rows(all_trust: list[Trust]) -> list[str]:
    """Coverage and decisions, one row per file."""
    lines = [
        "| file | onsets inside | offsets inside | confidences covered | accepted | of them right | share accepted "
        "| exits of auto |",
        "| --- " * 8 + "|",
    ]
    for number, trust in enumerate(all_trust):
        one = trust["settings"][DEFAULT]
        accept = one["decisions"]["accept"]
        share = "-" if accept["share_right"] is None else f"{accept['share_right']:.3f}"
        cells = [f"{one[border]['coverage']:.3f}" for border in ("onset", "offset")]
        cells.append(f"{one['confidence']['groups_covered']:.2f}")
        cells += [str(accept["num"]), share, f"{one['decisions']['share_kept']:.2f}"]
        cells.append(", ".join(f"{index}: {share:.2f}" for index, share in trust["auto_exits"].items()))
        lines.append(f"| {number} | " + " | ".join(cells) + " |")
    return lines


def guarantee_rows(all_trust: list[Trust]) -> list[str]:
    """What the guarantees came to on random halves of the recordings, one row per file."""
    lines = [
        "| file | precision 0.9: guaranteed | below it | below by a standard error | promised at most "
        "| 60 false alarms an hour: guaranteed | mean | recall 0.7: guaranteed | mean |",
        "| --- " * 9 + "|",
    ]
    for number, trust in enumerate(all_trust):
        check = trust["split_check"]
        precision = check["precision"]
        cells = [f"{precision['guaranteed']} of {check['splits']}", str(precision["below_goal"])]
        cells += [str(precision["below_goal_by_a_standard_error"]), f"{precision['promised_at_most']:.0f}"]
        for name, digits in (("false_alarms_per_hour", 1), ("recall", 3)):
            own = check[name]
            mean = "-" if own["mean"] is None else f"{own['mean']:.{digits}f}"
            cells += [f"{own['guaranteed']} of {check['splits']}", mean]
        lines.append(f"| {number} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    arguments = parser.parse_args()
    all_trust = [json.loads(file.read_text(encoding="utf-8"))["trust"] for file in arguments.files]
    for rows in (headline(all_trust), check_rows(all_trust), guarantee_rows(all_trust), setting_rows(all_trust)):
        print("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
