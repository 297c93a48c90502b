"""The front end: values, time line, masks, round trip, errors."""

import numpy as np
import pytest
import torch
from transformers import ASTFeatureExtractor, AutoFeatureExtractor

from modeling_easysed import EasySEDFeatureExtractor
from modeling_easysed import recording_easysed as recording

RATE = 16000


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(num_samples).astype(np.float32) * 0.1


def fitted() -> EasySEDFeatureExtractor:
    return EasySEDFeatureExtractor(mel_mean=[-40.0 + i / 10 for i in range(64)], mel_std=[12.0] * 64)


@pytest.mark.parametrize("num_samples", [1, 159, 160, 400, 16000, 16001])
def test_number_of_frames(num_samples):
    extractor = EasySEDFeatureExtractor()
    features = extractor(noise(num_samples), sampling_rate=RATE)
    assert features["input_values"].shape == (1, 1 + num_samples // 160, 64)
    assert features["attention_mask"].sum() == extractor.num_frames(num_samples)
    assert torch.isfinite(features["input_values"]).all()


def test_log_mel_equals_an_independent_computation():
    """Plain numpy: frame, window, FFT, triangular HTK mel filters, dB."""
    samples = noise(4000)
    padded = np.pad(samples.astype(np.float64), 256)
    window = np.zeros(512)
    window[56:456] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    power = np.stack([np.abs(np.fft.rfft(padded[t * 160 : t * 160 + 512] * window)) ** 2 for t in range(26)])
    mel = lambda hz: 2595.0 * np.log10(1.0 + hz / 700.0)  # noqa: E731
    borders = 700.0 * (10 ** (np.linspace(mel(50.0), mel(8000.0), 66) / 2595.0) - 1.0)
    hz = np.linspace(0, 8000, 257)[:, None]
    rising = (hz - borders[:-2]) / np.diff(borders)[:-1]
    falling = (borders[2:] - hz) / np.diff(borders)[1:]
    expected = 10 * np.log10(power @ np.clip(np.minimum(rising, falling), 0, None) + 1e-30)
    got = EasySEDFeatureExtractor().log_mel(torch.from_numpy(samples)[None])[0].numpy()
    np.testing.assert_allclose(got, np.maximum(expected, -100), atol=2e-3)


def test_an_impulse_lies_at_its_frame():
    samples = np.zeros(RATE, dtype=np.float32)
    samples[8000] = 1.0
    energy = EasySEDFeatureExtractor().log_mel(torch.from_numpy(samples)[None])[0].mean(-1)
    assert int(energy.argmax()) == 50


def test_batch_equals_single_clips_and_is_zero_after_them():
    extractor, clips = fitted(), [noise(9000, 1), noise(1, 2), noise(5003, 3)]
    batch = extractor(clips, sampling_rate=RATE)
    for row, clip in enumerate(clips):
        single = extractor(clip, sampling_rate=RATE)["input_values"][0]
        torch.testing.assert_close(batch["input_values"][row, : len(single)], single, rtol=0, atol=1e-4)
        assert batch["attention_mask"][row].sum() == len(single)
        assert not batch["input_values"][row, len(single) :].any()


def test_round_trip_gives_equal_features(tmp_path):
    extractor = fitted()
    extractor.save_pretrained(tmp_path)
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path, trust_remote_code=True)
    clip = noise(8000)
    first, second = extractor(clip, sampling_rate=RATE), loaded(clip, sampling_rate=RATE)
    assert torch.equal(first["input_values"], second["input_values"])
    assert "mel_filters" not in (tmp_path / "preprocessor_config.json").read_text()


def test_normalisation():
    extractor = fitted()
    log_mel = torch.full((1, 2, 64), -28.0)
    expected = (-28.0 - torch.tensor(extractor.mel_mean)) / 12.0
    torch.testing.assert_close(extractor.normalize(log_mel)[0, 0], expected)
    assert torch.equal(EasySEDFeatureExtractor().normalize(log_mel), log_mel)


@pytest.mark.parametrize("kind", ["np", None])
def test_return_tensors(kind):
    assert isinstance(fitted()(noise(400), sampling_rate=RATE, return_tensors=kind)["input_values"], np.ndarray)


@pytest.mark.parametrize(
    ("audio", "rate", "message"),
    [
        (noise(100), 44100, "sampling_rate must be the model's 16000 Hz, got 44100"),
        (noise(100), None, "sampling_rate must be the model's 16000 Hz, got None"),
        (np.zeros(0, dtype=np.float32), RATE, "at least 1 sample, got 0"),
        ([], RATE, "at least 1 sample, got 0|floating point"),
        ([np.zeros((2, 50), dtype=np.float32)], RATE, r"mono with shape \(samples,\), got \(2, 50\)"),
        (np.array([0.1, np.nan], dtype=np.float32), RATE, "samples must be finite"),
        (np.array([0.1, np.inf], dtype=np.float32), RATE, "samples must be finite"),
        (np.zeros(100, dtype=np.int16), RATE, "floating point with full scale 1, got torch.int16"),
    ],
)
def test_bad_input(audio, rate, message):
    with pytest.raises(ValueError, match=message):
        EasySEDFeatureExtractor()(audio, sampling_rate=rate)


