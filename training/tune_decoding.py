"""Tune the decoding of every exit on a split, class by class, and write it into the checkpoint's config.json.

    python training/tune_decoding.py --model runs/cnn/model --data ../shared/data/soundscapes --split validation

A coordinate search over PARAMETER_GRID, every class at once; then the thresholds. With some 30 events a class, the best
value of one class is mostly luck: its objective is averaged over neighbouring thresholds and mixed with the mean over
all classes (--pooling, --threshold_pooling). A two-fold check over recordings shows what is left on recordings that
were not tuned on."""

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from checkpoint_config import local_checkpoint, set_config_value
from f1_curves import Recording, curves_of
from soundscape_split import FramePrediction, References, class_names, load_model, predict_split, read_split
from tqdm import tqdm

from modeling_easysed.decoding_easysed import DEFAULT_METHOD, PARAMETERS, class_parameters, decoding_for_exit

# Values tried, in this order of parameters. The other parameters of "boxes" stay at their defaults: tuning filter_s and
# relative_limit as well did not help on the recordings of the two-fold check that were not tuned on.
PARAMETER_GRID: dict[str, dict[str, list[float]]] = {
    "boxes": {"edge_level": [0.2, 0.25, 0.3, 0.35, 0.4]},
    "threshold": {
        "low_ratio": [0.15, 0.25, 0.4, 0.6, 1.0],
        "median_s": [0.12, 0.28, 0.44, 0.84],
        "max_gap_s": [0.0, 0.2, 0.4],
    },
}
NUM_ROUNDS = {"boxes": 1, "threshold": 2}  # over all parameters
THRESHOLD_LOGITS = {"boxes": np.linspace(-4, 4, 65), "threshold": np.linspace(-3.5, 3.5, 15)}
SMOOTHING_LOGITS = 0.8  # width (standard deviation) of the average over neighbouring thresholds
SEGMENT_WEIGHTS = {"event_f1": 0.0, "both": 0.3, "segment_f1": 1.0}  # share of segment-based F1 in the objective


class Search(NamedTuple):
    """How to tune.

    Attributes:
        method: "boxes" or "threshold".
        segment_weight: share of segment-based F1 in the objective.
        pooling: share of the mean over classes in each class's objective, 0 = class by class, 1 = one for all.
        threshold_pooling: the same for the thresholds: classes differ more in these.
    """

    method: str = DEFAULT_METHOD
    segment_weight: float = SEGMENT_WEIGHTS["both"]
    pooling: float = 0.9
    threshold_pooling: float = 0.3


# ---- search ----------------------------------------------------------------------------------------------------------


def tune(recordings: Sequence[Recording], search: Search) -> dict[str, Any]:
    """Class-wise parameters for one exit, as `decode` takes them."""
    num_classes = recordings[0].probabilities.shape[1]
    logits = THRESHOLD_LOGITS[search.method]
    chosen = {name: np.full(num_classes, PARAMETERS[search.method][name][0]) for name in PARAMETER_GRID[search.method]}
    for _ in range(NUM_ROUNDS[search.method]):
        for name, values in PARAMETER_GRID[search.method].items():
            tried = []
            for value in values:
                trial = {**chosen, name: np.full(num_classes, value)}
                tried.append(_objective(recordings, trial, logits, search).max(axis=1))
            chosen[name] = np.array(values)[_pooled(np.stack(tried, axis=1), search.pooling).argmax(axis=1)]
    objective = _objective(recordings, chosen, logits, search)
    best = _pooled(objective, search.threshold_pooling).argmax(axis=1)
    chosen["threshold"] = _sigmoid(logits)[best]
    return as_decoding(search.method, chosen)


def _objective(
    recordings: Sequence[Recording], parameters: dict[str, np.ndarray], logits: np.ndarray, search: Search
) -> np.ndarray:
    """(classes, thresholds): weighted F1, averaged over neighbouring thresholds."""
    thresholds = _sigmoid(logits)
    if search.method == "boxes":
        decodings = [as_decoding(search.method, parameters)]
    else:
        fill = np.ones_like(next(iter(parameters.values())))
        decodings = [as_decoding(search.method, {**parameters, "threshold": t * fill}) for t in thresholds]
    curves = curves_of(recordings, decodings, thresholds)
    weighted = (1 - search.segment_weight) * curves.event_f1 + search.segment_weight * curves.segment_f1
    kernel = np.exp(-0.5 * ((logits[:, None] - logits[None, :]) / SMOOTHING_LOGITS) ** 2)
    return weighted @ (kernel / kernel.sum(axis=0))


def _pooled(objective: np.ndarray, pooling: float) -> np.ndarray:
    """Each class's row mixed with the mean row: 0 = every class for itself, 1 = one choice for all."""
    return (1 - pooling) * objective + pooling * objective.mean(axis=0)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def as_decoding(method: str, parameters: dict[str, np.ndarray]) -> dict[str, Any]:
    """Parameter arrays (classes,) as the dict that `decode` takes and config.json holds."""
    num_classes = len(next(iter(parameters.values())))
    classes = {
        str(index): {name: round(float(values[index]), 4) for name, values in parameters.items()}
        for index in range(num_classes)
    }
    return {"method": method, "classes": classes}


# ---- one exit, with its check ----------------------------------------------------------------------------------------


