"""Long recordings, read in blocks and forgotten, against the same recordings as a whole."""

import numpy as np
import pytest
import soundfile
import torch
from test_pipeline import RATE, as_source, loudness_window, make_pipe
from test_stream import bursts

from modeling_easysed import long_recordings_easysed
from modeling_easysed.audio_easysed import AudioError
from modeling_easysed.columns_easysed import ColumnMaximum, Envelope
from modeling_easysed.long_recordings_easysed import AudioBlocks, PartMeasures, announced_duration, clock

SPANS = [(1.0, 1.4), (3.0, 7.5), (9.9, 10.3), (12.0, 12.2), (20.0, 31.0), (44.4, 45.0)]
DURATION_S = 47.3
TIMES = [(pytest.approx(onset, abs=0.05), pytest.approx(offset, abs=0.05)) for onset, offset in SPANS]


@pytest.fixture(scope="module")
def pipe():
    return make_pipe()


@pytest.fixture
def everything_is_long(monkeypatch):
    """Blocks, parts and columns small enough that a minute has many."""
    for module in ("recording_easysed", "listening_easysed"):
        monkeypatch.setattr(f"modeling_easysed.{module}.sample_window", loudness_window)
    for name, value in {"LONG_S": 5.0, "MEASURED_S": 10.0, "MAX_COLUMNS": 300, "ARRAY_BLOCK_SAMPLES": 70001}.items():
        monkeypatch.setattr(long_recordings_easysed, name, value)
    monkeypatch.setattr("modeling_easysed.audio_easysed.BLOCK_SAMPLES", 100003)


@pytest.fixture
def samples() -> np.ndarray:
    return bursts(*SPANS, duration_s=DURATION_S)


def events_of(detection) -> list[tuple]:
    return [(event.label, event.onset, event.offset, event.score, event.uncertainty) for event in detection.events]


@pytest.mark.parametrize("shifts", [0, 2])
@pytest.mark.parametrize("kind", ["array", "flac", "bytes", "44.1 kHz", "stereo"])
def test_a_long_recording_gives_the_events_of_the_whole(
    pipe, samples, everything_is_long, monkeypatch, tmp_path, kind, shifts
):
    path, rate = tmp_path / "long.flac", 44100 if kind == "44.1 kHz" else RATE
    if kind == "44.1 kHz":
        samples = np.interp(np.arange(int(DURATION_S * rate)) / rate, np.arange(len(samples)) / RATE, samples)
    channels = np.stack([samples, 0.5 * samples], axis=1) if kind == "stereo" else samples
    soundfile.write(path, channels, rate)
    source = {"array": as_source(samples), "bytes": path.read_bytes()}.get(kind, str(path))
    settings = {"uncertainty": "none", "shifts": shifts}
    in_blocks = pipe(source, **settings)
    monkeypatch.setattr(long_recordings_easysed, "LONG_S", 1e9)
    whole = pipe(source, **settings)
    assert [(event.onset, event.offset) for event in whole.events] == TIMES
    for own, expected in zip(events_of(in_blocks), events_of(whole), strict=True):
        assert own[:1] == expected[:1] and own[1:4] == pytest.approx(expected[1:4], abs=1e-4)
        assert own[4] == pytest.approx(expected[4], abs=1e-4)
    for name in ("duration", "sampling_rate", "file", "receipt", "labels"):
        assert getattr(in_blocks, name) == getattr(whole, name), name
    assert len(in_blocks.probabilities) == len(in_blocks.frame_times) == len(in_blocks.uncertainty) <= 300
    assert in_blocks.probabilities.max(axis=0) == pytest.approx(whole.probabilities.max(axis=0), abs=1e-4)
    assert np.diff(in_blocks.frame_times).min() > 0 and in_blocks.frame_times[-1] <= whole.duration
    assert in_blocks.log_mel.max() == pytest.approx(whole.log_mel.max(), abs=0.01)
    assert len(in_blocks.envelope) <= 2000 and in_blocks.envelope == pytest.approx(whole.envelope, abs=1e-5)
    assert in_blocks.mel_hz.tolist() == whole.mel_hz.tolist()
    if shifts == 0:
        assert in_blocks.spread is None and whole.spread is None
    else:
        assert in_blocks.spread.shape == in_blocks.probabilities.shape
        assert in_blocks.spread.max() <= whole.spread.max() + 1e-5


@pytest.mark.parametrize("shifts", [0, 2])
def test_an_event_on_every_border_between_windows_is_reported_once(pipe, everything_is_long, shifts):
    config = pipe.model.config
    step = config.window_s - 2 * config.context_s
    borders = np.arange(config.window_s - config.context_s, 60.0, step)[::2]  # neighbours are two events, not one
    between = borders[:-1] + step  # these lie on a border as well: two recordings hold them all
    for middles in (borders, between):
        spans = [(middle - 0.2, middle + 0.2) for middle in middles]
        found = pipe(as_source(bursts(*spans, duration_s=61.0)), uncertainty="none", shifts=shifts)
        assert [(event.onset, event.offset) for event in found.events if event.label == found.events[0].label] == [
            (pytest.approx(onset, abs=0.05), pytest.approx(offset, abs=0.05)) for onset, offset in spans
        ]


