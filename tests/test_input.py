"""Measures of the audio itself: every warning fires where it is true, and is silent where it would be false."""

import numpy as np
import pytest
import soxr

from modeling_easysed import input_easysed
from modeling_easysed.audio_easysed import AudioClip, read_audio
from modeling_easysed.input_easysed import InputMeasures, all_warnings, input_warnings, key_word, measure_input

RATE = 16000


def sine(frequency_hz: float = 440.0, level: float = 0.3, duration_s: float = 3.0, rate: int = RATE) -> np.ndarray:
    return (level * np.sin(2 * np.pi * frequency_hz * np.arange(round(duration_s * rate)) / rate)).astype(np.float32)


def noise(level: float = 0.1, duration_s: float = 3.0, rate: int = RATE, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (level * generator.standard_normal(round(duration_s * rate))).astype(np.float32)


def bursts(samples: np.ndarray) -> np.ndarray:
    """The same, swelling and fading twice a second as a real recording does."""
    return samples * (0.05 + np.sin(2 * np.pi * np.arange(len(samples)) / RATE) ** 2).astype(np.float32)


def dark(samples: np.ndarray, corner_hz: float, order: int) -> np.ndarray:
    """Low-pass without a cliff: 6 dB per octave and order, above the corner."""
    frequencies = np.fft.rfftfreq(len(samples), 1 / RATE)
    return np.fft.irfft(np.fft.rfft(samples) / (1 + (frequencies / corner_hz) ** order), len(samples))


def as_int16(samples: np.ndarray) -> np.ndarray:
    return (np.round(samples * 32767) / 32768).astype(np.float32)


def warned(samples: np.ndarray) -> list[str]:
    """Key words of the warnings."""
    return [key_word(warning) for warning in input_warnings(measure_input(samples, RATE))]


# ---- measures --------------------------------------------------------------------------------------------------------


def test_a_sine_is_measured():
    measures = measure_input(sine(level=0.5), RATE)
    assert measures.duration_s == 3.0 and measures.dc_offset == pytest.approx(0, abs=1e-6)
    assert measures.peak_db == pytest.approx(20 * np.log10(0.5), abs=0.01)
    for level in (measures.level_db, measures.noise_floor_db, measures.loud_db):
        assert level == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.05)
    assert (measures.clipped_share, measures.cutoff_hz) == (0.0, None) and measures.flatness < 0.01
    assert measures.bandwidth_hz == pytest.approx(440, abs=150)


def test_noise_is_measured():
    measures = measure_input(noise(level=0.1), RATE)
    assert measures.level_db == pytest.approx(-20, abs=0.1) and measures.flatness > 0.97
    assert measures.noise_floor_db == pytest.approx(-20.3, abs=0.2)
    assert measures.bandwidth_hz == 8000 and measures.cutoff_hz is None


def test_the_floor_is_the_tenth_percentile_around_the_mean():
    quiet, loud = noise(0.001, 1.0), noise(0.1, 4.0)
    measures = measure_input(np.concatenate([quiet, loud]) + np.float32(0.05), RATE)
    assert measures.noise_floor_db == pytest.approx(-60, abs=0.2)
    assert measures.dc_offset == pytest.approx(0.05, abs=0.001)


def test_silence_and_single_samples():
    silence = measure_input(np.zeros(RATE, np.float32), RATE)
    assert (silence.peak_db, silence.level_db, silence.noise_floor_db) == (-120.0, -120.0, -120.0)
    assert (silence.bandwidth_hz, silence.cutoff_hz, silence.flatness) == (0.0, None, 0.0)
    for length in (1, 2, 5, 50, 799, 800, 801):
        measures = measure_input(noise()[:length], RATE)
        assert all(value is None or np.isfinite(value) for value in vars(measures).values())
        assert {key_word(warning) for warning in input_warnings(measures)} <= {"off centre"}


def test_blocks_give_what_one_block_gives(monkeypatch):
    samples = np.clip(bursts(noise(0.5, 10.03)), -0.6, 0.6)
    in_blocks = measure_input(samples, RATE)
    assert in_blocks.clipped_share > 0
    monkeypatch.setattr(input_easysed, "BLOCK_FRAMES", 7)
    for one, other in zip(vars(in_blocks).values(), vars(measure_input(samples, RATE)).values(), strict=True):
        assert one == other or one == pytest.approx(other, rel=0.01)


@pytest.mark.parametrize("shape", [(0,), (2, 100), ()])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"samples must be mono, \(samples,\), at least one, got shape"):
        measure_input(np.zeros(shape, np.float32), RATE)


