"""`easysed push` and `push` against a stand-in of the Hub, with the real client.

What a user runs is run in processes of its own: the client reads its environment when it is imported. Single rules are
checked in this process, with the client pointed at the stand-in."""

import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hub_stand_in import DROP, READ_TOKEN, WRITE_TOKEN, Commit, File, HubStandIn, card_errors, client_environment
from huggingface_hub import HfApi
from tiny import tiny_model

import modeling_easysed
from modeling_easysed import DEFAULT_CHECKPOINT, EasySEDFeatureExtractor
from modeling_easysed.cli.main import main
from modeling_easysed.hub import HubError, PartialPushError, connect, push

# the client waits up to 23 s between its attempts; its waiting is not what is tested
DRIVER = """
import sys, time
time.sleep = lambda seconds: None
from modeling_easysed.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def hub():
    with HubStandIn() as hub:
        yield hub


def save_tiny(folder: Path, **model) -> Path:
    tiny_model(**model).save_pretrained(folder)
    EasySEDFeatureExtractor(feature_size=32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def easysed(hub: HubStandIn, home: Path, *arguments: str, token: str | None = WRITE_TOKEN, **environment: str):
    """Runs the command in a process of its own."""
    command = [sys.executable, "-c", DRIVER, *arguments]
    own = {**client_environment(hub, home, token), **environment}
    return subprocess.run(command, env=own, capture_output=True, text=True, timeout=300, check=False)


def front_matter(card: bytes) -> dict:
    return yaml.safe_load(card.decode().split("---\n")[1])


# ---- whole runs ------------------------------------------------------------------------------------------------------


def test_teacher_and_students_land_in_repositories_of_their_own(hub, checkpoint, tmp_path):
    done = easysed(hub, tmp_path, "push", str(checkpoint), "tester/tiny", "--tag", "v1")
    assert done.returncode == 0, done.stderr
    names = ["tester/tiny", "tester/tiny-exit1", "tester/tiny-exit2"]
    assert done.stdout.split() == [f"{hub.url}/{name}" for name in names] and done.stderr == ""
    assert list(hub.repositories) == names
    code = {path.name for path in Path(modeling_easysed.__file__).parent.glob("*_easysed.py")}
    for name, num_exits in zip(names, (None, 1, 2), strict=True):
        repository, files = hub.repositories[name], hub.files(name)
        assert len(repository.commits) == 2 and repository.tags == {"v1": repository.main}  # the first is create_repo's
        parts = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
        assert parts <= set(files) and {"pipeline_easysed.py", "modeling_easysed.py"} <= set(files)
        assert {file for file in files if file.endswith(".py")} <= code and "attribution.csv" not in files
        config = json.loads(files["config.json"])
        assert config["num_exits"] == num_exits and set(config["id2label"].values()) == {"dog_bark", "rain", "rooster"}
        assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForAudioClassification"}
        assert config["custom_pipelines"]["sound-event-detection"]["impl"].startswith("pipeline_easysed.")
        assert "AutoFeatureExtractor" in json.loads(files["preprocessor_config.json"])["auto_map"]
        card = files["README.md"].decode()
        assert card_errors(card) == [] and "Nothing was measured" in card and "is not calibrated" in card
        assert str(checkpoint) not in b"".join(files.values()).decode(errors="replace")
    assert front_matter(hub.files(names[1])["README.md"])["base_model"] == "tester/tiny"
    assert "tester/tiny-exit2" in hub.files(names[0])["README.md"].decode()


def test_a_failed_upload_is_resumed_and_nothing_is_sent_twice(hub, checkpoint, tmp_path):
    failures = {"tester/tiny-exit1": 500, "tester/tiny-exit2": DROP}
    hub.fail_put = lambda number, repo_id: failures.get(repo_id)
    failed = easysed(hub, tmp_path, "push", str(checkpoint), "tester/tiny")
    assert failed.returncode == 1 and failed.stdout.split() == [f"{hub.url}/tester/tiny"]
    first, second, advice = failed.stderr.strip().splitlines()
    assert first.startswith(
        "easysed push: tester/tiny-exit1 is not done: the Hub answered 500, the storage is not well"
    )
    assert second.startswith(f"easysed push: tester/tiny-exit2 is not done: the Hub at {hub.url} cannot be reached")
    assert advice == "easysed push: the same command again sends what is missing"
    assert [len(repository.commits) for repository in hub.repositories.values()] == [2, 1, 1]
    sent = {oid for oid, _ in hub.puts}
    hub.puts.clear()

    hub.fail_put = lambda number, repo_id: None
    done = easysed(hub, tmp_path, "push", str(checkpoint), "tester/tiny")
    assert done.returncode == 0 and len(done.stdout.split()) == 3, done.stderr
    large = {name: hub.repositories[name].large for name in hub.repositories}
    assert [oid for oid, _ in hub.puts] == [oid for name in list(large)[1:] for oid in large[name]]
    assert {oid for own in large.values() for oid in own} == sent  # the same bytes as in the run that failed
    assert [len(repository.commits) for repository in hub.repositories.values()] == [2, 2, 2]


def test_what_was_uploaded_but_not_committed_is_not_sent_again(hub, checkpoint, in_process):
    """The weights arrive, the commit does not: only the commit is left to do."""
    hub.fail_commits = 1
    with pytest.raises(HubError, match="nothing was pushed: the Hub answered 418, not now"):
        push(checkpoint, "tester/tiny", [], token=WRITE_TOKEN)
    assert len(hub.puts) == 1 and len(hub.repositories["tester/tiny"].commits) == 1
    push(checkpoint, "tester/tiny", [], token=WRITE_TOKEN)
    assert len(hub.puts) == 1 and "model.safetensors" in hub.files("tester/tiny")


@pytest.mark.parametrize(
    ("token", "environment", "message"),
    [
        (None, {}, "no Hugging Face token: run `hf auth login`, or set HF_TOKEN to a token with write access"),
        ("hf_unknown", {}, r"the Hub does not accept the token \(401\): run `hf auth login`, or set HF_TOKEN"),
        (WRITE_TOKEN, {"HF_ENDPOINT": "http://127.0.0.1:9"}, "127.0.0.1:9 cannot be reached .*: check the network and"),
        (WRITE_TOKEN, {"HF_HUB_OFFLINE": "1"}, "cannot be reached .*offline mode is enabled"),
    ],
)
def test_what_stops_a_push_is_one_line_and_nothing_is_uploaded(hub, checkpoint, tmp_path, token, environment, message):
    done = easysed(hub, tmp_path, "push", str(checkpoint), "tester/tiny", token=token, **environment)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith("easysed push: error: ")
    assert re.search(message, done.stderr) is not None, done.stderr
    assert hub.repositories == {} and not any(asked.startswith("POST") for asked in hub.requests)


# ---- single rules ----------------------------------------------------------------------------------------------------


@pytest.fixture
def in_process(hub, monkeypatch):
    monkeypatch.setattr("modeling_easysed.hub.HfApi", functools.partial(HfApi, endpoint=hub.url))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)


def test_permission_is_said(hub, checkpoint, in_process):
    for repo_id, token in (("tester/tiny", READ_TOKEN), ("others/tiny", WRITE_TOKEN)):
        with pytest.raises(HubError, match=r"nothing was pushed: no permission .*\(403, You don't have the rights"):
            push(checkpoint, repo_id, token=token)
    assert hub.repositories == {} and hub.puts == []


def test_ids(hub, in_process):
    assert connect("tiny", WRITE_TOKEN)[1] == "tester/tiny"
    with pytest.raises(HubError, match="repository id must be like owner/name, got 'a/b/c'"):
        connect("a/b/c", WRITE_TOKEN)


def test_a_later_push_keeps_other_exits_and_what_is_not_ours(hub, checkpoint, in_process):
    push(checkpoint, "tester/tiny", [1], token=WRITE_TOKEN)
    repository = hub.repositories["tester/tiny"]
    extra = {"sample.png": File(b"png", False), "old_easysed.py": File(b"", False)}
    repository.add("tester/tiny", Commit("by hand", {**repository.commits[repository.main].files, **extra}))
    before = hub.files("tester/tiny-exit1")
    assert push(checkpoint, "tester/tiny", [2], token=WRITE_TOKEN) == [
        f"{hub.url}/tester/tiny",
        f"{hub.url}/tester/tiny-exit2",
    ]
    files = hub.files("tester/tiny")
    assert "sample.png" in files and "old_easysed.py" not in files and hub.files("tester/tiny-exit1") == before
    assert "[tester/tiny-exit1]" in files["README.md"].decode()


def test_a_tag_never_moves(hub, checkpoint, tmp_path, in_process):
    push(checkpoint, "tester/tiny", [], tag="v1", token=WRITE_TOKEN)
    commit = hub.repositories["tester/tiny"].tags["v1"]
    push(checkpoint, "tester/tiny", [], tag="v1", token=WRITE_TOKEN)  # the same content: fine
    other = save_tiny(tmp_path / "other", seed=1)
    with pytest.raises(
        HubError, match="tester/tiny is pushed, but its tag v1 marks other content: run again with a new"
    ):
        push(other, "tester/tiny", [], tag="v1", token=WRITE_TOKEN)
    assert hub.repositories["tester/tiny"].tags == {"v1": commit}


def test_private_repositories(hub, checkpoint, in_process):
    push(checkpoint, "tester/hidden", [1], private=True, token=WRITE_TOKEN)
    assert all(repository.is_private for repository in hub.repositories.values())
    push(checkpoint, "tester/open", [], token=WRITE_TOKEN)
    with pytest.raises(PartialPushError, match="not done: tester/open: tester/open is public already") as caught:
        push(checkpoint, "tester/open", [1], private=True, token=WRITE_TOKEN)
    assert caught.value.urls == [f"{hub.url}/tester/open-exit1"] and len(hub.repositories["tester/open"].commits) == 2


def test_a_card_that_the_hub_refuses(hub, checkpoint, in_process):
    with pytest.raises(HubError, match='nothing was pushed: Invalid metadata in README.md. - "license" must be one of'):
        push(checkpoint, "tester/tiny", [], license="no-such-license", token=WRITE_TOKEN)
    assert hub.puts == []


def test_results_of_another_model_are_refused_before_anything_is_uploaded(hub, checkpoint, tmp_path, in_process):
    results = {"command": "evaluate", "split": "test", "num_files": 1, "exits": {"1": {}}, "classes": ["rain"]}
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match="their classes is another .*run training/evaluate.py for it again"):
        push(checkpoint, "tester/tiny", results=tmp_path / "results.json", token=WRITE_TOKEN)
    assert hub.repositories == {}


def test_a_bundled_checkpoint_goes_with_its_measured_figures(hub, in_process):
    published = Path(__file__).parents[1] / "benchmarks" / "results" / f"{DEFAULT_CHECKPOINT}.json"
    push(DEFAULT_CHECKPOINT, "tester/cnn", [1], results=published, token=WRITE_TOKEN)
    exits = json.loads(published.read_text())["exits"]
    for repo_id, name in (("tester/cnn", "4"), ("tester/cnn-exit1", "1")):
        files = hub.files(repo_id)
        card = files["README.md"].decode()
        assert ("reliability.png" in files) == ("(reliability.png)" in card) == (name == "4")
        metrics = front_matter(files["README.md"])["model-index"][0]["results"][0]["metrics"]
        assert metrics[0]["value"] == round(exits[name]["event_based"]["macro"]["f1"], 4)
        assert front_matter(files["README.md"])["license"] == "apache-2.0"
    calibration = json.loads(hub.files("tester/cnn-exit1")["config.json"])["calibration"]
    assert list(calibration["exits"]) == ["1"]


def test_exits_on_the_command_line(capsys):
    assert main(["push", "nowhere", "tester/tiny", "--exits", "one"]) == 2
    assert "argument --exits: must be numbers like 1,2 or 'none', got 'one'" in capsys.readouterr().err


def test_progress_names_every_repository(hub, checkpoint, in_process):
    lines: list[str] = []
    push(checkpoint, "tester/tiny", [2], token=WRITE_TOKEN, progress=lines.append)
    assert lines == ["tester/tiny (teacher)", "tester/tiny-exit2 (exit 2)"]
