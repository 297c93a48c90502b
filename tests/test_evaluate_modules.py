"""The modules for `evaluate` give what the package's metrics give, offline, from any folder, by every way of adding.

They run in a process of its own: in this one, `evaluate` is training/evaluate.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from metric_vectors import PSDS_SCENARIOS, load_vectors

from modeling_easysed.metrics import (
    event_based_metrics,
    expected_calibration_error,
    psds,
    psds_from_boxes,
    segment_based_metrics,
)

MODULES = Path(__file__).resolve().parents[1] / "training" / "metrics"

# Runs [name, folder, config, steps, arrays] from stdin; a step is [method, keyword arguments].
DRIVER = """
import json
import sys
import evaluate
import numpy as np

def as_arrays(value):
    if isinstance(value, list) and value and isinstance(value[0], float):
        return np.array(value)
    if isinstance(value, list) and value and isinstance(value[0], list) and value[0] and isinstance(value[0][0], float):
        return np.array(value)
    if isinstance(value, list):
        return [as_arrays(one) for one in value]
    if isinstance(value, dict):
        return {key: as_arrays(one) for key, one in value.items()}
    return np.float64(value) if isinstance(value, float) else value

results = {}
for name, folder, config, steps, arrays in json.load(sys.stdin):
    try:
        if isinstance(folder, list):
            metric = evaluate.combine([evaluate.load(one) for one in folder])
        else:
            metric = evaluate.load(folder, config)
        for method, arguments in steps:
            output = getattr(metric, method)(**(as_arrays(arguments) if arrays else arguments))
        results[name] = output
    except Exception as error:
        results[name] = f"{type(error).__name__}: {error}"
json.dump(results, sys.stdout)
"""


def run(folder: Path, cases: list[tuple], cwd: Path | None = None) -> dict:
    """{name: result, or "ErrorType: message"} of [(name, folder or folders, config, steps, arrays), ...]."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DRIVER],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        cwd=folder if cwd is None else cwd,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def event(onset: float, offset: float, label: str, **fields) -> dict:
    return {"onset": onset, "offset": offset, "label": label, **fields}


def in_order(events: dict[str, list]) -> list[list[dict]]:
    return [[event(*row) for row in rows] for rows in events.values()]


def same(found, expected) -> bool:
    """Equal to the last bit, nan included."""
    return json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True)


# ---- against the package ---------------------------------------------------------------------------------------------

CLASSES = ["dog", "cat"]
REFERENCES = {"a": [[1.0, 2.0, "dog"], [4.0, 5.0, "cat"]], "b": [], "c": [[0.5, 9.0, "cat"]]}
DETECTIONS = {"a": [[1.1, 2.1, "dog"], [6.0, 7.0, "cat"]], "b": [[0.0, 1.0, "dog"]], "c": [[0.5, 8.0, "cat"]]}
DURATIONS = {"a": 10.0, "b": 10.0, "c": 8.5}
SCORED = {file: [[*row, 0.1 + 0.2 * row[0]] for row in rows] for file, rows in DETECTIONS.items()}
BOXES = [
    [event(*row[:3], score=row[3], decision="accept") for row in rows]  # as the pipeline's events: with more fields
    for rows in SCORED.values()
]
HAND_MADE = {"predictions": in_order(DETECTIONS), "references": in_order(REFERENCES)}
PROBABILITIES, LABELS = [[0.9, 0.2], [0.6, 0.5], [0.05, 0.7]], [[1, 0], [0, 1], [0, 0]]
WAYS = [(way, arrays) for way in ("compute", "add_batch", "add") for arrays in (False, True)]
SINGULAR = {"predictions": "prediction", "references": "reference"}
VECTORS = ("sed_small", "sed_absent_classes", "sed_variable_duration")


def vector_cases(data_dir: Path) -> list[tuple]:
    cases = []
    for name in VECTORS:
        vectors = load_vectors(data_dir, name)
        durations = list(vectors["audio_durations"].values())
        events = {"predictions": in_order(vectors["detections"]), "references": in_order(vectors["ground_truth"])}
        scores = {"predictions": list(vectors["scores"].values()), "references": events["references"]}
        classes = {"classes": vectors["classes"]}
        cases += [
            (f"{name} event", module("event_based_f1"), None, [["compute", events | classes]], False),
            (
                f"{name} segment",
                module("segment_based_f1"),
                None,
                [["compute", events | classes | {"durations": durations}]],
                False,
            ),
        ]
        for scenario, options in PSDS_SCENARIOS.items():
            arguments = scores | classes | options | {"durations": durations}
            cases.append((f"{name} {scenario}", module("psds"), None, [["compute", arguments]], scenario == "psds1"))
    return cases


def module(name: str) -> str:
    return str(MODULES / name)