def macro_f1(recordings: Sequence[Recording], decoding: dict[str, Any] | None) -> tuple[float, float]:
    """Event-based and segment-based F1, mean over the classes that occur, of the events that `decode` gives."""
    num_classes = recordings[0].probabilities.shape[1]
    limits = class_parameters(decoding, num_classes)["threshold"]
    curves = curves_of(recordings, [decoding], np.unique(limits))
    column = np.searchsorted(np.unique(limits), limits)
    labels = np.concatenate([recording.events for recording in recordings])[:, 2].astype(np.int64)
    occurring = np.unique(labels)
    if len(occurring) == 0:
        return math.nan, math.nan
    return tuple(float(f1[occurring, column[occurring]].mean()) for f1 in curves)


def two_fold_check(recordings: Sequence[Recording], search: Search, seed: int = 0) -> tuple[float, float]:
    """Event-based and segment-based macro F1 on each half of the recordings when tuned on the other; their mean."""
    order = np.random.default_rng(seed).permutation(len(recordings))
    halves = [[recordings[index] for index in part] for part in np.array_split(order, 2)]
    scores = [macro_f1(test, tune(train, search)) for train, test in (halves, halves[::-1])]
    return tuple(np.mean(scores, axis=0).tolist())


def recordings_of_exit(
    predictions: dict[str, FramePrediction], references: References, classes: list[str], exit_index: int
) -> list[Recording]:
    """What the search needs of each file."""
    recordings = []
    for name, (probabilities, borders) in predictions.items():
        events = [[onset, offset, classes.index(label)] for onset, offset, label in references[name]]
        events_array = np.array(events, dtype=np.float64).reshape(-1, 3)
        recordings.append(Recording(probabilities[exit_index - 1], borders, events_array))
    return recordings


# ---- the command -----------------------------------------------------------------------------------------------------


def with_id(decoding: dict[str, Any]) -> dict[str, Any]:
    """The decoding with an "id" that changes when any parameter does."""
    parameters = {key: decoding[key] for key in ("method", "exits")}
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()
    return {"method": decoding["method"], "id": digest[:8], **decoding}


def without_excluded(references: References, provenance: dict[str, Any] | None) -> References:
    """Without events of classes that were left out of training on purpose: to such a model they are other sounds."""
    excluded = [] if provenance is None else provenance.get("excluded_labels", [])
    return {file: [event for event in events if event[2] not in excluded] for file, events in references.items()}


def tune_checkpoint(folder: Path, data_dir: str, split: str, search: Search, objective: str) -> dict[str, Any]:
    """Tunes every exit of a checkpoint and prints one line for each; what `config.decoding` is to hold."""
    references, _, paths = read_split(data_dir, split)
    model, feature_extractor = load_model(str(folder))
    references = without_excluded(references, model.config.provenance)
    classes = class_names(model, references)
    predictions = predict_split(model, feature_extractor, paths)
    before = model.config.decoding
    print(f"macro F1 on {split} of {data_dir}, {len(paths)} files: event-based (200 ms) and segment-based (1 s)")
    print(f"{'exit':6}{'before':>16}{'tuned':>16}{'check: tuned':>16}{'check: one for all':>20}")
    exits, values = {}, {}
    for exit_index in tqdm(range(1, model.num_exits + 1), desc="tuning", unit="exit", disable=not sys.stderr.isatty()):
        recordings = recordings_of_exit(predictions, references, classes, exit_index)
        tuned = tune(recordings, search)
        figures = {
            "before": macro_f1(recordings, decoding_for_exit(before, exit_index)),
            "tuned": macro_f1(recordings, tuned),
            "two_fold_check": two_fold_check(recordings, search),
            "two_fold_check_one_for_all": two_fold_check(
                recordings, search._replace(pooling=1.0, threshold_pooling=1.0)
            ),
        }
        cells = [f"{event_f1:.3f} / {segment_f1:.3f}" for event_f1, segment_f1 in figures.values()]
        print(f"{exit_index:<6}{cells[0]:>16}{cells[1]:>16}{cells[2]:>16}{cells[3]:>20}", flush=True)
        exits[str(exit_index)] = {"classes": tuned["classes"]}
        values[str(exit_index)] = {
            name: [None if math.isnan(value) else round(value, 4) for value in pair] for name, pair in figures.items()
        }
    tuned_on = {
        "data": Path(data_dir).resolve().name,
        "split": split,
        "num_files": len(paths),
        "objective": objective,
        "pooling": search.pooling,
        "threshold_pooling": search.threshold_pooling,
        "event_and_segment_macro_f1": values,
    }
    return with_id({"method": search.method, "exits": exits, "tuned_on": tuned_on})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint folder (its config.json is rewritten)")
    parser.add_argument("--data", required=True, help="folder with SPLIT.tsv and audio/SPLIT/")
    parser.add_argument("--split", default="validation", help="which split (default: validation); never the test split")
    parser.add_argument("--objective", choices=tuple(SEGMENT_WEIGHTS), default="both", help="what to maximise")
    parser.add_argument("--method", choices=tuple(PARAMETER_GRID), default=DEFAULT_METHOD, help="how events are found")
    for name in ("pooling", "threshold_pooling"):
        default = Search._field_defaults[name]
        parser.add_argument(f"--{name}", type=float, default=default, help="0 = class by class, 1 = one for all")
    arguments = parser.parse_args()
    pooling = (arguments.pooling, arguments.threshold_pooling)
    search = Search(arguments.method, SEGMENT_WEIGHTS[arguments.objective], *pooling)
    try:
        if not all(0 <= share <= 1 for share in pooling):
            raise ValueError(f"--pooling and --threshold_pooling must be between 0 and 1, got {pooling}")
        folder = local_checkpoint(arguments.model)
        decoding = tune_checkpoint(folder, arguments.data, arguments.split, search, arguments.objective)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    set_config_value(folder, "decoding", decoding)
    print(f"wrote decoding {decoding['id']} to {folder / 'config.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
