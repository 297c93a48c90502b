"""What a model gets wrong on a split of strongly labelled soundscapes: one figure, and its numbers as JSON.

    python training/errors.py --model easysed-cnn --data ../shared/data/soundscapes --split test --out errors.png

Right is what the event-based metric calls right (same collars, same matching). Everything else is taken apart: wrong
borders, other classes, events run together or found in pieces, false alarms. The events are those above the
checkpoint's own thresholds, by default with the pipeline's passes and shifts; `--passes 0 --shifts 0` is the plain
pass."""

import argparse
import csv
import json
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from error_figure import draw_errors
from evaluate import json_ready
from soundscape_split import References, class_names, read_split
from tqdm import tqdm

from modeling_easysed import SoundEventDetectionPipeline
from modeling_easysed.metrics import event_based_metrics, segment_based_metrics
from modeling_easysed.metrics.events import (
    MICROSECONDS_PER_SECOND,
    EventTable,
    check_evaluation_set,
    read_events,
    to_microseconds,
)
from modeling_easysed.metrics.matching import maximum_matching

COLLAR_S, OFFSET_COLLAR_RATE = 0.2, 0.2  # the defaults of `event_based_metrics`
MIN_COVERAGE = 0.3  # share of an event that another class must cover for the two to be taken for each other
EVENT_FATES = ("right", "wrong_onset", "wrong_offset", "wrong_both", "run_together", "wrong_class", "missed")
FALSE_FATES = ("piece", "on_other_class", "on_nothing")
HEARD = EVENT_FATES[:5]  # detections of the event's class lie there, whatever their borders
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BORDER_EDGES_MS = np.arange(-1000, 1001, 50)
# Edges of the groups whose recall is given; shares up to 1, so the last group of overlaps has no upper end.
RECALL_EDGES: dict[str, list[float]] = {
    "snr_db": [-np.inf, 5, 10, 15, 20, np.inf],
    "duration_s": [0, 0.5, 1, 2, 4, np.inf],
    "overlap": [0, 0.001, 0.5, np.inf],
}


@dataclass
class Event:
    """One event of the truth.

    Attributes:
        label, fate: class, and one of EVENT_FATES.
        taken_for: the class of the false detections that lie there, for the fate "wrong_class".
        onset_error_s, offset_error_s: detection less truth; NaN without a detection of its own.
        traits: values of the keys of RECALL_EDGES; NaN = not known.
    """

    label: str
    fate: str
    taken_for: str | None
    onset_error_s: float
    offset_error_s: float
    traits: dict[str, float] = field(default_factory=dict)


@dataclass
class FalseDetection:
    """One detection without an event: its class, one of FALSE_FATES, and for "on_other_class" that class."""

    label: str
    fate: str
    lies_on: str | None


# ---- one file --------------------------------------------------------------------------------------------------------


