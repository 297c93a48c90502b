"""`easysed export`: the table, folders that are whole or not there, one clear line for whatever goes wrong."""

import json
from pathlib import Path

import pytest
from tiny_ast import make_ast, save_ast
from tiny_export import tiny_checkpoint

from modeling_easysed.cli.main import main
from modeling_easysed.export import to_onnx, write
from modeling_easysed.export.errors import ExportError, check_installed
from modeling_easysed.export.write import check_out, is_export, move_into_place

pytest.importorskip("onnxruntime", reason='onnxruntime is not installed: pip install "easysed[export]"')


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny-sed", "cnn")


def error_of(capsys) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    return line


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_export_prints_what_it_wrote_and_may_be_repeated(model, tmp_path, capsys):
    out = tmp_path / "phone"
    assert main(["export", model, "--to", "onnx", "--exit", "1", "--out", str(out)]) == 0
    printed, err = capsys.readouterr()
    head, graph, description, about = printed.splitlines()
    assert head.split("  ")[0] == "file" and "max deviation" in head and "ms per 10 s" in head
    assert graph.startswith(str(out / "easysed.onnx")) and " MB " in graph and " M " in graph and "e-0" in graph
    assert description.startswith(str(out / "easysed.json"))
    assert about.startswith("exit 1 of 3 of tiny-sed; 20 passes in one call; deviation: ")
    assert err == "" and names(out) == ["easysed.json", "easysed.onnx"] and names(tmp_path) == ["phone"]
    assert json.loads((out / "easysed.json").read_text())["model"]["exit"] == 1

    (out / "easysed.onnx").write_text("old")
    assert main(["export", model, "--to", "onnx", "--out", str(out)]) == 0
    assert json.loads((out / "easysed.json").read_text())["model"]["exit"] == 3
    assert len((out / "easysed.onnx").read_bytes()) > 1000 and names(tmp_path) == ["phone"]


# ---- wrong usage -----------------------------------------------------------------------------------------------------


def test_unknown_target(model, tmp_path, capsys):
    assert main(["export", model, "--to", "tflite", "--out", str(tmp_path / "o")]) == 2
    assert "argument --to: invalid choice: 'tflite'" in error_of(capsys)


@pytest.mark.parametrize("number", ["0", "4", "-1"])
def test_exit_out_of_range(model, tmp_path, capsys, number):
    assert main(["export", model, "--to", "onnx", "--exit", number, "--out", str(tmp_path / "o")]) == 2
    assert f"exit must be between 1 and 3 for {model}, got {number}" in error_of(capsys)
    assert names(tmp_path) == []


@pytest.mark.parametrize(("target", "extra"), [("onnx", "export"), ("executorch", "executorch")])
def test_missing_extra(model, tmp_path, capsys, monkeypatch, target, extra):
    monkeypatch.setattr("modeling_easysed.export.errors.importlib.util.find_spec", lambda name: None)
    assert main(["export", model, "--to", target, "--out", str(tmp_path / "o")]) == 2
    assert error_of(capsys).endswith(f'not installed: pip install "easysed[{extra}]"')


def test_only_what_is_missing_is_named():
    check_installed(["json"], "export")
    with pytest.raises(ExportError, match=r'^no_such_module not installed: pip install "easysed\[export\]"$'):
        check_installed(["json", "no_such_module"], "export")


def test_unknown_model(tmp_path, capsys):
    assert main(["export", "easysed-rnn", "--to", "onnx", "--out", str(tmp_path / "o")]) == 2
    assert "model 'easysed-rnn': name is unknown" in error_of(capsys)


def test_audio_spectrogram_transformer(tmp_path, capsys):
    folder = save_ast(make_ast(), tmp_path / "ast")
    capsys.readouterr()  # transformers' progress bar
    assert main(["export", folder, "--to", "onnx", "--out", str(tmp_path / "o")]) == 2
    assert "an Audio Spectrogram Transformer needs PyTorch" in error_of(capsys)
    assert names(tmp_path) == ["ast"]


# ---- the folder ------------------------------------------------------------------------------------------------------


def test_folders_that_hold_something_else_are_left_alone(model, tmp_path, capsys):
    file, other = tmp_path / "file", tmp_path / "other"
    file.write_text("mine")
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    for out, message in (
        (file, "is a file: name a folder"),
        (file / "below", "cannot be written: "),
        (other, "holds other files: name a new folder"),
    ):
        assert main(["export", model, "--to", "onnx", "--out", str(out)]) == 2
        assert message in error_of(capsys)
    assert file.read_text() == "mine" and names(other) == ["notes.txt"] and names(tmp_path) == ["file", "other"]


def test_folder_without_the_right_to_write(tmp_path, monkeypatch):
    monkeypatch.setattr(write.os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(ExportError, match=f"--out .*new cannot be written: no right to write in {tmp_path}"):
        check_out(tmp_path / "new")


def test_an_export_with_a_file_beside_it_is_not_replaced(tmp_path):
    (tmp_path / "easysed.json").write_text(json.dumps({"format": "easysed-export", "files": {"easysed.onnx": {}}}))
    assert is_export(tmp_path)
    check_out(tmp_path)
    (tmp_path / "app.js").write_text("mine")
    assert not is_export(tmp_path)
    with pytest.raises(ExportError, match="holds other files"):
        check_out(tmp_path)


def test_a_move_that_fails_leaves_the_old_export(tmp_path, monkeypatch):
    fresh, folder = tmp_path / "temp" / "new", tmp_path / "out"
    fresh.mkdir(parents=True)
    folder.mkdir()
    (folder / "easysed.json").write_text("old")
    rename = Path.rename

    def full_disk(self, target):
        if self == fresh:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full_disk)
    with pytest.raises(OSError, match="No space left"):
        move_into_place(fresh, folder)
    assert (folder / "easysed.json").read_text() == "old"


def test_nothing_is_left_of_an_export_that_fails(model, tmp_path, capsys, monkeypatch):
    def full_disk(graph, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(to_onnx, "write_onnx", full_disk)
    assert main(["export", model, "--to", "onnx", "--out", str(tmp_path / "a" / "o")]) == 2
    assert error_of(capsys).endswith("cannot be written: No space left on device")
    assert names(tmp_path) == []


def test_a_file_that_does_not_equal_its_model_is_not_written(model, tmp_path, capsys, monkeypatch):
    def of_another_exit(graph, path):
        graph.student.exits[-1].classifier.bias.data += 0.01
        original(graph, path)
        graph.student.exits[-1].classifier.bias.data -= 0.01

    original = to_onnx.write_onnx
    monkeypatch.setattr(to_onnx, "write_onnx", of_another_exit)
    assert main(["export", model, "--to", "onnx", "--exit", "1", "--out", str(tmp_path / "o")]) == 2
    assert "easysed.onnx is not equal to its model: max_deviation 0.00" in error_of(capsys)
    assert names(tmp_path) == []
