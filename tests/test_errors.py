"""Fates of events by hand and against the event-based metric, the numbers, the figure, and the command."""

import json
import sys
from types import SimpleNamespace

import error_figure
import errors
import numpy as np
import pytest
import soundfile
from PIL import Image
from tiny import tiny_model

from modeling_easysed import EasySEDFeatureExtractor
from modeling_easysed.metrics import event_based_metrics

CLASSES = ["dog_bark", "rain", "rooster"]
HEADER = "filename\tonset\toffset\tevent_label\tsource\tsnr_db\n"
ROWS = "a.wav\t0.2\t0.7\tdog_bark\tx.ogg\t10\na.wav\t0.5\t1.4\train\tx.ogg\t4\nb.wav\t\t\t\t\t\n"


def judge(references, detections):
    return errors.judge_split({"a": references}, {"a": detections}, CLASSES, {})


def fates(references, detections):
    events, false = judge(references, detections)
    return [event.fate for event in events], [detection.fate for detection in false]


# ---- fates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("detection", "fate"),
    [
        ([1.2, 3.2, "rain"], "right"),  # on both collars: 200 ms
        ([1.201, 3.0, "rain"], "wrong_onset"),
        ([1.0, 3.401, "rain"], "wrong_offset"),  # 20 % of 2 s are 400 ms
        ([1.0, 3.4, "rain"], "right"),
        ([1.5, 2.0, "rain"], "wrong_both"),
        ([3.5, 4.0, "rain"], "missed"),
        ([1.0, 3.0, "rooster"], "wrong_class"),
        ([2.5, 3.9, "rooster"], "missed"),  # covers a quarter only
    ],
)
def test_the_fate_of_an_event(detection, fate):
    assert fates([[1.0, 3.0, "rain"]], [detection])[0] == [fate]


@pytest.mark.parametrize(
    ("detection", "fate", "lies_on"),
    [
        ([1.5, 2.5, "rooster"], "on_other_class", "rain"),
        ([2.8, 3.8, "rooster"], "on_nothing", None),  # a fifth of it on the rain
        ([2.7, 3.7, "rooster"], "on_other_class", "rain"),  # 30 % of it
        ([8.0, 9.0, "rain"], "on_nothing", None),
        ([2.0, 2.9, "rain"], "piece", None),
    ],
)
def test_the_fate_of_a_false_detection(detection, fate, lies_on):
    events, false = judge([[1.0, 3.0, "rain"]], [[1.0, 3.0, "rain"], detection])
    assert [event.fate for event in events] == ["right"]
    assert [(one.label, one.fate, one.lies_on) for one in false] == [(detection[2], fate, lies_on)]


def test_times_are_compared_in_microseconds():
    # 2.2 - 2.0 is 0.20000000000000018 in float64
    assert fates([[2.0, 3.0, "rain"]], [[2.2, 3.0, "rain"]])[0] == ["right"]


def test_pieces_and_events_run_together():
    pieces = [[1.0, 2.0, "rain"], [2.5, 5.0, "rain"], [2.1, 2.3, "rain"]]
    # the largest piece with one right border stands for the event, the others are further pieces
    assert fates([[1.0, 5.0, "rain"]], pieces) == (["wrong_onset"], ["piece", "piece"])
    assert fates(pieces[:2], [[1.0, 5.0, "rain"]]) == (["run_together", "wrong_onset"], [])


def test_the_largest_overlap_comes_first():
    events, _ = judge([[1.0, 9.0, "rain"]], [[2.0, 3.0, "rain"], [4.0, 8.0, "rain"]])
    assert (events[0].onset_error_s, events[0].offset_error_s) == (3.0, -1.0)


def test_a_right_detection_of_another_class_takes_nothing():
    # the rain is right, so the bark that it covers is missed, not taken for rain
    references = [[1.0, 5.0, "rain"], [2.0, 3.0, "dog_bark"]]
    events, false = judge(references, [[1.0, 5.0, "rain"]])
    assert [event.fate for event in events] == ["right", "missed"] and false == []
    events, false = judge(references, [[1.0, 5.0, "rain"], [2.0, 3.0, "rooster"]])
    assert events[1].taken_for == "rooster" and false[0].lies_on == "dog_bark"


