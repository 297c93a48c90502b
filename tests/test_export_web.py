"""`easysed export --to web` without a browser: what is written, where the runtime comes from, one line for an error."""

import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from tiny_export import tiny_checkpoint

from modeling_easysed.cli.main import main
from modeling_easysed.export import runtime_files
from modeling_easysed.export.errors import ExportError
from modeling_easysed.export.icons import icon
from modeling_easysed.export.runtime_files import SHA256, cache_folder, runtime_folder
from modeling_easysed.export.to_web import write_page

pytest.importorskip("onnxruntime", reason='onnxruntime is not installed: pip install "easysed[export]"')

NPM = """#!/bin/sh
echo "$@" >> "{log}"
[ "$1 $2" = "pack onnxruntime-web@1.30.0" ] || exit 9
{act}
"""


@pytest.fixture
def runtime(tmp_path) -> Path:
    """Files that only have the right names."""
    folder = tmp_path / "runtime"
    folder.mkdir()
    for name in SHA256:
        (folder / name).write_text(f"// {name}")
    return folder


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A function that puts an npm in the path, which does what a line of shell says; returns its log."""
    monkeypatch.setenv("EASYSED_CACHE", str(tmp_path / "cache"))

    def put(act: str) -> Path:
        (tmp_path / "bin").mkdir(exist_ok=True)
        log = tmp_path / "npm.log"
        script = tmp_path / "bin" / "npm"
        script.write_text(NPM.format(log=log, act=act))
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
        return log

    return put


def packed_runtime(tmp_path: Path, runtime: Path) -> Path:
    archive = tmp_path / "made.tgz"
    with tarfile.open(archive, "w:gz") as package:
        for path in runtime.iterdir():
            package.add(path, f"package/dist/{path.name}")
    return archive


def error_of(capsys) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    return line


def test_command_writes_a_folder_that_a_new_export_replaces(runtime, tmp_path, capsys):
    model, out = tiny_checkpoint(tmp_path / "tiny-sed", "cnn"), tmp_path / "page"
    command = ["export", model, "--to", "web", "--runtime", str(runtime), "--out", str(out)]
    assert main([*command, "--exit", "1"]) == 0
    head, graph, description, about = capsys.readouterr().out.splitlines()
    assert graph.startswith(str(out / "easysed.onnx")) and about.startswith("exit 1 of 3 of tiny-sed")
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    assert {"index.html", "main.js", "sw.js", "easysed.onnx", "ort.wasm.min.js", "icon-512.png"} <= set(first)
    assert "tiny-sed, exit 1 of 3" in first["index.html"].decode()
    assert first["ort.wasm.min.js"] == (runtime / "ort.wasm.min.mjs").read_bytes()

    assert main([*command, "--exit", "2"]) == 0
    second = {path.name: path.read_bytes() for path in out.iterdir()}
    assert set(second) == set(first) and second["easysed.onnx"] != first["easysed.onnx"]
    capsys.readouterr()
    (out / "holiday.jpg").write_text("mine")
    assert main(command) == 2
    assert "holds other files" in error_of(capsys) and (out / "holiday.jpg").is_file()


def test_version_changes_with_any_file_and_only_then(runtime, tmp_path):
    def worker(parameters: int) -> str:
        folder = tmp_path / "page"
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        (folder / "easysed.onnx").write_text("graph")
        model = {"name": "m", "exit": 1, "num_exits": 3, "parameters": parameters}
        write_page(folder, {"model": model}, runtime)
        return (folder / "sw.js").read_text()

    assert worker(1) == worker(1) != worker(2)


def test_names_of_models_are_text_on_the_page(runtime, tmp_path):
    folder = tmp_path / "page"
    folder.mkdir()
    write_page(folder, {"model": {"name": '<b>"&', "exit": 1, "num_exits": 2}}, runtime)
    assert "&lt;b&gt;&quot;&amp;, exit 1 of 2" in (folder / "index.html").read_text()
    assert '<b>"&, exit 1 of 2' in json.loads((folder / "manifest.webmanifest").read_text())["description"]


def test_icons_are_drawn_at_any_size():
    from PIL import Image

    with Image.open(_file(icon(192))) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (192, 192, 3)
    assert (pixels[:30] == pixels[0, 0]).all() and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 4


def _file(content: bytes):
    import io

    return io.BytesIO(content)


# ---- the runtime -----------------------------------------------------------------------------------------------------


def test_own_runtime_must_hold_the_files(runtime, tmp_path, capsys):
    assert runtime_folder(runtime) == runtime
    (runtime / "ort.wasm.min.mjs").unlink()
    command = ["export", "easysed-cnn", "--to", "web", "--runtime", str(runtime), "--out", str(tmp_path / "page")]
    assert main(command) == 2
    assert f"--runtime {runtime} lacks ort.wasm.min.mjs: name the folder dist" in error_of(capsys)
    assert not (tmp_path / "page").exists()


def test_runtime_is_fetched_once(npm, runtime, tmp_path, monkeypatch):
    hashes = {path.name: runtime_files._sha256(path) for path in runtime.iterdir()}
    monkeypatch.setattr(runtime_files, "SHA256", hashes)
    log = npm(f'cp "{packed_runtime(tmp_path, runtime)}" "$5/onnxruntime-web-1.30.0.tgz"')
    folder = runtime_folder()
    assert folder.parent == tmp_path / "cache" and {path.name for path in folder.iterdir()} == set(SHA256)
    assert runtime_folder() == folder and len(log.read_text().splitlines()) == 1
    (folder / "ort.wasm.min.mjs").write_text("spoilt")
    assert (runtime_folder() / "ort.wasm.min.mjs").read_text() == "// ort.wasm.min.mjs"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_npm_that_is_missing(npm, tmp_path, monkeypatch):
    npm("exit 0")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(
        ExportError, match=r"^--to web needs onnxruntime-web@1.30.0 and npm is not installed: .*--runtime"
    ):
        runtime_folder()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        ('echo "npm error network unreachable" >&2; exit 1', r"failed \(npm error network unreachable\): check npm"),
        ("exit 0", r"failed \(exit status 0\)"),
        ('tar -czf "$5/a.tgz" -T /dev/null', "brought other files than expected"),
    ],
)
def test_npm_that_fails(npm, tmp_path, act, message):
    npm(act)
    with pytest.raises(ExportError, match=message):
        runtime_folder()
    assert list((tmp_path / "cache").iterdir()) == []


def test_npm_that_brings_other_contents(npm, runtime, tmp_path):
    npm(f'cp "{packed_runtime(tmp_path, runtime)}" "$5/"')
    with pytest.raises(ExportError, match="brought other files than expected: check npm's registry"):
        runtime_folder()


def test_npm_that_never_ends(npm, monkeypatch):
    npm("sleep 5")
    monkeypatch.setattr(runtime_files, "NPM_TIMEOUT_S", 0.2)
    with pytest.raises(ExportError, match="took longer than 0.2 s"):
        runtime_folder()


def test_cache_lies_where_the_user_says(monkeypatch):
    monkeypatch.delenv("EASYSED_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path(os.path.expanduser("~/.cache/easysed"))
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_folder() == Path("/elsewhere/easysed")
    monkeypatch.setenv("EASYSED_CACHE", "/mine")
    assert cache_folder() == Path("/mine")
