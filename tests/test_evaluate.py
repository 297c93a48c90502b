"""Evaluating and tuning: a split on disk, metrics of known scores, both commands end to end with a tiny network."""

import json
import math
import sys

import evaluate
import numpy as np
import pytest
import soundfile
import torch
import tune_decoding
from f1_curves import Recording, curves_of, true_positives
from soundscape_split import (
    FramePrediction,
    class_names,
    load_model,
    predict_split,
    predict_split_on_onnx,
    read_split,
)
from tiny import LABELS, tiny_model

from modeling_easysed import EasySEDConfig, EasySEDFeatureExtractor
from modeling_easysed.decoding_easysed import Box, decode, decoding_for_exit
from modeling_easysed.metrics import event_based_metrics, segment_based_metrics

CLASSES = ["dog_bark", "rain"]
HEADER = "filename\tonset\toffset\tevent_label\tsource\tsnr_db\n"


def write_split(folder, rows: str, names=("a.wav", "b.wav"), header: str = HEADER):
    (folder / "audio" / "dev").mkdir(parents=True)
    (folder / "dev.tsv").write_text(header + rows)
    rng = np.random.default_rng(0)
    for name in names:
        soundfile.write(folder / "audio" / "dev" / name, 0.1 * rng.normal(size=24000), 16000)
    return folder


@pytest.fixture
def split_dir(tmp_path):
    rows = "a.wav\t0.2\t0.7\tdog_bark\tx.ogg\t10\na.wav\t0.5\t1.4\train\tx.ogg\t9\nb.wav\t\t\t\t\t\n"
    return write_split(tmp_path / "split", rows)


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "model"
    tiny_model().save_pretrained(folder)
    EasySEDFeatureExtractor(feature_size=32).save_pretrained(folder)
    return folder


# ---- a split ---------------------------------------------------------------------------------------------------------


def test_a_split_keeps_files_without_events(split_dir):
    references, durations, paths = read_split(split_dir, "dev")
    assert references == {"a.wav": [[0.2, 0.7, "dog_bark"], [0.5, 1.4, "rain"]], "b.wav": []}
    assert durations == {"a.wav": 1.5, "b.wav": 1.5}
    assert list(paths) == ["a.wav", "b.wav"] and all(path.is_file() for path in paths.values())


@pytest.mark.parametrize(
    ("rows", "header", "error", "message"),
    [
        (
            "a.wav\t1.0\t0.5\train\tx\t1\n",
            HEADER,
            ValueError,
            "line 2: an event must have 0 <= onset < offset, got 1.0",
        ),
        ("a.wav\tsoon\t0.5\train\tx\t1\n", HEADER, ValueError, "line 2: onset and offset must be seconds, got 'soon'"),
        ("", HEADER, ValueError, "must name at least one file, got none"),
        ("a.wav\t0.1\n", "filename\tonset\n", ValueError, "it lacks offset, event_label"),
        ("c.wav\t\t\t\t\t\n", HEADER, FileNotFoundError, "1 of 1 files named in .* not found, first .*c.wav"),
    ],
)
def test_a_broken_split_is_named(tmp_path, rows, header, error, message):
    with pytest.raises(error, match=message):
        read_split(write_split(tmp_path / "split", rows, header=header), "dev")


def test_a_missing_split_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="dev.tsv not found: --data must hold"):
        read_split(tmp_path, "dev")


def test_unknown_labels_are_named():
    with pytest.raises(ValueError, match=r"one of the model's \['dog_bark', .*got \['siren'\]"):
        class_names(tiny_model(), {"a.wav": [[0.0, 1.0, "siren"]]})


def test_predictions_are_those_of_every_exit(split_dir):
    _, _, paths = read_split(split_dir, "dev")
    model, extractor = tiny_model(), EasySEDFeatureExtractor(feature_size=32)
    predictions = predict_split(model, extractor, paths)
    samples, _ = soundfile.read(paths["b.wav"], dtype="float32")
    features = extractor(samples, sampling_rate=16000)["input_values"]
    expected = model(features).exit_frame_logits[:, 0].sigmoid().detach().numpy()
    # 1.5 s: 151 log-mel frames, 38 output frames
    assert predictions["b.wav"].probabilities.shape == (3, 38, 3)
    assert predictions["b.wav"].probabilities == pytest.approx(expected, abs=1e-6)
    assert predictions["b.wav"].borders[[0, 1, -1]] == pytest.approx([0.0, 0.02, 1.5])


# ---- metrics of known scores -----------------------------------------------------------------------------------------


