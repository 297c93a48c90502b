"""Reading audio: formats, layouts, rates, and one clear line for everything that cannot be used."""

import io

import numpy as np
import pytest
import soundfile
import torch

from modeling_easysed.audio_easysed import AudioError, read_audio


def sine(duration_s: float = 1.0, rate: int = 16000, frequency_hz: float = 440.0, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * frequency_hz * np.arange(round(duration_s * rate)) / rate)).astype(np.float32)


def message_of(source) -> str:
    with pytest.raises(AudioError) as caught:
        read_audio(source)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---- what is read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_formats_paths_bytes_and_file_objects_agree(tmp_path, suffix):
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, sine(), 16000)
    clip = read_audio(path)
    assert clip.samples.dtype == np.float32 and clip.samples.shape == (16000,)
    assert (clip.sampling_rate, clip.original_sampling_rate, clip.num_channels, clip.duration) == (16000, 16000, 1, 1.0)
    assert clip.file == str(path) and clip.warnings == []
    assert np.sqrt(np.mean(clip.samples**2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.05)
    np.testing.assert_array_equal(read_audio(path.read_bytes()).samples, clip.samples)
    with path.open("rb") as file:
        from_object = read_audio(file)
    np.testing.assert_array_equal(from_object.samples, clip.samples)
    assert from_object.file == str(path)


def test_rows_of_datasets_are_read(tmp_path):
    path = tmp_path / "tone.wav"
    soundfile.write(path, sine(), 16000)
    expected = read_audio(path).samples
    for row in ({"path": str(path), "bytes": None}, {"path": "tone.wav", "bytes": path.read_bytes()}):
        np.testing.assert_array_equal(read_audio(row).samples, expected)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resampling_keeps_duration_and_pitch(rate):
    clip = read_audio({"array": sine(2.0, rate), "sampling_rate": rate})
    assert clip.duration == pytest.approx(2.0) and abs(len(clip.samples) - 32000) <= 1
    inner = clip.samples[1000:-1000]
    crossings = np.count_nonzero(np.diff(np.signbit(inner)))
    assert crossings / 2 / (len(inner) / 16000) == pytest.approx(440, abs=1)


def test_the_shorter_axis_is_the_channels():
    left, right = sine(), sine(level=0.1)
    expected = (left + right) / 2
    for array in (np.stack([left, right]), np.stack([left, right], axis=1)):
        clip = read_audio({"array": array, "sampling_rate": 16000})
        assert clip.num_channels == 2
        np.testing.assert_allclose(clip.samples, expected, atol=1e-7)


def test_of_two_equal_axes_the_first_is_the_channels():
    clip = read_audio({"array": np.array([[0.1, 0.2], [0.3, 0.4]]), "sampling_rate": 16000})
    np.testing.assert_allclose(clip.samples, [0.2, 0.3])


def test_tensors_and_lists_are_arrays():
    expected = read_audio({"array": sine(), "sampling_rate": 16000}).samples
    tensor = torch.from_numpy(sine()).requires_grad_()
    np.testing.assert_array_equal(read_audio({"array": tensor, "sampling_rate": 16000}).samples, expected)
    np.testing.assert_array_equal(read_audio({"raw": sine().tolist(), "sampling_rate": 16000}).samples, expected)


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("int16", [-32768, 0, 16384]),
        ("int32", [-(2**31), 0, 2**30]),
        ("int8", [-128, 0, 64]),
        ("uint8", [0, 128, 192]),
        ("float64", [-1.0, 0.0, 0.5]),
        ("float16", [-1.0, 0.0, 0.5]),
    ],
)
def test_pcm_integers_are_scaled(dtype, values):
    clip = read_audio({"array": np.array(values, dtype=dtype), "sampling_rate": 16000})
    np.testing.assert_allclose(clip.samples, [-1.0, 0.0, 0.5])


# ---- what cannot be used ---------------------------------------------------------------------------------------------


def test_missing_file_folder_and_address(tmp_path):
    assert message_of(tmp_path / "no.wav").endswith("no.wav does not exist: check the path")
    assert "is a folder: pass the files in it" in message_of(tmp_path)
    assert "download it first" in message_of("https://example.org/a.wav")


@pytest.mark.parametrize("name", ["notes.wav", "notes.mp3", "notes.raw", "notes"])
def test_text_is_not_audio(tmp_path, name):
    path = tmp_path / name
    path.write_text("not a sound\n" * 400)
    assert f"{path} is not audio that can be read (wav, flac, ogg, mp3)" in message_of(path)


def test_random_bytes_are_not_audio():
    assert "the audio is not audio that can be read" in message_of(np.random.default_rng(0).bytes(5000))


def test_empty_file_and_empty_audio(tmp_path):
    empty = tmp_path / "empty.wav"
    empty.touch()
    assert "is empty (0 bytes)" in message_of(empty)
    assert "is empty (0 bytes)" in message_of(b"")
    header_only = tmp_path / "header.wav"
    soundfile.write(header_only, np.zeros(0), 16000)
    assert "header.wav has no samples" in message_of(header_only)
    assert "no samples" in message_of({"array": np.zeros((2, 0)), "sampling_rate": 16000})


@pytest.mark.parametrize(
    ("head", "kind"), [(b"\0\0\0\x20ftypM4A ", "m4a"), (b"\0\0\0\x18ftyp3gp5", "3gp"), (b"#!AMR\n", "amr")]
)
def test_unsupported_containers_name_the_conversion(tmp_path, head, kind):
    path = tmp_path / f"phone.{kind}"
    path.write_bytes(head + bytes(500))
    assert f"convert it, ffmpeg -i phone.{kind} phone.wav" in message_of(path)


