"""Inference augmentation: view starts, interpolation, no wrap-around, and borders in time through the pipeline."""

import numpy as np
import pytest
import torch
from tiny import tiny_model

from modeling_easysed import EasySEDFeatureExtractor, SoundEventDetectionPipeline
from modeling_easysed.sampling_easysed import WindowSamples
from modeling_easysed.shifts_easysed import average_views, interpolate_frames, view_starts

RATE = 16000
FLOOR_DB, CLICK_LEVEL, CLICK_S = -60.0, 0.3, 0.2


# ---- the parts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shifts", "rate", "frame_samples", "expected"),
    [
        (0, 16000, 640, [0]),
        (1, 16000, 640, [0, 160, 480]),  # -30 ms = 10 ms in a frame of 40 ms, +30 ms
        (2, 16000, 640, [0, 160, 320, 480]),  # -60 = 20 ms, +60 = 20 ms: one view
        (3, 16000, 640, [0, 160, 320, 480]),
        (16, 16000, 640, [0, 160, 320, 480]),
        (2, 16000, 320, [0, 160]),  # frames of 20 ms
        (1, 16000, 480, [0]),  # frames of 30 ms: every shift is a whole frame
        (1, 22050, 1000, [0, 338, 662]),  # 661.5 samples, rounded
        (2, 16000, 400, [0, 80, 160, 240, 320]),  # frames of 25 ms: -60, -30, 30, 60 = 15, 20, 5, 10 ms
    ],
)
def test_view_starts_by_hand(shifts, rate, frame_samples, expected):
    assert view_starts(shifts, rate, frame_samples) == expected


@pytest.mark.parametrize("shifts", [-1, 17, 1.5, True, "2", None])
def test_number_of_shifts_out_of_range(shifts):
    with pytest.raises(ValueError, match=f"shifts must be a whole number from 0 to 16, got {shifts!r}; 2 is usual"):
        view_starts(shifts, RATE, 640)


@pytest.mark.parametrize("num_frames", [1, 2, 9])
@pytest.mark.parametrize("start", [0, 160, 480])
def test_interpolation_equals_numpy(num_frames, start):
    values = np.random.default_rng(0).random((2, num_frames, 3), np.float32)
    times = np.arange(0, 6000, 37)
    found = interpolate_frames(values, start, 640, times)
    assert found.shape == (2, len(times), 3)
    centres = start + 640 * np.arange(num_frames)
    for sample in range(2):
        for index in range(3):
            expected = np.interp(times, centres, values[sample, :, index])
            np.testing.assert_allclose(found[sample, :, index], expected, atol=1e-6)


def test_interpolation_far_into_a_day_is_exact():
    values = np.arange(2_200_000, dtype=np.float32)[:, None] % 2
    times = np.array([640 * 2_160_000, 640 * 2_160_000 + 160, 640 * 2_160_001 + 480])
    assert interpolate_frames(values, 0, 640, times)[:, 0].tolist() == pytest.approx([0.0, 0.25, 0.25])


def test_views_are_averaged_where_they_are_heard():
    views = {0: np.array([[0.0], [4.0], [8.0]]), 320: np.array([[2.0], [0.0]])}
    times = np.array([0, 320, 640, 960, 1280])
    # 0: 0 2 4 6 8, centred at 0, 640, 1280; 320: 2 2 1 0 0, centred at 320, 960
    assert average_views(views, 640, times)[:, 0].tolist() == [1.0, 2.0, 2.5, 3.0, 4.0]


# ---- through the pipeline --------------------------------------------------------------------------------------------


def make_pipe(backbone: str = "cnn", **config) -> SoundEventDetectionPipeline:
    model = tiny_model(backbone, **{"window_s": 2.0, "context_s": 0.6, **config})
    for head in model.exits:
        torch.nn.init.normal_(head.classifier.weight, generator=torch.Generator().manual_seed(1))
        torch.nn.init.zeros_(head.classifier.bias)
    extractor = EasySEDFeatureExtractor(feature_size=32, mel_mean=[-40.0] * 32, mel_std=[15.0] * 32)
    return SoundEventDetectionPipeline(model=model, feature_extractor=extractor, device="cpu")


def as_source(samples: np.ndarray) -> dict:
    return {"array": samples.astype(np.float32), "sampling_rate": RATE}


def make_noise(duration_s: float, seed: int = 0) -> np.ndarray:
    """Noise whose level rises and falls, so that probabilities vary."""
    generator = np.random.default_rng(seed)
    num_samples = round(duration_s * RATE)
    level = np.interp(np.arange(num_samples) / RATE, np.arange(0, 61, 0.5), generator.uniform(0.001, 0.3, 122))
    return (level * generator.standard_normal(num_samples)).clip(-0.99, 0.99)