def steps(way: str, columns: dict[str, list], options: dict) -> list[list]:
    """All recordings at once, in two batches, or one by one."""
    if way == "compute":
        return [["compute", columns | options]]
    if way == "add_batch":
        parts = [{name: values[rows] for name, values in columns.items()} for rows in (slice(2), slice(2, None))]
    else:
        rows = range(len(columns["predictions"]))
        parts = [{SINGULAR.get(name, name): values[row] for name, values in columns.items()} for row in rows]
    return [*([way, part] for part in parts), ["compute", options]]


def hand_made_cases() -> list[tuple]:
    """Every way of adding, lists and arrays, options, and all together."""
    classes, durations = {"classes": CLASSES}, {"durations": list(DURATIONS.values())}
    wanted = {
        "event": ("event_based_f1", None, HAND_MADE, classes),
        "wide": ("event_based_f1", None, HAND_MADE, classes | {"onset_collar_s": 2.0, "offset_collar_rate": 0.5}),
        "clipped": ("event_based_f1", None, HAND_MADE, classes | durations),
        "segment": ("segment_based_f1", None, HAND_MADE | durations, classes | {"segment_s": 0.5}),
        "boxes": (
            "psds",
            "boxes",
            HAND_MADE | {"predictions": BOXES} | durations,
            classes | {"dtc": 0.5, "alpha_st": 0.0},
        ),
        "binary": ("calibration_error", None, flat(PROBABILITIES, LABELS), {"num_bins": 5, "closed": "left"}),
        "multilabel": ("calibration_error", "multilabel", columns_of(PROBABILITIES, LABELS), {"num_bins": 5}),
    }
    cases = []
    for name, (folder, config, columns, options) in wanted.items():
        for way, arrays in WAYS:
            cases.append((f"{name} {way} {arrays}", module(folder), config, steps(way, columns, options), arrays))
    both = [module("event_based_f1"), module("segment_based_f1")]
    for way in ("compute", "add_batch", "add"):
        cases.append((f"combined {way}", both, None, steps(way, HAND_MADE | durations, classes), False))
    return cases


def columns_of(predictions: list, references: list) -> dict[str, list]:
    return {"predictions": predictions, "references": references}


def flat(predictions: list, references: list) -> dict[str, list]:
    return columns_of(sum(predictions, []), sum(references, []))


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict:
    return run(tmp_path_factory.mktemp("elsewhere"), hand_made_cases())


@pytest.fixture(scope="module")
def found_of_vectors(tmp_path_factory, data_dir) -> dict:
    return run(tmp_path_factory.mktemp("vectors"), vector_cases(data_dir))


@pytest.mark.parametrize(("way", "arrays"), WAYS)
def test_event_based_f1(found, way, arrays):
    assert same(found[f"event {way} {arrays}"], event_based_metrics(REFERENCES, DETECTIONS, CLASSES))
    # dog: 1 of 1, one false alarm; cat: the long one is within 20 % of its 8.5 s, the short one is missed
    micro = found[f"event {way} {arrays}"]["micro"]
    assert (micro["tp"], micro["fp"], micro["fn"]) == (2, 2, 1)
    wide = event_based_metrics(REFERENCES, DETECTIONS, CLASSES, 2.0, 0.2, 0.5)
    assert same(found[f"wide {way} {arrays}"], wide)
    clipped = event_based_metrics(REFERENCES, DETECTIONS, CLASSES, durations=DURATIONS)
    assert same(found[f"clipped {way} {arrays}"], clipped)


@pytest.mark.parametrize(("way", "arrays"), WAYS)
def test_segment_based_f1(found, way, arrays):
    expected = segment_based_metrics(REFERENCES, DETECTIONS, CLASSES, DURATIONS, 0.5)
    assert same(found[f"segment {way} {arrays}"], expected)


@pytest.mark.parametrize(("way", "arrays"), WAYS)
def test_psds_of_boxes(found, way, arrays):
    expected = psds_from_boxes(REFERENCES, SCORED, CLASSES, DURATIONS, 0.5, 0.7, alpha_st=0.0)
    assert same(found[f"boxes {way} {arrays}"], expected) and expected["psds"] == 0.5


@pytest.mark.parametrize(("way", "arrays"), WAYS)
def test_calibration_error(found, way, arrays):
    expected = expected_calibration_error(PROBABILITIES, LABELS, 5, closed="left")
    assert found[f"binary {way} {arrays}"] == {"calibration_error": expected}
    expected = expected_calibration_error(PROBABILITIES, LABELS, 5)
    assert found[f"multilabel {way} {arrays}"] == {"calibration_error": expected}


@pytest.mark.parametrize("way", ["compute", "add_batch", "add"])
def test_combined(found, way):
    expected = segment_based_metrics(REFERENCES, DETECTIONS, CLASSES, DURATIONS)
    assert same(found[f"combined {way}"]["segment_based_f1_micro"], expected["micro"])
    # only `compute` hands the durations to the event-based metric too
    durations = DURATIONS if way == "compute" else None
    expected = event_based_metrics(REFERENCES, DETECTIONS, CLASSES, durations=durations)
    assert same(found[f"combined {way}"]["event_based_f1_class_wise"], expected["class_wise"])


