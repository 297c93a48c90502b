"""A whole recording: views and windows against one long forward, the common time line, entropies, exits."""

import math

import numpy as np
import pytest
import torch
from tiny import tiny_model

from modeling_easysed import EasySEDFeatureExtractor
from modeling_easysed.metrics import bernoulli_uncertainty
from modeling_easysed.recording_easysed import (
    RecordingSamples,
    frame_line,
    recording_features,
    sample_recording,
    window_sizes,
)
from modeling_easysed.sampling_easysed import Sampling, sigmoid, window_doubt
from modeling_easysed.windows_easysed import join_windows, plan_windows

RATE = 16000
EXTRACTOR = EasySEDFeatureExtractor(feature_size=32, mel_mean=[-40.0] * 32, mel_std=[15.0] * 32)


def make_model(backbone: str = "cnn", **config):
    model = tiny_model(backbone, **{"window_s": 2.0, "context_s": 0.6, **config})
    for head in model.exits:
        torch.nn.init.normal_(head.classifier.weight, generator=torch.Generator().manual_seed(1))
        torch.nn.init.zeros_(head.classifier.bias)
    return model


def make_audio(duration_s: float, seed: int = 0) -> np.ndarray:
    """Noise whose level rises and falls, so that probabilities vary."""
    generator = np.random.default_rng(seed)
    num_samples = round(duration_s * RATE)
    level = np.interp(np.arange(num_samples) / RATE, np.arange(0, 61, 0.5), generator.uniform(0.001, 0.3, 122))
    return (level * generator.standard_normal(num_samples)).clip(-0.99, 0.99).astype(np.float32)


