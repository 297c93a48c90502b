"""Evaluate a model's detections on a split of strongly labelled soundscapes, at every exit.

    python training/evaluate.py --model easysed-cnn --data ../shared/data/soundscapes --split test --out results.json

PSDS1 and PSDS2 are exact (all operating points), from the frame scores and, where the decoding makes boxes, from these.
Event-based F1 (200 ms collars) and segment-based F1 (1 s) use the events of the checkpoint's own decoding. Files
without events count. Costs are those of every exit as a model of its own, network only. Tables go to stdout, everything
to --out as JSON. With --report DIR, a calibrated model's trust is measured as well: table and figures go to DIR, see
trust_report.py."""

import argparse
import json
import math
import shlex
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from soundscape_split import (
    FramePrediction,
    References,
    class_names,
    load_detector,
    load_model,
    predict_split,
    predict_split_on_onnx,
    read_split,
)
from trust_report import trust_report

from modeling_easysed import EasySEDForSoundEventDetection
from modeling_easysed.costs import exit_costs
from modeling_easysed.decoding_easysed import Box, candidate_boxes, decode, decoding_for_exit
from modeling_easysed.metrics import event_based_metrics, psds, psds_from_boxes, segment_based_metrics

# Source: DCASE 2021-2023 task 4, scenarios 1 (react fast, find borders) and 2 (tell classes apart).
PSDS_SCENARIOS: dict[str, dict[str, float]] = {
    "psds1": {"dtc": 0.7, "gtc": 0.7, "alpha_ct": 0.0, "alpha_st": 1.0, "e_max": 100.0},
    "psds2": {"dtc": 0.1, "gtc": 0.1, "cttc": 0.3, "alpha_ct": 0.5, "alpha_st": 1.0, "e_max": 100.0},
}
TIMED_S, NUM_TIMED, NUM_WARM_UP = 10, 20, 2  # seconds of audio; passes; the first passes fill caches and do not count
HEADER = (
    f"{'':6}{'PSDS1':>9}{'PSDS1':>9}{'PSDS2':>9}{'PSDS2':>9}{'event F1':>11}{'event F1':>11}{'segment F1':>13}"
    f"{'segment F1':>13}\n"
    f"{'exit':6}{'frames':>9}{'boxes':>9}{'frames':>9}{'boxes':>9}{'macro':>11}{'micro':>11}{'macro':>13}{'micro':>13}"
)


# ---- one exit --------------------------------------------------------------------------------------------------------


def evaluate_exit(
    predictions: dict[str, FramePrediction],
    exit_index: int,
    decoding: dict[str, Any] | None,
    references: References,
    durations: dict[str, float],
    classes: list[str],
) -> dict[str, Any]:
    """All metrics of one exit.

    Args:
        predictions: {file: FramePrediction} with probabilities (exits, frames, classes).
        exit_index: 1 = shallowest.
        decoding: parameters of this exit, as from `decoding_for_exit`.
        references: {file: [[onset, offset, label], ...]}, seconds.
        durations: {file: seconds}.
        classes: class names in the order of the scores.

    Returns:
        `event_based`, `segment_based`, and for each PSDS scenario `frames` and `boxes` (None without boxes).
    """
    scores, boxes, events = {}, {}, {}
    for name, (probabilities, borders) in predictions.items():
        own = probabilities[exit_index - 1]
        scores[name] = {"timestamps": borders, "values": own}
        boxes[name] = _rows(candidate_boxes(own, borders, decoding), classes, with_score=True)
        events[name] = _rows(decode(own, borders, decoding), classes, with_score=False)
    makes_boxes = decoding is None or decoding.get("method", "boxes") == "boxes"
    result: dict[str, Any] = {
        "event_based": event_based_metrics(references, events, classes),
        "segment_based": segment_based_metrics(references, events, classes, durations),
        "num_events": sum(len(rows) for rows in events.values()),
    }
    for scenario, settings in PSDS_SCENARIOS.items():
        from_frames = psds(references, scores, classes, durations, **settings)
        from_boxes = psds_from_boxes(references, boxes, classes, durations, **settings) if makes_boxes else None
        result[scenario] = {"frames": _without_roc(from_frames), "boxes": _without_roc(from_boxes)}
    return result