@pytest.mark.filterwarnings("ignore:classes without any reference event")
@pytest.mark.parametrize("name", VECTORS)
def test_stored_vectors(found_of_vectors, data_dir, name):
    vectors = load_vectors(data_dir, name)
    truth, classes, durations = (vectors[key] for key in ("ground_truth", "classes", "audio_durations"))
    expected = event_based_metrics(truth, vectors["detections"], classes)
    assert same(found_of_vectors[f"{name} event"], expected)
    expected = segment_based_metrics(truth, vectors["detections"], classes, durations)
    assert same(found_of_vectors[f"{name} segment"], expected)
    for scenario, options in PSDS_SCENARIOS.items():
        options = {"dtc": 0.7, "gtc": 0.7} | options
        expected = psds(truth, vectors["scores"], classes, durations, **options)
        assert same(found_of_vectors[f"{name} {scenario}"], expected)


# ---- loading and bad input -------------------------------------------------------------------------------------------


def test_loading_from_the_repository_root_by_relative_path(tmp_path):
    arguments = {"predictions": [0.9], "references": [1]}
    case = ("relative", "training/metrics/calibration_error", None, [["compute", arguments]], False)
    result = run(tmp_path, [case], cwd=MODULES.parents[1])["relative"]
    assert result["calibration_error"] == pytest.approx(0.1)


BAD = {
    "rows": (
        "event_based_f1",
        None,
        {"predictions": [[[0, 1, "dog"]]]},
        "ValueError: predictions must be one list of events per recording",
    ),
    "no label": (
        "event_based_f1",
        None,
        {"references": [[{"onset": 0, "offset": 1}]]},
        "ValueError: references must be",
    ),
    "a dict of files": (
        "segment_based_f1",
        None,
        {"predictions": {"a": []}},
        "got {'a': []}",
    ),
    "no predictions": ("event_based_f1", None, {"predictions": None}, "got None; give [] for a recording without"),
    "a time in words": ("event_based_f1", None, {"predictions": [[event("soon", 1.0, "dog")]]}, "the expected format"),
    "a label that is a number": (
        "event_based_f1",
        None,
        {"predictions": [[event(0.0, 1.0, 3)]]},
        "the expected format",
    ),
    "other numbers of files": (
        "event_based_f1",
        None,
        {"predictions": [[], []]},
        "Mismatch in the number of predictions",
    ),
    "no classes": ("event_based_f1", None, {"classes": []}, "classes must be a list with at least one class name"),
    "an unlisted class": ("event_based_f1", None, {"classes": ["cat"]}, "unlisted class 'dog'"),
    "offset first": ("event_based_f1", None, {"predictions": [[event(2.0, 1.0, "dog")]]}, "must have offset >= onset"),
    "no durations": (
        "segment_based_f1",
        None,
        {"durations": None},
        "durations must hold the seconds of every recording",
    ),
    "no durations for psds": (
        "psds",
        "boxes",
        {"durations": None},
        "durations must hold the seconds of every recording",
    ),
    "events as scores": ("psds", None, {}, "predictions must be one {'timestamps': frames + 1 seconds"),
    "boxes without score": ("psds", "boxes", {}, "each a dict with onset, offset, label, score"),
    "psds of what": ("psds", "scenario 2", {}, "config_name must be 'frames' or 'boxes', got 'scenario 2'"),
    "calibration of what": ("calibration_error", "x", {}, "config_name must be 'default' or 'multilabel', got 'x'"),
    "uneven rows": (
        "calibration_error",
        "multilabel",
        {"predictions": [[0.1], [0.2, 0.3]], "references": [[0, 1], [1]]},
        "predictions[0] and references[0] must have one length, got 1 and 2",
    ),
    "half a label": (
        "calibration_error",
        None,
        {"predictions": [0.1], "references": [0.5]},
        "labels must be 0 or 1, got 0.5",
    ),
    "logits": ("calibration_error", None, {"predictions": [3.0], "references": [1]}, "probabilities must be in [0, 1]"),
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory) -> dict:
    cases = []
    for name, (folder, config, changes, _) in BAD.items():
        good = {"predictions": [[event(0.0, 1.0, "dog")]], "references": [[event(0.0, 1.0, "dog")]], "classes": ["dog"]}
        if folder in ("segment_based_f1", "psds"):
            good["durations"] = [10.0]
        if folder == "calibration_error":
            good = {}
        cases.append((name, module(folder), config, [["compute", good | changes]], False))
    return run(tmp_path_factory.mktemp("refused"), cases)


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(refused, name):
    assert BAD[name][-1] in refused[name]
    assert refused[name].startswith("ValueError: ")
