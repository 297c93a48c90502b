"""The page's modules for numbers in sentences, masks and sound, against Python on the same input."""

import io

import numpy as np
import pytest
import soundfile
import soxr
from web_browser import call, packed, page_of_modules

from modeling_easysed.audio_easysed import AudioError, read_audio
from modeling_easysed.draws_easysed import seed_masks
from modeling_easysed.export.to_web import words
from modeling_easysed.input_easysed import all_warnings

RATE = 16000


@pytest.fixture(scope="module")
def page():
    with page_of_modules() as opened:
        yield opened


def test_numbers_in_sentences_are_written_as_python_writes_them(page):
    random = np.random.default_rng(0)
    values = [
        0.0,
        1.0,
        123456.0,
        1e-5,
        0.125,
        2.675,
        0.3125,
        -0.5,
        2.5,
        1.0625,
        99.95,
        -0.0312,
        4.25,
        1e7,
        0.000123456,
        2 / 3,
    ]
    values += (random.standard_normal(200) * 10.0 ** random.integers(-7, 8, 200)).tolist()
    specs = [".0f", ".2f", "+.3f", ".2g", ".3g", ".6g"]
    given = call(page, "numbers", "({ filled }, { values, specs }) => values.map((value) => specs.map((spec) => "
                 "filled(`a {value:${spec}} b`, { value })))", values=values, specs=specs)  # fmt: skip
    assert given == [[f"a {value:{spec}} b" for spec in specs] for value in values]


@pytest.mark.parametrize(("seed", "probability"), [(0, 0.2), (7, 0.5), (2**31 + 5, 0.1)])
def test_masks_of_a_seed_are_those_of_python(page, seed, probability):
    own = {
        "passes": 20,
        "sites": 2,
        "width": 33,
        "seed": seed,
        "probability": probability,
        "kept": 1 / (1 - probability),
    }
    given = call(page, "masks", "({ seedMasks }, { own }) => seedMasks(own)", own=own)
    assert np.array_equal(np.float32(given), seed_masks(20, 2, 33, probability, seed).ravel())


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 32000, 44100, 44101, 48000, 96000])
def test_resampling_is_as_good_as_soxr_whole_and_in_blocks(page, rate):
    random = np.random.default_rng(rate)
    samples = soxr.resample(0.1 * random.standard_normal(rate + 77), 3 * rate, rate).astype(np.float32)
    expected = soxr.resample(samples, rate, RATE)
    whole, blocks = call(page, "resampling numbers", """({ resample, Resampler, joinArrays }, { samples, rate }) => {
        const stream = new Resampler(rate, 16000);
        const parts = [];
        for (let at = 0; at < samples.length; at += 777) {
          parts.push(stream.push(samples.slice(at, at + 777), at + 777 >= samples.length));
        }
        return [resample(samples, rate, 16000), joinArrays(parts)];
    }""", samples=packed(samples), rate=rate)  # fmt: skip
    assert whole == blocks and len(whole) == len(expected)
    assert np.sqrt(np.mean((whole - expected) ** 2)) < 0.003 * np.sqrt(np.mean(expected**2))


def header(kind: str) -> tuple[bytes, int]:
    rate = {"OPUS": 24000}.get(kind, 22050)
    target = io.BytesIO()
    container = {"VORBIS": "OGG", "OPUS": "OGG", "MPEG_LAYER_III": "MP3", "PCM_24": "FLAC"}.get(kind, "WAV")
    soundfile.write(target, np.random.default_rng(0).uniform(-0.1, 0.1, rate), rate, kind, format=container)
    return target.getvalue(), rate


@pytest.mark.parametrize("kind", ["PCM_16", "FLOAT", "PCM_24", "VORBIS", "OPUS", "MPEG_LAYER_III"])
def test_the_rate_of_a_file_is_read_from_its_header(page, kind):
    content, rate = header(kind)
    sniff = "({ sniffRate }, { bytes }) => sniffRate(Uint8Array.from(bytes))"
    assert call(page, "audio", sniff, bytes=list(content[:5000])) == rate
    assert call(page, "audio", sniff, bytes=list(b"no sound at all" * 9)) == 48000
    for cut in (0, 3, 11, 20, 30):
        assert call(page, "audio", sniff, bytes=list(content[:cut])) in (48000, rate)


def faulty(name: str) -> tuple[np.ndarray, int]:
    """Sounds (samples, channels) with one fault each, and their rate."""
    random, rate = np.random.default_rng(5), 8000 if name == "telephone" else 16000
    times = np.arange(3 * rate) / rate
    sound = 0.3 * np.sin(2 * np.pi * 440 * times) * (np.sin(2 * np.pi * times) > 0) + 0.001 * random.standard_normal(
        len(times)
    )
    noise = random.standard_normal(len(times))
    dull = np.fft.irfft(np.fft.rfft(noise) * (np.fft.rfftfreq(len(noise), 1 / rate) < 3000), len(noise))
    sounds = {
        "clean": sound,
        "telephone": sound,
        "silent": np.zeros(len(times)),
        "quiet": 0.003 * sound,
        "clipped": np.clip(5 * sound, -1, 1),
        "clipped below full scale": np.clip(5 * sound, -0.6, 0.6),
        "dull": 0.1 * dull,
        "off centre": 0.3 * sound + 0.2,
        "white": 0.1 * noise,
        "loud": 9 * sound,
        "short": sound[:4000],
        "opposite": sound,
    }
    one = sounds[name].astype(np.float32)
    return np.stack([one, -one if name == "opposite" else 0.9 * one], axis=1), rate


FAULTS = ["clean", "telephone", "silent", "quiet", "clipped", "clipped below full scale", "dull", "off centre", "white"]


@pytest.mark.parametrize("name", [*FAULTS, "loud", "short", "opposite"])
def test_warnings_on_the_recording_are_those_of_python(page, name):
    samples, rate = faulty(name)
    clip = read_audio({"array": samples, "sampling_rate": rate})
    given = call(page, "audio", "({ makeClip }, { channels, rate, words }) => makeClip(channels, rate, 16000, words)",
                 channels=[packed(one) for one in samples.T], rate=rate, words=words())  # fmt: skip
    assert given["warnings"] == all_warnings(clip)
    assert (len(given["warnings"]) == 0) == (name == "clean")
    assert (given["duration"], given["originalRate"], len(given["samples"])) == (clip.duration, rate, len(clip.samples))


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.array([0.1, np.nan], np.float32)])
def test_sound_that_cannot_be_used_is_refused_as_in_python(page, samples):
    with pytest.raises(AudioError):
        read_audio({"array": samples, "sampling_rate": RATE})
    refused = """async ({ makeClip }, { channels, words }) => {
        try { makeClip(channels, 16000, 16000, words); } catch (error) { return error.message; }
    }"""
    assert call(page, "audio", refused, channels=[packed(samples)], words=words()).startswith("The recording has ")
