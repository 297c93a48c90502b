"""`easysed cluster`: the same rows as `easysed detect`, from disks and URLs, resumed, and with workers that die."""

import functools
import http.server
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import fsspec
import pandas
import pytest
import soundfile
from test_pipeline import RATE, make_audio, make_pipe

from modeling_easysed.cli.errors import CommandError
from modeling_easysed.cli.main import main as easysed
from modeling_easysed.cli.parts import Parts
from modeling_easysed.cli.sources import Source, list_sources, version_of
from modeling_easysed.detection_easysed import ROW_COLUMNS, Detection, Event

PLAIN = ["--uncertainty", "none", "--shifts", "0", "--device", "cpu"]
NUM_GOOD = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    make_pipe().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def audio(tmp_path) -> Path:
    folder = tmp_path / "audio"
    for number in range(NUM_GOOD):
        path = folder / ("night" if number % 2 else "Tag ä") / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, make_audio(2.0 + 0.4 * number, number), RATE)
    return folder


@pytest.fixture(scope="module")
def ray():
    """A local Ray with room for two workers, for all tests of this file that run in this process."""
    module = pytest.importorskip("ray", reason="needs ray: pip install 'easysed[cluster]'")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    module.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False)
    yield module
    module.shutdown()


def rows_of(data: pandas.DataFrame) -> pandas.DataFrame:
    return data.sort_values(["file", "onset", "label", "offset"]).reset_index(drop=True)


def cluster_rows(folder: Path) -> pandas.DataFrame:
    return rows_of(pandas.read_parquet(folder / "events"))


def plain_rows(model: str, audio: Path, tmp_path: Path) -> pandas.DataFrame:
    assert easysed(["detect", str(audio), "--model", model, *PLAIN, "--out", str(tmp_path / "plain.parquet")]) in (0, 1)
    return rows_of(pandas.read_parquet(tmp_path / "plain.parquet"))


def manifest_of(folder: Path) -> dict[str, dict]:
    lines = [line for path in folder.glob("manifest/*.jsonl") for line in path.read_bytes().splitlines()]
    texts = (line.decode("utf-8", errors="surrogateescape") for line in lines)
    return {entry["file"]: entry for entry in map(json.loads, texts)}


def parts_of(folder: Path) -> set[str]:
    """Names of the parts; every one has its events and its manifest."""
    events, manifests = ({path.stem for path in (folder / name).iterdir()} for name in ("events", "manifest"))
    assert events == manifests
    return events


def test_two_workers_give_the_rows_of_detect_and_redo_only_what_changed(ray, model, audio, tmp_path, capfd):
    (audio / "empty.wav").write_bytes(b"")
    arguments = ["cluster", str(audio), "--model", model, "--out", str(tmp_path / "set"), "--workers", "2", *PLAIN]
    assert easysed(arguments) == 1
    said = capfd.readouterr()
    assert said.out == "" and f"{NUM_GOOD} recordings (0.01 h) done" in said.err and "1 failed:" in said.err
    assert "empty.wav" in said.err and said.err.count("not calibrated") == 1
    assert all(line.startswith("easysed cluster: ") for line in said.err.splitlines())
    pandas.testing.assert_frame_equal(cluster_rows(tmp_path / "set"), plain_rows(model, audio, tmp_path))
    entries = manifest_of(tmp_path / "set")
    assert len(entries) == NUM_GOOD and all(one["content"].startswith("sha256:") for one in entries.values())

    (audio / "empty.wav").unlink()
    soundfile.write(audio / "night" / "3.wav", make_audio(1.5, 77), RATE)
    capfd.readouterr()
    assert easysed(arguments) == 0
    assert "1 recordings (0.00 h) done in" in (error := capfd.readouterr().err) and f"{NUM_GOOD - 1} were done" in error
    pandas.testing.assert_frame_equal(cluster_rows(tmp_path / "set"), plain_rows(model, audio, tmp_path))
    parts = parts_of(tmp_path / "set")
    assert easysed([*arguments, "--exit", "1"]) == 0  # another setting: everything again
    assert f"{NUM_GOOD} recordings" in capfd.readouterr().err
    assert set(cluster_rows(tmp_path / "set")["exit"]) == {1}
    assert not parts_of(tmp_path / "set") & parts and len(manifest_of(tmp_path / "set")) == NUM_GOOD


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def server(audio):
    """The recordings behind a URL."""
    handler = functools.partial(_Quiet, directory=str(audio))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_from_a_url_to_a_url(ray, model, audio, server, tmp_path, capfd):
    arguments = ["cluster", f"{server}/night/", "--model", model, "--out", "memory://set", *PLAIN]
    assert easysed(arguments) == 0
    memory = fsspec.filesystem("memory")
    parts = [io.BytesIO(memory.cat_file(path)) for path in memory.ls("/set/events", detail=False)]
    found = rows_of(pandas.concat(map(pandas.read_parquet, parts)))
    expected = plain_rows(model, audio / "night", tmp_path)
    expected["file"] = [f"{server}/night/{Path(name).name}" for name in expected["file"]]
    pandas.testing.assert_frame_equal(found, expected)
    capfd.readouterr()
    assert easysed(arguments) == 0 and "0 recordings (0.00 h) done" in capfd.readouterr().err
    memory.rm("/set", recursive=True)