def random_split(seed):
    rng = np.random.default_rng(seed)
    references, detections = {}, {}
    for number in range(30):
        truth = [[on, on + rng.uniform(0.2, 4), CLASSES[rng.integers(3)]] for on in rng.uniform(0, 9, rng.integers(5))]
        found = [
            [row[0] + rng.normal(0, 0.15), row[1] + rng.normal(0, 0.3), row[2] if rng.random() < 0.8 else "rooster"]
            for row in truth
            if rng.random() < 0.8
        ]
        found += [[on, on + 1.0, CLASSES[rng.integers(3)]] for on in rng.uniform(0, 9, rng.integers(3))]
        references[str(number)] = truth
        detections[str(number)] = [[max(0.0, on), off, label] for on, off, label in found if off > max(0.0, on)]
    return references, detections


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_the_event_based_metric(seed):
    references, detections = random_split(seed)
    durations = dict.fromkeys(references, 20.0)
    numbers = errors.error_numbers(references, detections, CLASSES, durations, {})
    expected = event_based_metrics(references, detections, CLASSES)
    assert numbers["event_f1"]["macro"] == expected["macro"]["f1"]
    for label, own in numbers["classes"].items():
        theirs = expected["class_wise"][label]
        assert own["right"] == theirs["tp"] > 5
        assert sum(own[fate] for fate in errors.EVENT_FATES) == own["events"] == theirs["tp"] + theirs["fn"]
        # a detection is false for the metric when it has a wrong border, too, or when no event got it
        unpaired = sum(own[fate] for fate in errors.FALSE_FATES)
        assert unpaired + own["wrong_onset"] + own["wrong_offset"] + own["wrong_both"] == theirs["fp"]
        assert sum(own["taken_for"].values()) == own["wrong_class"]
        assert sum(own["lies_on"].values()) == own["on_other_class"]


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_covered_share():
    others = [[0.0, 2.0, 0], [1.5, 3.0, 1], [2.0, 2.5, 1], [9.0, 10.0, 2]]
    assert errors.covered_share([1.0, 5.0, 0], others) == pytest.approx(0.5)
    assert errors.covered_share([4.0, 5.0, 0], others) == 0.0


def event(fate="right", onset=np.nan, offset=np.nan, **traits):
    return errors.Event("rain", fate, None, onset, offset, traits)


def test_border_errors_by_hand():
    events = [event(onset=error) for error in (-0.06, 0.0, 0.02, 2.0)] + [event("missed")]
    found = errors.border_errors(events, "onset")
    assert found["num"] == 4 and found["num_beyond"] == 1
    assert found["quantiles_ms"]["0.5"] == pytest.approx(10.0)
    bins = {edge: count for edge, count in zip(found["edges_ms"], found["counts"], strict=False) if count > 0}
    assert bins == {-100: 1, 0: 2, 950: 1}  # what lies beyond is counted in the outermost bin
    assert np.isnan(errors.border_errors([], "offset")["quantiles_ms"]["0.5"])


def test_recall_by_hand():
    given = [("right", 4.9), ("wrong_onset", 5.0), ("missed", 5.1), ("run_together", 30.0), ("right", np.nan)]
    found = errors.recall_by([event(fate, snr_db=level) for fate, level in given], "snr_db")
    assert [(group["to"], group["events"], group["right"], group["heard"]) for group in found] == [
        (5, 1, 1, 1),
        (10, 2, 0, 1),
        (np.inf, 1, 0, 1),
    ]


@pytest.fixture
def split_dir(tmp_path):
    folder = tmp_path / "split"
    (folder / "audio" / "dev").mkdir(parents=True)
    (folder / "dev.tsv").write_text(HEADER + ROWS)
    rng = np.random.default_rng(0)
    for name in ("a.wav", "b.wav"):
        soundfile.write(folder / "audio" / "dev" / name, 0.1 * rng.normal(size=24000), 16000)
    return folder