# ---- too quiet -------------------------------------------------------------------------------------------------------


def test_too_quiet():
    assert warned(bursts(noise(1e-4))) == ["too quiet"]
    assert warned(bursts(noise(2e-3))) == []


# ---- clipped ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [1.0, 0.3])
@pytest.mark.parametrize(("low", "high"), [(-0.99, 0.99), (-2.0, 0.99), (-0.99, 2.0)])
@pytest.mark.parametrize("frequency_hz", [50.0, 440.0, 1000.0])
def test_clipping_is_found_at_any_level_and_in_one_polarity(frequency_hz, low, high, gain):
    samples = gain * np.clip(sine(frequency_hz, level=1.5), low, high)
    for one in (samples, as_int16(samples)):
        measures = measure_input(one, RATE)
        is_flat = (one >= gain * high - 1e-4) | (one <= gain * low + 1e-4)
        assert measures.clipped_share == pytest.approx(is_flat.mean(), rel=0.1)
        assert "clipped" in [key_word(warning) for warning in input_warnings(measures)]


@pytest.mark.parametrize("rate", [22050, 44100, 48000])
def test_clipping_is_found_after_attenuation_and_resampling(rate):
    tones = sum(sine(frequency_hz, 0.5, 3.0, rate) for frequency_hz in (150, 310, 470))
    clip = read_audio({"array": 0.4 * np.clip(tones, -0.6, 0.6), "sampling_rate": rate})
    assert clip.warnings == [] and [key_word(one) for one in all_warnings(clip)] == ["clipped"]
    clip = read_audio({"array": 0.4 * tones, "sampling_rate": rate})
    assert all_warnings(clip) == []


@pytest.mark.parametrize("frequency_hz", [1.0, 20.0, 50.0, 220.0, 440.0, 997.0, 1000.0, 3001.0, 4000.0])
def test_clean_sines_are_not_clipped(frequency_hz):
    for level in (0.11, 0.5, 1.0):
        samples = sine(frequency_hz, level)
        eight_bits = (np.round(samples * 127) / 128).astype(np.float32)
        for one in (samples, as_int16(samples), eight_bits):
            assert measure_input(one, RATE).clipped_share == 0.0


def test_clean_sounds_are_not_clipped():
    time_s = np.arange(3 * RATE) / RATE
    one_sided = np.zeros(3 * RATE, np.float32)
    one_sided[::400] = 0.5  # clicks of one polarity: the rest is flat at the lowest value
    brown = np.cumsum(noise(0.001))
    chord = sum(sine(frequency_hz, 0.2) for frequency_hz in (262, 330, 392, 523))
    for samples in (noise(), bursts(noise()), brown, chord, 0.4 * (time_s * 220 % 1) - 0.2, one_sided, one_sided + 0.2):
        assert measure_input(samples.astype(np.float32), RATE).clipped_share == 0.0


def test_quiet_flat_tops_are_not_clipping():
    assert measure_input(0.05 * np.clip(sine(level=2.0), -1, 1), RATE).clipped_share == 0.0


# ---- band-limited ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "cutoff_hz"), [(4000, 2000), (8000, 4000), (11025, 5500)])
def test_upsampled_recordings_are_band_limited(rate, cutoff_hz):
    low = bursts(soxr.resample(noise(0.1, 3.0, rate), rate, RATE))
    for samples in (low, as_int16(low), np.concatenate([np.zeros(RATE), low]).astype(np.float32)):
        measures = measure_input(samples, RATE)
        assert measures.cutoff_hz == measures.bandwidth_hz == pytest.approx(cutoff_hz, rel=0.05)
        (warning,) = input_warnings(measures)
        assert warning.startswith("band-limited: ")


def test_a_telephone_codec_is_band_limited():
    coded = np.sign(noise(0.1, 3.0, 8000)) * np.round(np.abs(noise(0.1, 3.0, 8000)) ** 0.5 * 32) ** 2 / 1024
    samples = bursts(soxr.resample(coded.astype(np.float32), 8000, RATE)) + noise(2e-5, seed=1)
    assert warned(samples) == ["band-limited"]


@pytest.mark.parametrize("order", [2, 4, 8])
@pytest.mark.parametrize("corner_hz", [100.0, 500.0, 1000.0, 3000.0])
def test_dark_sounds_are_not_band_limited(corner_hz, order):
    assert warned(as_int16(bursts(dark(noise(0.2), corner_hz, order)))) == []


