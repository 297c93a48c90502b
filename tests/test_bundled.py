"""Names and folders of checkpoints: what resolves, and one clear line for every broken folder."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from modeling_easysed import bundled
from modeling_easysed.bundled import CheckpointError, cached_checkpoints, resolve_checkpoint


@pytest.fixture
def folder(tmp_path):
    """A checkpoint folder that passes every check."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "easysed", "id2label": {"0": "rain"}}))
    (folder / "preprocessor_config.json").write_text("{}")
    save_file({"exits.0.classifier.weight": torch.zeros(1, 4)}, folder / "model.safetensors")
    return folder


def message_of(name) -> str:
    with pytest.raises(CheckpointError) as caught:
        resolve_checkpoint(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_resolves(folder, monkeypatch):
    monkeypatch.setitem(bundled.BUNDLED_CHECKPOINTS, "tiny-sed", str(folder))
    assert resolve_checkpoint("tiny-sed") == str(folder)
    assert resolve_checkpoint(folder) == resolve_checkpoint(str(folder)) == str(folder)
    assert resolve_checkpoint("owner/name") == "owner/name"


def test_bundled_checkpoints_resolve():
    for name, folder in bundled.BUNDLED_CHECKPOINTS.items():
        assert resolve_checkpoint(name) == folder


def test_unknown_names_list_what_there_is(folder, monkeypatch):
    monkeypatch.chdir(folder)  # where no run has left a folder
    monkeypatch.setattr(bundled, "BUNDLED_CHECKPOINTS", {"easysed-cnn": "x", "easysed-transformer": "y"})
    message = message_of("easysed-cmm")
    assert "model 'easysed-cmm': name is unknown" in message
    assert "easysed-cnn, easysed-transformer" in message and "Hub id like owner/name" in message
    for path in ("./runs/none", "/no/such/folder", "runs/deep/none", "runs/"):
        assert "folder does not exist" in message_of(path)


def test_a_file_is_no_checkpoint(folder):
    assert "is a file: pass the folder" in message_of(folder / "model.safetensors")


def test_missing_and_broken_config(folder, tmp_path):
    config = folder / "config.json"
    config.write_text('{"model_type": "easysed",')
    assert "config.json is not readable JSON" in message_of(folder)
    config.write_bytes(b"\xff\xfe\x00")
    assert "config.json is not readable JSON" in message_of(folder)
    for other in ('{"model_type": "bert"}', "[]", "{}"):
        config.write_text(other)
        assert "must say model_type 'easysed'" in message_of(folder)
    config.unlink()
    assert "has no config.json" in message_of(folder)


def test_missing_features_and_weights(folder):
    (folder / "model.safetensors").unlink()
    assert message_of(folder).endswith("has no model.safetensors: save the model as safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    assert "pytorch_model.bin is a pickle and is never read" in message_of(folder)
    (folder / "preprocessor_config.json").unlink()
    assert "has no preprocessor_config.json" in message_of(folder)


def test_damaged_weights(folder):
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-3])
    assert f"must have {len(content)} bytes, got {len(content) - 3}" in message_of(folder)
    for broken in (b"", b"abc", b"\xff" * 64, content[:20], b"\x02" + bytes(7) + b"[]", b"\x02" + bytes(7) + b"{}x"):
        weights.write_bytes(broken)
        assert "model.safetensors" in message_of(folder)


def test_cached_checkpoints_are_the_newest_snapshots_of_this_kind(folder, tmp_path, monkeypatch):
    cache = tmp_path / "hub"
    for name, kind in (("models--owner--tiny-sed", "easysed"), ("models--owner--other", "bert")):
        snapshot = cache / name / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text(json.dumps({"model_type": kind}))
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    assert cached_checkpoints() == {"owner/tiny-sed": str(cache / "models--owner--tiny-sed" / "snapshots" / "abc")}
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "nowhere"))
    assert cached_checkpoints() == {}


def test_no_torch_is_imported():
    script = "import sys, modeling_easysed.bundled; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
