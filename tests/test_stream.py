"""Streams against the recording as a whole, and what they refuse."""

import numpy as np
import pytest
import torch
from test_listening import blocks_of
from test_pipeline import RATE, as_source, loudness_window, make_audio, make_pipe

from modeling_easysed import EventStream
from modeling_easysed.audio_easysed import AudioError


@pytest.fixture(scope="module")
def pipe():
    return make_pipe()


@pytest.fixture
def loud_is_an_event(monkeypatch):
    for module in ("recording_easysed", "listening_easysed"):
        monkeypatch.setattr(f"modeling_easysed.{module}.sample_window", loudness_window)


def bursts(*spans_s: tuple[float, float], duration_s: float) -> np.ndarray:
    """White noise of full level within spans, of -80 dB outside."""
    noise = np.random.default_rng(0).uniform(-1, 1, round(duration_s * RATE)).astype(np.float32)
    level = np.full(len(noise), 1e-4, np.float32)
    for onset, offset in spans_s:
        level[round(onset * RATE) : round(offset * RATE)] = 0.5
    return noise * level


def all_events(stream: EventStream, blocks: list[np.ndarray]) -> list:
    return sorted([event for block in blocks for event in stream.push(block)] + stream.close(), key=lambda e: e.onset)


def times(events) -> list[tuple[str, float, float]]:
    return sorted((event.label, event.onset, event.offset) for event in events)


def assert_same_times(found, expected) -> None:
    found, expected = times(found), times(expected)
    assert [label for label, *_ in found] == [label for label, *_ in expected]
    assert np.array([both for _, *both in found]) == pytest.approx(np.array([both for _, *both in expected]), abs=0.1)


def make_busy(pipe, samples: np.ndarray) -> None:
    """Scales the deepest exit's logits to a mean of -2 and a deviation of 3, and lets every ripple be an event."""
    features = pipe.feature_extractor(samples, sampling_rate=RATE).input_values
    with torch.no_grad():
        logits = pipe.model(features).frame_logits[0]
        factor, classifier = 3.0 / logits.std(0), pipe.model.exits[-1].classifier
        classifier.weight *= factor.view(-1, *[1] * (classifier.weight.ndim - 1))
        classifier.bias.copy_(factor * (classifier.bias - logits.mean(0)) - 2.0)
    ripples = {"threshold": 0.02, "relative_limit": 1.1, "absolute_limit": 0.005, "edge_level": 0.6}
    pipe.model.config.decoding = {"method": "boxes", "default": ripples}


@pytest.mark.parametrize("backbone", ["cnn", "transformer"])
@pytest.mark.parametrize("seed", [0, 1])
def test_blocks_of_any_size_give_the_events_of_the_recording(backbone, seed):
    pipe, samples = make_pipe(backbone), make_audio(40.0, seed)
    make_busy(pipe, samples)
    offline = pipe(as_source(samples), exit=pipe.model.num_exits, passes=3).events
    found = all_events(EventStream(pipe, RATE, passes=3), blocks_of(samples, seed))
    assert len(offline) > 10
    assert_same_times(found, offline)


def test_the_models_own_windows_give_auto_as_the_recording_does():
    pipe, samples = make_pipe(), make_audio(20.0, 3)
    make_busy(pipe, samples)
    stream = EventStream(pipe, RATE, exit="auto", passes=3, window_s=2.0)
    offline = pipe(as_source(samples), passes=3).events
    assert_same_times(all_events(stream, blocks_of(samples, 1)), offline)


@pytest.mark.parametrize(("rate", "as_pcm", "channels"), [(44100, False, 1), (8000, True, 2), (48000, True, 1)])
def test_other_rates_channels_and_integers(pipe, loud_is_an_event, rate, as_pcm, channels):
    pipe_s, spans = 8.0, [(1.0, 1.6), (3.5, 5.0)]
    at_16k = bursts(*spans, duration_s=pipe_s)
    samples = np.interp(np.arange(round(pipe_s * rate)) / rate, np.arange(len(at_16k)) / RATE, at_16k)
    samples = np.repeat(samples[:, None], channels, axis=1) if channels > 1 else samples
    samples = (samples * 32767).astype(np.int16) if as_pcm else samples.astype(np.float32)
    stream = EventStream(pipe, rate, uncertainty="none")
    found = all_events(stream, [samples[start : start + 777] for start in range(0, len(samples), 777)])
    assert [event.label for event in found] == ["dog_bark"] * 2
    for event, (onset, offset) in zip(found, spans, strict=True):
        assert (event.onset, event.offset) == pytest.approx((onset, offset), abs=0.1)
    assert stream.duration == pipe_s