def test_traits_of_every_event(split_dir):
    levels = errors.read_levels(split_dir, "dev")
    assert levels == {("a.wav", 0.2, 0.7, "dog_bark"): 10.0, ("a.wav", 0.5, 1.4, "rain"): 4.0}
    references = {"a.wav": [[0.2, 0.7, "dog_bark"], [0.5, 1.4, "rain"]], "b.wav": []}
    events, _ = errors.judge_split(references, {"a.wav": [], "b.wav": []}, CLASSES, levels)
    # 0.2 s of both sound together
    assert events[0].traits == pytest.approx({"snr_db": 10.0, "duration_s": 0.5, "overlap": 0.4})
    assert events[1].traits == pytest.approx({"snr_db": 4.0, "duration_s": 0.9, "overlap": 0.2 / 0.9})


def test_without_levels_there_are_none(split_dir):
    (split_dir / "dev.tsv").write_text("filename\tonset\toffset\tevent_label\na.wav\t0.2\t0.7\tdog_bark\n")
    assert errors.read_levels(split_dir, "dev") == {}


class FakePipeline:
    """Keeps what it was asked; its one event depends on nothing."""

    def __init__(self):
        self.calibration, self.calls = "a calibration", []

    def __call__(self, path, **settings):
        if path == "broken.wav":
            raise ValueError("broken.wav cannot be read")
        self.calls.append((path, self.calibration, settings))
        return SimpleNamespace(events=[SimpleNamespace(onset=1.0, offset=2.0, label="rain")])


@pytest.mark.parametrize(("passes", "method"), [(20, "mc"), (0, "none")])
def test_detection_sets_the_calibration_aside_for_a_while(passes, method):
    pipe = FakePipeline()
    assert errors.detect(pipe, {"a": "a.wav"}, 3, passes, 2) == {"a": [[1.0, 2.0, "rain"]]}
    path, calibration, settings = pipe.calls[0]
    assert path == "a.wav" and calibration is None and pipe.calibration == "a calibration"
    assert (settings["exit"], settings["uncertainty"], settings["shifts"]) == (3, method, 2)
    with pytest.raises(ValueError, match="cannot be read"):
        errors.detect(pipe, {"a": "broken.wav"}, 3, passes, 2)
    assert pipe.calibration == "a calibration"


# ---- figure and command ----------------------------------------------------------------------------------------------


@pytest.fixture
def numbers():
    references, detections = random_split(0)
    levels = {
        (name, round(row[0], 6), round(row[1], 6), row[2]): 12.0 for name, rows in references.items() for row in rows
    }
    found = errors.error_numbers(references, detections, CLASSES, dict.fromkeys(references, 20.0), levels)
    measured = {"model": "some/tiny", "data": "../data", "split": "dev", "exit": 2, "num_exits": 3}
    return measured | {"passes": 0, "shifts": 2} | found


def test_the_title_says_what_was_measured(numbers):
    text = error_figure.title(numbers)
    assert "Errors of tiny, exit 2 of 3, one pass, 2 shifts to either side, on dev of data: 30 files" in text
    assert f"macro {numbers['event_f1']['macro']:.3f}" in text
    assert "20 passes, no shifts" in error_figure.title(numbers | {"passes": 20, "shifts": 0})


def drawn(monkeypatch, numbers, path):
    """Draws, and returns the four panels."""
    panels = []
    for name in ("draw_fates", "draw_segments", "draw_borders", "draw_recall"):
        draw = getattr(error_figure, name)
        monkeypatch.setattr(error_figure, name, lambda axes, own, draw=draw: (panels.append(axes), draw(axes, own)))
    error_figure.draw_errors(numbers, path)
    return panels


def test_every_bar_has_the_length_of_its_count(numbers, monkeypatch, tmp_path):
    fate_axes, segment_axes, *_ = drawn(monkeypatch, numbers, tmp_path / "e.png")
    widths = np.array([[bar.get_width() for bar in bars] for bars in fate_axes.containers])
    # (fates, classes)
    expected = [[own[fate] for own in numbers["classes"].values()] for fate in errors.EVENT_FATES]
    expected += [[-own[fate] for own in numbers["classes"].values()] for fate in errors.FALSE_FATES]
    assert widths.tolist() == expected
    missed, false = ([bar.get_width() for bar in bars] for bars in segment_axes.containers)
    assert missed == [own["fn"] for own in numbers["segments"].values()]
    assert false == [-own["fp"] for own in numbers["segments"].values()]
    assert [text.get_text() for text in fate_axes.get_yticklabels()] == ["dog bark", "rain", "rooster"]