def known_scores() -> tuple[dict, dict, dict]:
    """Two files of 5 s, 0.1 s frames, two exits: the first finds nothing, the second one event too much."""
    references = {"a.wav": [[1.0, 2.0, "dog_bark"], [2.5, 4.5, "rain"]], "b.wav": []}
    first, second = np.zeros((2, 50, 2)), np.zeros((2, 50, 2))
    first[1, 10:20, 0] = 0.9
    first[1, 25:45, 1] = 0.8
    second[1, 30:38, 0] = 0.7  # a false alarm in the file without events
    borders = np.arange(51) * 0.1
    predictions = {"a.wav": FramePrediction(first, borders), "b.wav": FramePrediction(second, borders)}
    return predictions, references, {"a.wav": 5.0, "b.wav": 5.0}


def test_metrics_of_each_exit():
    predictions, references, durations = known_scores()
    found = evaluate.evaluate_exit(predictions, 2, None, references, durations, CLASSES)
    assert found["event_based"]["micro"]["f1"] == pytest.approx(4 / 5)
    assert found["event_based"]["class_wise"]["dog_bark"]["precision"] == 0.5
    assert found["segment_based"]["class_wise"]["dog_bark"]["f1"] == pytest.approx(2 / 3)
    assert found["num_events"] == 3
    # both events are found before any false alarm: the threshold can lie above the false alarm's 0.7
    assert found["psds1"]["boxes"]["psds"] == found["psds1"]["frames"]["psds"] == 1.0
    nothing = evaluate.evaluate_exit(predictions, 1, None, references, durations, CLASSES)
    assert nothing["event_based"]["macro"]["f1"] == nothing["psds2"]["boxes"]["psds"] == 0.0


def test_without_boxes_there_is_no_psds_of_boxes():
    predictions, references, durations = known_scores()
    found = evaluate.evaluate_exit(predictions, 2, {"method": "threshold"}, references, durations, CLASSES)
    assert found["psds1"]["boxes"] is None and found["psds2"]["frames"]["psds"] == 1.0
    assert evaluate.overview_row("2", found).split()[:5] == ["2", "1.000", "-", "1.000", "-"]


def test_json_has_no_nan():
    value = {"a": np.float64("nan"), 1: [np.int64(2), (math.inf, "x", None)]}
    assert evaluate.json_ready(value) == {"a": None, "1": [2, [None, "x", None]]}


@pytest.mark.parametrize("text", ["0", "4", "two", "-1"])
def test_only_existing_exits_can_be_chosen(text):
    assert evaluate.chosen_exits("all", 3) == [1, 2, 3] and evaluate.chosen_exits("2", 3) == [2]
    with pytest.raises(ValueError, match=f"--exit must be 'all' or a number between 1 and 3, got '{text}'"):
        evaluate.chosen_exits(text, 3)


# ---- costs -----------------------------------------------------------------------------------------------------------


def test_costs_are_those_of_each_student(monkeypatch):
    model = tiny_model()
    # pass by pass the three students take 1, 2 and 3 s in turns, the passes that warm up ten times as long
    lengths = [factor * seconds for factor in [10, 10] + [1] * 20 for seconds in (1, 2, 3)]
    clock = iter(np.repeat(np.cumsum([0, *lengths]), 2)[1:-1].tolist())
    monkeypatch.setattr(evaluate.time, "perf_counter", lambda: next(clock))
    costs = evaluate.measure_costs(model)
    assert [one["milliseconds_per_10_s"] for one in costs.values()] == pytest.approx([1000, 2000, 3000])
    assert next(clock, None) is None
    for index in (1, 2, 3):
        parameters = sum(parameter.numel() for parameter in model.student(index).parameters())
        assert costs[str(index)]["parameters"] == parameters
    macs = [one["macs_per_10_s"] for one in costs.values()]
    assert 0 < macs[0] < macs[1] < macs[2]


def test_time_is_measured_on_one_thread_over_ten_seconds(monkeypatch):
    seen = []

    def watch(self, values, *arguments, **options):
        seen.append((torch.get_num_threads(), tuple(values.shape), self.training, values.device.type))

    model, threads = tiny_model(), torch.get_num_threads()
    counted = [{"exit": 1, "parameters": 5, "macs_per_10_s": 6}]
    monkeypatch.setattr(evaluate, "exit_costs", lambda model: counted)
    monkeypatch.setattr(type(model), "forward", watch)
    torch.set_num_threads(2)
    try:
        assert evaluate.measure_costs(model)["1"]["parameters"] == 5
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    # 10 s in hops of 10 ms, 32 mels
    assert set(seen) == {(1, (1, 1001, 32), False, "cpu")} and len(seen) == 22


# ---- tuning ----------------------------------------------------------------------------------------------------------


