"""The commands' detector on PyTorch: as the pipeline, without transformers' models; what it cannot load, that can."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_model

from modeling_easysed import BUNDLED_CHECKPOINTS, EasySEDFeatureExtractor, SoundEventDetectionPipeline
from modeling_easysed.cli.main import main
from modeling_easysed.runtime.torch_detector import TorchDetector, load_bare

NUMBERS = 1e-4  # how far two front ends may lie apart


@pytest.fixture
def checkpoint(tmp_path):
    """A small model whose features have a counterpart in numpy."""
    tiny_model().save_pretrained(tmp_path)
    EasySEDFeatureExtractor(feature_size=32).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", sorted(BUNDLED_CHECKPOINTS))
@pytest.mark.parametrize("settings", [{}, {"exit": 1, "uncertainty": "none", "shifts": 0}, {"uncertainty": "moments"}])
def test_detections_are_those_of_the_pipeline(name, settings, data_dir):
    pipe = SoundEventDetectionPipeline.from_pretrained(name, device="cpu")
    detector = TorchDetector(BUNDLED_CHECKPOINTS[name], "cpu")
    path = data_dir / "soundscapes" / "audio" / "test" / "test_0010.ogg"
    expected, found = pipe(path, **settings), detector(path, **settings)
    assert found.receipt == expected.receipt and len(found.events) == len(expected.events)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=NUMBERS)
    for one, other in zip(found.events, expected.events, strict=True):
        assert (one.label, one.decision, one.reasons) == (other.label, other.decision, other.reasons)
        assert one.confidence == pytest.approx(other.confidence, abs=NUMBERS)


def test_the_network_is_the_saved_one(checkpoint):
    model, values = tiny_model(), torch.randn(1, 40, 32)
    model.load_state_dict(load_file(checkpoint / "model.safetensors"))
    bare = load_bare(checkpoint)
    assert not bare.training and bare.num_exits == model.num_exits
    for own, other in zip(bare.easysed.stages(values), model.eval().easysed.stages(values), strict=True):
        torch.testing.assert_close(own, other)


def test_a_type_is_kept(tmp_path):
    tiny_model().to(torch.bfloat16).save_pretrained(tmp_path)
    values = torch.randn(1, 40, 32)
    assert next(load_bare(tmp_path).easysed.stages(values)).dtype == torch.bfloat16


def test_weights_that_do_not_fit_are_explained_by_the_pipeline(checkpoint, capsys, data_dir):
    weights = load_file(checkpoint / "model.safetensors")
    del weights["exits.0.classifier.bias"]
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="does not hold"):
        load_bare(checkpoint)
    path = str(data_dir / "soundscapes" / "audio" / "test" / "test_0010.ogg")
    assert main(["detect", path, "--model", str(checkpoint), "--device", "cpu"]) == 2
    assert "its weights lack 1 tensors, the first is exits.0.classifier.bias" in capsys.readouterr().err


def test_other_features_are_left_to_the_pipeline(checkpoint, data_dir, capsys):
    EasySEDFeatureExtractor(feature_size=32, min_num_frames=100).save_pretrained(checkpoint)
    with pytest.raises(ValueError, match="centered"):
        TorchDetector(checkpoint, "cpu")
    path = str(data_dir / "soundscapes" / "audio" / "test" / "test_0010.ogg")
    assert main(["detect", path, "--model", str(checkpoint), "--device", "cpu", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["events"] is not None


def test_features_of_another_model_are_explained_by_the_pipeline(checkpoint, capsys, data_dir):
    EasySEDFeatureExtractor(feature_size=40).save_pretrained(checkpoint)
    path = str(data_dir / "soundscapes" / "audio" / "test" / "test_0010.ogg")
    assert main(["detect", path, "--model", str(checkpoint), "--device", "cpu"]) == 2
    assert "feature extractor must have the model's sampling rate, hop and mel bands" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_one_line(checkpoint, capsys, data_dir):
    path = str(data_dir / "soundscapes" / "audio" / "test" / "test_0010.ogg")
    assert main(["detect", path, "--model", str(checkpoint), "--device", "cuda:99"]) == 2
    assert "error: --device cuda:99: " in capsys.readouterr().err


def test_the_command_on_pytorch_imports_no_models_of_transformers(data_dir):
    path = data_dir / "soundscapes" / "audio" / "test" / "test_0010.ogg"
    code = "import sys; from modeling_easysed.cli.main import main; status = main(sys.argv[1:]); "
    code += "print(sorted({'torch', 'transformers.modeling_utils'} & set(sys.modules)), file=sys.stderr)"
    command = [sys.executable, "-c", code, "detect", str(path), "--runtime", "torch", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert done.stderr.strip().endswith("['torch']")