def click_train(num_clicks: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Samples, and onsets in seconds: bursts of white noise at times that lie on no grid."""
    generator = np.random.default_rng(0)
    onsets = 0.5 + 0.9 * np.arange(num_clicks) + generator.uniform(0, 0.3, num_clicks)
    samples = 1e-4 * generator.standard_normal(round((onsets[-1] + 1) * RATE))
    for onset in onsets:
        inside = slice(round(onset * RATE), round((onset + CLICK_S) * RATE))
        samples[inside] += CLICK_LEVEL * generator.standard_normal(inside.stop - inside.start).clip(-3, 3)
    return samples, onsets


@pytest.fixture
def click_pipe(monkeypatch) -> SoundEventDetectionPipeline:
    """Hears an event in an output frame as far as the three log-mel frames around its centre are loud.

    A log-mel frame centred on an onset holds half of the click's energy, 3 dB less than one inside: there is the step.
    The mean line is then a ramp with the onset in its middle, so that an event begins at half of its level.
    """
    pipe = make_pipe(decoding={"default": {"edge_level": 0.5}})
    inside = CLICK_LEVEL * np.random.default_rng(1).standard_normal(RATE).clip(-3, 3).astype(np.float32)
    loud = pipe.feature_extractor(inside, sampling_rate=RATE).input_values.mean().item()
    threshold = loud - 3.0 / 15.0

    def hear_clicks(model, values, sampling, exit_index, doubt_limits=(), with_all_exits=True) -> WindowSamples:
        is_loud = np.pad(values.mean(-1) > threshold, 1, mode="edge")
        around = np.lib.stride_tricks.sliding_window_view(is_loud, 3)[::4].mean(-1).clip(1e-4, 1 - 1e-4)
        logits = np.full((len(around), 3), -9.0, np.float32)
        logits[:, 0] = np.log(around / (1 - around))
        every = np.repeat(logits[None], model.num_exits, axis=0)
        return WindowSamples(logits[None], np.ones(1), exit_index, every, np.zeros((len(logits), 8)))

    monkeypatch.setattr("modeling_easysed.recording_easysed.sample_window", hear_clicks)
    return pipe


def borders(pipe: SoundEventDetectionPipeline, samples: np.ndarray, shifts: int) -> np.ndarray:
    """(events, 2) onsets and offsets in seconds."""
    return np.array([(event.onset, event.offset) for event in pipe(as_source(samples), shifts=shifts).events])


def test_onsets_of_a_click_train_come_back_within_ten_milliseconds(click_pipe):
    samples, onsets = click_train()
    truth = np.stack([onsets, onsets + CLICK_S], axis=1)
    plain, shifted = (np.abs(borders(click_pipe, samples, shifts) - truth) for shifts in (0, 2))
    assert shifted.max() < 0.010
    # borders on a grid of 40 ms are 10 ms off on average, on one of 10 ms 2.5
    assert plain.mean() > 0.009 and shifted.mean() < 0.004
    assert plain.max() > 0.018


def test_a_recording_moved_by_thirty_milliseconds_has_its_events_thirty_later(click_pipe):
    samples, _ = click_train()
    lead = 1e-4 * np.random.default_rng(2).standard_normal(480)
    first, moved = borders(click_pipe, samples, 2), borders(click_pipe, np.concatenate([lead, samples]), 2)
    np.testing.assert_allclose(moved, first + 0.03, atol=1e-6)
    plain, moved_plain = borders(click_pipe, samples, 0), borders(click_pipe, np.concatenate([lead, samples]), 0)
    assert np.abs(moved_plain - plain - 0.03).max() > 0.009  # what the shifts are for


@pytest.mark.parametrize("method", ["none", "mc", "moments", "exits"])
def test_probabilities_move_with_the_recording(method):
    pipe, samples = make_pipe(), make_noise(6.0)
    moved = np.concatenate([make_noise(0.03, seed=1), samples])
    first, later = (pipe(as_source(one), uncertainty=method) for one in (samples, moved))
    reach = 60  # log-mel frames that a border of the file is heard
    np.testing.assert_allclose(later.probabilities[reach + 3 : -reach], first.probabilities[reach:-reach], atol=1e-4)
    np.testing.assert_allclose(later.uncertainty[reach + 3 : -reach], first.uncertainty[reach:-reach], atol=1e-3)
    assert first.probabilities.std() > 0.1


def test_the_end_of_a_file_is_not_heard_at_its_beginning_nor_the_other_way():
    pipe, samples = make_pipe(), make_noise(6.0)
    whole = pipe(as_source(samples)).probabilities
    other_end, other_beginning = samples.copy(), samples.copy()
    other_end[-8000:] = 0
    other_beginning[:8000] = 0
    middle = len(whole) // 2
    np.testing.assert_allclose(pipe(as_source(other_end)).probabilities[:middle], whole[:middle], atol=1e-5)
    found = pipe(as_source(other_beginning)).probabilities
    np.testing.assert_allclose(found[middle:], whole[middle:], atol=1e-5)
    assert np.abs(found[:50] - whole[:50]).max() > 0.1


@pytest.mark.parametrize("num_samples", [1, 159, 160, 161, 479, 480, 481, 640, 3200])
def test_recordings_as_short_as_the_shifts(num_samples):
    pipe, samples = make_pipe(), make_noise(1.0)[:num_samples]
    found = pipe(as_source(samples))
    assert len(found.probabilities) == len(found.frame_times) <= 1 + num_samples // 160
    assert np.isfinite(found.probabilities).all() and found.frame_times[-1] <= found.duration
    if num_samples < 160:  # every shift begins after the end: the plain view alone
        plain = pipe(as_source(samples), shifts=0).probabilities
        np.testing.assert_array_equal(found.probabilities, plain)
