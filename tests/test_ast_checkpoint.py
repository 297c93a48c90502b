"""An Audio Spectrogram Transformer saved, loaded, refused where it cannot be used, in the pipeline and as a command."""

import csv
import json
import os
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from tiny_ast import LABELS, RATE, column_logits, load, make_ast, make_audio, save_ast
from transformers import (
    ASTFeatureExtractor,
    ASTForAudioClassification,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
)

from modeling_easysed import EasySEDFeatureExtractor, EasySEDForSoundEventDetection, SoundEventDetectionPipeline
from modeling_easysed.bundled import CheckpointError, cached_checkpoints, resolve_checkpoint
from modeling_easysed.cli.main import main as easysed
from modeling_easysed.detection_easysed import NO_CALIBRATION


@pytest.fixture(scope="module")
def ast() -> ASTForAudioClassification:
    return make_ast()


@pytest.fixture(scope="module")
def folder(ast, tmp_path_factory) -> str:
    return save_ast(ast, tmp_path_factory.mktemp("ast") / "tiny-ast")


@pytest.fixture(scope="module")
def model(folder) -> EasySEDForSoundEventDetection:
    return load(folder)


# ---- saving and loading ----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_saved_model_and_extractor_give_the_same(model, folder, tmp_path):
    extractor, samples = EasySEDFeatureExtractor.from_ast(folder), make_audio(1.0)
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    loaded = AutoModelForAudioClassification.from_pretrained(tmp_path)
    values = AutoFeatureExtractor.from_pretrained(tmp_path)(samples, sampling_rate=RATE)
    expected = extractor(samples, sampling_rate=RATE)
    assert torch.equal(values.input_values, expected.input_values)
    assert torch.equal(loaded(**values).exit_frame_logits, model(**expected).exit_frame_logits)
    state = model.state_dict()
    assert {name for name, _ in model.named_buffers()} <= set(state)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, state[name]), name
    student = model.student(1)
    student.save_pretrained(tmp_path / "student")
    again = EasySEDForSoundEventDetection.from_pretrained(tmp_path / "student")
    assert torch.equal(again(**values).logits, student(**values).logits)


def test_a_saved_folder_works_where_the_package_cannot_be_imported(model, folder, tmp_path):
    model.save_pretrained(tmp_path / "model")
    EasySEDFeatureExtractor.from_ast(folder).save_pretrained(tmp_path / "model")
    script = (
        "import sys; sys.modules['modeling_easysed'] = None\n"
        "import numpy, torch\n"
        "from transformers import AutoFeatureExtractor, AutoModelForAudioClassification\n"
        "model = AutoModelForAudioClassification.from_pretrained('model', trust_remote_code=True)\n"
        "extractor = AutoFeatureExtractor.from_pretrained('model', trust_remote_code=True)\n"
        "with torch.no_grad():\n"
        "    output = model(**extractor(numpy.load('audio.npy'), sampling_rate=16000))\n"
        "numpy.save('logits.npy', output.exit_frame_logits.numpy())\n"
    )
    np.save(tmp_path / "audio.npy", make_audio(1.0))
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    with torch.no_grad():
        values = EasySEDFeatureExtractor.from_ast(folder)(make_audio(1.0), sampling_rate=RATE)
        expected = model(**values).exit_frame_logits
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected.numpy(), atol=1e-6)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.fixture
def own_folder(folder, tmp_path):
    """A copy of the folder that a test may break."""
    return shutil.copytree(folder, tmp_path / "tiny-ast")


def change_json(path, **values) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_another_kind_of_model(own_folder):
    change_json(own_folder / "config.json", model_type="bert")
    with pytest.raises(ValueError, match="must have model_type 'audio-spectrogram-transformer'"):
        load(own_folder)
    with pytest.raises(CheckpointError, match="'easysed' or 'audio-spectrogram-transformer', got 'bert'"):
        resolve_checkpoint(own_folder)


def test_pickles_are_never_read(ast, own_folder):
    (own_folder / "model.safetensors").unlink()
    torch.save(ast.state_dict(), own_folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="model.safetensors"):
        load(own_folder)


def test_weights_that_lack_a_tensor(own_folder):
    weights = load_file(own_folder / "model.safetensors")
    save_file(
        {name: value for name, value in weights.items() if not name.startswith("classifier.")},
        own_folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(ValueError, match="lack 4 tensors, the first is classifier.dense.bias: .*pass id2label"):
        load(own_folder)
    with pytest.raises(ValueError, match="tiny-ast cannot be loaded: the weights of .* lack 4 tensors"):
        SoundEventDetectionPipeline.from_pretrained(own_folder)
    assert load(own_folder, id2label={0: "x"}).config.num_labels == 1


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("config.json", {"hidden_act": "relu"}, "hidden_act of an AST must be 'gelu', got 'relu'"),
        ("preprocessor_config.json", {"sampling_rate": 8000}, "must be 16000 Hz, .*got 8000"),
        ("preprocessor_config.json", {"max_length": 64}, r"mel bins and length \(128, 128\), got \(128, 64\)"),
    ],
)
def test_checkpoints_that_cannot_be_converted(own_folder, file, values, message):
    change_json(own_folder / file, **values)
    with pytest.raises(ValueError, match=message):
        load(own_folder)
    with pytest.raises(ValueError, match=f"tiny-ast cannot be loaded: .*{message}") as caught:
        SoundEventDetectionPipeline.from_pretrained(own_folder)
    assert "\n" not in str(caught.value)