def _rows(boxes: list[Box], classes: list[str], with_score: bool) -> list[list]:
    rows = [[box.onset, box.offset, classes[box.class_index], box.score] for box in boxes]
    return rows if with_score else [row[:3] for row in rows]


def _without_roc(result: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if result is None else {key: result[key] for key in ("psds", "class_wise")}


# ---- costs -----------------------------------------------------------------------------------------------------------


def measure_costs(model: EasySEDForSoundEventDetection) -> dict[str, dict[str, Any]]:
    """What every exit costs as a model of its own, `model.student(exit)`.

    Returns:
        {exit: {"parameters", "macs_per_10_s", "milliseconds_per_10_s"}}; the time is the median of passes over 10 s of
        features on one thread of the CPU. Students take turns, so that a busy machine slows all of them alike.
    """
    config = model.config
    num_frames = 1 + TIMED_S * config.sampling_rate // config.hop_length_samples
    values = torch.randn(1, num_frames, config.num_mel_bins, generator=torch.Generator().manual_seed(0))
    counted = exit_costs(model)
    students = {one["exit"]: model.student(one["exit"]).to("cpu", torch.float32).eval() for one in counted}
    times: dict[int, list[float]] = {index: [] for index in students}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for _ in range(NUM_WARM_UP + NUM_TIMED):
                for index, student in students.items():
                    start = time.perf_counter()
                    student(values)
                    times[index].append(1000 * (time.perf_counter() - start))
    finally:
        torch.set_num_threads(threads)
    costs = {}
    for one in counted:
        milliseconds = statistics.median(times[one["exit"]][NUM_WARM_UP:])
        counts = {name: one[name] for name in ("parameters", "macs_per_10_s")}
        costs[str(one["exit"])] = counts | {"milliseconds_per_10_s": milliseconds}
    return costs


# ---- tables ----------------------------------------------------------------------------------------------------------


def overview_row(name: str, result: dict[str, Any]) -> str:
    """One line of the table under `HEADER`."""
    areas = [result[scenario][kind] for scenario in PSDS_SCENARIOS for kind in ("frames", "boxes")]
    cells = [f"{'-' if area is None else format(area['psds'], '.3f'):>9}" for area in areas]
    cells += [f"{result['event_based'][mean]['f1']:>11.3f}" for mean in ("macro", "micro")]
    cells += [f"{result['segment_based'][mean]['f1']:>13.3f}" for mean in ("macro", "micro")]
    return f"{name:6}" + "".join(cells)


def cost_table(results: dict[str, Any]) -> str:
    """Costs of the evaluated exits."""
    lines = [f"{'exit':6}{'parameters':>12}{'MACs per 10 s':>16}{'ms per 10 s, 1 thread':>24}"]
    for name, result in results["exits"].items():
        costs = result["costs"]
        counts = f"{costs['parameters']:>12,}{costs['macs_per_10_s']:>16,}"
        lines.append(f"{name:6}{counts}{costs['milliseconds_per_10_s']:>24.1f}")
    return "\n".join(lines)


def class_table(result: dict[str, Any], classes: list[str]) -> str:
    """Event-based and segment-based F1, precision and recall per class."""
    width = max(len(name) for name in classes) + 2
    lines = [
        f"{'':{width}}{'event-based (200 ms)':>30}{'segment-based (1 s)':>30}",
        f"{'class':{width}}" + 2 * f"{'F1':>10}{'precision':>10}{'recall':>10}",
    ]
    for name in classes:
        rows = [result[kind]["class_wise"][name] for kind in ("event_based", "segment_based")]
        cells = [format(row[key], ".3f") for row in rows for key in ("f1", "precision", "recall")]
        lines.append(f"{name:{width}}" + "".join(f"{cell:>10}" for cell in cells))
    return "\n".join(lines)


def report(results: dict[str, Any]) -> str:
    """All tables of a result, the deepest exit last."""
    lines = [
        f"{results['model']} on {results['split']} of {results['data']}: {results['num_files']} files, "
        f"{results['num_files_without_events']} of them without events (included), {results['num_references']} events",
        "PSDS: exact, from frame scores and from boxes. Event F1: 200 ms collars. Segment F1: 1 s.",
        "",
        HEADER,
        *(overview_row(name, result) for name, result in results["exits"].items()),
        "",
        cost_table(results),
    ]
    for name, result in results["exits"].items():
        lines += ["", f"exit {name}", class_table(result, results["classes"])]
    return "\n".join(lines)


def json_ready(value: Any) -> Any:
    """The value with plain numbers, and null for every NaN (JSON has none)."""
    if isinstance(value, dict):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---- the command -----------------------------------------------------------------------------------------------------


def chosen_exits(text: str, num_exits: int) -> list[int]:
    """The exits that `--exit` names: "all", or one number.

    Raises:
        ValueError: when there is no such exit.
    """
    if text == "all":
        return list(range(1, num_exits + 1))
    if not text.isdecimal() or not 1 <= int(text) <= num_exits:
        raise ValueError(f"--exit must be 'all' or a number between 1 and {num_exits}, got {text!r}")
    return [int(text)]


def evaluate_split(
    model_name: str, data_dir: str, split: str, exit_text: str, runtime: str = "torch"
) -> dict[str, Any]:
    """Loads the model, predicts the split once for all exits and evaluates the chosen ones."""
    references, durations, paths = read_split(data_dir, split)
    model, feature_extractor = load_model(model_name)
    classes = class_names(model, references)
    exits = chosen_exits(exit_text, model.num_exits)
    if runtime == "onnx":
        predictions = predict_split_on_onnx(model_name, paths)
    else:
        predictions = predict_split(model, feature_extractor, paths)
    results = {
        "model": model_name,
        "data": data_dir,
        "split": split,
        "command": shlex.join(["python", *sys.argv]),
        "num_files": len(paths),
        "num_files_without_events": sum(not events for events in references.values()),
        "num_references": sum(len(events) for events in references.values()),
        "classes": classes,
        "decoding": model.config.decoding,
        "provenance": model.config.provenance,
        "exits": {},
    }
    costs = measure_costs(model)
    for exit_index in exits:
        print(f"evaluating exit {exit_index} of {model.num_exits}", file=sys.stderr)
        decoding = decoding_for_exit(model.config.decoding, exit_index)
        scores = evaluate_exit(predictions, exit_index, decoding, references, durations, classes)
        results["exits"][str(exit_index)] = scores | {"costs": costs[str(exit_index)]}
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="bundled name, checkpoint folder or Hub id")
    parser.add_argument("--data", required=True, help="folder with SPLIT.tsv and audio/SPLIT/")
    parser.add_argument("--split", default="test", help="which split (default: test)")
    parser.add_argument("--out", type=Path, help="JSON file for all figures")
    parser.add_argument("--report", type=Path, help="folder for the trust report of a calibrated model")
    parser.add_argument("--runtime", choices=("torch", "onnx"), default="torch", help="of predictions and trust")
    parser.add_argument("--exit", default="all", help="'all' (default) or one exit, 1 = shallowest")
    arguments = parser.parse_args()
    try:
        results = evaluate_split(arguments.model, arguments.data, arguments.split, arguments.exit, arguments.runtime)
        if arguments.report is not None:
            pipe = load_detector(arguments.model, arguments.runtime)
            results["trust"] = trust_report(pipe, *read_split(arguments.data, arguments.split), arguments.report)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(report(results))
    if arguments.report is not None:
        print((arguments.report / "trust.md").read_text(encoding="utf-8"))
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(json_ready(results), indent=1) + "\n", encoding="utf-8")
        print(f"wrote {arguments.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
