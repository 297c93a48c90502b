"""What is read of a new sound, what is skipped, what is refused, and that folds share no recording."""

import json

import numpy as np
import pytest
import soundfile
from rare_event_data import (
    SCENE_S,
    background_folds,
    check_label,
    read_rare_event_data,
    whole_scenes,
)
from tiny_rare_event import RATE, noise, tone, write_background, write_positives, write_rehearsal


def read(positives, background, **changes):
    options = {"gap_s": 0.3, "max_background_hours": 1.0, "seed": 0, **changes}
    return read_rare_event_data("beep", positives, background, RATE, **options)


@pytest.fixture
def folders(tmp_path):
    return write_positives(tmp_path / "positives"), write_background(tmp_path / "background")


def test_events_are_found_in_clips(folders):
    data = read(*folders)
    assert len(data.positives) == 6 and len(data.groups) == 6 and data.num_folds == 5
    for clip in data.positives:
        np.testing.assert_allclose(clip.events, [(0.25, 0.75)], atol=0.03)


def test_folds_share_no_recording(tmp_path, folders):
    """Three takes of every recording, and background of two files per fold."""
    positives, _ = folders
    for path in sorted(positives.iterdir()):
        samples, rate = soundfile.read(path)
        for take in (1, 2):
            soundfile.write(path.with_name(f"{path.stem}_take{take}.wav"), samples * 0.5 * take, rate)
    data = read(positives, write_background(tmp_path / "more", num=10))
    assert len(data.positives) == 18 and len(data.groups) == 6
    folds_of = {group: {int(f) for p, f in zip(data.positives, data.positive_folds, strict=True) if p.group == group}
                for group in data.groups}  # fmt: skip
    assert all(len(folds) == 1 for folds in folds_of.values())
    assert set().union(*folds_of.values()) == set(range(5)) == set(data.background_folds.tolist())


def test_stated_events_are_believed(tmp_path, folders):
    folder = tmp_path / "stated"
    folder.mkdir()
    lines = []
    for number in range(5):
        soundfile.write(folder / f"field{number}x.wav", noise(number, 4.0), RATE)
        events = [{"onset": 1.0, "offset": 1.5, "label": "beep"}, {"onset": 2.0, "offset": 3.0, "label": "other"}]
        lines.append(json.dumps({"file_name": f"field{number}x.wav", "events": events}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    data = read(folder, folders[1])
    assert [clip.events for clip in data.positives] == [[(1.0, 1.5)]] * 5


def test_recordings_are_counted_not_clips(tmp_path, folders):
    folder = tmp_path / "takes"
    folder.mkdir()
    for number in range(8):
        soundfile.write(folder / f"walk{number % 4}_take{number // 4}.wav", tone(2000, number), RATE)
    with pytest.raises(ValueError, match=r"at least 5 recordings of beep that can be used, got 4 \(8 clips, 0 skipped"):
        read(folder, folders[1])


def test_broken_and_silent_clips_are_named(tmp_path, folders, capsys):
    positives, background = folders
    (positives / "broken.wav").write_bytes(b"RIFF no audio")
    soundfile.write(positives / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(positives / "long.wav", noise(1, 61.0), RATE)
    (background / "empty.wav").write_bytes(b"")
    data = read(positives, background)
    reasons = dict(data.skipped)
    assert set(reasons) == {"broken.wav", "silent.wav", "long.wav", "empty.wav"} and len(data.positives) == 6
    assert "silent" in reasons["silent.wav"] and "61 s long" in reasons["long.wav"]
    assert capsys.readouterr().err.count("skipped: ") == 4


def test_less_than_a_minute_of_background(tmp_path, folders):
    short = write_background(tmp_path / "short", num=2, duration_s=20.0)
    with pytest.raises(ValueError, match="at least 60 s of recordings without the new sound, got 40 s in 2 files"):
        read(folders[0], short)


def test_the_sound_among_the_background(folders):
    positives, background = folders
    (background / "copy.wav").write_bytes((positives / "beep2x.wav").read_bytes())
    with pytest.raises(ValueError, match=r"copy.wav is beep2x.wav of --positives"):
        read(positives, background)


@pytest.mark.parametrize("which", [0, 1])
def test_missing_folders(tmp_path, folders, which):
    given = list(folders)
    given[which] = tmp_path / "nowhere"
    with pytest.raises(FileNotFoundError, match="nowhere is no folder"):
        read(*given)


@pytest.mark.parametrize("label", ["", " beep", "be\nep"])
def test_names_that_are_none(label):
    with pytest.raises(ValueError, match="--label must be a name"):
        check_label(label, ["rain"])


def test_a_label_that_the_base_knows():
    with pytest.raises(ValueError, match="rain is a class of the base already: .* for example rain_2"):
        check_label("rain", ["rain"])


# ---- background ------------------------------------------------------------------------------------------------------


def test_background_is_cut_to_scenes(folders):
    data = read(*folders)
    assert all(len(one) == SCENE_S * RATE for one in data.background)
    assert data.background_hours == pytest.approx(len(data.background) * 10 / 3600)
    assert 6 <= len(data.background) <= 7 and data.background_files == 6


def test_background_is_thinned_evenly(tmp_path, folders):
    many = write_background(tmp_path / "many", num=10, duration_s=20.0)
    data = read(folders[0], many, max_background_hours=100 / 3600)
    assert len(data.background) == 10 and data.background_files == 10


def test_one_long_recording_is_split_in_time():
    assert background_folds(["a"] * 6, 3, seed=0).tolist() == [0, 0, 1, 1, 2, 2]


def test_a_recording_that_is_most_of_it_is_split_in_time():
    folds = background_folds(["a"] * 11 + ["b", "c", "d", "e"], 5, seed=0)
    assert folds.tolist() == np.repeat(range(5), 3).tolist()


def test_recordings_stay_whole_where_there_are_enough():
    folds = background_folds(["a", "a", "b", "b", "c", "c"], 3, seed=0)
    assert folds[0] == folds[1] and folds[2] == folds[3] and folds[4] == folds[5] and len(set(folds.tolist())) == 3


def test_short_pieces_are_joined_with_fades():
    pieces = [np.ones(6 * RATE, np.float16), np.ones(7 * RATE, np.float16)]
    (scene,) = whole_scenes(pieces, RATE)
    assert len(scene) == 10 * RATE and scene[3 * RATE] == 1
    assert scene[0] < 0.01 and scene[6 * RATE - 1] < 0.01 and scene[6 * RATE] < 0.01
    assert len(whole_scenes(pieces[:1], RATE)) == 1  # repeated


# ---- rehearsal -------------------------------------------------------------------------------------------------------


def test_rehearsal_without_the_new_label(tmp_path, folders):
    old = write_rehearsal(tmp_path / "old", ["rain", "beep"], num=12)
    data = read(*folders, rehearsal=old)
    assert {clip.label for clip in data.rehearsal} == {"rain"} and len(data.rehearsal) == 6
    assert sum("has the new label beep" in reason for _, reason in data.skipped) == 6
    assert set(data.rehearsal_folds.tolist()) == set(range(5))


def test_too_little_rehearsal(tmp_path, folders):
    old = write_rehearsal(tmp_path / "old", ["rain"], num=3)
    with pytest.raises(ValueError, match="--rehearsal must hold at least 5 labelled recordings, got 3"):
        read(*folders, rehearsal=old)