def test_parts_of_a_bar_differ_without_colour(numbers, monkeypatch, tmp_path):
    fate_axes = drawn(monkeypatch, numbers, tmp_path / "e.png")[0]
    for rows in (fate_axes.containers[:7], fate_axes.containers[7:]):
        looks = {
            (round(float(np.dot(bars[0].get_facecolor()[:3], [0.3, 0.59, 0.11])), 1), bars[0].get_hatch())
            for bars in rows
        }
        assert len(looks) == len(rows)


def test_recall_is_drawn_for_what_is_known(numbers, monkeypatch, tmp_path):
    axes = drawn(monkeypatch, numbers, tmp_path / "e.png")[3]
    assert "10–15" in axes.get_xticklabels()[0].get_text()
    shares = [group["heard"] / group["events"] for group in numbers["recall"]["duration_s"]]
    assert axes.lines[2].get_ydata() == pytest.approx(shares)
    numbers["recall"]["snr_db"] = []
    axes = drawn(monkeypatch, numbers, tmp_path / "e.png")[3]
    assert [text.get_text() for text in axes.texts] == ["duration, s", "share under other events"]
    assert len(axes.get_legend().get_texts()) == 2


@pytest.mark.parametrize(
    ("low", "high", "trait", "expected"),
    [
        (-np.inf, 5, "snr_db", "< 5"),
        (20, np.inf, "snr_db", "> 20"),
        (0, 0.5, "duration_s", "< 0.5"),
        (0, 0.001, "overlap", "none"),
        (0.001, 0.5, "overlap", "< 50%"),
        (0.5, np.inf, "overlap", "> 50%"),
        (1, 2, "duration_s", "1–2"),
    ],
)
def test_names_of_groups(low, high, trait, expected):
    form = error_figure.TRAITS[trait][1]
    assert error_figure.span({"from": low, "to": high}, form, trait) == expected


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["errors.py", *map(str, arguments)])
    return errors.main()


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "model"
    tiny_model().save_pretrained(folder)
    EasySEDFeatureExtractor(feature_size=32).save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore:classes without any reference event")
def test_the_command_writes_figure_and_numbers(split_dir, checkpoint, tmp_path, monkeypatch, capsys):
    out, numbers_file = tmp_path / "new" / "errors.png", tmp_path / "new" / "errors.json"
    arguments = ["--model", checkpoint, "--data", split_dir, "--split", "dev", "--out", out, "--json", numbers_file]
    assert run(monkeypatch, *arguments, "--passes", 0, "--shifts", 0, "--exit", 2) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:3] == ["events", "right", "wrong"] and table[-1].split()[:2] == ["all", "2"]
    numbers = json.loads(numbers_file.read_text())
    assert (numbers["exit"], numbers["num_exits"], numbers["num_events"], numbers["split"]) == (2, 3, 2, "dev")
    assert sum(group["events"] for group in numbers["recall"]["snr_db"]) == 2
    assert "NaN" not in numbers_file.read_text() and "Infinity" not in numbers_file.read_text()
    with Image.open(out) as image:
        assert (np.asarray(image.convert("L")) < 128).sum() > 5000  # not a blank sheet


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--split", "dve"], "dve.tsv not found"),
        (["--passes", "-1"], "--passes must be >= 0, got -1"),
        (["--exit", "4"], "exit must be 'auto' or a number from 1 to 3, got 4"),
        (["--shifts", "-1"], "shifts"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(split_dir, checkpoint, tmp_path, monkeypatch, capsys, changes, message):
    arguments = ["--model", checkpoint, "--data", split_dir, "--split", "dev", "--out", tmp_path / "e.png", *changes]
    assert run(monkeypatch, *arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and message in lines[0]
    assert not (tmp_path / "e.png").exists()
