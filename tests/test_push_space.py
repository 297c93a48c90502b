"""`easysed push --space`: what is published is a Space that runs from its own files alone."""

import functools
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml
from app_server import free_port, wait_for
from hub_stand_in import READ_TOKEN, WRITE_TOKEN, HubStandIn
from huggingface_hub import HfApi
from tiny import tiny_model

from modeling_easysed import EasySEDFeatureExtractor
from modeling_easysed.cli.main import main
from modeling_easysed.hub import HubError
from modeling_easysed.hub_space import push_space

SPACE = "tester/demo"


@pytest.fixture
def hub(monkeypatch):
    with HubStandIn() as hub:
        monkeypatch.setattr("modeling_easysed.hub.HfApi", functools.partial(HfApi, endpoint=hub.url))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
        yield hub


def test_a_space_alone_shows_what_is_bundled(hub, capsys):
    assert main(["push", "--space", "demo"]) == 0
    assert capsys.readouterr().out == f"{hub.url}/spaces/{SPACE}\n"
    space, found = hub.repositories[SPACE], hub.files(SPACE)
    assert space.kind == "space" and space.variables == {} and len(space.commits) == 2  # the first is create_repo's
    head = yaml.safe_load(found["README.md"].decode().split("---\n")[1])
    assert head["sdk"] == "gradio" and head["app_file"] == "app.py" and "app.py" in found
    wanted = found["requirements.txt"].decode().split()
    assert {one.partition(">")[0] for one in wanted} >= {"torch", "transformers", "soundfile", "gradio", "websockets"}
    assert not any("ray" in one or "pytest" in one or "easysed" in one for one in wanted)
    assert {"modeling_easysed/__init__.py", "modeling_easysed/app/page.css"} <= set(found)
    assert "modeling_easysed/checkpoints/easysed-cnn/model.safetensors" in found
    assert not any("__pycache__" in name for name in found)


def test_the_same_call_again_sends_no_weights_and_takes_old_code_away(hub):
    push_space(SPACE)
    sent, space = len(hub.puts), hub.repositories[SPACE]
    last = space.commits[space.main]
    last.files["modeling_easysed/old.py"] = last.files["notes.txt"] = last.files["app.py"]
    push_space(SPACE)
    assert len(hub.puts) == sent
    assert "notes.txt" in hub.files(SPACE) and "modeling_easysed/old.py" not in hub.files(SPACE)


def test_a_checkpoint_and_the_space_that_shows_it(hub, tmp_path, capsys):
    tiny_model().save_pretrained(tmp_path)
    EasySEDFeatureExtractor(feature_size=32).save_pretrained(tmp_path)
    assert main(["push", str(tmp_path), "tiny", "--exits", "none", "--space", SPACE]) == 0
    assert capsys.readouterr().out.split() == [f"{hub.url}/tester/tiny", f"{hub.url}/spaces/{SPACE}"]
    assert hub.repositories[SPACE].variables == {"EASYSED_MODEL": "tester/tiny"}


def test_a_page_for_the_device_goes_along(hub, tmp_path, capsys):
    (tmp_path / "index.html").write_text("<html></html>")
    (tmp_path / "easysed.json").write_text("{}")
    assert main(["push", "--space", SPACE, "--device-page", str(tmp_path)]) == 0
    assert hub.files(SPACE)["device/index.html"] == b"<html></html>"
    push_space(SPACE)
    assert "device/index.html" not in hub.files(SPACE)
    assert main(["push", "--space", SPACE, "--device-page", str(tmp_path / "no")]) == 2
    assert "has no page for the device: make it with easysed export --to web" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["runs/model"], ["runs/model", "--space", "demo"]])
def test_half_a_command_is_refused(arguments, capsys):
    assert main(["push", *arguments]) == 2
    assert "MODEL and REPO_ID must both be given, or --space alone" in capsys.readouterr().err


def test_permission_is_said(hub):
    with pytest.raises(HubError, match=r"the Space was not published: no permission to write there \(403"):
        push_space(SPACE, token=READ_TOKEN)
    assert hub.repositories == {}


def test_what_was_published_runs_from_its_own_files(hub, tmp_path):
    pytest.importorskip("gradio_client", reason="needs gradio: pip install 'easysed[space]'")
    from gradio_client import Client

    push_space(SPACE)
    page = {"device/index.html": b"<p>here</p>", "device/easysed.json": b"{}"}
    for name, content in {**hub.files(SPACE), **page}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    port = free_port()
    own = {**os.environ, "PORT": str(port), "EASYSED_MODEL": str(tmp_path / "modeling_easysed/checkpoints/easysed-cnn")}
    own.pop("PYTHONPATH", None)
    # the published file says which package it runs
    start = "import modeling_easysed; print(modeling_easysed.__file__, flush=True); import runpy; "
    start += "runpy.run_path('app.py', run_name='__main__')"
    command = [sys.executable, "-c", start]
    process = subprocess.Popen(command, cwd=tmp_path, env=own, stdout=subprocess.PIPE, text=True)
    try:
        assert Path(process.stdout.readline().strip()).is_relative_to(tmp_path)
        wait_for(f"http://127.0.0.1:{port}/", process)
        models = Client(f"http://127.0.0.1:{port}/", verbose=False).predict(api_name="/models")
        assert len(next(iter(models.values()))["exits"]) == 4
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/device/index.html", timeout=10) as answer:
            assert answer.read() == b"<p>here</p>"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