def test_a_bare_array_is_refused():
    for bare in (sine(), sine().tolist(), torch.from_numpy(sine()), 0.5):
        assert "a bare array has no sampling rate: pass {'array'" in message_of(bare)
    assert "add 'sampling_rate'" in message_of({"array": sine()})
    assert "got the keys ['sound']" in message_of({"sound": sine()})
    assert "got NoneType" in message_of(None)


@pytest.mark.parametrize("rate", [0, -16000, 16, 10**8, 16000.5, float("nan"), float("inf")])
def test_implausible_rates(rate):
    assert "must be a whole number of Hz between 1000 and 1000000" in message_of(
        {"array": sine(), "sampling_rate": rate}
    )


@pytest.mark.parametrize("rate", ["16000", True, [16000]])
def test_rates_that_are_no_numbers(rate):
    assert "sampling_rate must be a number of Hz" in message_of({"array": sine(), "sampling_rate": rate})


def test_arrays_of_other_shapes_and_types():
    for shape in [(2, 2, 16000), (100, 16000), ()]:
        assert "got shape" in message_of({"array": np.zeros(shape, np.float32), "sampling_rate": 16000})
    for dtype in ("int64", "complex64", "bool", "object"):
        assert f"got {dtype}" in message_of({"array": np.zeros(100, dtype), "sampling_rate": 16000})
    assert "no regular array" in message_of({"array": [[0.1, 0.2], [0.3]], "sampling_rate": 16000})


def test_nan_and_infinity_are_counted_and_placed(tmp_path):
    samples = np.stack([sine(), sine()], axis=1)
    samples[8000, 1] = np.nan
    samples[12000:12002, 0] = np.inf
    path = tmp_path / "broken.wav"
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    for source in (path, {"array": samples, "sampling_rate": 16000}):
        message = message_of(source)
        assert "3 samples that are NaN or infinite, the first at 0.500 s (sample 8000, channel 1)" in message


def test_a_text_file_object_is_refused():
    assert "open it with mode 'rb'" in message_of(io.StringIO("text"))


def test_names_with_line_breaks_stay_on_one_line(tmp_path):
    assert "a b.wav does not exist" in message_of(tmp_path / "a\nb.wav")


# ---- what is read with a warning -------------------------------------------------------------------------------------


def warnings_of(samples: np.ndarray, rate: int = 16000) -> list[str]:
    return read_audio({"array": samples, "sampling_rate": rate}).warnings


def test_good_audio_has_no_warning():
    assert warnings_of(sine()) == []
    assert warnings_of(sine(level=1.0)) == []  # full scale, yet not flat


def test_silence_is_a_warning():
    for samples in (np.zeros(16000), np.full(16000, 0.3), sine(level=5e-5)):
        (warning,) = warnings_of(samples)
        assert warning.startswith("silent: ")


def test_channels_that_cancel_are_a_warning():
    (warning,) = warnings_of(np.stack([sine(), -sine()]))
    assert warning.startswith("silent when mixed: ")


def test_clipping_is_a_warning_with_its_share():
    samples = np.clip(sine(level=2.0), -1.0, 1.0)
    (warning,) = warnings_of(samples)
    share = 100 * np.mean(np.abs(samples) >= 0.9999)
    assert warning == f"clipped: {share:.3g} % of the samples lie flat at full scale"


def test_integers_stored_as_floats_are_a_warning():
    (warning,) = warnings_of(sine(level=20000.0))
    assert warning.startswith("out of range: samples reach ")


def test_one_sample_is_too_short_and_still_read():
    clip = read_audio({"array": np.array([0.5], np.float32), "sampling_rate": 44100})
    assert len(clip.samples) == 1 and clip.duration == pytest.approx(1 / 44100)
    assert any(warning.startswith("too short: ") for warning in clip.warnings)


def test_a_low_rate_is_band_limited():
    (warning,) = warnings_of(sine(rate=8000), 8000)
    assert "nothing above 4000 Hz" in warning


@pytest.mark.parametrize("suffix", ["flac", "mp3"])
def test_a_damaged_end_is_a_warning(tmp_path, suffix):
    noise = 0.3 * np.random.default_rng(0).standard_normal(48000)
    path = tmp_path / f"whole.{suffix}"
    soundfile.write(path, noise, 16000)
    content = path.read_bytes()
    clip = read_audio(content[: len(content) // 2])
    assert 0.8 < clip.duration < 2.0
    assert clip.warnings == [f"damaged: only the first {clip.duration:.2f} s of 3.00 s can be decoded"]


def test_blocks_give_what_one_read_gives(tmp_path, monkeypatch):
    samples = np.stack([np.clip(sine(level=1.5), -1, 1), sine(level=0.2)], axis=1)
    path = tmp_path / "stereo.wav"
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    whole = read_audio(path)
    monkeypatch.setattr("modeling_easysed.audio_easysed.BLOCK_SAMPLES", 4096)
    np.testing.assert_array_equal(read_audio(path).samples, whole.samples)


def test_real_recordings_are_read(data_dir):
    clip = read_audio(data_dir / "esc10" / "audio" / "5-186924-A.ogg")
    assert clip.original_sampling_rate == 44100 and clip.duration == pytest.approx(5.0, abs=0.01)
    assert abs(len(clip.samples) - round(clip.duration * 16000)) <= 1
    assert clip.warnings[0].startswith("clipped: ")