def random_recordings(seed: int, num_files: int = 12) -> list[Recording]:
    """Recordings of 6 s with up to three events a class, found with errors, and with false alarms."""
    rng = np.random.default_rng(seed)
    recordings = []
    for _ in range(num_files):
        scores, events = rng.uniform(0, 0.05, (60, 2)), []
        for start in rng.permutation([2, 14, 26, 38, 50])[:4]:
            label, stop = int(rng.integers(2)), start + int(rng.integers(4, 9))
            scores[start + rng.integers(-1, 3) : stop + rng.integers(-1, 3), label] = rng.uniform(0.1, 1)
            if rng.random() < 0.8:
                events.append([start / 10, stop / 10, label])
        recordings.append(Recording(scores, np.arange(61) / 10, np.array(events).reshape(-1, 3)))
    return recordings


def metrics_of(recordings: list[Recording], decoding: dict) -> tuple[dict, dict]:
    """What the package's metrics say about the events of `decode`."""
    references, detections, durations = {}, {}, {}
    for index, (scores, borders, events) in enumerate(recordings):
        name = str(index)
        references[name] = [[onset, offset, CLASSES[int(label)]] for onset, offset, label in events]
        detections[name] = [
            [box.onset, box.offset, CLASSES[box.class_index]] for box in decode(scores, borders, decoding)
        ]
        durations[name] = float(borders[-1])
    event_based = event_based_metrics(references, detections, CLASSES)
    return event_based, segment_based_metrics(references, detections, CLASSES, durations)


@pytest.mark.parametrize("method", ["boxes", "threshold"])
@pytest.mark.parametrize("seed", range(3))
def test_the_curves_are_the_metrics_at_every_threshold(method, seed):
    recordings, thresholds = random_recordings(seed), np.array([0.2, 0.5, 0.8])
    settings = [{"method": method, "default": {"threshold": value}} for value in thresholds]
    curves = curves_of(recordings, settings if method == "threshold" else settings[:1], thresholds)
    for column, decoding in enumerate(settings):
        for f1, metrics in zip(curves, metrics_of(recordings, decoding), strict=True):
            expected = [metrics["class_wise"][name]["f1"] for name in CLASSES]
            assert f1[:, column] == pytest.approx(expected)
        expected_means = [metrics["macro"]["f1"] for metrics in metrics_of(recordings, decoding)]
        assert tune_decoding.macro_f1(recordings, decoding) == pytest.approx(expected_means)


def test_matching_is_optimal_when_a_better_box_takes_the_only_partner_of_a_worse_one():
    boxes = [Box(1.15, 2.0, 0, 0.9), Box(0.9, 2.0, 0, 0.8)]  # the first fits both events, the second only one
    events = np.array([[1.05, 2.0, 0], [1.3, 2.0, 0]])
    assert true_positives(boxes, events).tolist() == [True, True]
    assert true_positives(boxes, events[:1]).tolist() == [True, False]


def test_pooling_mixes_a_class_with_all():
    objective = np.array([[1.0, 0.0], [0.0, 0.6]])
    assert tune_decoding._pooled(objective, 0.0).argmax(1).tolist() == [0, 1]
    assert tune_decoding._pooled(objective, 1.0).argmax(1).tolist() == [0, 0]


@pytest.fixture
def small_grid(monkeypatch):
    """One parameter with two values, one round: what is tested is the search, not the grid."""
    grid = {"boxes": {"edge_level": [0.2, 0.4]}, "threshold": {"low_ratio": [0.5, 1.0]}}
    monkeypatch.setattr(tune_decoding, "PARAMETER_GRID", grid)
    monkeypatch.setattr(tune_decoding, "NUM_ROUNDS", {"boxes": 1, "threshold": 1})


@pytest.mark.parametrize("method", ["boxes", "threshold"])
def test_tuning_finds_the_threshold_of_each_class(method, small_grid):
    recordings = []
    for start in range(5, 25, 5):
        scores = np.zeros((60, 2))
        scores[start : start + 10] = [0.9, 0.35]  # events of class 1 stay faint
        scores[start + 20 : start + 30] = [0.6, 0.1]  # false alarms
        events = np.array([[start / 10, start / 10 + 1, 0], [start / 10, start / 10 + 1, 1]])
        recordings.append(Recording(scores, np.arange(61) / 10, events))
    tuned = tune_decoding.tune(recordings, tune_decoding.Search(method, pooling=0.0, threshold_pooling=0.0))
    assert tune_decoding.macro_f1(recordings, tuned) == (1.0, 1.0)
    assert 0.6 <= tuned["classes"]["0"]["threshold"] < 0.9
    assert 0.1 <= tuned["classes"]["1"]["threshold"] < 0.35