def test_progress_ends_at_its_total(pipe, samples, everything_is_long):
    calls = []
    pipe(as_source(samples), uncertainty="none", progress=lambda done, total: calls.append((done, total)))
    assert calls[-1][0] == calls[-1][1] and calls == sorted(calls) and len(calls) > 10


def test_a_damaged_end_is_a_warning_and_what_came_before_is_analysed(pipe, samples, everything_is_long, tmp_path):
    path = tmp_path / "cut.flac"
    soundfile.write(path, samples, RATE)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    detection = pipe(str(path), uncertainty="none")
    (warning,) = [one for one in detection.warnings if one.startswith("damaged")]
    assert 10.0 < detection.duration < DURATION_S and f"{detection.duration:.2f} s of {DURATION_S:.2f} s" in warning
    assert len(detection.events) >= 3


def test_nan_far_behind_is_named_with_its_place(pipe, samples, everything_is_long, tmp_path):
    samples[40 * RATE] = np.nan
    path = tmp_path / "nan.wav"
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"NaN or infinite, the first at 40\.000 s"):
        pipe(str(path))


def test_faults_are_said_with_the_part_that_has_them(pipe, samples, everything_is_long):
    samples[12 * RATE : 13 * RATE] = (3 * samples[20 * RATE : 21 * RATE]).clip(-0.5, 0.5)
    samples[42 * RATE : 44 * RATE] = (3 * samples[20 * RATE : 22 * RATE]).clip(-0.5, 0.5)
    clipped = [one for one in pipe(as_source(samples)).warnings if one.startswith("clipped")]
    assert len(clipped) == 1 and "(from 0:00:00 to 0:00:13, and in 1 other part like it)" in clipped[0]


def test_silence_is_said_once(pipe, everything_is_long):
    warnings = pipe(as_source(np.zeros(30 * RATE, np.float32))).warnings
    assert [one.split(":")[0] for one in warnings] == ["silent", "not calibrated"]


def test_columns_hold_the_largest_of_their_rows():
    rows = np.random.default_rng(0).normal(size=(103, 2))
    maximum = ColumnMaximum(10)
    for first in range(0, 103, 7):
        start = max(0, first - 4)
        maximum.add(rows[start : first + 7], start)
    expected = [rows[start : start + 10].max(axis=0) for start in range(0, 103, 10)]
    assert np.array_equal(maximum.result(), expected)


def test_beside_the_largest_stands_what_stood_there():
    rng = np.random.default_rng(0)
    rows, beside = rng.normal(size=(103, 2)), rng.normal(size=(103, 2))
    maximum = ColumnMaximum(10)
    for first in range(0, 103, 7):
        maximum.add(rows[first : first + 7], first, beside[first : first + 7])
    largest, found = maximum.results()
    for column, start in enumerate(range(0, 103, 10)):
        places = start + rows[start : start + 10].argmax(axis=0)
        assert largest[column].tolist() == [rows[places[0], 0], rows[places[1], 1]]
        assert found[column].tolist() == [beside[places[0], 0], beside[places[1], 1]]


def test_an_envelope_holds_the_lowest_and_highest_sample():
    samples = np.random.default_rng(0).normal(size=5001).astype(np.float32)
    envelope = Envelope(5001)  # 2000 columns at most: three samples each
    for start in range(0, 5001, 700):
        envelope.add(samples[start : start + 700])
    found = envelope.result()
    assert found.shape == (1667, 2)
    assert found.tolist() == [[one.min(), one.max()] for one in samples.reshape(-1, 3)]


def test_parts_are_measured_one_by_one():
    measures, rng = PartMeasures(1000), np.random.default_rng(0)
    assert measures.warnings() == []
    measures.add((0.3 + rng.normal(0, 0.1, 400)).astype(np.float32))
    (warning,) = measures.warnings()
    assert warning.startswith("off centre: ") and warning.endswith(" (from 0:00:00 to 0:00:00)")


@pytest.mark.parametrize(
    "source", ["missing.wav", b"no audio at all", 3, None, {"array": np.zeros((2, 2, 2)), "sampling_rate": 1}]
)
def test_what_has_no_duration_is_left_to_the_reader(source):
    assert announced_duration(source) is None


def test_tensors_and_lists_have_a_duration():
    for array in (torch.zeros(2, 16000, requires_grad=True), [0.0] * 16000):
        assert announced_duration({"array": array, "sampling_rate": 8000}) == 2.0


def test_blocks_are_the_recording(tmp_path, samples):
    path = tmp_path / "all.wav"
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    blocks = AudioBlocks(path, RATE)
    assert blocks.announced_s == DURATION_S
    assert np.array_equal(np.concatenate(list(blocks)), samples)
    assert (blocks.clip.duration, blocks.clip.num_channels, len(blocks.clip.samples)) == (DURATION_S, 1, 0)


def test_clock_times():
    assert [clock(seconds) for seconds in (0, 61.9, 3723)] == ["0:00:00", "0:01:01", "1:02:03"]
