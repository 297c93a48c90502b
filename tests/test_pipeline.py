"""The pipeline: windows, times, exits, receipts, loading, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny import tiny_model

from modeling_easysed import Detection, EasySEDFeatureExtractor, SoundEventDetectionPipeline, register
from modeling_easysed.sampling_easysed import WindowSamples

RATE, FRAME_SAMPLES = 16000, 640
PLAIN = {"uncertainty": "none", "shifts": 0}  # one pass over output frames of 40 ms
REACH_FRAMES = 14  # of the tiny CNN: how far, in output frames, a sample is heard; then the transform's window


def make_pipe(backbone: str = "cnn", **config) -> SoundEventDetectionPipeline:
    """A tiny network whose random exits are loud enough to give probabilities all over [0, 1]."""
    model = tiny_model(backbone, **{"window_s": 2.0, "context_s": 0.6, **config})
    for head in model.exits:
        torch.nn.init.normal_(head.classifier.weight, generator=torch.Generator().manual_seed(1))
        torch.nn.init.zeros_(head.classifier.bias)
    extractor = EasySEDFeatureExtractor(feature_size=32, mel_mean=[-40.0] * 32, mel_std=[15.0] * 32)
    return SoundEventDetectionPipeline(model=model, feature_extractor=extractor, device="cpu")


def make_audio(duration_s: float, seed: int = 0) -> np.ndarray:
    """Noise whose level rises and falls, so that probabilities vary."""
    generator = np.random.default_rng(seed)
    num_samples = round(duration_s * RATE)
    level = np.interp(np.arange(num_samples) / RATE, np.arange(0, 61, 0.5), generator.uniform(0.001, 0.3, 122))
    return (level * generator.standard_normal(num_samples)).clip(-0.99, 0.99).astype(np.float32)


def as_source(samples: np.ndarray) -> dict:
    return {"array": samples, "sampling_rate": RATE}


def direct_probabilities(pipe: SoundEventDetectionPipeline, samples: np.ndarray) -> np.ndarray:
    """One forward over the whole recording, without windows."""
    features = pipe.feature_extractor(samples, sampling_rate=RATE)
    with torch.no_grad():
        return torch.sigmoid(pipe.model(**features).frame_logits[0]).numpy()


def shifted_probabilities(pipe: SoundEventDetectionPipeline, samples: np.ndarray, passes: int, seed: int) -> np.ndarray:
    """Mean over passes and over the four grids of shifts=2, each from one forward, every 10 ms."""
    features = pipe.feature_extractor(samples, sampling_rate=RATE).input_values
    lines = []
    for start in range(4):
        logits = pipe.model.monte_carlo(features[:, start:], passes, seed).frame_logits[:, 0]
        mean = torch.sigmoid(logits).mean(0).numpy()
        at, centres = np.arange(features.shape[1]), start + 4 * np.arange(len(mean))
        lines.append(np.stack([np.interp(at, centres, column) for column in mean.T], axis=1))
    return np.mean(lines, axis=0)


def loudness_window(model, values, sampling, exit_index, doubt_limits=(), with_all_exits=True) -> WindowSamples:
    """Stands in for the network: class 0 where the middle log-mel frame of an output frame is loud."""
    loud = values[::4].mean(-1, keepdims=True)
    logits = np.concatenate([20 * (loud - 0.5), np.full((len(loud), 2), -20.0)], axis=-1, dtype=np.float32)
    every = np.repeat(logits[None], model.num_exits, axis=0)
    return WindowSamples(logits[None], np.ones(1), exit_index, every, np.zeros((len(logits), 8)))


@pytest.fixture(scope="module")
def pipe() -> SoundEventDetectionPipeline:
    return make_pipe()


@pytest.fixture(scope="module")
def checkpoint(pipe, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny-sed"
    pipe.save_pretrained(folder)
    return str(folder)


# ---- windows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("duration_s", [2.5, 7.013, 31.7])
def test_windows_equal_one_long_forward(pipe, duration_s):
    samples = make_audio(duration_s)
    found = pipe(as_source(samples), **PLAIN).probabilities
    expected = direct_probabilities(pipe, samples)
    assert found.shape == expected.shape and expected.std() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("duration_s", [1.5, 2.5, 7.013])
def test_passes_and_shifts_over_windows_equal_those_of_one_long_forward(pipe, duration_s):
    samples = make_audio(duration_s)
    expected = shifted_probabilities(pipe, samples, passes=20, seed=0)
    found = pipe(as_source(samples))
    assert found.probabilities.shape == expected.shape == (1 + len(samples) // 160, 3) and expected.std() > 0.1
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-4)
    np.testing.assert_allclose(found.frame_times, 0.01 * np.arange(len(expected)), atol=1e-9)
    other = pipe(as_source(samples), passes=3, seed=5).probabilities
    np.testing.assert_allclose(other, shifted_probabilities(pipe, samples, passes=3, seed=5), atol=1e-4)


def test_a_short_file_is_one_window_without_padding(pipe):
    for num_samples in (1, 159, 5000, 31999):
        samples = make_audio(2.0)[:num_samples]
        found = pipe(as_source(samples), **PLAIN)
        np.testing.assert_allclose(found.probabilities, direct_probabilities(pipe, samples), atol=1e-5)
        assert len(found.probabilities) == -(-(1 + num_samples // 160) // 4)


def test_the_transformer_takes_windows_too():
    pipe = make_pipe("transformer")
    samples = make_audio(5.0)
    short = samples[:30000]
    for parameters, num_frames in ((PLAIN, 126), ({}, 501)):
        found = pipe(as_source(samples), **parameters).probabilities
        assert found.shape == (num_frames, 3) and np.isfinite(found).all() and found.std() > 0.01
    found = pipe(as_source(short), **PLAIN).probabilities
    np.testing.assert_allclose(found, direct_probabilities(pipe, short), atol=1e-5)
    expected = shifted_probabilities(pipe, short, passes=20, seed=0)
    np.testing.assert_allclose(pipe(as_source(short)).probabilities, expected, atol=1e-5)


# ---- times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut_frames", [1, 33, 88])
@pytest.mark.parametrize(("parameters", "per_frame"), [(PLAIN, 1), ({}, 4)])
def test_probabilities_keep_their_time_when_the_file_is_cut(pipe, cut_frames, parameters, per_frame):
    samples = make_audio(9.0)
    whole = pipe(as_source(samples), **parameters).probabilities
    cut = pipe(as_source(samples[cut_frames * FRAME_SAMPLES :]), **parameters).probabilities
    reach = REACH_FRAMES * per_frame
    np.testing.assert_allclose(cut[reach:], whole[cut_frames * per_frame + reach :], atol=1e-4)


@pytest.mark.parametrize("cut_samples", [0, 321, 16000, 20011, 31999, 40639])
@pytest.mark.parametrize("parameters", [PLAIN, {}])
def test_events_keep_their_time_when_the_file_is_cut_anywhere(pipe, monkeypatch, cut_samples, parameters):
    monkeypatch.setattr("modeling_easysed.recording_easysed.sample_window", loudness_window)
    samples = 0.001 * make_audio(12.0)
    for onset_s, offset_s in ((3.2, 3.9), (6.0, 8.5)):
        samples[round(onset_s * RATE) : round(offset_s * RATE)] += 0.3 * make_audio(offset_s - onset_s, seed=1)
    events = pipe(as_source(samples[cut_samples:]), **parameters).events
    times = [(event.onset + cut_samples / RATE, event.offset + cut_samples / RATE) for event in events]
    np.testing.assert_allclose(times, [(3.2, 3.9), (6.0, 8.5)], atol=0.04)


@pytest.mark.parametrize("num_samples", [1, 100, 639, 640, 641, 16001, 50003])
@pytest.mark.parametrize("rate", [16000, 44100, 11025])
def test_no_time_lies_beyond_the_file(pipe, num_samples, rate):
    samples = make_audio(4.0)[:num_samples]
    found = pipe({"array": samples, "sampling_rate": rate})
    assert found.duration == num_samples / rate and found.sampling_rate == rate
    assert len(found.frame_times) == len(found.probabilities) and found.frame_times[-1] <= found.duration
    assert all(0 <= event.onset < event.offset <= found.duration for event in found.events)


# ---- results ---------------------------------------------------------------------------------------------------------


def test_a_detection_is_complete_and_invents_nothing(pipe, tmp_path):
    path = tmp_path / "yard.wav"
    soundfile.write(path, make_audio(4.0), RATE)
    found = pipe(path)
    assert isinstance(found, Detection) and found.file == str(path) and found.events
    assert found.labels == ["dog_bark", "rain", "rooster"]
    assert found.uncertainty.shape == found.probabilities.shape == (401, 3)
    assert found.uncertainty.min() >= 0 and found.uncertainty.max() <= np.log(2) + 1e-6
    assert [event.onset for event in found.events] == sorted(event.onset for event in found.events)
    for event in found.events:
        assert event.label in found.labels and 0 <= event.score <= 1 and event.exit == pipe.model.num_exits
        assert event.confidence is None and event.decision is None and event.reasons is None
        parts = event.uncertainty
        assert parts["total"] == pytest.approx(parts["aleatoric"] + parts["epistemic"]) and parts["epistemic"] > 0
    assert [warning for warning in found.warnings if "no calibration" in warning] == found.warnings
    assert found.receipt | {"revision": None} == {
        "model": None,
        "revision": None,
        "version": "0.1.0",
        "seed": 0,
        "passes": 20,
        "shifts": 2,
        "uncertainty": "mc",
        "exit": "auto",
        "decoding": "default",
        "calibration": None,
        "goal": {},
    }


@pytest.mark.parametrize("parameters", [{}, {"uncertainty": "moments", "shifts": 1, "exit": 2}, PLAIN])
def test_the_same_receipt_gives_the_same_events(checkpoint, parameters):
    source = as_source(make_audio(6.0))
    loaded = [SoundEventDetectionPipeline.from_pretrained(checkpoint, device="cpu") for _ in range(2)]
    first, second = (pipe(source, **parameters) for pipe in loaded)
    assert first.to_json() == second.to_json() and first.events
    assert first.receipt["model"] == "tiny-sed" and first.receipt["revision"].startswith("sha256:")
    asked = {name: first.receipt[name] for name in ("seed", "passes", "shifts", "uncertainty", "exit")}
    again = loaded[0](source, **{name: value for name, value in asked.items() if value is not None})
    assert again.to_json() == first.to_json()


def test_one_or_two_threads_give_the_same_events(pipe):
    source, before, found = as_source(make_audio(6.0)), torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(pipe(source))
    finally:
        torch.set_num_threads(before)
    assert found[0].to_json() == found[1].to_json() and found[0].events


def test_another_seed_moves_the_scores_and_its_receipt_says_so(pipe):
    source = as_source(make_audio(4.0))
    first, second = pipe(source), pipe(source, seed=1, passes=3)
    assert np.abs(first.probabilities - second.probabilities).max() > 0.01
    assert (second.receipt["seed"], second.receipt["passes"]) == (1, 3)


@pytest.mark.parametrize("method", ["mc", "exits", "moments", "none"])
def test_every_method_has_its_receipt_and_its_entropies(pipe, method):
    source = as_source(make_audio(4.0))
    found = pipe(source, uncertainty=method, shifts=0)
    is_sampled = method == "mc"
    assert found.receipt["uncertainty"] == method and found.receipt["shifts"] == 0
    assert (found.receipt["seed"], found.receipt["passes"]) == ((0, 20) if is_sampled else (None, None))
    assert found.uncertainty.shape == found.probabilities.shape == (101, 3)
    epistemic = [event.uncertainty["epistemic"] for event in found.events]
    # one sample has nothing to disagree with
    assert epistemic and (max(epistemic) == pytest.approx(0, abs=1e-6)) == (method == "none")
    np.testing.assert_array_equal(pipe(source, uncertainty=method, shifts=0).probabilities, found.probabilities)


def test_other_weights_and_decoding_give_another_receipt():
    pipe, other = make_pipe(), make_pipe(decoding={"method": "threshold", "id": "tuned-7"})
    assert other(as_source(make_audio(1.0))).receipt["decoding"] == "tuned-7"
    assert pipe.revision == other.revision
    other.model.exits[0].classifier.bias.data += 1
    changed = SoundEventDetectionPipeline(model=other.model, feature_extractor=other.feature_extractor, device="cpu")
    assert changed.revision != pipe.revision


def test_every_exit_can_be_chosen(pipe):
    samples = make_audio(1.5)
    with torch.no_grad():
        output = pipe.model(**pipe.feature_extractor(samples, sampling_rate=RATE))
    for exit_number in (1, 2, 3):
        found = pipe(as_source(samples), exit=exit_number, **PLAIN)
        expected = torch.sigmoid(output.exit_frame_logits[exit_number - 1, 0]).numpy()
        np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
        assert found.receipt["exit"] == exit_number
        assert all(event.exit == exit_number for event in found.events)
    # nothing was calibrated, so that "auto" is the deepest
    np.testing.assert_array_equal(found.probabilities, pipe(as_source(samples), exit="auto", **PLAIN).probabilities)


def test_lists_and_generators(pipe):
    sources = [as_source(make_audio(1.0)), as_source(make_audio(3.0))]
    assert pipe([]) == []
    expected = [pipe(source).to_json() for source in sources]
    assert [found.to_json() for found in pipe(sources)] == expected
    assert [found.to_json() for found in pipe(source for source in sources)] == expected


def test_progress_counts_windows(pipe):
    for parameters, total in (({"shifts": 0}, 14), ({"shifts": 2}, 56)):  # four views
        calls = []
        pipe(as_source(make_audio(12.0)), progress=lambda *counts, calls=calls: calls.append(counts), **parameters)
        assert calls == [(done, total) for done in range(1, total + 1)]


def test_a_model_in_training_mode_detects_in_evaluation_mode(pipe):
    source = as_source(make_audio(1.0))
    expected = pipe(source).probabilities
    pipe.model.train()
    found = pipe(source).probabilities
    assert pipe.model.training
    pipe.model.eval()
    np.testing.assert_array_equal(found, expected)


def test_the_picture_is_the_log_mel_of_the_recording(pipe):
    samples = make_audio(1.0)
    expected = pipe.feature_extractor.log_mel(torch.from_numpy(samples)[None])[0].numpy()
    np.testing.assert_allclose(pipe(as_source(samples)).log_mel, expected, atol=1e-3)
    assert len(pipe(as_source(make_audio(55.0))).log_mel) <= 2000


# ---- loading and saving ----------------------------------------------------------------------------------------------


def test_transformers_pipeline_gives_the_same(checkpoint):
    register()
    source = as_source(make_audio(3.0))
    found = transformers.pipeline(
        "sound-event-detection", model=checkpoint, device="cpu", trust_remote_code=True, exit=2
    )(source)
    expected = SoundEventDetectionPipeline.from_pretrained(checkpoint, device="cpu")(source, exit=2)
    assert found.to_dict()["events"] == expected.to_dict()["events"] and found.receipt["exit"] == 2


def test_a_folder_without_the_pipeline_code_needs_no_trust(pipe, tmp_path):
    register()
    pipe.model.save_pretrained(tmp_path)
    pipe.feature_extractor.save_pretrained(tmp_path)
    found = transformers.pipeline("sound-event-detection", model=str(tmp_path), device="cpu")
    assert isinstance(found, SoundEventDetectionPipeline)


def test_saving_leaves_the_live_config_as_it_was(pipe, checkpoint):
    assert "sound-event-detection" in json.loads(Path(checkpoint, "config.json").read_text())["custom_pipelines"]
    assert not hasattr(pipe.model.config, "custom_pipelines")
    loaded = SoundEventDetectionPipeline.from_pretrained(checkpoint, device="cpu")
    assert not hasattr(loaded.model.config, "custom_pipelines")


def test_a_saved_folder_works_where_the_package_cannot_be_imported(checkpoint, tmp_path):
    script = (
        "import sys; sys.modules['modeling_easysed'] = None\n"
        "import json, numpy, transformers\n"
        "pipe = transformers.pipeline('sound-event-detection', model=sys.argv[1], trust_remote_code=True)\n"
        "audio = numpy.load(sys.argv[2])\n"
        "found = pipe({'array': audio, 'sampling_rate': 16000})\n"
        "print(json.dumps([type(pipe).__module__, found.to_dict()['events']]))\n"
    )
    samples = make_audio(3.0)
    np.save(tmp_path / "audio.npy", samples)
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", script, checkpoint, str(tmp_path / "audio.npy")]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    module, events = json.loads(done.stdout)
    assert module.startswith("transformers_modules.")
    expected = SoundEventDetectionPipeline.from_pretrained(checkpoint, device="cpu")(as_source(samples))
    assert events == expected.to_dict()["events"]


def test_half_precision_gives_nearly_the_same(checkpoint):
    source = as_source(make_audio(3.0))
    full = SoundEventDetectionPipeline.from_pretrained(checkpoint, device="cpu")
    half = SoundEventDetectionPipeline.from_pretrained(checkpoint, device="cpu", dtype=torch.bfloat16)
    assert half.model.dtype == torch.bfloat16
    np.testing.assert_allclose(half(source).probabilities, full(source).probabilities, atol=0.1)


def test_weights_that_lack_a_tensor_are_refused(pipe, tmp_path):
    pipe.model.save_pretrained(tmp_path)
    pipe.feature_extractor.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["exits.0.classifier.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="its weights lack 1 tensors, the first is exits.0.classifier.weight"):
        SoundEventDetectionPipeline.from_pretrained(tmp_path)


def test_a_config_that_breaks_a_rule_is_one_line(pipe, tmp_path):
    pipe.model.save_pretrained(tmp_path)
    pipe.feature_extractor.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "backbone": "rnn"}))
    with pytest.raises(ValueError, match="cannot be loaded: .*backbone must be one of .*got 'rnn'") as caught:
        SoundEventDetectionPipeline.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_of_another_size_are_one_line(pipe, tmp_path):
    pipe.model.save_pretrained(tmp_path)
    pipe.feature_extractor.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "exit_hidden_size": 16}))
    with pytest.raises(ValueError, match="cannot be loaded: ") as caught:
        SoundEventDetectionPipeline.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"uncertainty": "magic"}, "uncertainty must be one of .*got 'magic'"),
        ({"exit": 0}, "exit must be 'auto' or a number from 1 to 3, got 0"),
        ({"exit": 4}, "exit must be 'auto' or a number from 1 to 3, got 4"),
        ({"exit": True}, "exit must be .*got True"),
        ({"exit": "last"}, "exit must be .*got 'last'"),
        ({"seed": 0.5}, "seed must be an integer, got 0.5"),
        ({"seed": True}, "seed must be an integer, got True"),
        ({"passes": 0}, "passes must be a whole number from 1 to 10000, got 0"),
        ({"passes": 20, "uncertainty": "none", "shifts": -1}, "shifts must be a whole number from 0 to 16, got -1"),
        ({"passes": 10_001}, "passes must be .*got 10001"),
        ({"passes": 2.0}, "passes must be .*got 2.0"),
        ({"shifts": 17}, "shifts must be .*got 17"),
        ({"shifts": True}, "shifts must be .*got True"),
        ({"min_precision": 1.0}, r"min_precision must be in \(0, 1\), got 1.0"),
        ({"min_precision": 0}, r"min_precision must be in \(0, 1\), got 0"),
        ({"min_recall": -0.1}, r"min_recall must be in \(0, 1\), got -0.1"),
        ({"max_false_alarms_per_hour": 0}, "max_false_alarms_per_hour must be a number > 0, got 0"),
        ({"min_precision": 0.9}, "a goal needs a calibration, and .* has none: run training/calibrate.py"),
        ({"min_recall": 0.5}, "a goal needs a calibration"),
        ({"max_false_alarms_per_hour": 2}, "a goal needs a calibration"),
    ],
)
def test_parameters_outside_of_their_range(pipe, asked, message):
    with pytest.raises(ValueError, match=message) as caught:
        pipe(as_source(make_audio(1.0)), **asked)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=message):  # the same when it is asked of every call
        SoundEventDetectionPipeline(model=pipe.model, feature_extractor=pipe.feature_extractor, device="cpu", **asked)


def test_moments_are_refused_where_a_block_is_sampled_too():
    pipe = make_pipe(monte_carlo_blocks=1)
    with pytest.raises(ValueError, match=r"monte_carlo_blocks=0\), got 1: use uncertainty='mc'"):
        pipe(as_source(make_audio(1.0)), uncertainty="moments")
    assert pipe(as_source(make_audio(1.0))).receipt["uncertainty"] == "mc"


def test_a_feature_extractor_must_fit(pipe):
    for parameters in ({}, {"shifts": 2}):
        with pytest.raises(ValueError, match="feature_extractor must be given"):
            SoundEventDetectionPipeline(model=pipe.model, device="cpu", **parameters)
    with pytest.raises(ValueError, match=r"mel bands \(16000, 160, 32\), got \(16000, 160, 64\)"):
        SoundEventDetectionPipeline(model=pipe.model, feature_extractor=EasySEDFeatureExtractor(), device="cpu")


def test_bad_audio_reaches_the_caller_as_one_line(pipe):
    with pytest.raises(ValueError, match="a bare array has no sampling rate"):
        pipe(make_audio(1.0))


def test_silence_and_one_sample_are_warnings(pipe):
    silent = pipe(as_source(np.zeros(RATE, np.float32)))
    assert any(warning.startswith("silent: ") for warning in silent.warnings)
    single = pipe(as_source(np.zeros(1, np.float32)))
    assert any(warning.startswith("too short: ") for warning in single.warnings)