def test_classes_left_out_of_training_are_other_sounds():
    references = {"a.wav": [[0.0, 1.0, "dog"], [2.0, 3.0, "rain"]], "b.wav": [[0.0, 1.0, "dog"]]}
    kept = tune_decoding.without_excluded(references, {"excluded_labels": ["dog"]})
    assert kept == {"a.wav": [[2.0, 3.0, "rain"]], "b.wav": []}
    assert (
        tune_decoding.without_excluded(references, None)
        == references
        == tune_decoding.without_excluded(references, {"seed": 0})
    )


def test_the_id_follows_the_parameters():
    first, same, other = (
        tune_decoding.with_id({"method": "boxes", "exits": {"1": {"classes": {"0": {"threshold": value}}}}})
        for value in (0.5, 0.5, 0.6)
    )
    assert first["id"] == same["id"] != other["id"] and len(first["id"]) == 8


# ---- both commands ---------------------------------------------------------------------------------------------------


def run_main(module, monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", [module.__name__ + ".py", *map(str, arguments)])
    return module.main()


def test_the_evaluation_command_prints_tables_and_writes_json(split_dir, checkpoint, tmp_path, monkeypatch, capsys):
    out = tmp_path / "results" / "dev.json"
    arguments = ("--model", checkpoint, "--data", split_dir, "--split", "dev", "--out", out)
    with pytest.warns(UserWarning, match="rooster"):  # a class without references
        assert run_main(evaluate, monkeypatch, *arguments) == 0
    table = capsys.readouterr().out
    assert "2 files, 1 of them without events (included)" in table
    assert "PSDS1" in table and "exit 3" in table and "rooster" in table
    results = json.loads(out.read_text())
    assert list(results["exits"]) == ["1", "2", "3"]
    assert results["split"] == "dev" and "--split dev" in results["command"] and results["num_references"] == 2
    assert results["exits"]["3"]["event_based"]["class_wise"]["rooster"]["f1"] is None
    assert set(results["exits"]["1"]["psds1"]) == {"frames", "boxes"}
    costs = [results["exits"][index]["costs"] for index in ("1", "2", "3")]
    assert costs[0]["parameters"] < costs[1]["parameters"] < costs[2]["parameters"]
    assert all(one["milliseconds_per_10_s"] > 0 for one in costs)
    assert "MACs per 10 s" in table and f"{costs[2]['parameters']:,}" in table


def test_predictions_on_onnx_are_those_of_pytorch(split_dir, checkpoint):
    pytest.importorskip("onnxruntime", reason='onnxruntime is not installed: pip install "easysed[export]"')
    model, extractor = load_model("easysed-cnn")
    _, _, paths = read_split(split_dir, "dev")
    expected, found = predict_split(model, extractor, paths), predict_split_on_onnx("easysed-cnn", paths)
    for file, (probabilities, borders) in expected.items():
        np.testing.assert_allclose(found[file].probabilities, probabilities, atol=1e-4)
        np.testing.assert_array_equal(found[file].borders, borders)
    with pytest.raises(ValueError, match="--runtime onnx needs onnxruntime and a checkpoint with graphs"):
        predict_split_on_onnx(str(checkpoint), paths)


def test_the_tuning_command_writes_the_config_and_nothing_else(split_dir, checkpoint, small_grid, monkeypatch, capsys):
    before = json.loads((checkpoint / "config.json").read_text())
    assert run_main(tune_decoding, monkeypatch, "--model", checkpoint, "--data", split_dir, "--split", "dev") == 0
    assert "check" in capsys.readouterr().out
    after = json.loads((checkpoint / "config.json").read_text())
    decoding = after.pop("decoding")
    assert after == {key: value for key, value in before.items() if key != "decoding"}
    assert decoding["tuned_on"]["data"] == "split" and decoding["tuned_on"]["num_files"] == 2
    config = EasySEDConfig.from_pretrained(checkpoint)
    for exit_index in (1, 2, 3):
        own = decoding_for_exit(config.decoding, exit_index)
        assert own["id"] == decoding["id"] and len(own["classes"]) == len(LABELS)
        assert decode(np.zeros((5, 3)), np.arange(6.0), own) == []


@pytest.mark.parametrize("module", [evaluate, tune_decoding])
def test_wrong_input_is_one_line_and_status_2(module, split_dir, checkpoint, monkeypatch, capsys):
    assert run_main(module, monkeypatch, "--model", checkpoint, "--data", split_dir, "--split", "dve") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "dve.tsv not found" in error and error.count("\n") == 1


def test_pooling_must_be_a_share(checkpoint, split_dir, monkeypatch, capsys):
    arguments = ("--model", checkpoint, "--data", split_dir, "--split", "dev", "--pooling", 1.5)
    assert run_main(tune_decoding, monkeypatch, *arguments) == 2
    assert "must be between 0 and 1, got (1.5, 0.3)" in capsys.readouterr().err
