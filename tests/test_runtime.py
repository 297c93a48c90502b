"""onnxruntime against PyTorch: features, every stage and exit, whole detections, and what decides between the two."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_model
from transformers.audio_utils import mel_filter_bank

from modeling_easysed import BUNDLED_CHECKPOINTS, EasySEDFeatureExtractor, EventStream, SoundEventDetectionPipeline
from modeling_easysed.cli.main import main
from modeling_easysed.export.errors import ExportError
from modeling_easysed.runtime.choice import graphs_fit, runs_on_onnx
from modeling_easysed.runtime.log_mel import ArrayLogMel, mel_filters
from modeling_easysed.sampling_easysed import Sampling, sample_window

pytest.importorskip("onnxruntime", reason='onnxruntime is not installed: pip install "easysed[export]"')
from modeling_easysed.export.graphs import write_graphs  # noqa: E402
from modeling_easysed.runtime.detector import OnnxDetector  # noqa: E402
from modeling_easysed.runtime.network import OnnxNetwork  # noqa: E402

RATE = 16000
NUMBERS = 1e-4  # how far two runtimes may lie apart


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    level = np.repeat(generator.uniform(0.0, 0.3, num_samples // 4000 + 1), 4000)[:num_samples]
    return (level * generator.standard_normal(num_samples)).clip(-1, 1).astype(np.float32)


def assert_alike(own: object, other: object, where: str = "") -> None:
    """Two JSON values are the same, numbers within `NUMBERS`."""
    if isinstance(own, dict):
        assert own.keys() == other.keys(), where
        for key in own:
            assert_alike(own[key], other[key], f"{where}.{key}")
    elif isinstance(own, list):
        assert len(own) == len(other), where
        for number, (one, another) in enumerate(zip(own, other, strict=True)):
            assert_alike(one, another, f"{where}[{number}]")
    elif isinstance(own, float):
        assert own == pytest.approx(other, abs=NUMBERS), where
    else:
        assert own == other, where


# ---- features --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bins", "mels", "low", "high"), [(257, 64, 50.0, 8000.0), (513, 40, 0.0, 7000.0)])
def test_mel_filters_are_those_of_transformers(bins, mels, low, high):
    expected = mel_filter_bank(bins, mels, low, high, RATE, norm=None, mel_scale="htk")
    np.testing.assert_allclose(mel_filters(bins, mels, low, high, RATE), expected, atol=1e-6)


@pytest.mark.parametrize("sizes", [(160, 400, 512), (320, 640, 1024), (100, 334, 512)])
@pytest.mark.parametrize("num_samples", [1, 159, 160, 5000, 400_000])
def test_frames_are_those_of_the_feature_extractor(tmp_path, sizes, num_samples):
    hop, window, fft = sizes
    extractor = EasySEDFeatureExtractor(
        hop_length_samples=hop,
        window_length_samples=window,
        fft_length_samples=fft,
        mel_mean=[-40.0] * 64,
        mel_std=[15.0] * 64,
    )
    extractor.save_pretrained(tmp_path)
    own = ArrayLogMel(json.loads((tmp_path / "preprocessor_config.json").read_text()))
    samples = noise(num_samples)
    assert own.num_frames(num_samples) == extractor.num_frames(num_samples)
    np.testing.assert_allclose(own.frames(samples), extractor.frames(samples), atol=2e-4)
    np.testing.assert_allclose(own.mel_hz(), extractor.mel_hz(), atol=1e-6)


def test_silence_has_the_floor(tmp_path):
    EasySEDFeatureExtractor().save_pretrained(tmp_path)
    own = ArrayLogMel(json.loads((tmp_path / "preprocessor_config.json").read_text()))
    np.testing.assert_allclose(own.frames(np.zeros(800, np.float32)), -100.0, atol=1e-4)


def test_other_transforms_are_refused():
    with pytest.raises(ValueError, match="transform must be 'centered'"):
        ArrayLogMel({"transform": "kaldi", "min_num_frames": 0})
    with pytest.raises(ValueError, match="window_length_samples must be even, got 333"):
        ArrayLogMel({"transform": "centered", "min_num_frames": 0, "window_length_samples": 333})


# ---- network ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["cnn", "transformer"])
def tiny(request, tmp_path_factory):
    """A small model with loud classifiers and running statistics, and its network on onnxruntime."""
    folder = tmp_path_factory.mktemp(request.param)
    model = tiny_model(request.param)
    generator = torch.Generator().manual_seed(1)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(generator=generator)
    for head in model.exits:
        torch.nn.init.normal_(head.classifier.weight, generator=generator)
    model.save_pretrained(folder)
    EasySEDFeatureExtractor(feature_size=32).save_pretrained(folder)
    write_graphs(folder)
    return model.eval(), OnnxNetwork(folder, num_threads=1)


@pytest.mark.parametrize("method", ["none", "mc", "exits", "moments"])
@pytest.mark.parametrize("num_frames", [1, 5, 203])
def test_windows_are_sampled_alike(tiny, method, num_frames):
    model, network = tiny
    values = np.random.default_rng(0).standard_normal((num_frames, 32)).astype(np.float32)
    for exit_index in range(1, model.num_exits + 1):
        for limits in ([], [0.5] * (exit_index - 1)):
            with torch.inference_mode():
                expected = sample_window(model, values, Sampling(method, 6, 3), exit_index, limits)
            found = sample_window(network, values, Sampling(method, 6, 3), exit_index, limits)
            assert found.exit_index == expected.exit_index
            for name in ("logits", "weights", "exit_logits", "embeddings"):
                np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=NUMBERS, err_msg=name)


def test_weights_lie_in_the_checkpoint_alone(tiny):
    _, network = tiny
    graphs = network.folder / "graphs"
    assert {path.name for path in graphs.iterdir()} == {
        "graphs.json",
        *(f"{kind}{number}.onnx" for kind in ("step", "head") for number in range(1, network.num_exits + 1)),
    }
    assert sum(path.stat().st_size for path in graphs.iterdir()) < 150_000


def test_models_without_such_graphs_are_refused(tmp_path):
    tiny_model(monte_carlo_blocks=1).save_pretrained(tmp_path)
    with pytest.raises(ExportError, match="monte_carlo_blocks=0 to have graphs, got 'cnn' with 1"):
        write_graphs(tmp_path)
    assert not (tmp_path / "graphs").exists()


# ---- detections ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=sorted(BUNDLED_CHECKPOINTS))
def both(request):
    folder = BUNDLED_CHECKPOINTS[request.param]
    return SoundEventDetectionPipeline.from_pretrained(folder, device="cpu"), OnnxDetector(folder)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"exit": 1},
        {"exit": 2, "uncertainty": "moments", "shifts": 0},
        {"exit": 3, "uncertainty": "exits"},
        {"uncertainty": "none", "shifts": 1, "min_recall": 0.8},
    ],
)
def test_detections_and_receipts_are_the_same(both, data_dir, settings):
    pipe, detector = both
    for number in (3, 10, 17):
        path = data_dir / "soundscapes" / "audio" / "test" / f"test_{number:04d}.ogg"
        expected, found = pipe(path, **settings), detector(path, **settings)
        assert_alike(found.to_dict(), expected.to_dict())
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=NUMBERS)
        np.testing.assert_allclose(found.log_mel, expected.log_mel, atol=0.01)


def test_streams_and_long_recordings_are_the_same(both, data_dir, monkeypatch):
    pipe, detector = both
    paths = sorted((data_dir / "soundscapes" / "audio" / "test").glob("test_000*.ogg"))[:4]
    from modeling_easysed.audio_easysed import read_audio

    samples = np.concatenate([read_audio(path, RATE).samples for path in paths])
    events = []
    for one in (pipe, detector):
        stream = EventStream(one, RATE, exit=1, shifts=0)
        events.append([event.to_dict() for event in stream.push(samples) + stream.close()])
    assert_alike(events[1], events[0])
    monkeypatch.setattr("modeling_easysed.long_recordings_easysed.LONG_S", 20.0)
    source = {"array": samples, "sampling_rate": RATE}
    assert_alike(detector(source, exit=1).to_dict(), pipe(source, exit=1).to_dict())


def test_lists_and_generators(both, data_dir):
    _, detector = both
    path = data_dir / "soundscapes" / "audio" / "test" / "test_0010.ogg"
    alone = detector(path, exit=1, shifts=0).to_dict()
    assert [one.to_dict() for one in detector([path, path], exit=1, shifts=0)] == [alone] * 2
    assert [one.to_dict() for one in detector(iter([path]), exit=1, shifts=0)] == [alone]
    with pytest.raises(ValueError, match="exit must be 'auto' or a number"):
        detector(path, exit=9)


# ---- the choice ------------------------------------------------------------------------------------------------------


def test_bundled_checkpoints_have_graphs_that_fit():
    for folder in BUNDLED_CHECKPOINTS.values():
        assert graphs_fit(Path(folder)) and runs_on_onnx(folder, "cpu") and not runs_on_onnx(folder, "cuda")


def test_an_accelerator_or_other_weights_need_pytorch(monkeypatch, tmp_path):
    folder = Path(shutil.copytree(BUNDLED_CHECKPOINTS["easysed-cnn"], tmp_path / "copy"))
    monkeypatch.setattr("modeling_easysed.runtime.choice.may_have_accelerator", lambda: True)
    assert not runs_on_onnx(folder, "auto") and runs_on_onnx(folder, "cpu")
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    size = int.from_bytes(content[:8], "little")
    weights.write_bytes((size + 8).to_bytes(8, "little") + content[8 : 8 + size] + b" " * 8 + content[8 + size :])
    assert not runs_on_onnx(folder, "cpu")  # every tensor lies eight bytes further on
    assert not runs_on_onnx("owner/name", "cpu")


def test_the_commands_on_onnx_import_no_pytorch_and_no_transformers(data_dir):
    path = data_dir / "soundscapes" / "audio" / "test" / "test_0010.ogg"
    code = "import sys; from modeling_easysed.cli.main import main; status = main(sys.argv[1:]); "
    code += "print(sorted({'torch', 'transformers', 'pandas', 'matplotlib'} & set(sys.modules)), file=sys.stderr)"
    said = {}
    for runtime in ("onnx", "torch"):
        command = [sys.executable, "-c", code, "detect", str(path), "--format", "json", "--runtime", runtime]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        said[runtime] = json.loads(done.stdout)
        assert done.stderr.strip().endswith("[]" if runtime == "onnx" else "['torch', 'transformers']")
    assert_alike(said["onnx"], said["torch"])
    stream = [sys.executable, "-c", code, "stream", "--source", "stdin", "--runtime", "onnx"]
    samples = (20000 * np.sin(np.arange(16000))).astype("<i2")
    done = subprocess.run(stream, input=samples.tobytes(), capture_output=True, timeout=300, check=True)
    assert done.stderr.decode().strip().endswith("[]")


def test_onnx_that_cannot_be_had_is_one_line(tmp_path, capsys, data_dir):
    tiny_model().save_pretrained(tmp_path)
    EasySEDFeatureExtractor(feature_size=32).save_pretrained(tmp_path)
    path = str(data_dir / "soundscapes" / "audio" / "test" / "test_0010.ogg")
    assert main(["detect", path, "--model", str(tmp_path), "--runtime", "onnx"]) == 2
    assert "error: --runtime onnx needs onnxruntime" in capsys.readouterr().err
    assert main(["detect", path, "--model", str(tmp_path)]) == 0