def make_recording(views: dict[int, np.ndarray], num_samples: int, weights: list[float]) -> RecordingSamples:
    """A recording of which only the views are of interest."""
    plain = views[0]
    return RecordingSamples(
        views=views,
        weights=np.array(weights, np.float32),
        exit_logits=plain[:1],
        embeddings=np.zeros((plain.shape[-2], 8)),
        frame_exits=np.ones(plain.shape[-2], int),
        frame_samples=640,
        hop_samples=160,
        num_samples=num_samples,
        log_mel=np.zeros((1 + num_samples // 160, 32)),
    )


# ---- windows ---------------------------------------------------------------------------------------------------------


def test_windows_by_hand():
    assert plan_windows(7, 40, 8, 4) == [(0, 7)]
    assert plan_windows(40, 40, 8, 4) == [(0, 40)]
    assert plan_windows(41, 40, 8, 4) == [(0, 40), (4, 41)]
    assert plan_windows(100, 40, 8, 4) == [(0, 40), (24, 64), (48, 88), (60, 100)]


def test_windows_cover_every_length_once_with_context():
    for num_frames in range(1, 400):
        windows = plan_windows(num_frames, 40, 8, 4)
        assert windows[0][0] == 0 and windows[-1][1] == num_frames
        assert all(start % 4 == 0 and 37 <= stop - start <= 40 for start, stop in windows) or len(windows) == 1
        for left, right in zip(windows, windows[1:], strict=False):
            assert right[0] > left[0] and left[1] - right[0] >= 16
        frames = [np.arange(start // 4, -(-stop // 4))[:, None] for start, stop in windows]
        assert join_windows(frames, windows, 8, 4)[:, 0].tolist() == list(range(-(-num_frames // 4)))


# ---- views over windows ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("window_s", "context_s", "expected"), [(2.0, 0.6, (200, 60)), (1.99, 0.57, (200, 60))])
def test_window_sizes_are_whole_output_frames(window_s, context_s, expected):
    assert window_sizes(make_model(window_s=window_s, context_s=context_s)) == expected


@pytest.mark.parametrize("duration_s", [1.5, 2.005, 7.013, 31.7])
def test_windows_of_every_view_equal_one_long_forward(duration_s):
    model, samples = make_model(), make_audio(duration_s)
    found = sample_recording(model, EXTRACTOR, samples, Sampling("none"), shifts=2)
    features = EXTRACTOR(samples, sampling_rate=RATE).input_values
    assert list(found.views) == [0, 160, 320, 480]
    for start, logits in found.views.items():
        with torch.no_grad():
            expected = model(features[:, start // 160 :]).frame_logits
        assert logits.shape == expected.shape
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found.log_mel, features[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", ["mc", "moments", "exits"])
def test_samples_of_all_windows_equal_those_of_one_long_window(method):
    """The same masks in every window: a thinned network hears the whole recording."""
    samples, sampling = make_audio(7.013), Sampling(method, 4, 1)
    short = sample_recording(make_model(), EXTRACTOR, samples, sampling, shifts=1)
    long = sample_recording(make_model(window_s=30.0), EXTRACTOR, samples, sampling, shifts=1)
    for start, logits in long.views.items():
        np.testing.assert_allclose(short.views[start], logits, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(short.exit_logits, long.exit_logits, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(short.embeddings, long.embeddings, rtol=1e-4, atol=1e-3)
    assert np.array_equal(short.weights, long.weights) and short.weights.sum().item() == pytest.approx(1.0)


def test_the_transformer_takes_views_and_windows_too():
    found = sample_recording(make_model("transformer"), EXTRACTOR, make_audio(5.0), Sampling("mc", 3), shifts=2)
    # 501 log-mel frames; views that begin 0, 1, 2 and 3 of them later have 126, 125, 125 and 125 output frames
    assert [tuple(logits.shape) for logits in found.views.values()] == [(3, 126, 3)] + [(3, 125, 3)] * 3


def test_views_between_log_mel_frames_hear_the_samples_from_their_start_on():
    """Hops of 100 samples: 30 ms are 4.8 of them, so that the features are made anew."""
    extractor = EasySEDFeatureExtractor(feature_size=32, hop_length_samples=100, mel_mean=[-40.0] * 32)
    model, samples = make_model(hop_length_samples=100), make_audio(1.5)
    found = sample_recording(model, extractor, samples, Sampling("none"), shifts=1)
    assert list(found.views) == [0, 80, 320]  # 480 and -480 modulo 400
    for start, logits in found.views.items():
        features = extractor(samples[start % 100 :], sampling_rate=RATE).input_values[:, start // 100 :]
        with torch.no_grad():
            np.testing.assert_allclose(logits, model(features).frame_logits, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("num_samples", [1, 79, 80, 81, 100, 320, 321, 500])
def test_the_shortest_recordings_with_such_views(num_samples):
    extractor = EasySEDFeatureExtractor(feature_size=32, hop_length_samples=100)
    samples = make_audio(1.0)[:num_samples]
    found = sample_recording(make_model(hop_length_samples=100), extractor, samples, Sampling("none"), shifts=2)
    probabilities = frame_line(found).probabilities
    assert len(probabilities) == len(found.grid()) and np.isfinite(probabilities).all()


@pytest.mark.parametrize(
    ("num_samples", "starts", "grid"),
    [
        (1, [0], [0]),
        (159, [0], [0]),
        (161, [0, 160], [0, 160]),
        (479, [0, 160, 320], [0, 160, 320]),
        (700, [0, 160, 320, 480], [0, 160, 320, 480, 640]),
    ],
)
def test_short_recordings_have_the_views_that_start_in_them(num_samples, starts, grid):
    found = sample_recording(make_model(), EXTRACTOR, make_audio(1.0)[:num_samples], Sampling("none"), shifts=2)
    assert list(found.views) == starts and found.grid().tolist() == grid
    assert frame_line(found).probabilities.shape == (len(grid), 3)


def test_features_made_in_blocks_are_those_of_one_transform(monkeypatch):
    samples = make_audio(5.003)
    whole = recording_features(EXTRACTOR, samples)
    monkeypatch.setattr("modeling_easysed.recording_easysed.FEATURE_BLOCK_FRAMES", 70)
    blocks = recording_features(EXTRACTOR, samples)
    assert blocks.shape == whole.shape == (501, 32)
    np.testing.assert_allclose(blocks, whole, atol=1e-4, rtol=0)


def test_progress_counts_windows_of_all_views():
    calls = []
    arguments = {"shifts": 2, "progress": lambda *counts: calls.append(counts)}
    sample_recording(make_model(), EXTRACTOR, make_audio(12.0), Sampling("none"), **arguments)
    assert calls == [(done, 56) for done in range(1, 57)]  # 14 windows, 4 views


def test_an_exception_leaves_the_model_as_it_was():
    model = make_model().train()
    model.exits[1].eval()
    modes = [module.training for module in model.modules()]

    def fail(done: int, total: int) -> None:
        assert not model.training
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample_recording(model, EXTRACTOR, make_audio(1.0), Sampling("mc"), progress=fail)
    assert [module.training for module in model.modules()] == modes


# ---- exits that stop early -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "expected", "deep_calls"), [(math.inf, 1, 0), (0.0, 3, 56)])
def test_limits_stop_every_window_or_none(limit, expected, deep_calls):
    model, samples = make_model(), make_audio(12.0)
    calls = []
    model.easysed.backbone.temporal_stage.register_forward_hook(lambda *_: calls.append(1))
    found = sample_recording(model, EXTRACTOR, samples, Sampling("mc", 3), 2, None, [limit, limit])
    assert found.frame_exits.tolist() == [expected] * 301 and len(calls) == deep_calls
    plain = sample_recording(model, EXTRACTOR, samples, Sampling("mc", 3), 2, expected)
    assert all(np.array_equal(found.views[start], plain.views[start]) for start in found.views)
    assert np.isnan(found.exit_logits).all((1, 2)).tolist() == [number > expected for number in (1, 2, 3)]


def test_views_follow_the_exit_that_the_plain_view_chose():
    model, samples = make_model(), make_audio(12.0)
    every = sample_recording(model, EXTRACTOR, samples, Sampling("none"))
    # two windows of 2 s far apart, as the network hears them: a limit between their doubts stops one of the two
    features = torch.from_numpy(recording_features(EXTRACTOR, samples))
    with torch.no_grad():
        alone = [model(features[None, i : i + 200], exit_index=1).frame_logits[0].numpy() for i in (0, 800)]
    doubts = [window_doubt(logits, 0.04) for logits in alone]
    limits = [sum(doubts) / 2, 0.0]
    found = sample_recording(model, EXTRACTOR, samples, Sampling("none"), 2, None, limits)
    assert set(found.frame_exits.tolist()) == {1, 3}
    for number in (1, 3):
        own = found.frame_exits == number
        np.testing.assert_allclose(found.views[0][0, own], every.exit_logits[number - 1, own], rtol=1e-4, atol=1e-3)
    exits = {number: sample_recording(model, EXTRACTOR, samples, Sampling("none"), 2, number) for number in (1, 3)}
    for start, logits in found.views.items():
        for number, alone in exits.items():
            own = found.frame_exits[: logits.shape[1]] == number
            np.testing.assert_allclose(logits[0, own], alone.views[start][0, own], rtol=1e-4, atol=1e-3)


# ---- the common line -------------------------------------------------------------------------------------------------


def test_one_view_keeps_its_frames_and_its_entropies_are_those_of_the_metrics():
    logits = 3 * np.random.default_rng(0).standard_normal((20, 7, 3), np.float32)
    recording = make_recording({0: logits}, 4000, [0.05] * 20)
    assert recording.grid().tolist() == [0, 640, 1280, 1920, 2560, 3200, 3840]
    line, expected = frame_line(recording), bernoulli_uncertainty(sigmoid(logits))
    np.testing.assert_allclose(line.probabilities, sigmoid(logits).mean(0), rtol=0, atol=1e-6)
    np.testing.assert_allclose(line.total, expected.total, atol=1e-5)
    np.testing.assert_allclose(line.aleatoric, expected.expected, atol=1e-5)
    np.testing.assert_allclose(line.total - line.aleatoric, expected.mutual_information, atol=1e-5)


def test_views_count_as_samples_too():
    """At the centre of frames that two views share, theirs are samples of one more ensemble."""
    generator = np.random.default_rng(0)
    views = {start: 3 * generator.standard_normal((4, 3, 2), np.float32) for start in (0, 320)}
    line = frame_line(make_recording(views, 1600, [0.25] * 4))
    assert len(line.probabilities) == 11
    for index in range(2):
        for name, of in (
            ("probabilities", lambda p: p),
            ("aleatoric", lambda p: -p * np.log(p) - (1 - p) * np.log1p(-p)),
        ):
            lines = []
            for start, logits in views.items():
                values = of(sigmoid(logits[:, :, index].astype(np.float64))).mean(0)
                lines.append(np.interp(np.arange(11) * 160, start + 640 * np.arange(3), values))
            np.testing.assert_allclose(getattr(line, name)[:, index], np.mean(lines, axis=0), atol=1e-5)
    expected = bernoulli_uncertainty(line.probabilities[None].astype(np.float64)).total
    np.testing.assert_allclose(line.total, expected, atol=1e-5)
    assert (line.total >= line.aleatoric).all()


def test_weights_and_temperatures():
    logits = np.array([[[0.0], [2.0]], [[4.0], [-2.0]]], np.float32)
    recording = make_recording({0: logits}, 700, [0.75, 0.25])
    found = frame_line(recording, np.array([2.0, 0.5])).probabilities[:, 0].tolist()
    known = [1 / (1 + math.exp(-value)) for value in (0.0, 2.0, 4.0, -4.0)]
    expected = [0.75 * known[0] + 0.25 * known[1], 0.75 * known[2] + 0.25 * known[3]]
    assert found == pytest.approx(expected, abs=1e-6)


def test_certain_samples_have_no_entropy_and_equal_samples_no_epistemic_one():
    line = frame_line(make_recording({0: np.array([[[-200.0], [200.0], [0.0]]] * 2)}, 1400, [0.5, 0.5]))
    assert line.total[:, 0].tolist() == pytest.approx([0.0, 0.0, math.log(2)], abs=1e-6)
    np.testing.assert_allclose(line.aleatoric, line.total, rtol=0, atol=1e-6)
    apart = frame_line(make_recording({0: np.array([[[-200.0]], [[200.0]]])}, 100, [0.5, 0.5]))
    assert apart.total.item() == pytest.approx(math.log(2)) and apart.aleatoric.item() == pytest.approx(0.0, abs=1e-6)
