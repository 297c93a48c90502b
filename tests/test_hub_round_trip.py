"""From a local checkpoint to the Hub and back: processes that cannot import the package load what was pushed.

The checkpoint is tiny, but tuned and calibrated: it has the classes, exits and embeddings of the bundled one, and so
can carry its decoding and calibration."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_stand_in import HubStandIn, client_environment
from tiny import tiny_model

from modeling_easysed import BUNDLED_CHECKPOINTS, EasySEDFeatureExtractor, SoundEventDetectionPipeline

RATE = 16000
REPO, STUDENT = "tester/round-trip", "tester/round-trip-exit2"

BLOCK = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "modeling_easysed":
            raise ModuleNotFoundError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
try:
    import modeling_easysed
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("the package can be imported: this process proves nothing")
"""

LOAD = """
import json
import numpy, torch, transformers
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification

samples = numpy.load(sys.argv[1])
found = []
for repo, revision in json.loads(sys.argv[2]):
    where = {"revision": revision, "trust_remote_code": True}
    extractor = AutoFeatureExtractor.from_pretrained(repo, **where)
    model = AutoModelForAudioClassification.from_pretrained(repo, **where)
    trunk = AutoModel.from_pretrained(repo, **where)
    pipe = transformers.pipeline("sound-event-detection", model=repo, device="cpu", **where)
    values = extractor(samples, sampling_rate=16000)
    with torch.no_grad():
        output, hidden = model(**values), trunk(**values).last_hidden_state
    detection = pipe({"array": samples, "sampling_rate": 16000})
    parts = (extractor, model, trunk, pipe, AutoConfig.from_pretrained(repo, **where))
    found.append({
        "modules": [type(part).__module__ for part in parts],
        "logits": output.logits.tolist(),
        "frame_logits": output.frame_logits.tolist(),
        "hidden": hidden.abs().sum().item(),
        "events": detection.to_dict()["events"],
        "calibration": detection.receipt["calibration"],
    })
print(json.dumps(found))
"""


def save_calibrated(folder: Path, seed: int) -> SoundEventDetectionPipeline:
    """Saves a tiny model with the bundled model's decoding and calibration, and returns it as it loads."""
    bundled = json.loads(Path(BUNDLED_CHECKPOINTS["easysed-cnn"], "config.json").read_text())
    labels = {int(index): label for index, label in bundled["id2label"].items()}
    sizes = {"stage_channels": [4, 4, 4], "stage_depths": [1, 1, 1], "exit_hidden_size": bundled["exit_hidden_size"]}
    model = tiny_model(seed=seed, **sizes)
    generator = torch.Generator().manual_seed(seed)
    for head in model.exits:  # loud enough that events come out
        head.classifier = type(head.classifier)(bundled["exit_hidden_size"], len(labels))
        torch.nn.init.normal_(head.classifier.weight, generator=generator)
        torch.nn.init.zeros_(head.classifier.bias)
    model.config.id2label, model.config.label2id = labels, {label: index for index, label in labels.items()}
    model.config.decoding, model.config.calibration = bundled["decoding"], bundled["calibration"]
    model.save_pretrained(folder)
    EasySEDFeatureExtractor(feature_size=32, mel_mean=[-40.0] * 32, mel_std=[15.0] * 32).save_pretrained(folder)
    return SoundEventDetectionPipeline.from_pretrained(folder, device="cpu")


def recording() -> np.ndarray:
    """Six seconds of noise whose level rises and falls."""
    generator = np.random.default_rng(0)
    level = np.interp(np.arange(6 * RATE) / RATE, np.arange(13) / 2, generator.uniform(0.001, 0.3, 13))
    return (level * generator.standard_normal(6 * RATE)).clip(-0.99, 0.99).astype(np.float32)


def run(hub: HubStandIn, home: Path, *arguments: str) -> str:
    """Output of a Python process without our folders on its path."""
    command = [sys.executable, "-P", *arguments]
    environment = client_environment(hub, home) | {"HF_MODULES_CACHE": str(home / "modules")}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def round_trip(tmp_path_factory) -> tuple[dict[str, SoundEventDetectionPipeline], list[dict]]:
    """Two pushes to one repository, v1 then v2; the local pipelines, and what a process without the package loads."""
    home = tmp_path_factory.mktemp("home")
    local = {tag: save_calibrated(home / tag, seed) for tag, seed in (("v1", 0), ("v2", 1))}
    np.save(home / "samples.npy", recording())
    wanted = [[REPO, "v1"], [REPO, "main"], [STUDENT, "v1"]]
    with HubStandIn() as hub:
        for tag in local:
            command = ["-m", "modeling_easysed.cli.main", "push", str(home / tag), REPO, "--exits", "2", "--tag", tag]
            run(hub, home, *command)
        loaded = json.loads(run(hub, home, "-c", BLOCK + LOAD, str(home / "samples.npy"), json.dumps(wanted)))
    return local, loaded


def local_output(pipe: SoundEventDetectionPipeline, exit_index: int) -> tuple[np.ndarray, np.ndarray]:
    values = pipe.feature_extractor(recording(), sampling_rate=RATE)
    with torch.no_grad():
        output = pipe.model(**values, exit_index=exit_index)
    return output.logits.numpy(), output.frame_logits.numpy()


def test_all_code_comes_from_the_hub(round_trip):
    _, loaded = round_trip
    for one in loaded:
        assert all(module.startswith("transformers_modules.") for module in one["modules"]), one["modules"]


@pytest.mark.parametrize(("number", "tag", "exit_index"), [(0, "v1", 4), (1, "v2", 4), (2, "v1", 2)])
def test_logits_and_events_are_the_local_ones(round_trip, number, tag, exit_index):
    """The tag still gives the old weights after main has moved, and the student what its exit gives."""
    local, loaded = round_trip
    pipe, one = local[tag], loaded[number]
    logits, frame_logits = local_output(pipe, exit_index)
    np.testing.assert_allclose(one["logits"], logits, rtol=0, atol=1e-5)
    np.testing.assert_allclose(one["frame_logits"], frame_logits, rtol=0, atol=1e-5)
    source = {"array": recording(), "sampling_rate": RATE}
    detection = pipe(source) if number < 2 else pipe(source, exit=exit_index)
    assert one["events"] == detection.to_dict()["events"] and len(one["events"]) >= 2
    assert all(event["confidence"] is not None for event in one["events"])


def test_the_two_versions_differ(round_trip):
    _, loaded = round_trip
    assert loaded[0]["logits"] != loaded[1]["logits"] and loaded[0]["hidden"] != loaded[1]["hidden"]


def test_the_students_calibration_is_its_own(round_trip):
    _, loaded = round_trip
    assert loaded[0]["calibration"] == loaded[1]["calibration"] != loaded[2]["calibration"]