def test_a_pipeline_around_the_model_of_transformers(ast):
    with pytest.raises(ValueError, match="model must be of type 'easysed', got 'audio-spectrogram-transformer': load"):
        SoundEventDetectionPipeline(model=ast, feature_extractor=ASTFeatureExtractor(), device="cpu")


# ---- pipeline and command line ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipe(folder) -> SoundEventDetectionPipeline:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # loading is silent
        return SoundEventDetectionPipeline.from_pretrained(folder, device="cpu")


PLAIN = {"uncertainty": "none", "shifts": 0}


@torch.no_grad()
def test_the_pipeline_gives_the_asts_own_frames(ast, folder, pipe):
    samples = make_audio(1.05)
    detection = pipe({"array": samples, "sampling_rate": RATE}, **PLAIN)
    values = ASTFeatureExtractor.from_pretrained(folder)(samples, sampling_rate=RATE, return_tensors="pt").input_values
    columns = torch.cat([column_logits(ast, values)[:, :1], column_logits(ast, values)], dim=1)[0]
    expected = torch.sigmoid(0.8 * columns[:11] + 0.2 * columns[1:12])
    np.testing.assert_allclose(detection.probabilities, expected.numpy(), atol=1e-4)
    np.testing.assert_allclose(detection.frame_times, np.arange(11) * 0.1)
    assert detection.labels == LABELS and detection.receipt["model"] == "tiny-ast"
    assert pipe.model.num_exits == 1


@pytest.mark.parametrize("duration_s", [0.01, 0.3, 1.2, 1.21, 7.77])
@pytest.mark.parametrize("settings", [PLAIN, {"passes": 3}, {"uncertainty": "moments"}, {"uncertainty": "exits"}])
def test_recordings_of_any_length(pipe, duration_s, settings):
    detection = pipe({"array": make_audio(duration_s), "sampling_rate": RATE}, **settings)
    assert detection.probabilities.shape == (len(detection.frame_times), 12)
    assert np.isfinite(detection.probabilities).all() and detection.frame_times[-1] <= duration_s + 1e-9
    assert detection.warnings.count(NO_CALIBRATION) == 1
    assert all(event.confidence is None and 0 <= event.onset < event.offset <= duration_s for event in detection.events)


@torch.no_grad()
def test_long_recordings_are_heard_in_windows(pipe):
    """Windows of 120 log-mel frames begin at 0, 80 and 90; each is kept up to 0.2 s before its end."""
    samples = make_audio(2.0)
    found = pipe({"array": samples, "sampling_rate": RATE}, **PLAIN).probabilities
    values = pipe.feature_extractor(samples, sampling_rate=RATE).input_values[:, :201]
    assert pipe.model.config.window_s == 1.2 and found.shape == (21, 12)
    starts = (0, 80, 90)
    first, second, third = (torch.sigmoid(pipe.model(values[:, a : a + 120]).frame_logits[0]) for a in starts)
    np.testing.assert_allclose(found, torch.cat([first[:10], second[2:10], third[9:12]]).numpy(), atol=1e-5)
    assert (first[10:] - second[2:4]).abs().max() > 1e-3


def test_default_decoding_suits_a_tagger_of_many_classes(pipe):
    assert pipe.model.config.decoding["default"]["threshold"] < 0.5
    detection = pipe({"array": make_audio(6.0), "sampling_rate": RATE}, **PLAIN)
    assert detection.events and {event.exit for event in detection.events} == {1}
    assert any(event.score < 0.5 for event in detection.events)


@pytest.mark.parametrize("format", ["table", "json", "csv"])
def test_the_command_line_writes_labels_with_commas_and_quotes(folder, tmp_path, capsys, format):
    street = tmp_path / "street.wav"
    soundfile.write(street, make_audio(3.0), RATE)
    pipe = SoundEventDetectionPipeline.from_pretrained(folder, device="cpu")
    expected = [event.label for event in pipe(street).events]
    assert {label for label in expected if "," in label}
    capsys.readouterr()
    assert easysed(["detect", str(street), "--model", folder, "--format", format]) == 0
    out, err = capsys.readouterr()
    assert err.strip() == f"easysed detect: warning: {NO_CALIBRATION}"
    if format == "json":
        found = [event["label"] for event in json.loads(out)["events"]]
    elif format == "csv":
        found = [row["label"] for row in csv.DictReader(out.splitlines())]
    else:
        found = [line[21:-6].strip() for line in out.splitlines()[2:]]
    assert found == expected


def test_an_ast_is_a_checkpoint_but_none_of_this_package(folder, tmp_path, monkeypatch):
    assert resolve_checkpoint(folder) == folder
    snapshot = tmp_path / "models--owner--ast" / "snapshots" / "abc"
    shutil.copytree(folder, snapshot)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert cached_checkpoints() == {}
