"""The ONNX export: equal to PyTorch in every output, for any batch, length and masks, and the runner without torch."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_model
from tiny_export import HALF, HOP, KINDS, RATE, deviations, noise, real_clips, tiny_checkpoint

from modeling_easysed import BUNDLED_CHECKPOINTS, EasySEDFeatureExtractor, EasySEDForSoundEventDetection
from modeling_easysed.calibration_easysed import Calibration
from modeling_easysed.decisions_easysed import DEFAULT_GOAL
from modeling_easysed.draws_easysed import seed_masks
from modeling_easysed.export.check import TOLERANCE, check_export, check_signals, deviation, onnx_run, whole_hops
from modeling_easysed.export.description import describe
from modeling_easysed.export.errors import ExportError
from modeling_easysed.export.graph import ExportGraph, LogMel, check_exportable
from modeling_easysed.export.runner import ExportedDetector, read_description, window_of
from modeling_easysed.export.write import export_checkpoint
from modeling_easysed.monte_carlo_easysed import evaluating, sample_masks
from modeling_easysed.pipeline_easysed import SoundEventDetectionPipeline

pytest.importorskip("onnxruntime", reason='onnxruntime is not installed: pip install "easysed[export]"')
EXITS = [("easysed-cnn", 1), ("easysed-cnn", 2), ("easysed-cnn", 3), ("easysed-cnn", 4)]
EXITS += [("easysed-transformer", 1), ("easysed-transformer", 2), ("easysed-transformer", 3)]


@pytest.fixture(scope="module", params=list(KINDS))
def exported(request, tmp_path_factory):
    """Checkpoint folder, pipeline and detector of its deepest exit, exported."""
    root = tmp_path_factory.mktemp("export")
    folder = tiny_checkpoint(root / "tiny", request.param)
    out = export_checkpoint(folder, "onnx", None, root / "deep" / "out").folder
    return SoundEventDetectionPipeline.from_pretrained(folder, device="cpu"), ExportedDetector(out, num_threads=1), out


# ---- masks and front end: no export needed ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2**31 + 5, 2**32 - 1, 2**32 + 3, -7, 2**62 + 9])
@pytest.mark.parametrize("probability", [0.0, 0.1, 0.37, 0.5])
def test_masks_of_the_recipe_are_those_of_torch(seed, probability):
    assert np.array_equal(seed_masks(5, 2, 33, probability, seed), sample_masks(5, 2, 33, probability, seed).numpy())


@pytest.mark.parametrize(("window", "hop", "fft"), [(400, 160, 512), (320, 160, 320), (512, 128, 512), (30, 20, 64)])
def test_front_end_equals_the_feature_extractor(window, hop, fft):
    sizes = {"window_length_samples": window, "hop_length_samples": hop, "fft_length_samples": fft}
    extractor = EasySEDFeatureExtractor(feature_size=8, mel_mean=[-30.0] * 8, mel_std=[12.0] * 8, **sizes)
    front_end = LogMel(extractor)
    for num_samples in (1, hop - 1, hop, 16001, 9999):
        samples = torch.from_numpy(noise(num_samples))
        expected = extractor(samples, sampling_rate=RATE).input_values
        given = front_end(samples[None], torch.zeros(1, 2, window // 2))
        torch.testing.assert_close(given, expected, atol=2e-4, rtol=0)


def test_features_that_are_not_normalised():
    extractor = EasySEDFeatureExtractor(feature_size=8)
    given = LogMel(extractor)(torch.from_numpy(noise(3000))[None], torch.zeros(1, 2, HALF))
    torch.testing.assert_close(given[0], extractor.log_mel(torch.from_numpy(noise(3000))[None])[0], atol=2e-3, rtol=0)


def test_a_window_with_its_edges_gives_the_frames_of_the_whole():
    extractor, samples = EasySEDFeatureExtractor(feature_size=8), noise(16037)
    whole = extractor(samples, sampling_rate=RATE).input_values
    for begin, end in ((0, 40), (13, 57), (40, whole.shape[1])):
        waveform, edges = window_of(samples, begin * HOP, (end - 1) * HOP, HALF)
        frames = LogMel(extractor)(torch.from_numpy(waveform)[None], torch.from_numpy(edges)[None])
        torch.testing.assert_close(frames, whole[:, begin:end], atol=2e-3, rtol=0)


# ---- the file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch", "num_samples", "passes"), [(1, 48000, 20), (3, 16001, 1), (2, 700, 4), (1, 1, 2)])
def test_any_batch_length_and_passes_equal_monte_carlo(exported, batch, num_samples, passes):
    pipe, detector, _ = exported
    clips = np.stack([noise(num_samples, seed) for seed in range(batch)])
    values = pipe.feature_extractor(list(clips), sampling_rate=RATE).input_values
    expected = pipe.model.monte_carlo(values, passes=passes, seed=5)
    outputs = detector.run(clips, detector.masks(passes, seed=5))
    assert deviation(outputs["frame_logits"], expected.frame_logits) < TOLERANCE
    assert deviation(outputs["logits"], expected.logits) < TOLERANCE


def test_outputs_of_the_plain_pass(exported):
    pipe, detector, _ = exported
    clips = noise(20000)[None]
    values = pipe.feature_extractor(list(clips), sampling_rate=RATE).input_values
    with evaluating(pipe.model):
        plain = pipe.model(values)
    outputs = detector.run(clips, detector.masks(0))
    assert deviation(outputs["frame_logits"], plain.frame_logits[None]) < TOLERANCE
    assert deviation(outputs["exit_frame_logits"], plain.exit_frame_logits) < TOLERANCE
    torch.testing.assert_close(torch.from_numpy(outputs["embeddings"]), plain.exit_embeddings[-1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.from_numpy(outputs["log_mel"]), values, atol=1e-3, rtol=0)


def test_mask_sets_differ_and_leave_the_plain_pass_alone(exported):
    _, detector, _ = exported
    clips = noise(20000)[None]
    first, second = (detector.run(clips, detector.masks(3, seed=seed)) for seed in (0, 1))
    assert np.abs(first["frame_logits"] - second["frame_logits"]).max() > 0.01
    assert np.ptp(first["frame_logits"], axis=0).max() > 0.01
    assert np.array_equal(first["exit_frame_logits"], second["exit_frame_logits"])


def test_open_sizes_have_names_and_nothing_else_is_open(exported):
    _, detector, _ = exported
    shapes = {one.name: one.shape for one in (*detector.session.get_inputs(), *detector.session.get_outputs())}
    sites = detector.description["masks"]["sites"]
    assert shapes == {
        "waveform": ["batch", "samples"],
        "edges": ["batch", 2, 200],
        "masks": ["passes", sites, 8],
        "frame_logits": ["passes", "batch", "output_frames", 3],
        "logits": ["passes", "batch", 3],
        "exit_frame_logits": [shapes["exit_frame_logits"][0], "batch", "output_frames", 3],
        "embeddings": ["batch", "output_frames", 8],
        "log_mel": ["batch", "frames", 32],
    }


# ---- the runner ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_samples", [1, 100, 700, 31999, 120000])
@pytest.mark.parametrize(("shifts", "passes"), [(0, 0), (2, 3)])
def test_recordings_of_any_length_equal_the_pipeline(exported, num_samples, shifts, passes):
    """Windows, shifts and their borders: 120000 samples are five windows."""
    pipe, detector, _ = exported
    samples = noise(num_samples)
    method = {"uncertainty": "none"} if passes == 0 else {"passes": passes, "seed": 3}
    detection = pipe({"array": samples, "sampling_rate": RATE}, shifts=shifts, exit=pipe.model.num_exits, **method)
    times, values = detector.probabilities(samples, passes=passes, seed=3, shifts=shifts)
    assert np.minimum(times, detection.duration) == pytest.approx(detection.frame_times)
    assert np.abs(values - detection.probabilities).max() < TOLERANCE


def test_boxes_are_the_events_of_the_pipeline(exported):
    pipe, detector, _ = exported
    samples = noise(6 * RATE)
    events = pipe({"array": samples, "sampling_rate": RATE}, exit=pipe.model.num_exits).events
    boxes = detector.boxes(samples)
    assert len(boxes) > 0
    assert [(box.onset, box.offset, detector.labels[box.class_index]) for box in boxes] == [
        (pytest.approx(event.onset, abs=0.011), pytest.approx(event.offset, abs=0.011), event.label) for event in events
    ]
    assert [box.score for box in boxes] == pytest.approx([event.score for event in events], abs=TOLERANCE)


def test_runner_needs_no_torch(exported):
    script = (
        "import sys, numpy as np; from modeling_easysed.export.runner import ExportedDetector; "
        "times, values = ExportedDetector(sys.argv[1]).probabilities(np.zeros(40000, np.float32)); "
        "print(values.shape, {'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(exported[2])], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "(251, 3) set()", done.stderr


@pytest.mark.parametrize("samples", [np.zeros(0), np.zeros((2, 100))])
def test_runner_refuses_what_is_no_mono_recording(exported, samples):
    with pytest.raises(ExportError, match=r"samples must be mono with shape \(samples,\), at least one, got"):
        exported[1].probabilities(samples)


def test_runner_refuses_other_folders(exported, tmp_path):
    with pytest.raises(ExportError, match="no usable easysed.json"):
        ExportedDetector(tmp_path)
    (tmp_path / "easysed.json").write_text(json.dumps({**exported[1].description, "format_version": 9}))
    with pytest.raises(ExportError, match="format easysed-export 1, got easysed-export 9"):
        ExportedDetector(tmp_path)
    (tmp_path / "easysed.json").write_text(json.dumps(exported[1].description))
    with pytest.raises(ExportError, match="has no easysed.onnx"):
        ExportedDetector(tmp_path)


# ---- the description -------------------------------------------------------------------------------------------------


def test_description_says_what_a_device_needs(exported):
    pipe, _, folder = exported
    description = read_description(folder)
    assert {path.name for path in folder.iterdir()} == {"easysed.onnx", "easysed.json"}
    entry, content = description["files"]["easysed.onnx"], (folder / "easysed.onnx").read_bytes()
    assert entry["bytes"] == len(content) and entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert entry["max_deviation"] < TOLERANCE and entry["max_deviation_plain"] < TOLERANCE and entry["ms_per_10_s"] > 0
    assert description["labels"] == ["dog_bark", "rain", "rooster"]
    audio, windows = description["audio"], description["windows"]
    assert (audio["frame_samples"], audio["frame_duration_s"], audio["edge_samples"]) == (640, 0.04, 200)
    assert windows == {"window_frames": 200, "context_frames": 60, "frame_stride": 4}
    masks = description["masks"]
    assert (masks["probability"], masks["kept"]) == (0.2, 1.25) and "MT19937" in masks["recipe"]
    assert description["receipt"] == pipe.receipt_of(exit=pipe.model.num_exits)
    assert description["decoding"]["parameters"]["threshold"] == [0.5, 0.5, 0.5]
    assert description["calibration"] is None and description["decisions"] == {}
    assert {"torch", "onnx", "onnxruntime"} <= set(description["versions"])


def test_description_of_a_calibrated_checkpoint_judges_like_the_pipeline():
    pipe = SoundEventDetectionPipeline.from_pretrained("easysed-cnn", device="cpu")
    graph = ExportGraph(pipe.model.student(2), pipe.feature_extractor)
    description = json.loads(json.dumps(describe(pipe, 2, graph, "apache-2.0"), allow_nan=False))
    calibration = Calibration(description["calibration"], description["labels"])
    assert calibration.id == pipe.calibration.id == description["receipt"]["calibration"]
    assert calibration.temperature(2) == pipe.calibration.temperature(2)
    assert set(description["calibration"]["exits"]) == {"2"}
    assert set(description["decisions"]) == {f"{m}{s}" for m in ("none", "mc", "exits") for s in ("", "+shifts")}
    rule = pipe._rule(DEFAULT_GOAL, 2, "mc+shifts")
    assert description["decisions"]["mc+shifts"]["accept"] == rule.accept.tolist()
    assert description["decisions"]["mc+shifts"]["sentences"] == rule.sentences
    assert description["receipt"] == pipe.receipt_of(exit=2)
    assert description["model"]["parameters"] == sum(p.numel() for p in pipe.model.student(2).parameters())


# ---- what fails ------------------------------------------------------------------------------------------------------


def test_models_without_a_graph_say_so():
    extractor = EasySEDFeatureExtractor(feature_size=32)
    kaldi = EasySEDFeatureExtractor(feature_size=32, transform="kaldi")
    sizes = {"hidden_size": 8, "exit_hidden_size": 8, "max_length_frames": 64, "window_s": 0.4, "context_s": 0.1}
    ast = tiny_model("ast", **sizes, num_attention_heads=2, frame_stride=10, exit_layers=[3])
    for model, features in ((ast, kaldi), (tiny_model(), kaldi)):
        with pytest.raises(ExportError, match="an Audio Spectrogram Transformer needs PyTorch"):
            check_exportable(model, features)
    for features in ({"window_length_samples": 401}, {"min_num_frames": 9}):
        with pytest.raises(ExportError, match="window_length_samples must be even and min_num_frames 0"):
            check_exportable(tiny_model(), EasySEDFeatureExtractor(feature_size=32, **features))
    check_exportable(tiny_model(), extractor)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda outputs: [outputs[0] + 0.01, *outputs[1:]], "not equal to its model: max_deviation 0.00"),
        (lambda outputs: [outputs[0] * np.nan, *outputs[1:]], "not equal to its model: max_deviation nan"),
        (lambda outputs: [outputs[0][:, :, 1:], *outputs[1:]], "not equal to its model: max_deviation inf"),
        (lambda outputs: [*outputs[:2], outputs[2] + 0.01, *outputs[3:]], "max_deviation_plain"),
    ],
)
def test_check_finds_files_that_do_not_equal_their_model(exported, spoil, message):
    pipe, _, folder = exported
    run = onnx_run(folder / "easysed.onnx")
    graph = ExportGraph(pipe.model.student(pipe.model.num_exits), pipe.feature_extractor)
    with pytest.raises(ExportError, match=message):
        check_export(lambda *inputs: spoil(run(*inputs)), graph, pipe.feature_extractor, "spoilt.onnx")


def test_check_finds_masks_that_were_frozen(exported, monkeypatch):
    """A model whose own passes are all the plain one stands for a file and a reference that both ignore masks."""
    pipe, _, folder = exported
    run = onnx_run(folder / "easysed.onnx")
    graph = ExportGraph(pipe.model.student(pipe.model.num_exits), pipe.feature_extractor)
    ones = lambda passes, sites, width, *_: np.ones((passes, sites, width), np.float32)  # noqa: E731
    monkeypatch.setattr("modeling_easysed.export.check.seed_masks", ones)
    monkeypatch.setattr("modeling_easysed.modeling_easysed.sample_masks", lambda *sizes: torch.from_numpy(ones(*sizes)))
    with pytest.raises(ExportError, match="gives the same for all masks"):
        check_export(run, graph, pipe.feature_extractor, "frozen.onnx")


def test_check_signals_hold_silence_and_full_scale():
    signals = check_signals(RATE)
    assert not signals["silence"].any() and np.abs(signals["full-scale noise"]).max() > 0.999
    assert all(np.abs(values).max() <= 1.0 and len(values) <= 10 * RATE for values in signals.values())
    assert any(len(values) % HOP for values in signals.values())
    waveform, edges = whole_hops(np.arange(1.0, 331.0, dtype=np.float32), HOP, HALF)
    assert waveform.shape == (1, 320) and edges[0, 1, :11].tolist() == [*range(321, 331), 0] and not edges[0, 0].any()


# ---- the bundled checkpoints on real recordings ----------------------------------------------------------------------


def check_real(data_dir: Path, tmp_path: Path, name: str, exit_index: int) -> None:
    folder = export_checkpoint(name, "onnx", exit_index, tmp_path / "out").folder
    model = EasySEDForSoundEventDetection.from_pretrained(BUNDLED_CHECKPOINTS[name]).student(exit_index)
    extractor = EasySEDFeatureExtractor.from_pretrained(BUNDLED_CHECKPOINTS[name])
    masks = seed_masks(20, 1, model.config.exit_hidden_size, model.config.dropout, 3)
    run = onnx_run(folder / "easysed.onnx")
    worst = deviations(run, model, extractor, masks, real_clips(data_dir, 20))
    print(name, exit_index, worst)
    assert worst["mean"] < TOLERANCE and worst["exact"] < TOLERANCE, worst


def test_smallest_student_on_real_clips(data_dir, tmp_path):
    check_real(data_dir, tmp_path, "easysed-cnn", 1)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "exit_index"), EXITS)
def test_every_exit_on_real_clips(data_dir, tmp_path, name, exit_index):
    check_real(data_dir, tmp_path, name, exit_index)
