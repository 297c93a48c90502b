"""Audio in blocks of any size against the same audio as a whole."""

import numpy as np
import pytest
from test_recording import EXTRACTOR, RATE, make_audio, make_model

from modeling_easysed.listening_easysed import FeatureLine, Listener
from modeling_easysed.recording_easysed import frame_line, recording_features, sample_recording
from modeling_easysed.sampling_easysed import Sampling


def blocks_of(samples: np.ndarray, seed: int, longest_s: float = 2.0) -> list[np.ndarray]:
    """Pieces of 10 ms to `longest_s`, in order."""
    rng = np.random.default_rng(seed)
    sizes = (RATE * np.exp(rng.uniform(np.log(0.01), np.log(longest_s), len(samples)))).astype(int)
    cuts = np.cumsum(sizes)
    return np.split(samples, cuts[cuts < len(samples)])


@pytest.mark.parametrize("duration_s", [0.005, 0.3, 5.0])
@pytest.mark.parametrize("skip", [0, 70])
def test_frames_of_blocks_are_those_of_the_whole(duration_s, skip):
    samples = make_audio(duration_s, seed=3)
    line = FeatureLine(EXTRACTOR, skip)
    for block in blocks_of(samples, 1, 0.2):
        line.push(block)
    line.push(np.zeros(0, np.float32), is_last=True)
    expected = recording_features(EXTRACTOR, samples[skip:])
    assert line.frames.shape == expected.shape
    assert np.allclose(line.frames, expected, atol=1e-4)


def test_forgotten_frames_are_gone_and_the_others_stay():
    samples = make_audio(4.0)
    line, expected = FeatureLine(EXTRACTOR), recording_features(EXTRACTOR, samples)
    for block in blocks_of(samples, 2):
        line.push(block)
        line.forget(line.stop - 20)
        assert len(line.frames) <= 20 and line._samples.nbytes < 4 * 2.1 * RATE
        assert np.allclose(line.frames, expected[line.first : line.stop], atol=1e-4)
    assert line.stop > 350


@pytest.mark.parametrize("duration_s", [0.008, 0.5, 2.0, 2.01, 2.03, 3.17, 7.777])
@pytest.mark.parametrize(
    ("backbone", "method", "shifts"), [("cnn", "mc", 2), ("transformer", "none", 0), ("cnn", "exits", 1)]
)
def test_blocks_give_what_the_whole_gives(backbone, method, shifts, duration_s):
    model, samples, sampling = make_model(backbone), make_audio(duration_s), Sampling(method, 3)
    limits = (0.3,) if method == "mc" else ()
    whole = sample_recording(model, EXTRACTOR, samples, sampling, shifts, doubt_limits=limits)
    line = frame_line(whole)
    listener = Listener(model, EXTRACTOR, sampling, shifts, doubt_limits=limits)
    for block in blocks_of(samples, 5, 1.0):
        listener.push(block)
    listener.finish()
    heard = listener.heard
    assert heard.num_points == len(line.probabilities)
    assert set(heard.recording.views) == set(whole.views)
    for start, logits in whole.views.items():
        assert heard.recording.views[start].shape == logits.shape
    for name in ("exit_logits", "embeddings", "log_mel"):
        assert np.allclose(getattr(heard.recording, name), getattr(whole, name), atol=1e-3, equal_nan=True)
    assert heard.recording.frame_exits.tolist() == whole.frame_exits.tolist()
    assert np.allclose(heard.raw, line.probabilities, atol=1e-4)
    for own, expected in zip(heard.line, line, strict=True):
        assert np.allclose(own, expected, atol=1e-4)


def test_frames_may_be_forgotten_on_the_way():
    model, samples = make_model(), make_audio(20.0)
    sampling = Sampling("mc", 3)
    line = frame_line(sample_recording(model, EXTRACTOR, samples, sampling, 2))
    listener, points, longest = Listener(model, EXTRACTOR, sampling, 2), [], 0
    for block in blocks_of(samples, 6):
        listener.push(block)
        heard = listener.heard
        if heard.recording is not None:
            points += heard.raw[len(points) - heard.first_point :].tolist()
            heard.forget(heard.num_points)
            longest = max(longest, len(heard.recording.frame_exits))
    listener.finish()
    points += listener.heard.raw[len(points) - listener.heard.first_point :].tolist()
    assert np.allclose(np.array(points), line.probabilities, atol=1e-4)
    assert longest < 20


def test_temperatures_divide_the_logits_of_their_exit():
    model, samples = make_model(), make_audio(5.0)
    sampling = Sampling("none")
    whole = sample_recording(model, EXTRACTOR, samples, sampling, 2)
    listener = Listener(model, EXTRACTOR, sampling, 2, temperatures=lambda exits: np.full(len(exits), 2.0))
    listener.push(samples)
    listener.finish()
    expected = frame_line(whole, np.full(len(whole.frame_exits), 2.0))
    assert np.allclose(listener.heard.line.probabilities, expected.probabilities, atol=1e-4)
    assert np.allclose(listener.heard.raw, frame_line(whole).probabilities, atol=1e-4)


def test_nothing_pushed_is_an_error():
    with pytest.raises(ValueError, match="push some"):
        Listener(make_model(), EXTRACTOR, Sampling()).finish()
