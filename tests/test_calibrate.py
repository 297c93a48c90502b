"""The calibration command, end to end, with a tiny network on tiny recordings."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import calibrate
import candidates
import numpy as np
import pytest
import soundfile
import torch
from candidates import all_settings, collect_candidates, name_of, shared_trunk
from data import read_training_data
from event_truth import judge_boxes
from test_calibration import make_saved
from test_evidence import make_evidence
from tiny import LABELS, tiny_model

from modeling_easysed import EasySEDFeatureExtractor
from modeling_easysed.calibration_easysed import Calibration, CalibrationError, calibration_id
from modeling_easysed.decisions_easysed import Table
from modeling_easysed.decoding_easysed import Box
from modeling_easysed.pipeline_easysed import SoundEventDetectionPipeline
from modeling_easysed.sampling_easysed import METHODS

pytestmark = pytest.mark.filterwarnings("ignore:temperature clamped:UserWarning")  # a random network knows nothing

CLASSES = list(LABELS.values())
NUM_RECORDINGS = 6
RATE = 16000


def recording_of(number: int) -> np.ndarray:
    """1.5 s: faint noise and a louder part in the middle."""
    rng = np.random.default_rng(number)
    level = np.where(np.abs(np.arange(24000) / RATE - 0.75) < 0.35, 0.2, 0.01)
    return (level * rng.normal(size=24000)).astype(np.float32)


def audible_model(**overrides):
    """Random, but with probabilities around one half: as initialised, all lie at the floor of candidates."""
    model = tiny_model(**overrides)
    for head in model.exits:
        head.classifier.bias.data += 3.0
    return model


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "model"
    audible_model().save_pretrained(folder)
    EasySEDFeatureExtractor(feature_size=32).save_pretrained(folder)
    return folder


@pytest.fixture
def split_dir(tmp_path):
    """Every class sounds all the time in five recordings, and nothing in the sixth: what the random network reports
    of these is right there and wrong here."""
    folder = tmp_path / "scapes"
    (folder / "audio" / "dev").mkdir(parents=True)
    rows = ["filename\tonset\toffset\tevent_label"]
    for number in range(NUM_RECORDINGS):
        soundfile.write(folder / "audio" / "dev" / f"{number}.wav", recording_of(number), RATE)
        events = [f"{number}.wav\t0.0\t1.5\t{name}" for name in CLASSES]
        rows += events if number < NUM_RECORDINGS - 1 else [f"{number}.wav\t\t\t"]
    (folder / "dev.tsv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def small(monkeypatch):
    """Few recordings, passes and mixed soundscapes: what is tested is the command, not what it finds."""
    monkeypatch.setattr(calibrate, "MIN_RECORDINGS", NUM_RECORDINGS)
    monkeypatch.setattr(calibrate, "NUM_TRAINING_SOUNDSCAPES", 3)
    monkeypatch.setattr(candidates, "PASSES", 2)


def run_main(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["calibrate.py", *map(str, arguments)])
    return calibrate.main()


def files_of(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "config.json"}


def config_of(folder) -> dict:
    return json.loads((folder / "config.json").read_text())


# ---- candidates ------------------------------------------------------------------------------------------------------


def test_settings_are_every_exit_method_and_shift():
    settings = all_settings(3)
    assert len(settings) == len(set(settings)) == 3 * len(METHODS) * 2
    assert name_of((3, "mc", 2)) == "exit 3, mc+shifts" and name_of((0, "none", 0)) == "auto, none"


def test_a_shared_trunk_changes_nothing():
    model, extractor = audible_model(), EasySEDFeatureExtractor(feature_size=32)
    sources = [(str(number), recording_of(number), 1.5) for number in range(2)]
    references = {"0": [[0.0, 1.5, "rain"]]}
    alone = [(2, "none", 0), (3, "exits", 2)]
    together = collect_candidates(model, extractor, sources, references, alone)
    for setting in alone:
        own = collect_candidates(model, extractor, sources, references, [setting])[setting]
        assert [one.box for one in own.evidence] == [one.box for one in together[setting].evidence]
        assert own.right.tolist() == together[setting].right.tolist()
        assert own.recording.tolist() == together[setting].recording.tolist()
    assert "stages" not in vars(model.easysed)


def test_the_trunk_runs_once_per_window(monkeypatch):
    model, calls = audible_model(), []
    monkeypatch.setattr(
        type(model.easysed), "stages", lambda self, values, mask=None: calls.append(values) or [values.clone()]
    )
    values = torch.arange(320.0).reshape(1, 10, 32)
    with shared_trunk(model) as kept:
        first, again, other = (model.easysed.stages(one)[0] for one in (values, values.clone(), values + 1))
        assert first is again and not torch.equal(first, other) and len(calls) == 2
        kept.clear()
        model.easysed.stages(values)
        assert len(calls) == 3
    model.easysed.stages(values)
    model.easysed.stages(values)
    assert len(calls) == 5  # as before


def test_candidates_have_the_truth_of_their_recording():
    model, extractor = audible_model(), EasySEDFeatureExtractor(feature_size=32)
    sources = [(str(number), recording_of(number), 1.5) for number in range(3)]
    references = {"0": [[0.0, 1.5, "rain"], [0.5, 1.0, "rooster"]], "2": [[0.0, 1.5, "dog_bark"]]}
    found = collect_candidates(model, extractor, sources, references, [(3, "none", 0)])[3, "none", 0]
    assert found.files == ["0", "1", "2"] and found.num_events.tolist() == [2, 0, 1]
    assert found.durations.tolist() == [1.5] * 3 and len(found.frame_exits) == 3
    assert set(found.recording) == {0, 1, 2} and found.right.any() and not found.right[found.recording == 1].any()
    for number in range(3):
        own = [one.box for one, index in zip(found.evidence, found.recording, strict=True) if index == number]
        expected = judge_boxes(own, references.get(str(number), []), CLASSES)
        assert found.right[found.recording == number].tolist() == [one.right for one in expected]
    assert (found.score > candidates.FLOOR).all()


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_writes_the_calibration_and_nothing_else(split_dir, checkpoint, small, monkeypatch, capsys):
    before, files = config_of(checkpoint), files_of(checkpoint)
    assert run_main(monkeypatch, "--model", checkpoint, "--data", split_dir, "--split", "dev") == 0
    after = config_of(checkpoint)
    saved = after.pop("calibration")
    assert after == {key: value for key, value in before.items() if key != "calibration"}
    assert files_of(checkpoint) == files
    assert saved["id"] == calibration_id(saved) and saved["labels"] == CLASSES
    on = saved["fitted_on"]
    assert (on["data"], on["split"], on["num_recordings"]) == ("scapes", "dev", NUM_RECORDINGS)
    assert on["num_events"] == dict.fromkeys(CLASSES, NUM_RECORDINGS - 1)
    assert on["familiarity"] == "events of the data" and on["outside"] is None
    printed = capsys.readouterr().out
    assert saved["id"] in printed and "exit 3 mc+shifts" in printed and str(checkpoint / "config.json") in printed


def test_a_calibration_has_a_map_for_every_exit_and_setting(split_dir, checkpoint, small):
    saved = calibrate.calibrate(str(checkpoint), str(split_dir), "dev", None, None)
    calibration = Calibration(json.loads(json.dumps(saved, allow_nan=False)), CLASSES)
    assert sorted(saved["exits"]) == ["1", "2", "3"] and sorted(saved["doubt_limits"]) == ["1", "2"]
    for index in (1, 2, 3):
        assert calibration.temperature(index) > 0
        for method in METHODS:
            for name in (method, f"{method}+shifts"):
                fitted = calibration.check(index, name)
                assert list(fitted["classes"]) == CLASSES and fitted["interval_factor"] >= 1
                for one in (fitted, *fitted["classes"].values()):
                    assert (len(one["coefficients"]), len(one["covariance"])) == (5, 15)
                assert set(fitted["border"]) == {"floor", "outwards", "inwards"}
                assert fitted["border"]["outwards"] <= fitted["border"]["inwards"]
                table = Table.load(fitted["table"])
                # three candidates in every recording, wrong in the last
                assert np.bincount(table.recording).tolist() == [3] * NUM_RECORDINGS
                assert table.right.tolist() == [True] * 15 + [False] * 3
                assert table.num_events.tolist() == [3] * 5 + [0] and table.duration_s == 9.0
    # five right events of each class: fewer than a map of its own needs
    assert all(one["uncalibrated"] and one["num_events"] == 5 for one in fitted["classes"].values())
    assert all(one["coefficients"] == fitted["coefficients"] for one in fitted["classes"].values())


def test_a_calibrated_checkpoint_detects(split_dir, checkpoint, small, monkeypatch):
    assert run_main(monkeypatch, "--model", checkpoint, "--data", split_dir, "--split", "dev") == 0
    pipeline = SoundEventDetectionPipeline.from_pretrained(checkpoint, device="cpu")
    found = pipeline(str(split_dir / "audio" / "dev" / "0.wav"), passes=2)
    assert found.receipt["calibration"] == config_of(checkpoint)["calibration"]["id"]
    assert len(found.events) == 3
    for event in found.events:
        assert 0 <= event.confidence_low <= event.confidence <= event.confidence_high <= 1
        assert event.decision in ("accept", "review", "reject")
        assert any("uncalibrated class" in reason for reason in event.reasons)
    assert any("needs at least" in warning for warning in found.warnings)  # six recordings guarantee nothing


def test_familiarity_can_come_from_the_training_folds(split_dir, checkpoint, small, tmp_path, monkeypatch):
    clips_dir = tmp_path / "clips"
    clips_dir.mkdir()
    rows = ["file_name,label,fold,license"]
    for number, label in enumerate(CLASSES * 2):
        soundfile.write(clips_dir / f"{number}.wav", recording_of(number), RATE)
        rows.append(f"{number}.wav,{label},{1 + number // 3},CC0")
    (clips_dir / "metadata.csv").write_text("\n".join(rows) + "\n")
    config = config_of(checkpoint)
    config["provenance"] = {"folds": ["1"], "excluded_licenses": [], "seed": 0}
    (checkpoint / "config.json").write_text(json.dumps(config))
    seen = []

    def read(*arguments, **keywords):
        data = read_training_data(*arguments, **keywords)
        seen.extend(row["file"] for row in data.attribution)
        return data

    monkeypatch.setattr(calibrate, "read_training_data", read)
    arguments = ("--model", checkpoint, "--data", split_dir, "--split", "dev", "--clips", clips_dir)
    assert run_main(monkeypatch, *arguments) == 0
    assert seen == ["0.wav", "1.wav", "2.wav"]  # never a fold that the model was not trained on
    saved = config_of(checkpoint)["calibration"]
    assert saved["fitted_on"]["familiarity"] == "clips, training folds"
    size = config["exit_hidden_size"]
    assert all(own["familiarity"]["size"] == size for own in saved["exits"].values())


def test_clips_need_to_know_the_training_folds(split_dir, checkpoint, small, tmp_path, monkeypatch, capsys):
    arguments = ("--model", checkpoint, "--data", split_dir, "--split", "dev", "--clips", tmp_path)
    assert run_main(monkeypatch, *arguments) == 2
    assert "provenance" in capsys.readouterr().err


# ---- sounds of no target class ---------------------------------------------------------------------------------------


def hear(monkeypatch, names: list[str], planned: dict[str, int] | None = None) -> list[tuple]:
    """An hour of recordings of these names, the kind first; every one sounds alike. Returns what was asked of it."""
    asked = []

    def recordings(*arguments):
        asked.append(arguments)
        return ((name, name.split("_")[0], recording_of(0)) for name in names)

    monkeypatch.setattr(calibrate, "outside_recordings", recordings)
    if planned is not None:
        monkeypatch.setattr(calibrate, "planned_recordings", lambda: planned)
    return asked


NAMES = ["outside_000_hum", "outside_001_bell", "outside_002_hum", "outside_003_bell", "noise_000_a", "noise_001_b"]
NAMES += ["chirps_000_up", "chirps_001_up", "chirps_002_up"]
PLANNED = {"outside": 4, "noise": 2, "chirps": 3}


@pytest.mark.parametrize(
    ("share", "kept"),
    [
        (1.0, NAMES),
        (0.5, [NAMES[0], NAMES[1], NAMES[4], NAMES[6]]),  # half of three is one
        (0.75, [*NAMES[:3], NAMES[4], *NAMES[6:8]]),
        (0.3, [NAMES[0]]),
        (0.0, []),
    ],
)
def test_outside_sources_are_the_first_of_every_kind(share, kept, monkeypatch):
    asked = hear(monkeypatch, NAMES, PLANNED)
    sources = list(calibrate.outside_sources("somewhere/outside", share, RATE))
    assert [name for name, *_ in sources] == kept
    assert all(np.array_equal(samples, recording_of(0)) and length == 1.5 for _, samples, length in sources)
    assert asked == [(Path("somewhere/outside"), "validation", 0)]


UNFAMILIAR = np.array([4.0, 0.0])  # distance 16, the limit is 9


def outside_threshold(monkeypatch, sounds: list[tuple]) -> float:
    """The threshold for an hour of (name, score, ...) with an unfamiliar candidate where `...` says so."""
    evidence = [
        make_evidence(box=Box(1.0, 2.0, 0, score), embedding=UNFAMILIAR if far else np.zeros(2))
        for _, score, *far in sounds
    ]
    names = list(dict.fromkeys(name for name, *_ in sounds))
    owner = np.array([names.index(name) for name, *_ in sounds], int)
    hear(monkeypatch, names)

    def collect(model, extractor, sources, references, settings):
        assert [name for name, *_ in sources] == names and settings == [(1, "mc", 2)] and references == {}
        durations, events = np.full(len(names), 10.0), np.zeros(len(names), int)
        return {settings[0]: candidates.Candidates(evidence, [], owner, names, durations, events, [])}

    monkeypatch.setattr(calibrate, "collect_candidates", collect)
    model, extractor = SimpleNamespace(num_exits=1), SimpleNamespace(sampling_rate=RATE)
    return calibrate.fit_outside_threshold(model, extractor, make_saved(), "outside")


@pytest.mark.parametrize(
    ("sounds", "threshold"),
    [
        # one accepted sound is allowed, the surest
        ([("chirps_000_up", 0.7), ("noise_000_a", 0.9), ("silence_000_zeros", 0.5)], 0.71),
        # a recorded sound counts once however often it comes
        ([("outside_000_hum", 0.9), ("outside_042_hum", 0.8), ("outside_001_bell", 0.6)], 0.61),
        # so does a recording with several candidates
        ([("chirps_000_up", 0.9), ("chirps_000_up", 0.8), ("noise_000_a", 0.6)], 0.61),
        # the order is no matter
        ([("outside_042_hum", 0.3), ("outside_001_bell", 0.6), ("outside_000_hum", 0.9)], 0.61),
        # chirps of one shape are different sounds
        ([("chirps_000_up", 0.9), ("chirps_008_up", 0.8), ("noise_000_a", 0.6)], 0.81),
        # unfamiliar ones are never accepted
        ([("noise_000_a", 0.95, "far"), ("chirps_000_up", 0.9), ("chirps_001_up", 0.4)], 0.41),
        # the next hundredth
        ([("noise_000_a", 0.9), ("chirps_000_up", 0.655)], 0.66),
        # a single sound, or none, sets no limit
        ([("outside_000_hum", 0.9), ("outside_042_hum", 0.8)], 0.01),
        ([("noise_000_a", 0.95, "far"), ("chirps_000_up", 0.9)], 0.01),
        ([], 0.01),
        # the highest limit
        ([("noise_000_a", 0.998), ("chirps_000_up", 0.998)], 0.99),
    ],
)
def test_the_outside_threshold_by_hand(sounds, threshold, monkeypatch):
    assert outside_threshold(monkeypatch, sounds) == threshold


def test_outside_sounds_raise_the_bar(split_dir, checkpoint, small, monkeypatch):
    asked = hear(monkeypatch, ["noise_000_a", "noise_001_b"])
    arguments = ("--model", checkpoint, "--data", split_dir, "--split", "dev", "--outside", "somewhere/outside")
    assert run_main(monkeypatch, *arguments) == 0
    saved = config_of(checkpoint)["calibration"]
    # once for the maps, once for the threshold
    assert [one[1:] for one in asked] == [("validation", 0)] * 2
    assert saved["fitted_on"]["outside"] == "outside/validation" and saved["outside_weight"] == 0.1
    assert saved["id"] == calibration_id(saved)
    # the same network on the sound that it heard in two recordings, of which one alone may be accepted
    pipeline = SoundEventDetectionPipeline.from_pretrained(checkpoint, device="cpu")
    events = pipeline({"array": recording_of(0), "sampling_rate": RATE}, passes=2).events
    assert events and all(event.confidence < saved["outside_threshold"] for event in events)
    assert all(event.decision != "accept" for event in events)


def test_the_maps_hear_half_of_the_outside_sounds_with_twice_their_weight(split_dir, checkpoint, small, monkeypatch):
    heard, fit_map = [], calibrate.fit_map

    def kept(*arguments):
        heard.append(arguments[-1])
        return fit_map(*arguments)

    monkeypatch.setattr(calibrate, "fit_map", kept)
    alone = calibrate.calibrate(str(checkpoint), str(split_dir), "dev", None, None)
    num_maps = len(heard)
    assert heard == [None] * num_maps and alone["outside_weight"] == alone["outside_threshold"] == 0.0
    hear(monkeypatch, [f"noise_{number:03d}_a" for number in range(4)], {"noise": 4})
    together = calibrate.calibrate(str(checkpoint), str(split_dir), "dev", None, "outside")
    assert len(heard) == 2 * num_maps == 2 * 3 * len(METHODS) * 2  # every exit, method and shift
    for outside in heard[num_maps:]:
        # three candidates in each of two recordings
        assert outside.features.shape == (6, 5) and outside.recording.tolist() == [0, 0, 0, 1, 1, 1]
        assert outside.labels.tolist() == [0, 1, 2] * 2 and outside.weights == pytest.approx([0.2] * 6)
    # they sound like the recordings of the split, so that less of what is found there is believed
    tables = [Table.load(one["exits"]["3"]["settings"]["mc+shifts"]["table"]) for one in (alone, together)]
    assert len(tables[0].confidence) == len(tables[1].confidence) == 18  # outside candidates are in no table
    assert tables[1].confidence.mean() < tables[0].confidence.mean() - 0.02


# ---- what cannot be calibrated ---------------------------------------------------------------------------------------


def test_too_few_recordings_are_one_line_and_status_2(split_dir, checkpoint, monkeypatch, capsys):
    before = (checkpoint / "config.json").read_bytes()
    assert run_main(monkeypatch, "--model", checkpoint, "--data", split_dir, "--split", "dev") == 2
    error = capsys.readouterr().err
    assert error == "error: a calibration needs at least 20 labelled recordings, dev has 6\n"
    assert (checkpoint / "config.json").read_bytes() == before


def test_too_few_found_events_are_one_line_and_status_2(split_dir, checkpoint, small, monkeypatch, capsys):
    monkeypatch.setattr(calibrate, "MIN_CLASS_EVENTS", 16)  # 15 are found
    assert run_main(monkeypatch, "--model", checkpoint, "--data", split_dir, "--split", "dev") == 2
    error = capsys.readouterr().err
    message = "error: a calibration needs at least 16 events that the model finds in dev, exit 1, mc finds 15\n"
    assert error.endswith(message) and error.count("error: ") == 1


def test_every_exit_must_find_events(split_dir, checkpoint, small, monkeypatch, capsys):
    model = audible_model()
    model.exits[0].classifier.bias.data -= 20.0
    model.save_pretrained(checkpoint)
    assert run_main(monkeypatch, "--model", checkpoint, "--data", split_dir, "--split", "dev") == 2
    assert "needs at least 10 events that the model finds in dev, exit 1, mc finds 0\n" in capsys.readouterr().err


def test_a_model_without_closed_form_is_calibrated_as_well(split_dir, checkpoint, small):
    model = audible_model(exit_dropout_blocks=1, monte_carlo_blocks=1)
    model.save_pretrained(checkpoint)
    saved = calibrate.calibrate(str(checkpoint), str(split_dir), "dev", None, None)
    assert sorted(saved["exits"]["3"]["settings"]) == [
        "exits",
        "exits+shifts",
        "mc",
        "mc+shifts",
        "none",
        "none+shifts",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--split", "dve"), "dve.tsv not found"),
        (("--model", "owner/name"), "--model must be a local checkpoint folder, got owner/name: download it first"),
        (("--model", "nowhere"), "name is unknown"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(arguments, message, split_dir, checkpoint, monkeypatch, capsys):
    given = ["--model", checkpoint, "--data", split_dir, "--split", "dev", *arguments]
    assert run_main(monkeypatch, *given) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_a_calibration_of_another_model_does_not_load(split_dir, checkpoint, small):
    saved = calibrate.calibrate(str(checkpoint), str(split_dir), "dev", None, None)
    with pytest.raises(CalibrationError, match="must be of the model's classes"):
        Calibration(saved, CLASSES[:2])