def test_bad_sizes():
    with pytest.raises(ValueError, match="window_length_samples must be in 1..fft_length_samples=512, got 600"):
        EasySEDFeatureExtractor(window_length_samples=600)
    with pytest.raises(ValueError, match="mel_mean must have feature_size=64 values, got 2"):
        EasySEDFeatureExtractor(mel_mean=[0.0, 1.0])
    with pytest.raises(ValueError, match=r"transform must be one of \('centered', 'kaldi'\), got 'htk'"):
        EasySEDFeatureExtractor(transform="htk")


# ---- the front end of the Audio Spectrogram Transformer --------------------------------------------------------------


def ast_extractors(folder, **sizes) -> tuple[ASTFeatureExtractor, EasySEDFeatureExtractor]:
    """That of transformers, and ours made from its folder."""
    ASTFeatureExtractor(**sizes).save_pretrained(folder)
    return ASTFeatureExtractor.from_pretrained(folder), EasySEDFeatureExtractor.from_ast(folder)


def kinds_of_audio() -> dict[str, np.ndarray]:
    times = np.arange(24000, dtype=np.float32) / RATE
    impulse = np.zeros(5000, dtype=np.float32)
    impulse[2500] = 1.0
    return {
        "noise": noise(16000),
        "loud noise off centre": noise(16001) * 5 + np.float32(0.4),
        "a pure tone, all other bands far below": 0.9 * np.sin(2 * np.pi * 440 * times),
        "silence": np.zeros(4000, dtype=np.float32),
        "an impulse": impulse,
        "one window": noise(400),
        "one sample short of a frame more": noise(559),
        "ten seconds": noise(160000, 4),
        "longer than the AST": noise(170000, 5),
    }


@pytest.mark.parametrize("kind", kinds_of_audio())
def test_ast_features_are_those_of_transformers(kind, tmp_path):
    theirs, ours = ast_extractors(tmp_path)
    audio = kinds_of_audio()[kind]
    expected = theirs(audio, sampling_rate=RATE, return_tensors="pt").input_values
    found = ours(audio, sampling_rate=RATE)
    torch.testing.assert_close(found.input_values[:, :1024], expected, rtol=0, atol=1e-4)
    assert found.input_values.dtype == torch.float32
    assert found.attention_mask.sum() == 1 + len(audio) // 160
    assert found.input_values.shape[1] == max(1024, 1 + len(audio) // 160)


@pytest.mark.parametrize("sizes", [{"mean": -3.0, "std": 2.0}, {"do_normalize": False}, {"num_mel_bins": 40}])
def test_ast_features_with_other_settings(sizes, tmp_path):
    theirs, ours = ast_extractors(tmp_path, max_length=64, **sizes)
    clips = [noise(9000, 1), noise(3000, 2)]
    expected = theirs(clips, sampling_rate=RATE, return_tensors="pt").input_values
    torch.testing.assert_close(ours(clips, sampling_rate=RATE).input_values, expected, rtol=0, atol=1e-4)


def test_a_clip_shorter_than_a_window_is_all_filling(tmp_path):
    _, ours = ast_extractors(tmp_path, max_length=8)
    found = ours(noise(399), sampling_rate=RATE)
    torch.testing.assert_close(found.input_values, torch.full((1, 8, 128), ours.padding_value))
    assert found.attention_mask.tolist() == [[1, 1, 1, 0, 0, 0, 0, 0]]


def test_ast_round_trip_and_blocks_give_equal_features(tmp_path, monkeypatch):
    _, ours = ast_extractors(tmp_path, max_length=32)
    ours.save_pretrained(tmp_path / "saved")
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path / "saved")
    clip = noise(40000, 3)
    expected = ours(clip, sampling_rate=RATE).input_values
    assert isinstance(loaded, EasySEDFeatureExtractor)
    one_by_one = ours.normalize(ours.log_mel(torch.from_numpy(clip)[None]))  # as in training, filling included
    torch.testing.assert_close(one_by_one, expected, rtol=0, atol=1e-6)
    assert torch.equal(loaded(clip, sampling_rate=RATE).input_values, expected)
    monkeypatch.setattr(recording, "FEATURE_BLOCK_FRAMES", 100)
    np.testing.assert_allclose(recording.recording_features(ours, clip), expected[0], rtol=0, atol=1e-5)
    assert len(recording.recording_features(ours, clip[:800])) == 6