def test_every_event_comes_once_and_within_the_stated_latency(pipe, loud_is_an_event):
    spans = [(0.5, 0.9), (4.0, 4.3), (4.6, 6.2), (11.3, 13.0)]
    stream, samples = EventStream(pipe, RATE, uncertainty="none"), bursts(*spans, duration_s=30.0)
    came = []
    for start in range(0, len(samples), RATE // 50):
        came += [(event, stream.duration) for event in stream.push(samples[start : start + RATE // 50])]
    assert stream.close() == []
    assert [(event.onset, event.offset) for event, _ in came] == [pytest.approx(span, abs=0.05) for span in spans]
    assert 1.0 < stream.latency_s < 5.0
    silent_from = [0.9, 6.2, 6.2, 13.0]  # between the second and the third there is no second of silence
    for (_, at_s), silent_s in zip(came, silent_from, strict=True):
        assert silent_s < at_s <= silent_s + stream.latency_s + 0.05


def test_what_sounds_is_told_and_not_reported_before_it_is_over(pipe, loud_is_an_event):
    stream, samples = EventStream(pipe, RATE, uncertainty="none"), bursts((2.0, 9.0), duration_s=14.0)
    reported = []
    for second in range(14):
        reported += stream.push(samples[second * RATE : (second + 1) * RATE])
        sounding = stream.sounding()
        if 5 <= second < 9:
            assert [event.label for event in sounding] == ["dog_bark"] and reported == []
            assert sounding[0].onset == pytest.approx(2.0, abs=0.05)
            assert second - 2 < sounding[0].offset <= second + 1
    assert stream.sounding() == [] and len(reported + stream.close()) == 1


def test_minutes_leave_nothing_behind(pipe, loud_is_an_event):
    spans = [(start, start + 1.0) for start in range(1, 290, 5)]
    stream, samples = EventStream(pipe, RATE, uncertainty="none", shifts=0), bursts(*spans, duration_s=300.0)
    found, longest = [], 0
    for start in range(0, len(samples), RATE):
        found += stream.push(samples[start : start + RATE])
        heard, lines = stream._listener.heard, stream._listener.lines.values()
        kept = 0 if heard.recording is None else len(heard.recording.log_mel)
        longest = max(longest, kept, *(len(line.frames) for line in lines))
    assert len(found + stream.close()) == len(spans)
    assert longest < 1000  # log-mel frames of 10 ms


def test_an_hour_in_one_block_is_taken_in_pieces(pipe, monkeypatch):
    sizes = []
    stream = EventStream(pipe, RATE)
    monkeypatch.setattr(stream, "_hear", lambda samples: sizes.append(len(samples)) or [])
    stream.push(np.zeros(3600 * RATE, np.float32))
    assert max(sizes) == 10 * RATE and sum(sizes) == 3600 * RATE


def test_damaged_blocks_are_refused_and_the_stream_goes_on(pipe, loud_is_an_event):
    samples = bursts((1.0, 2.0), duration_s=6.0)
    stream = EventStream(pipe, RATE, uncertainty="none")
    found = stream.push(samples[:RATE])
    with pytest.raises(AudioError, match=r"at 1\.000 s has samples that are NaN"):
        stream.push(np.full(100, np.nan, np.float32))
    for wrong in (np.zeros((2, 3, 4), np.float32), np.array(["a"]), np.zeros(3, complex)):
        with pytest.raises(AudioError):
            stream.push(wrong)
    assert stream.push([]) == []
    found += stream.push(samples[RATE:]) + stream.close()
    assert times(found) == [("dog_bark", pytest.approx(1.0, abs=0.05), pytest.approx(2.0, abs=0.05))]


def test_a_closed_stream_takes_nothing_more(pipe):
    stream = EventStream(pipe, RATE)
    assert stream.close() == [] and stream.close() == [] and stream.sounding() == []
    with pytest.raises(ValueError, match="closed"):
        stream.push(np.zeros(10, np.float32))


@pytest.mark.parametrize("num_samples", [1, 3, 200])
def test_a_stream_of_next_to_nothing(pipe, num_samples):
    stream = EventStream(pipe, 48000)
    assert stream.push(np.zeros(num_samples, np.float32)) == []
    stream.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window_s": 1.0}, "window_s must be more than 1.2 and at most 2"),
        ({"window_s": 2.5}, "window_s must be"),
        ({"exit": 4}, "exit must be"),
        ({"passes": 0}, "passes"),
        ({"shifts": -1}, "shifts"),
        ({"uncertainty": "magic"}, "uncertainty"),
        ({"min_precision": 0.9}, "calibration"),
    ],
)
def test_settings_that_are_refused(pipe, settings, message):
    with pytest.raises(ValueError, match=message):
        EventStream(pipe, RATE, **settings)


def test_a_rate_that_no_sound_has(pipe):
    with pytest.raises(AudioError, match="sampling_rate"):
        EventStream(pipe, 16)