def pair_events(references: EventTable, detections: EventTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One detection for every event that has one of its class.

    First as many right pairs as possible, as in the event-based metric; then pairs with one border within its collar,
    then pairs that overlap at all, each time the largest overlap first.

    Returns:
        (references,) the detection, -1 without; (references, detections) whether the onset, and the offset, of a pair
        is within its collar.
    """
    onset_error = np.abs(references.onset[:, None] - detections.onset[None, :])
    offset_error = np.abs(references.offset[:, None] - detections.offset[None, :])
    collar = to_microseconds(COLLAR_S)
    length_collar = np.round(OFFSET_COLLAR_RATE * (references.offset - references.onset))[:, None]
    onset_fits, offset_fits = onset_error <= collar, offset_error <= np.maximum(collar, length_collar)
    same = references.label[:, None] == detections.label[None, :]
    overlap = overlaps(references, detections)
    partner = maximum_matching(same & onset_fits & offset_fits)
    for allowed in (same & (onset_fits | offset_fits), same & (overlap > 0)):
        for pair in np.argsort(-overlap, axis=None, kind="stable"):
            row, column = np.unravel_index(pair, overlap.shape)
            if allowed[row, column] and partner[row] < 0 and column not in partner:
                partner[row] = column
    return partner, onset_fits, offset_fits


def overlaps(first: EventTable, second: EventTable) -> np.ndarray:
    """(events of first, events of second) microseconds that both sound."""
    start = np.maximum(first.onset[:, None], second.onset[None, :])
    return np.maximum(0.0, np.minimum(first.offset[:, None], second.offset[None, :]) - start)


def judge_file(
    references: EventTable, detections: EventTable, classes: Sequence[str]
) -> tuple[list[Event], list[FalseDetection]]:
    """The fate of every event of one file, and of every detection that none of them got."""
    partner, onset_fits, offset_fits = pair_events(references, detections)
    overlap = overlaps(references, detections)
    same = references.label[:, None] == detections.label[None, :]
    is_piece = (same & (overlap > 0)).any(axis=0)
    unpaired = np.setdiff1d(np.arange(len(detections.label)), partner)
    strangers = unpaired[~is_piece[unpaired]]
    events = []
    for row, column in enumerate(partner):
        label = classes[references.label[row]]
        if column >= 0:
            fate = pair_fate(onset_fits[row, column], offset_fits[row, column])
            errors = (
                detections.onset[column] - references.onset[row],
                detections.offset[column] - references.offset[row],
            )
            events.append(Event(label, fate, None, *(float(error) / MICROSECONDS_PER_SECOND for error in errors)))
            continue
        length = references.offset[row] - references.onset[row]
        taken_for = covering_class(overlap[row, strangers] / length, detections.label[strangers], classes)
        fate = "missed" if taken_for is None else "wrong_class"
        if (same & (overlap > 0))[row].any():
            fate, taken_for = "run_together", None
        events.append(Event(label, fate, taken_for, np.nan, np.nan))
    false = []
    for column in unpaired:
        length = detections.offset[column] - detections.onset[column]
        lies_on = covering_class(overlap[:, column] / length, references.label, classes)
        fate = "on_nothing" if lies_on is None else "on_other_class"
        if is_piece[column]:
            fate, lies_on = "piece", None
        false.append(FalseDetection(classes[detections.label[column]], fate, lies_on))
    return events, false


def pair_fate(onset_fits: bool, offset_fits: bool) -> str:
    if onset_fits:
        return "right" if offset_fits else "wrong_offset"
    return "wrong_onset" if offset_fits else "wrong_both"


def covering_class(shares: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> str | None:
    """The class whose events together cover most, if that is at least MIN_COVERAGE; shares, labels: (events,)."""
    covered = np.bincount(labels, weights=shares, minlength=len(classes))
    best = int(np.argmax(covered))
    return classes[best] if covered[best] >= MIN_COVERAGE else None


def covered_share(span: Sequence, others: Sequence[Sequence]) -> float:
    """Share of [onset, offset, ...] during which at least one of the others sounds."""
    total, end = 0.0, span[0]
    for onset, offset, *_ in sorted(others):
        start, stop = max(onset, end), min(offset, span[1])
        if stop > start:
            total, end = total + stop - start, stop
    return total / (span[1] - span[0])


# ---- a split ---------------------------------------------------------------------------------------------------------


def judge_split(
    references: References,
    detections: References,
    classes: Sequence[str],
    levels: Mapping[tuple, float],
) -> tuple[list[Event], list[FalseDetection]]:
    """Fates over all files.

    Args:
        references, detections: {file: [[onset, offset, label], ...]}, seconds, of the same files.
        classes: names of all classes.
        levels: {(file, onset, offset, label): dB over the background}, as from `read_levels`.
    """
    evaluation_set = check_evaluation_set(references, detections, "detections", classes)
    truth = read_events(references, "references", evaluation_set)
    found = read_events(detections, "detections", evaluation_set)
    events, false = [], []
    for number, name in enumerate(evaluation_set.files):
        own = truth.of_file(number)
        file_events, file_false = judge_file(own, found.of_file(number), classes)
        onsets, offsets = own.onset / MICROSECONDS_PER_SECOND, own.offset / MICROSECONDS_PER_SECOND
        spans = list(zip(onsets.tolist(), offsets.tolist(), own.label.tolist(), strict=True))
        for row, (event, span) in enumerate(zip(file_events, spans, strict=True)):
            event.traits = {
                "snr_db": levels.get((name, span[0], span[1], event.label), np.nan),
                "duration_s": span[1] - span[0],
                "overlap": covered_share(span, spans[:row] + spans[row + 1 :]),
            }
        events += file_events
        false += file_false
    return events, false


def read_levels(data_dir: str | Path, split: str) -> dict[tuple, float]:
    """{(file, onset, offset, label): snr_db}, times to the microsecond; empty where the table has no such column."""
    levels = {}
    with (Path(data_dir) / f"{split}.tsv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if row["onset"] and row.get("snr_db"):
                times = (round(float(row[border]), 6) for border in ("onset", "offset"))
                levels[row["filename"], *times, row["event_label"]] = float(row["snr_db"])
    return levels


def detect(
    pipe: SoundEventDetectionPipeline, paths: Mapping[str, Path], exit_index: int, passes: int, shifts: int
) -> References:
    """{file: [[onset, offset, label], ...]} of what lies above the checkpoint's thresholds.

    A calibration adds judgements and faint candidates to these, and exists for some settings only: it is set aside.
    """
    calibration, pipe.calibration = pipe.calibration, None
    settings = {"exit": exit_index, "uncertainty": "mc" if passes > 0 else "none", "passes": max(passes, 1)}
    detections = {}
    try:
        for name, path in tqdm(paths.items(), desc="detecting", unit="file", disable=not sys.stderr.isatty()):
            events = pipe(str(path), shifts=shifts, **settings).events
            detections[name] = [[event.onset, event.offset, event.label] for event in events]
    finally:
        pipe.calibration = calibration
    return detections


# ---- numbers ---------------------------------------------------------------------------------------------------------


def count_fates(events: list[Event], false: list[FalseDetection], classes: Sequence[str]) -> dict[str, dict]:
    """Per class the number of every fate, and which classes it is confused with."""
    counts = {}
    for label in classes:
        own = [event for event in events if event.label == label]
        wrong = [detection for detection in false if detection.label == label]
        fates = Counter(event.fate for event in own) + Counter(detection.fate for detection in wrong)
        counts[label] = {
            "events": len(own),
            **{fate: fates[fate] for fate in EVENT_FATES + FALSE_FATES},
            "taken_for": dict(Counter(event.taken_for for event in own if event.taken_for is not None).most_common()),
            "lies_on": dict(Counter(one.lies_on for one in wrong if one.lies_on is not None).most_common()),
        }
    return counts


def border_errors(events: list[Event], border: str) -> dict[str, Any]:
    """Signed errors of a border in ms, positive = late, of all events with a detection of their own."""
    errors = np.array([getattr(event, f"{border}_error_s") for event in events])
    errors = 1000 * errors[np.isfinite(errors)]
    inside = np.clip(errors, BORDER_EDGES_MS[0], BORDER_EDGES_MS[-1])
    quantiles = np.quantile(errors, QUANTILES) if len(errors) > 0 else [np.nan] * len(QUANTILES)
    return {
        "num": len(errors),
        "quantiles_ms": {str(level): float(value) for level, value in zip(QUANTILES, quantiles, strict=True)},
        "edges_ms": BORDER_EDGES_MS.tolist(),
        "counts": np.histogram(inside, BORDER_EDGES_MS)[0].tolist(),
        "num_beyond": int((np.abs(errors) > BORDER_EDGES_MS[-1]).sum()),
    }


def recall_by(events: list[Event], trait: str) -> list[dict[str, Any]]:
    """Events, right ones and heard ones in every group of a trait that has events."""
    edges = RECALL_EDGES[trait]
    groups = []
    for low, high in zip(edges, edges[1:], strict=False):
        fates = [event.fate for event in events if low <= event.traits[trait] < high]
        if fates:
            num_right, num_heard = fates.count("right"), sum(fate in HEARD for fate in fates)
            groups.append({"from": low, "to": high, "events": len(fates), "right": num_right, "heard": num_heard})
    return groups


def error_numbers(
    references: References,
    detections: References,
    classes: Sequence[str],
    durations: Mapping[str, float],
    levels: Mapping[tuple, float],
) -> dict[str, Any]:
    """Everything that the figure shows."""
    events, false = judge_split(references, detections, classes, levels)
    segments = segment_based_metrics(references, detections, classes, durations)
    by_event = event_based_metrics(references, detections, classes, COLLAR_S, COLLAR_S, OFFSET_COLLAR_RATE)
    return {
        "num_files": len(references),
        "num_events": len(events),
        "event_f1": {mean: by_event[mean]["f1"] for mean in ("macro", "micro")},
        "segment_f1": {mean: segments[mean]["f1"] for mean in ("macro", "micro")},
        "classes": count_fates(events, false, classes),
        "borders": {border: border_errors(events, border) for border in ("onset", "offset")},
        "recall": {trait: recall_by(events, trait) for trait in RECALL_EDGES},
        "segments": {
            label: {name: segments["class_wise"][label][name] for name in ("tp", "fp", "fn")} for label in classes
        },
    }


# ---- the command -----------------------------------------------------------------------------------------------------


def table(numbers: Mapping[str, Any]) -> str:
    """The counts per class, and their sums."""
    fates = EVENT_FATES + FALSE_FATES
    width = max(len(label) for label in numbers["classes"]) + 2
    rows = {label: [own["events"], *(own[fate] for fate in fates)] for label, own in numbers["classes"].items()}
    rows["all"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    heads = [fate.replace("_", " ") for fate in ("events", *fates)]
    lines = [f"{'':{width}}" + "".join(f"{head:>{len(head) + 2}}" for head in heads)]
    for label, row in rows.items():
        cells = (f"{count:>{len(head) + 2}}" for count, head in zip(row, heads, strict=True))
        lines.append(f"{label:{width}}" + "".join(cells))
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="bundled name, checkpoint folder or Hub id")
    parser.add_argument("--data", required=True, help="folder with SPLIT.tsv and audio/SPLIT/")
    parser.add_argument("--split", default="test", help="which split (default: test)")
    parser.add_argument("--out", type=Path, required=True, help="PNG file for the figure")
    parser.add_argument("--json", type=Path, help="JSON file for the numbers")
    parser.add_argument("--exit", type=int, help="1 = shallowest (default: the deepest)")
    parser.add_argument("--passes", type=int, default=20, help="Monte Carlo passes, 0 = none (default: 20)")
    parser.add_argument("--shifts", type=int, default=2, help="time shifts to either side (default: 2)")
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Loads, detects, counts.

    Raises:
        ValueError: for an exit, number of passes or of shifts that there is not, or data that cannot be used.
    """
    if arguments.passes < 0:
        raise ValueError(f"--passes must be >= 0, got {arguments.passes}; 0 is without Monte Carlo dropout")
    references, durations, paths = read_split(arguments.data, arguments.split)
    pipe = SoundEventDetectionPipeline.from_pretrained(arguments.model)
    classes = class_names(pipe.model, references)
    exit_index = pipe.model.num_exits if arguments.exit is None else arguments.exit
    detections = detect(pipe, paths, exit_index, arguments.passes, arguments.shifts)
    levels = read_levels(arguments.data, arguments.split)
    return {
        "model": arguments.model,
        "data": arguments.data,
        "split": arguments.split,
        "command": shlex.join(["python", *sys.argv]),
        "exit": exit_index,
        "num_exits": pipe.model.num_exits,
        "passes": arguments.passes,
        "shifts": arguments.shifts,
        **error_numbers(references, detections, classes, durations, levels),
    }


def main() -> int:
    arguments = parse_arguments()
    try:
        numbers = measure(arguments)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        draw_errors(numbers, arguments.out)
        if arguments.json is not None:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(json_ready(numbers), indent=1) + "\n", encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(numbers))
    for path in (arguments.out, arguments.json):
        if path is not None:
            print(f"wrote {path}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
