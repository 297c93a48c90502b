"""The hour of unknown sounds: its recordings, the figures of known events, the command with a fake pipeline."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import outside_hour
import outside_recordings

RATE = outside_hour.SAMPLING_RATE
SMALL = {"outside": 3, "chirps": 2, "speech": 2, "noise": 2, "silence": 3}


def event(onset=1.0, offset=2.0, label="dog_bark", decision=None, reasons=None, **fields):
    return SimpleNamespace(
        onset=onset, offset=offset, label=label, score=0.9, confidence=0.8, decision=decision, reasons=reasons, **fields
    )


@pytest.fixture
def without_espeak(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)


@pytest.fixture
def small_hour(monkeypatch):
    """Twelve recordings instead of 360."""
    for module in (outside_hour, outside_recordings):
        monkeypatch.setattr(module, "NUM_RECORDINGS", SMALL)


@pytest.fixture
def small_data(tmp_path):
    """One outside sound per split and two soundscapes."""
    folder = tmp_path / "data"
    (folder / "outside" / "audio").mkdir(parents=True)
    rows = ["file_name,split"]
    for name, split in (("hum", "test"), ("beep", "validation")):
        soundfile.write(folder / "outside" / "audio" / f"{name}.wav", 0.5 * np.sin(np.arange(8000) * 0.1), RATE)
        rows.append(f"audio/{name}.wav,{split}")
    (folder / "outside" / "metadata.csv").write_text("\n".join(rows) + "\n")
    (folder / "soundscapes" / "audio" / "test").mkdir(parents=True)
    for name in ("a.wav", "b.wav"):
        soundfile.write(folder / "soundscapes" / "audio" / "test" / name, np.zeros(RATE), RATE)
    table = "filename\tonset\toffset\tevent_label\na.wav\t1.0\t3.0\tdog_bark\na.wav\t6.0\t7.0\train\nb.wav\t\t\t\n"
    (folder / "soundscapes" / "test.tsv").write_text(table)
    return folder


# ---- the recordings --------------------------------------------------------------------------------------------------


def test_an_hour_is_360_recordings_within_full_scale(data_dir):
    kinds, names = Counter(), set()
    for name, kind, samples in outside_recordings.outside_recordings(data_dir / "outside", "test", 0):
        assert samples.shape == (160000,) and samples.dtype == np.float32 and np.isfinite(samples).all()
        peak, rms = np.abs(samples).max(), np.sqrt(np.square(samples, dtype=np.float64).mean())
        assert peak <= 1.0
        assert (rms <= 1e-4) == (kind == "silence"), name  # -80 dBFS
        if kind == "noise":
            assert 10 ** (-66.1 / 20) < rms < 10 ** (-19.9 / 20)
        kinds[kind] += 1
        names.add(name)
    assert kinds == outside_recordings.planned_recordings()
    assert kinds.total() == len(names) == 360 and kinds["outside"] == 126
    sounds = Counter(name.split("_", 2)[2] for name in names if name.startswith("outside"))
    assert set(sounds.values()) == {3}  # 42 test sounds
    assert len({outside_recordings.sound_of(name) for name in names}) == 42 + 360 - 126


@pytest.mark.parametrize(
    ("name", "sound"),
    [
        ("outside_003_5-205589-A-7", "5-205589-A-7"),
        ("outside_045_5-205589-A-7", "5-205589-A-7"),  # again, at another level and place
        ("outside_000_door_bell_2", "door_bell_2"),
        ("chirps_003_linear_up_once", "chirps_003_linear_up_once"),  # drawn anew every time
        ("chirps_011_linear_up_once", "chirps_011_linear_up_once"),
        ("speech_001_de+f3", "speech_001_de+f3"),
        ("silence_000_zeros", "silence_000_zeros"),
    ],
)
def test_recorded_sounds_recur_and_all_else_is_its_own(name, sound):
    assert outside_recordings.sound_of(name) == sound


def test_the_plan_is_an_hour_with_and_without_espeak(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    expected = {"outside": 126, "chirps": 60, "speech": 60, "noise": 60, "silence": 54}
    assert outside_recordings.planned_recordings() == expected
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert outside_recordings.planned_recordings() == {"outside": 126, "chirps": 120, "noise": 60, "silence": 54}


def test_without_espeak_chirps_take_the_place_of_speech(small_hour, small_data, without_espeak):
    kinds = Counter(kind for _, kind, _ in outside_recordings.outside_recordings(small_data / "outside", "test", 0))
    assert kinds == {"outside": 3, "chirps": 4, "noise": 2, "silence": 3}


def test_recordings_follow_seed_and_split(small_hour, small_data, without_espeak):
    def hour(split, seed):
        return {
            name: samples
            for name, _, samples in outside_recordings.outside_recordings(small_data / "outside", split, seed)
        }

    first, again = hour("test", 0), hour("test", 0)
    assert list(first) == list(again)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["outside_000_hum"], first["outside_001_hum"])
    assert not np.array_equal(first["outside_000_hum"], hour("test", 1)["outside_000_hum"])
    assert not np.array_equal(first["chirps_000_linear_up_once"], hour("validation", 0)["chirps_000_linear_up_once"])
    assert "outside_000_beep" in hour("validation", 0)


def test_a_sound_lies_3_to_27_db_over_its_bed():
    sound, levels_db, starts = np.sin(np.arange(RATE) * 0.3) * 0.01, [], []
    for seed in range(20):
        bed = outside_recordings.over_noise(np.zeros(RATE), np.random.default_rng(seed))
        mixed = outside_recordings.over_noise(sound, np.random.default_rng(seed))
        if np.abs(mixed).max() < outside_recordings.PEAK:  # not scaled down: the difference is the sound
            found = np.flatnonzero(mixed - bed)
            starts.append(found[0])
            levels_db.append(20 * np.log10((mixed - bed)[found[0] : found[0] + RATE].std() / bed.std()))
    assert 2.9 < min(levels_db) < 10 and 20 < max(levels_db) < 27.1
    assert max(starts) - min(starts) > 4 * RATE


def test_a_sound_longer_than_a_recording_is_cut():
    assert outside_recordings.over_noise(np.ones(200000), np.random.default_rng(0)).shape == (160000,)


def test_chirps_go_the_way_their_name_says(monkeypatch):
    monkeypatch.setattr(outside_recordings, "over_noise", lambda sound, rng: sound)
    shapes = set()
    for number in range(8):
        shape, tone = outside_recordings.chirps(number, np.random.default_rng(number))
        shapes.add(shape)
        crossings = np.flatnonzero(np.diff(np.sign(tone)) > 1)
        assert crossings[1] - crossings[0] != crossings[-1] - crossings[-2]
        assert (crossings[1] - crossings[0] > crossings[-1] - crossings[-2]) == ("_up_" in shape)
    assert len(shapes) == 8


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs the command espeak-ng")
@pytest.mark.parametrize("number", range(3))
def test_speech_is_the_same_twice(number):
    texts = outside_recordings.SPOKEN[1::2]
    name, samples = outside_recordings.speech(texts, number, np.random.default_rng(number))
    again = outside_recordings.speech(texts, number, np.random.default_rng(number))
    assert name.startswith(("en-us+", "de+", "fr-be+")[number]) and again[0] == name
    assert np.array_equal(samples, again[1])
    assert np.abs(samples).reshape(-1, 1600).mean(-1).std() > 0  # louder where someone speaks


def test_a_failing_espeak_is_named(monkeypatch):
    failed = SimpleNamespace(returncode=1, stderr=b"no voice data", stdout=b"")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: failed)
    with pytest.raises(OSError, match="espeak-ng -v en-gb.* failed, reinstall espeak-ng: no voice data"):
        outside_recordings.speech(outside_recordings.SPOKEN, 0, np.random.default_rng(0))


def test_an_unknown_split_is_named(small_data):
    with pytest.raises(ValueError, match="split must be one of validation, test, got 'train'"):
        next(outside_recordings.outside_recordings(small_data / "outside", "train", 0))


# ---- figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "low", "high"), [(0, 0.0, 2.9957), (1, 0.0513, 4.7439), (10, 5.4254, 16.9622)])
def test_the_poisson_interval_is_the_published_one(count, low, high):
    # half the chi-square quantiles 5 % at 2 n and 95 % at 2 n + 2 degrees of freedom, from tables
    assert outside_hour.poisson_interval(count) == pytest.approx((low, high), abs=1e-4)


def test_the_poisson_interval_of_a_large_count_is_nearly_the_normal_one():
    low, high = outside_hour.poisson_interval(2000)
    assert (low, high) == pytest.approx((2000 - 1.645 * 2000**0.5, 2000 + 1.645 * 2000**0.5), abs=2)


def rows_of(*events, kinds=("outside", "outside", "silence")) -> list[dict]:
    """One row per kind; all events in the first."""
    pairs = zip(kinds, [list(events), [], []], strict=True)
    recordings = [(f"{kind}_{number}", kind, None, own) for number, (kind, own) in enumerate(pairs)]
    remaining = iter([own for *_, own in recordings])
    return outside_hour.detect_hour(
        lambda audio: SimpleNamespace(events=next(remaining)), [recording[:3] for recording in recordings]
    )


def test_counts_shares_and_accepted_events():
    found = outside_hour.summary(
        rows_of(
            event(decision="accept", reasons=[]),
            event(decision="review", reasons=["an unfamiliar sound, 4.1 deviations"]),
            event(decision="reject", reasons=["too quiet", "unfamiliar sound"]),
            event(decision="reject", reasons=None),
        ),
        target=[],
    )
    counts = {"reported": 4, "accepted": 1, "review": 1, "reject": 2, "undecided": 0, "auroc": None}
    assert found["kinds"]["outside"] == {"recordings": 2, "minutes": pytest.approx(1 / 3)} | counts
    assert found["kinds"]["all"] == {"recordings": 3, "minutes": 0.5} | counts
    assert found["kinds"]["silence"]["reported"] == 0
    # one in half a minute
    assert found["accepted_per_hour"] == pytest.approx([120, 120 * 0.0513, 120 * 4.7439], rel=1e-3)
    assert found["share_in_doubt"] == {
        "unfamiliar sound": 0.5,
        "too quiet": 0.25,
        "unfamiliar sound or too quiet": 0.5,
    }
    assert [(one["name"], one["label"], one["reasons"]) for one in found["accepted"]] == [("outside_0", "dog_bark", [])]
    assert found["notes"] == [outside_hour.NO_SPEECH]  # no such kind among these rows


def test_an_hour_without_events_has_no_shares():
    found = outside_hour.summary(rows_of(kinds=("outside", "speech", "silence")), target=[1.0])
    assert set(found["share_in_doubt"].values()) == {None}
    assert found["accepted_per_hour"][:2] == [0.0, 0.0] and found["notes"] == []
    assert "reason too quiet: -" in outside_hour.report(found)


def test_events_without_a_decision_are_noted():
    found = outside_hour.summary(rows_of(event(), kinds=("outside", "speech", "silence")), target=[])
    assert found["kinds"]["all"]["undecided"] == 1 and found["notes"] == [outside_hour.UNDECIDED]


def test_auroc_of_known_values():
    rows = rows_of(event(unfamiliarity=2.0), event(unfamiliarity=3.0))
    table = outside_hour.summary(rows, target=[1.0, 2.5])["kinds"]
    assert table["outside"]["auroc"] == table["all"]["auroc"] == 0.75  # three of the four pairs in order
    assert table["silence"]["auroc"] is None


@pytest.mark.parametrize(
    ("events", "target"),
    [([event()], [1.0]), ([event(unfamiliarity=None)], [1.0]), ([event(unfamiliarity=2.0)], [None, 1.0])],
)
def test_there_is_no_auroc_where_values_are_missing(events, target):
    assert outside_hour.summary(rows_of(*events), target)["kinds"]["all"]["auroc"] is None


def test_right_events_share_half_of_themselves_and_of_a_reference(small_data):
    found = {
        "a.wav": [
            event(2.0, 4.0, unfamiliarity=1.0),  # exactly half of both
            event(2.1, 4.1, unfamiliarity=2.0),  # less
            event(1.5, 2.4, unfamiliarity=3.0),  # less than half of the reference
            event(0.0, 4.1, unfamiliarity=4.0),  # less than half of itself
            event(1.0, 3.0, label="rain", unfamiliarity=5.0),  # of another class
            event(6.0, 7.0, label="rain"),  # right, its pipeline knows no unfamiliarity
        ],
        "b.wav": [event(0.0, 1.0, unfamiliarity=6.0)],  # nothing there
    }
    values = outside_hour.target_unfamiliarity(
        lambda path: SimpleNamespace(events=found[Path(path).name]), small_data / "soundscapes", "test"
    )
    assert values == [1.0, None]


# ---- the command -----------------------------------------------------------------------------------------------------


class FakePipeline:
    """Hears a dog, calmly, in every soundscape, and an unfamiliar one in every recording that is not silent."""

    calls: list[dict] = []

    @classmethod
    def from_pretrained(cls, name):
        if name != "fake":
            raise ValueError(f"model {name!r}:\n  name is unknown")
        cls.calls = []
        return cls()

    def __call__(self, audio, **settings):
        self.calls.append(settings)
        if isinstance(audio, str):
            return SimpleNamespace(events=[event(1.0, 3.0, decision="accept", unfamiliarity=np.float32(0.5))])
        assert audio["sampling_rate"] == RATE and audio["array"].shape == (160000,)
        if audio["array"].std() < 1e-4:
            return SimpleNamespace(events=[])
        return SimpleNamespace(events=[event(decision="accept", reasons=["rare"], unfamiliarity=np.float32(4.0))])


def run_main(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["outside_hour.py", *map(str, arguments)])
    monkeypatch.setattr(outside_hour, "SoundEventDetectionPipeline", FakePipeline)
    return outside_hour.main()


def test_the_command_prints_tables_and_writes_json(
    small_hour, small_data, without_espeak, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "results" / "hour.json"
    assert run_main(monkeypatch, "--model", "fake", "--data", small_data, "--out", out, "--passes", 5) == 0
    printed = capsys.readouterr()
    assert printed.err == f"warning: {outside_hour.NO_SPEECH}\n"  # no progress bar: stderr is no terminal
    assert f"note: {outside_hour.NO_SPEECH}" in printed.out and "accepted events: 9" in printed.out
    assert "outside_000_hum" in printed.out and "1.00- 2.00 s  0.8  ['rare']" in printed.out
    assert FakePipeline.calls == [{"passes": 5, "shifts": 2, "uncertainty": "mc", "seed": 0}] * 14
    results = json.loads(out.read_text())
    assert results["arguments"]["passes"] == 5 and results["arguments"]["split"] == "test"
    assert results["kinds"]["all"]["recordings"] == len(results["recordings"]) == 12
    assert results["kinds"]["chirps"]["accepted"] == 4 and results["kinds"]["all"]["auroc"] == 1.0
    assert results["notes"] == [outside_hour.NO_SPEECH] and len(results["accepted"]) == 9
    assert results["right_events_unfamiliarity"] == [0.5]


@pytest.mark.parametrize(
    ("model", "split", "message"),
    [("other", "test", "error: model 'other': name is unknown"), ("fake", "validation", "validation.tsv not found")],
)
def test_errors_are_one_line(small_data, tmp_path, monkeypatch, capsys, without_espeak, model, split, message):
    arguments = ("--model", model, "--data", small_data, "--split", split, "--out", tmp_path / "hour.json")
    assert run_main(monkeypatch, *arguments) == 2
    warning, error = capsys.readouterr().err.splitlines()
    assert message in error and error.startswith("error: ")