# A worker that meets this name dies, as one does that runs out of memory; read by every process of Ray.
DEADLY = """
import os, sys
if any(part.endswith("default_worker.py") for part in sys.orig_argv):
    import modeling_easysed.cli.sources as sources
    real = sources.local_copy
    def local_copy(name):
        if "deadly" in name:
            os._exit(9)
        return real(name)
    sources.local_copy = local_copy
"""


def worker_processes() -> list[int]:
    """Process ids of this command's workers on this machine."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                title = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if title.startswith(b"ray::") and b"Detector" in title:
                found.append(int(folder.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds the workers in /proc")
def test_workers_that_die_cost_nothing_but_the_recording_that_kills(model, tmp_path):
    pytest.importorskip("ray", reason="needs ray: pip install 'easysed[cluster]'")
    audio, patched = tmp_path / "audio", tmp_path / "patched"
    audio.mkdir()
    patched.mkdir()
    for number in range(10):
        soundfile.write(audio / f"{number}.wav", make_audio(40.0, number), RATE)
    expected = plain_rows(model, audio, tmp_path)
    (audio / "deadly.wav").write_bytes((audio / "0.wav").read_bytes())
    (patched / "sitecustomize.py").write_text(DEADLY)
    path = os.pathsep.join([str(patched), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [
        sys.executable,
        "-m",
        "modeling_easysed.cli.main",
        "cluster",
        str(audio),
        "--model",
        model,
        "--workers",
        "2",
    ]
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(
        [*command, "--out", str(tmp_path / "set"), *PLAIN], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        killed = None
        while process.poll() is None and killed is None:
            workers = worker_processes()
            if len(workers) == 2:
                time.sleep(2.0)
                killed = next(iter(worker_processes()), None)
                if killed is not None:
                    os.kill(killed, signal.SIGKILL)
            time.sleep(0.05)
        error = process.communicate()[1]
    assert killed is not None and process.returncode == 1, error
    assert "10 recordings" in error and "1 failed:" in error
    assert "deadly.wav: the process died 3 times while it worked on it" in error
    pandas.testing.assert_frame_equal(cluster_rows(tmp_path / "set"), expected)


# ---- parts -----------------------------------------------------------------------------------------------------------


def detection(name: str, *onsets: float) -> Detection:
    events = [Event(onset, onset + 1.0, "dog", 0.9) for onset in onsets]
    return Detection(events, [], [], ["dog"], 10.0, RATE, file=name)


def entry(name: str, content: str, num_events: int = 1) -> dict:
    counted = {"duration": 10.0, "num_events": num_events, "warnings": []}
    return {"file": name, "content": content, "settings": "s", **counted}


def test_a_newer_part_replaces_what_an_older_one_says(tmp_path):
    odd = "b\udcff.wav"  # no valid text
    parts = Parts(str(tmp_path))
    parts.add([detection("a.wav", 1.0), detection(odd, 2.0, 3.0)], [entry("a.wav", "1"), entry(odd, "1", 2)])
    parts.add([detection("a.wav", 5.0)], [entry("a.wav", "2")])
    assert len(cluster_rows(tmp_path)) == 4  # until it is tidied, the old row is there too
    again = Parts(str(tmp_path))
    assert again.is_done("a.wav", "2", "s") and not again.is_done("a.wav", "1", "s") and again.is_done(odd, "1", "s")
    assert not again.is_done("a.wav", "2", "other") and not again.is_done("c.wav", "2", "s")
    rows = cluster_rows(tmp_path)
    assert list(rows["onset"]) == [5.0, 2.0, 3.0] and list(rows.columns) == list(ROW_COLUMNS)
    again.add([], [entry(odd, "3", 0)])
    again.tidy()
    assert list(cluster_rows(tmp_path)["onset"]) == [5.0] and set(manifest_of(tmp_path)) == {"a.wav", odd}
    assert sorted(path.name.split("-")[1] for path in (tmp_path / "events").iterdir()) == ["00002", "00003"]


def test_a_part_without_its_manifest_does_not_count(tmp_path):
    Parts(str(tmp_path)).add([detection("a.wav", 1.0)], [entry("a.wav", "1")])
    (manifest,) = (tmp_path / "manifest").iterdir()
    manifest.unlink()
    assert not Parts(str(tmp_path)).is_done("a.wav", "1", "s") and not list((tmp_path / "events").iterdir())


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CommandError, match="--out .*file cannot be used"):
        Parts(str(tmp_path / "file"))


# ---- sources and usage -----------------------------------------------------------------------------------------------


def test_sources_are_recordings_each_once(audio, server, monkeypatch):
    (audio / "notes.txt").write_text("x")
    monkeypatch.chdir(audio)
    sources, failures = list_sources([f"file://{audio}", str(audio / "night" / "1.wav"), "night", "nowhere"])
    assert failures == ["nowhere: does not exist, check the path"]
    found, failures = list_sources([f"{server}/night/", f"{server}/night/1.wav", f"{server}/none/"])
    assert [one.name for one in found] == [f"{server}/night/{number}.wav" for number in (1, 3, 5, 7)]
    assert len(failures) == 1 and failures[0].startswith(f"{server}/none/: ")


@pytest.mark.parametrize(
    ("info", "version"),
    [
        ({"size": 3, "ETag": '"abc"', "LastModified": "x"}, "ETag:abc"),
        ({"size": 3, "LastModified": "2026-01-01"}, "size:3 time:2026-01-01"),
        ({"size": 3}, None),
    ],
)
def test_what_a_store_says_of_a_content(info, version):
    assert version_of(info) == version


def test_a_listed_version_needs_no_download():
    from modeling_easysed.cli.cluster import tasks_of

    parts = Parts("memory://listed")
    parts.add([], [entry("s3://a.wav", "ETag:1"), entry("b.wav", "sha256:1")])
    sources = [Source("s3://a.wav", "ETag:1"), Source("s3://c.wav", "ETag:2"), Source("b.wav")]
    tasks, num_done = tasks_of(sources, parts, "s")
    assert num_done == 1 and tasks[0] == {"name": "s3://c.wav", "content": "ETag:2", "known": None}
    assert tasks[1] == {"name": "b.wav", "content": None, "known": "sha256:1"}
    assert tasks_of(sources, parts, "other")[1] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0"], "--workers must be at least 1, got 0"),
        (["--workers", "99", "--exit", "1"], "--workers 99: Ray has 2 CPUs, so from 1 to 2 actors can run"),
        (["--exit", "9"], "--exit must be auto or 1 to"),
        (["--passes", "0"], "passes"),
    ],
)
def test_wrong_usage_is_one_line(ray, model, audio, tmp_path, capfd, arguments, message):
    assert easysed(["cluster", str(audio), "--model", model, "--out", str(tmp_path / "set"), *arguments]) == 2
    error = capfd.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_nobody_at_the_address(model, audio, tmp_path):
    command = [sys.executable, "-m", "modeling_easysed.cli.main", "cluster", str(audio), "--model", model]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "set"), "--address", "127.0.0.1:9"], capture_output=True, text=True
    )
    assert done.returncode == 2 and "--address 127.0.0.1:9: " in done.stderr and len(done.stderr.splitlines()) == 1


def test_nothing_to_do(tmp_path, capsys):
    assert easysed(["cluster", str(tmp_path), "--out", str(tmp_path / "set")]) == 2
    assert "no audio files in this folder" in capsys.readouterr().err
