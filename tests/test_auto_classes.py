"""What the Hugging Face ecosystem expects: Auto classes, saving, loading, dtypes, lazy imports, upload."""

import subprocess
import sys

import pytest
import torch
from tiny import tiny_config, tiny_model
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification, PreTrainedModel

import modeling_easysed
from modeling_easysed import EasySEDFeatureExtractor, EasySEDForSoundEventDetection, EasySEDModel


@pytest.fixture(params=["cnn", "transformer"])
def saved(request, tmp_path):
    model = tiny_model(request.param)
    model.save_pretrained(tmp_path)
    EasySEDFeatureExtractor(feature_size=32).save_pretrained(tmp_path)
    return model, tmp_path


def test_auto_classes_load_every_part(saved):
    model, folder = saved
    assert AutoConfig.from_pretrained(folder).backbone == model.config.backbone
    assert isinstance(AutoFeatureExtractor.from_pretrained(folder), EasySEDFeatureExtractor)
    assert isinstance(AutoModel.from_pretrained(folder), EasySEDModel)
    assert isinstance(AutoModelForAudioClassification.from_pretrained(folder), EasySEDForSoundEventDetection)


def test_loaded_model_is_equal_in_outputs_and_buffers(saved):
    model, folder = saved
    loaded, inputs = EasySEDForSoundEventDetection.from_pretrained(folder), torch.randn(2, 33, 32)
    assert not loaded.training
    assert torch.equal(loaded(inputs).exit_frame_logits, model(inputs).exit_frame_logits)
    own = model.state_dict()
    assert loaded.state_dict().keys() == own.keys()
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, own[name]), name
    assert not list(folder.glob("*.bin"))


def test_no_buffer_is_left_to_chance():
    """A non-persistent buffer would come back as garbage from `from_pretrained`."""
    for backbone in ("cnn", "transformer"):
        model = tiny_model(backbone)
        assert {name for name, _ in model.named_buffers()} <= set(model.state_dict())


def test_student_saves_and_loads_like_any_other(tmp_path):
    student = tiny_model().student(2)
    student.save_pretrained(tmp_path)
    loaded = AutoModelForAudioClassification.from_pretrained(tmp_path)
    inputs = torch.randn(1, 20, 32)
    assert loaded.num_exits == 2 and loaded.config.num_exits == 2
    assert torch.equal(loaded(inputs).logits, student(inputs).logits)


def test_bfloat16_checkpoint_reloads_as_bfloat16(tmp_path):
    tiny_model().to(torch.bfloat16).save_pretrained(tmp_path)
    assert EasySEDForSoundEventDetection.from_pretrained(tmp_path).dtype == torch.bfloat16
    assert EasySEDForSoundEventDetection.from_pretrained(tmp_path, dtype=torch.float32).dtype == torch.float32


def test_new_model_starts_at_rare_events():
    torch.manual_seed(0)
    model = EasySEDForSoundEventDetection(tiny_config()).train()
    probabilities = torch.sigmoid(model(torch.randn(4, 80, 32)).exit_frame_logits)
    assert 0.03 < probabilities.mean() < 0.08


def test_pickles_are_never_read(tmp_path):
    model = tiny_model()
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="model.safetensors"):
        AutoModelForAudioClassification.from_pretrained(tmp_path)


def test_upload_is_inherited():
    assert EasySEDForSoundEventDetection.push_to_hub is PreTrainedModel.push_to_hub


def test_every_public_name_is_there():
    for name in modeling_easysed.__all__:
        assert getattr(modeling_easysed, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'EasySEDTagger'"):
        _ = modeling_easysed.EasySEDTagger


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1500:]
    return done.stdout.strip()


def test_import_does_not_wait_for_torch():
    code = "import sys, modeling_easysed, modeling_easysed.metrics; print('torch' in sys.modules)"
    assert run_python(code) == "False"


@pytest.mark.parametrize(
    "first",
    [
        "from modeling_easysed import EasySEDConfig",
        "import transformers, modeling_easysed",
        "import modeling_easysed; modeling_easysed.register()",
    ],
)
def test_registered_in_any_order(first):
    code = f"{first}\nfrom transformers import AutoConfig\nprint(type(AutoConfig.for_model('easysed')).__name__)"
    assert run_python(code) == "EasySEDConfig"
