"""Reading labelled audio: rates and channels, what is broken, what is said about it, and who may decode at once."""

import itertools

import numpy as np
import pytest
import soundfile
from broken_audio import missing_end
from data import (
    DECODED_AT_ONCE,
    decode_clips,
    in_threads,
    labels_of,
    load_clips_dataset,
    read_metadata,
    read_training_data,
)
from labelled_audio import audio_bytes, write_audio

from modeling_easysed.audio_easysed import AudioError

RATE = 16000


@pytest.fixture
def clips_dir(tmp_path):
    """Three clips of three rates and channel counts in ESC-10's layout."""
    write_audio(tmp_path / "audio" / "a.wav", 440.0, rate=8000, channels=2)
    write_audio(tmp_path / "audio" / "b.flac", 440.0, rate=48000, kind="FLAC")
    write_audio(tmp_path / "audio" / "c.ogg", 440.0, rate=44100, channels=3, kind="OGG")
    (tmp_path / "metadata.csv").write_text(
        "file_name,label,fold,license\naudio/a.wav,dog,1,CC0\naudio/b.flac,cat,1,CC0\naudio/c.ogg,dog,2,NC\n"
    )
    return tmp_path


def peak_frequency_hz(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * RATE / len(samples))


def test_rates_and_channels_come_as_they_are(clips_dir):
    data = read_training_data(str(clips_dir), RATE)
    assert [clip.label for clip in data.clips] == ["dog", "cat", "dog"] and data.labels == ["cat", "dog"]
    for clip in data.clips:
        assert clip.samples.shape == (RATE // 2,) and clip.samples.dtype == np.float32
        assert peak_frequency_hz(clip.samples) == pytest.approx(440.0, abs=2.0)
        assert np.abs(clip.samples[1000:-1000]).max() == pytest.approx(0.5, abs=0.02)


def test_the_older_functions_still_read_clips(clips_dir):
    dataset = load_clips_dataset(clips_dir, "fold", ["1"], ["NC"])
    assert dataset[0]["audio"] == {"path": str(clips_dir / "audio" / "a.wav"), "bytes": None}
    clips = decode_clips(dataset, RATE)
    assert [(clip.source, clip.label) for clip in clips] == [("a.wav", "dog"), ("b.flac", "cat")]
    assert decode_clips([{"audio": dataset[0]["audio"], "file_name": "x/y.wav"}], RATE)[0].label is None
    assert labels_of(clips_dir) == ["cat", "dog"] and read_metadata(clips_dir)[2]["fold"] == "2"
    with pytest.raises(ValueError, match=r"no row of .* has fold in \['9'\]"):
        load_clips_dataset(clips_dir, "fold", ["9"])
    with pytest.raises(FileNotFoundError, match="metadata.csv not found"):
        read_metadata(clips_dir / "audio")
    with pytest.raises(AudioError, match="gone.wav does not exist"):
        decode_clips([{"audio": {"path": "gone.wav"}, "file_name": "gone.wav"}], RATE)


def test_both_ways_decode_alike(clips_dir):
    old = decode_clips(load_clips_dataset(clips_dir, "fold", ["1", "2"]), RATE)
    new = read_training_data(str(clips_dir), RATE).clips
    assert all(np.array_equal(one.samples, other.samples) for one, other in zip(old, new, strict=True))


def test_esc10_reads_whole(data_dir):
    data = read_training_data(str(data_dir / "esc10"), RATE, folds=["1"], max_recordings=20)
    assert len(data.clips) == 20 and len(data.labels) >= 5 and data.skipped == []
    assert all(entry["author"] and entry["license"] for entry in data.attribution)


def broken_files() -> dict[str, tuple[bytes, str]]:
    nan = np.zeros(RATE, np.float32)
    nan[100] = np.nan
    whole = {kind: audio_bytes(duration_s=20.0, kind=kind) for kind in ("WAV", "FLAC", "OGG", "MP3")}
    return {
        "empty.wav": (b"", "is empty (0 bytes)"),
        "text.wav": (b"this is no audio at all, but text" * 9, "is not audio that can be read"),
        "short.wav": (whole["WAV"][: len(whole["WAV"]) // 2], "truncated: 320022 of 640044 bytes are there"),
        "short.flac": (whole["FLAC"][: len(whole["FLAC"]) // 2], "damaged: only the first"),
        "short.ogg": (whole["OGG"][: len(whole["OGG"]) // 2], "truncated: "),
        "short.mp3": (whole["MP3"][: len(whole["MP3"]) // 2], "damaged: only the first"),
        "head.wav": (whole["WAV"][:20], "is not audio that can be read"),
        "nan.wav": (b"", "has 1 samples that are NaN or infinite, the first at 0.006 s"),
        "phone.m4a": (b"\0\0\0\x18ftypM4A " + bytes(99), "is m4a/mp4/3gp, which is not supported: convert it"),
    }


def test_broken_files_are_named_and_skipped(tmp_path, capsys):
    for name, (content, _) in broken_files().items():
        (tmp_path / name).write_bytes(content)
    soundfile.write(tmp_path / "nan.wav", np.where(np.arange(RATE) == 100, np.nan, 0.0), RATE, subtype="FLOAT")
    write_audio(tmp_path / "good.wav")
    names = [*broken_files(), "missing.wav", "good.wav"]
    (tmp_path / "metadata.csv").write_text("file_name,label\n" + "".join(f"{name},dog\n" for name in names))
    data = read_training_data(str(tmp_path), RATE)
    assert [clip.source for clip in data.clips] == ["good.wav"] == [entry["file"] for entry in data.attribution]
    reasons = {name: reason for name, (_, reason) in broken_files().items()} | {"missing.wav": "does not exist"}
    assert [file for file, _ in data.skipped] == list(reasons)
    for file, reason in data.skipped:
        assert reason.startswith(reasons[file]), (file, reason)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10 and lines[0].startswith("skipped: empty.wav: is empty (0 bytes)")


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "OGG", "FLAC", "AIFF", "MP3"])
@pytest.mark.parametrize("duration_s", [0.05, 30.0])
def test_whole_files_miss_nothing(tmp_path, kind, duration_s):
    content = audio_bytes(duration_s=duration_s, kind=kind)
    (tmp_path / "a").write_bytes(content)
    assert missing_end({"path": None, "bytes": content}) == []
    assert missing_end({"path": str(tmp_path / "a"), "bytes": None}) == []


@pytest.mark.parametrize("kind", ["WAV", "OGG"])
def test_a_missing_end_is_found_in_files_and_bytes(tmp_path, kind):
    content = audio_bytes(duration_s=30.0, kind=kind)
    for length in (len(content) // 3, len(content) - 100):
        (tmp_path / "a").write_bytes(content[:length])
        found = missing_end({"path": None, "bytes": content[:length]})
        assert found[0].startswith(f"truncated: {length} of ")
        assert missing_end({"path": str(tmp_path / "a"), "bytes": None}) == found


def test_a_wav_from_a_pipe_knows_no_length():
    content = bytearray(audio_bytes())
    content[4:8] = b"\xff\xff\xff\xff"
    assert missing_end({"path": None, "bytes": bytes(content)}) == []


def write_empty_files(folder, num: int, label: str = "dog") -> None:
    (folder / label).mkdir(exist_ok=True)
    for number in range(num):
        (folder / label / f"{number:02d}.wav").write_bytes(b"")


def test_many_broken_files_are_twenty_lines_and_a_count(tmp_path, capsys):
    write_audio(tmp_path / "dog" / "good.wav")
    write_empty_files(tmp_path, 20)
    read_training_data(str(tmp_path), RATE)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 20 and lines[19].startswith("skipped: dog/19.wav: is empty")
    write_empty_files(tmp_path, 25)
    assert len(read_training_data(str(tmp_path), RATE).skipped) == 25
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 21 and lines[20] == "skipped: 5 more, 25 in all"


def test_nothing_left_names_the_first_reasons(tmp_path):
    write_empty_files(tmp_path, 4)
    message = (
        "must hold at least one recording that can be used, all were skipped, 4 reasons, first dog/00.wav: is empty"
    )
    with pytest.raises(ValueError, match=rf"{message.replace('(', '.')}.*dog/01.wav.*dog/02.wav[^3]*$"):
        read_training_data(str(tmp_path), RATE)


def test_nothing_selected(clips_dir):
    with pytest.raises(ValueError, match="must hold at least one recording that can be used, none was selected"):
        read_training_data(str(clips_dir), RATE, exclude_licenses=["CC0", "NC"])


def test_excluded_labels_are_never_heard(clips_dir, tmp_path):
    data = read_training_data(str(clips_dir), RATE, exclude_labels=["dog"])
    assert data.labels == ["cat"] and [row["file"] for row in data.attribution] == ["audio/b.flac"]
    with pytest.raises(ValueError, match=r"exclude_labels must be labels of .*, it has none of dgo"):
        read_training_data(str(clips_dir), RATE, exclude_labels=["dgo", "dog"])
    scenes = tmp_path / "scenes"
    write_audio(scenes / "audio" / "train" / "a.wav", 440.0)
    write_audio(scenes / "audio" / "train" / "b.wav", 440.0)
    (scenes / "train.tsv").write_text(
        "filename\tonset\toffset\tevent_label\na.wav\t0.1\t0.2\tdog\na.wav\t0.2\t0.3\tcat\nb.wav\t0.1\t0.2\tcat\n"
    )
    kept = read_training_data(str(scenes), RATE, exclude_labels=["dog"]).scenes
    assert [scene.source for scene in kept] == ["audio/train/b.wav"]


def test_no_such_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere must be a folder or a data set of the Hub"):
        read_training_data(str(tmp_path / "nowhere"), RATE)


def test_a_few_recordings_are_spread_over_the_data(tmp_path):
    for number, (label, index) in enumerate(itertools.product(["a", "b", "c", "d"], range(5))):
        write_audio(tmp_path / label / f"{index}.wav", 300.0 + 10 * number)
    data = read_training_data(str(tmp_path), RATE, max_recordings=4)
    assert len(data.clips) == 4 and data.labels == ["a", "b", "c", "d"]
    assert len(read_training_data(str(tmp_path), RATE, max_recordings=21).clips) == 20
    with pytest.raises(ValueError, match="max_recordings must be at least 1, got 0"):
        read_training_data(str(tmp_path), RATE, max_recordings=0)


def test_threads_keep_the_order_and_take_no_more_than_a_batch():
    taken = []
    numbers = (taken.append(number) or number for number in range(1000))
    doubled = in_threads(lambda number: 2 * number, numbers)
    assert next(doubled) == 0 and len(taken) == DECODED_AT_ONCE
    assert list(doubled) == [2 * number for number in range(1, 1000)]