def test_tones_are_not_band_limited():
    harmonics = sum(sine(200.0 * number, 0.05) for number in range(1, 20))
    for samples in (sine(1500), sine(3990), harmonics, as_int16(harmonics)):
        assert measure_input(samples, RATE).cutoff_hz is None


def test_the_low_pass_of_lossy_formats_is_not_a_warning():
    low = bursts(soxr.resample(noise(0.1, 3.0, 14800), 14800, RATE)[: 3 * RATE])
    assert warned(low) == [] and measure_input(low, RATE).bandwidth_hz == pytest.approx(7400, rel=0.03)


def test_one_sound_above_the_cliff_lifts_the_limit():
    low = soxr.resample(noise(0.1, 3.0, 8000), 8000, RATE)
    low[RATE : RATE + 4000] += noise(0.1, 0.25)
    assert measure_input(low, RATE).cutoff_hz is None


def test_too_few_frames_have_no_cliff():
    low = soxr.resample(noise(0.1, 3.0, 8000), 8000, RATE)
    assert measure_input(low[:3200], RATE).cutoff_hz is None


# ---- off centre ------------------------------------------------------------------------------------------------------


def test_off_centre():
    (warning,) = input_warnings(measure_input(bursts(noise(0.05)) - np.float32(0.1), RATE))
    assert warning.startswith("off centre: ") and "-0.100" in warning
    assert warned(bursts(noise(0.05)) + np.float32(0.01)) == []
    assert warned(bursts(noise(0.5, seed=3)) + np.float32(0.03)) == []  # small against the sound


# ---- noisy -----------------------------------------------------------------------------------------------------------


def test_steady_white_noise_is_noisy():
    assert warned(noise(0.1)) == ["noisy"]
    assert warned(noise(0.1, 60.0)) == ["noisy"]


def test_what_is_quiet_coloured_swelling_or_short_is_not_noisy():
    with_an_event = noise(0.05)
    with_an_event[RATE : RATE + 8000] += sine(1000, 0.1, 0.5)
    rain = dark(noise(0.1), 1500.0, 2).astype(np.float32)
    for samples in (noise(0.005), rain, bursts(noise(0.1)), sine(), with_an_event, noise(0.1, 0.9)):
        assert warned(samples) == []


# ---- together --------------------------------------------------------------------------------------------------------


def clip_of(samples: np.ndarray, warnings: list[str]) -> AudioClip:
    return AudioClip(samples, RATE, RATE, 1, len(samples) / RATE, warnings=warnings)


def test_all_warnings_adds_what_was_measured():
    samples = np.clip(bursts(noise(0.3)), -0.2, 0.2)
    (warning,) = all_warnings(clip_of(samples, []))
    assert warning.startswith("clipped: ")
    assert all_warnings(clip_of(samples, ["damaged: here"])) == ["damaged: here", warning]
    assert all_warnings(clip_of(samples, []), measure_input(bursts(noise()), RATE)) == []


@pytest.mark.parametrize(
    ("given", "samples"),
    [
        ("clipped: at full scale", np.clip(bursts(noise(0.3)), -0.2, 0.2)),
        ("band-limited: at 8000 Hz", bursts(soxr.resample(noise(0.1, 3.0, 8000), 8000, RATE))),
        ("silent: nothing", np.zeros(RATE, np.float32)),
        ("silent when mixed: nothing", np.zeros(RATE, np.float32)),
    ],
)
def test_all_warnings_says_nothing_twice(given, samples):
    assert input_warnings(measure_input(samples, RATE)) != []
    assert all_warnings(clip_of(samples, [given])) == [given]


def test_every_warning_is_one_line_with_its_key_word():
    worst = InputMeasures(9.0, -60.0, -20.0, -20.0, -20.0, 0.5, 0.3, 4000.0, 4000.0, 1.0)
    found = input_warnings(worst)
    assert [key_word(one) for one in found] == ["too quiet", "clipped", "band-limited", "off centre", "noisy"]
    assert all("\n" not in one and not one.endswith(".") for one in found)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("2-109505-A.ogg", ["clipped"]),
        ("3-155312-A.ogg", ["band-limited"]),
        ("1-50060-A.ogg", []),  # steady white rain
        ("4-204618-A.ogg", []),  # the low-pass of a lossy format at 7.2 kHz
        ("1-100032-A.ogg", []),  # padded with digital silence
    ],
)
def test_real_recordings(data_dir, name, expected):
    clip = read_audio(data_dir / "esc10" / "audio" / name)
    assert [key_word(warning) for warning in all_warnings(clip)] == expected
