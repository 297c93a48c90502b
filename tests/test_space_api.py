"""The app for programs: endpoints, limits, many at once, and what nobody may see."""

import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from app_server import running_app

pytest.importorskip("gradio", reason="needs gradio: pip install 'easysed[space]'")
pytest.importorskip("websockets", reason="needs websockets: pip install 'easysed[space]'")
from gradio_client import Client, handle_file  # noqa: E402
from gradio_client.exceptions import AppError  # noqa: E402

RATE = 16000
NUM_USERS = 20


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def address(uploads):
    with running_app(uploads, EASYSED_MODEL="easysed-cnn") as (address, _):
        yield address
    assert {path.name for path in uploads.rglob("*") if path.is_file()} <= {"secret.txt"}  # put there by a test itself


@pytest.fixture(scope="module")
def client(address):
    return Client(address, verbose=False)


@pytest.fixture
def noise(tmp_path):
    path = tmp_path / "noise.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(RATE), RATE)
    return path


def test_models_are_described_with_cost_and_accuracy(client):
    found = client.predict(api_name="/models")
    assert list(found) == ["easysed-cnn"] and "rain" in found["easysed-cnn"]["labels"]
    first = found["easysed-cnn"]["exits"][0]
    assert first["number"] == 1 and first["parameters"] == 157754 and first["event_f1"] == 0.55


def test_a_detection_is_what_the_pipeline_gives(client, noise):
    from modeling_easysed import SoundEventDetectionPipeline

    given = client.predict(handle_file(noise), "easysed-cnn", "1", "mc", 5, 0, api_name="/detect")
    pipe = SoundEventDetectionPipeline.from_pretrained("easysed-cnn")
    expected = pipe(noise, exit=1, passes=5, shifts=0).to_dict()
    assert given["file"] == "noise.wav" and given["events"] == expected["events"]
    assert given["receipt"] == json.loads(json.dumps(expected["receipt"]))


def test_a_comparison_gives_every_size_and_how_far_they_agree(client, noise):
    given = client.predict(handle_file(noise), 5, 0, api_name="/compare")
    assert [(run["model"], run["exit"]) for run in given["runs"]] == [("easysed-cnn", 4), ("easysed-cnn", 1)]
    alone = client.predict(handle_file(noise), "easysed-cnn", "1", "mc", 5, 0, api_name="/detect")
    assert given["runs"][1]["detection"] == alone and all(run["seconds"] > 0 for run in given["runs"])
    (own, both), (again, other) = given["agreement"]
    assert both == again and {own, other} <= {None, 1.0}
    with pytest.raises(AppError, match="passes must be from 1 to 50"):
        client.predict(handle_file(noise), 500, 0, api_name="/compare")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "other"}, "model must be one of easysed-cnn"),
        ({"size": "9"}, "exit must be 'auto' or a number from 1 to 4"),
        ({"size": "big"}, "must be whole numbers"),
        ({"uncertainty": "luck"}, "uncertainty must be one of"),
        ({"passes": 5000}, "passes must be from 1 to 50"),
        ({"shifts": -1}, "shifts from 0 to 4"),
        ({"goal": "money"}, "goal must be default, precision"),
        ({"goal": "precision"}, "the goal needs a number"),
        ({"goal": "precision", "value": 2}, "min_precision must be in"),
    ],
)
def test_wrong_settings_get_one_line(client, noise, changes, message):
    with pytest.raises(AppError, match=message):
        client.predict(sound=handle_file(noise), **changes, api_name="/detect")


def test_too_long_a_recording_and_none_at_all_get_one_line(client, tmp_path):
    path = tmp_path / "long.flac"
    soundfile.write(path, np.zeros(601 * 8000, np.int16), 8000)
    with pytest.raises(AppError, match=r"long.flac is 10.0 minutes long, at most 10 are taken here"):
        client.predict(handle_file(path), api_name="/detect")
    with pytest.raises(AppError, match="no sound yet"):
        client.predict(None, api_name="/detect")


def test_bad_uploads_get_a_line_each_and_the_server_lives(client, noise, tmp_path):
    whole, random = noise.read_bytes(), np.random.default_rng(0)
    for number in range(12):
        path = tmp_path / f"bad_{number}.wav"
        content = bytearray(whole[: int(random.integers(0, 400))])
        for place in random.integers(0, max(1, len(content)), 8 if len(content) > 0 else 0):
            content[place] = int(random.integers(0, 256))
        path.write_bytes(bytes(content))
        try:
            client.predict(handle_file(path), api_name="/detect")
        except AppError as error:
            assert str(path.parent) not in str(error) and "Traceback" not in str(error) and "\n" not in str(error)
    assert client.predict(handle_file(noise), api_name="/detect")["duration"] == 1.0


def test_twenty_at_once_each_get_their_own_result(address, tmp_path):
    paths = []
    for number in range(NUM_USERS):
        paths.append(tmp_path / f"user_{number}.wav")
        soundfile.write(paths[-1], 0.1 * np.random.default_rng(number).standard_normal(4000 + 160 * number), RATE)

    def use(path: Path) -> dict:
        return Client(address, verbose=False).predict(
            handle_file(path), "easysed-cnn", "1", "none", 1, 0, api_name="/detect"
        )

    with ThreadPoolExecutor(NUM_USERS) as users:
        results = list(users.map(use, paths))
    assert [one["file"] for one in results] == [path.name for path in paths]
    assert [one["duration"] for one in results] == [(4000 + 160 * number) / RATE for number in range(NUM_USERS)]


def test_nothing_of_the_server_can_be_read(address, uploads):
    (uploads / "secret.txt").write_text("secret")
    inside = Path(__file__).resolve().parents[1] / "pyproject.toml"
    for path in ("/etc/passwd", str(inside), f"{uploads}/../../x", str(uploads)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address}gradio_api/file={path}", timeout=30)
        assert refused.value.code in (403, 404)


def test_a_path_of_the_server_is_no_upload(address, uploads):
    file = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    content = json.dumps({"data": [file, "easysed-cnn", "1", "none", 1, 0, "default", 0]}).encode()
    call = urllib.request.Request(
        f"{address}gradio_api/call/detect", data=content, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(call, timeout=30) as answer:
        number = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{address}gradio_api/call/detect/{number}", timeout=30) as stream:
        said = stream.read().decode()
    assert "event: error" in said and "root:" not in said and "is not audio" not in said
    assert not any("passwd" in path.name for path in uploads.rglob("*"))


def test_live_refuses_what_it_cannot_use(address):
    from websockets.sync.client import connect

    for first, message in (
        ("no json", "live needs a first message"),
        ('{"rate": 48000, "model": "other"}', "live needs a first message"),
        ('{"rate": 3}', "sampling_rate"),
    ):
        with connect(address.replace("http", "ws") + "live") as socket:
            socket.send(first)
            assert message in json.loads(socket.recv(30))["error"]


def test_no_more_microphones_than_places(address):
    from websockets.sync.client import connect

    sockets = [connect(address.replace("http", "ws") + "live") for _ in range(5)]
    try:
        assert "microphones are open already" in json.loads(sockets[-1].recv(30))["error"]
        for socket in sockets[:-1]:
            socket.send('{"rate": 16000}')
            assert "latency_s" in json.loads(socket.recv(60))
    finally:
        for socket in sockets:
            socket.close()
