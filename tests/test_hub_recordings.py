"""Data sets of the Hub: parquet with embedded bytes, stored or streamed, and repositories of plain files.

The last tests run a process against a small Hub on this machine; the others need no network of any kind."""

import json
import re
import subprocess
import sys
from pathlib import Path

import datasets
import hub_recordings
import hub_stand_in
import pytest
from data import TrainingData, read_training_data
from datasets import Audio, ClassLabel, Dataset, Features, IterableDataset, List, Value
from datasets.exceptions import DatasetNotFoundError
from hub_recordings import downloaded_folder, hub_builder, is_streamed, quiet_unless_terminal, with_names
from hub_stand_in import Commit, File, HubStandIn, Repository, client_environment
from labelled_audio import audio_bytes, write_audio
from labelled_folders import Selection

RATE = 16000


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def audio_cell(number: int) -> dict:
    content = audio_bytes(300.0 + 50 * number, rate=(8000, 22050)[number % 2], channels=1 + number % 2)
    return {"bytes": content, "path": f"r{number}_1.wav"}


def clip_rows(num: int = 6) -> Dataset:
    rows = {
        "audio": [audio_cell(number) for number in range(num)],
        "label": [number % 3 for number in range(num)],
        "fold": [1 + number // 4 for number in range(num)],
        "license": ["CC0", "NC"] * (num // 2),
        "author": [f"author {number}" for number in range(num)],
    }
    dataset = Dataset.from_dict(rows).cast_column("audio", Audio(decode=False))
    return dataset.cast_column("label", ClassLabel(names=["background", "cat", "dog"]))


def parquet_folder(folder: Path, dataset: Dataset, split: str = "train") -> str:
    """A local folder as one downloaded from the Hub; the feature says Audio(), as most there do."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    if isinstance(dataset.features["audio"], Audio):
        dataset = dataset.cast_column("audio", Audio())
    dataset.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return str(folder)


def read(source: str, **options) -> TrainingData:
    return read_training_data(source, RATE, **options)


@pytest.mark.parametrize("streaming", [True, False, None])
def test_clips_with_class_labels(tmp_path, streaming):
    data = read(parquet_folder(tmp_path / "d", clip_rows()), streaming=streaming)
    assert [clip.label for clip in data.clips] == [None, "cat", "dog"] * 2 and data.labels == ["cat", "dog"]
    assert all(clip.samples.shape == (RATE // 2,) for clip in data.clips)
    assert data.attribution[1] == {"file": "r1_1.wav", "author": "author 1", "license": "NC", "source_url": ""}
    assert data.groups["r1_1.wav"] == "r1" and data.skipped == []


@pytest.mark.parametrize("streaming", [True, False])
def test_folds_licenses_and_a_limit(tmp_path, streaming):
    source = parquet_folder(tmp_path / "d", clip_rows())
    options = {"streaming": streaming, "folds": ["1"]}
    assert [clip.source for clip in read(source, **options).clips] == [f"r{n}_1.wav" for n in range(4)]
    kept = read(source, **options, exclude_licenses=["NC"]).clips
    assert [clip.source for clip in kept] == ["r0_1.wav", "r2_1.wav"]
    with pytest.raises(ValueError, match=r"folds of .* must be of 1, 2, got \['3'\]"):
        read(source, streaming=streaming, folds=["3"])
    few = [clip.source for clip in read(source, streaming=streaming, max_recordings=2).clips]
    assert few == (["r0_1.wav", "r1_1.wav"] if streaming else ["r0_1.wav", "r3_1.wav"])


def scene_rows() -> Dataset:
    event = {"onset": Value("float32"), "offset": Value("float32"), "label": ClassLabel(names=["cat", "dog"])}
    features = Features({"audio": {"bytes": Value("binary"), "path": Value("string")}, "events": List(event)})
    events = [
        [{"onset": 0.25, "offset": 0.5, "label": 1}, {"onset": 0.125, "offset": 0.25, "label": 0}],
        [],
        [{"onset": 0.25, "offset": 0.125, "label": 1}],
    ]
    return Dataset.from_dict({"audio": [audio_cell(n) for n in range(3)], "events": events}, features=features)


@pytest.mark.parametrize("streaming", [True, False])
def test_scenes(tmp_path, streaming):
    data = read(parquet_folder(tmp_path / "d", scene_rows()), streaming=streaming)
    assert [scene.events for scene in data.scenes] == [[(0.125, 0.25, "cat"), (0.25, 0.5, "dog")], []]
    reason = "row 2, event 1: an event must have 0 <= onset < offset, got 0.25 and 0.125"
    assert data.skipped == [("r2_1.wav", reason)] and data.labels == ["cat", "dog"]


@pytest.mark.parametrize("streaming", [True, False])
def test_splits(tmp_path, streaming):
    parquet_folder(tmp_path / "d", clip_rows(2), "test")
    source = parquet_folder(tmp_path / "d", clip_rows(4), "train")
    assert len(read(source, streaming=streaming).clips) == 4
    assert len(read(source, streaming=streaming, split="test").clips) == 2
    both = read(source, streaming=streaming, split="all")
    assert len(both.clips) == 6 and len(both.groups) == 6  # equal names are kept apart
    with pytest.raises(ValueError, match="must be one of train, test or all, got 'dev'"):
        read(source, split="dev")


def test_rows_that_are_wrong(tmp_path):
    cells = [audio_cell(0), {"bytes": None, "path": "/etc/hostname"}, {"bytes": b"text", "path": None}, audio_cell(3)]
    features = Features({"audio": {"bytes": Value("binary"), "path": Value("string")}, "label": Value("string")})
    dataset = Dataset.from_dict({"audio": cells, "label": ["dog", "dog", "dog", None]}, features=features)
    data = read(parquet_folder(tmp_path / "d", dataset))
    assert [clip.source for clip in data.clips] == ["r0_1.wav"]
    reasons = dict(data.skipped)
    assert reasons["/etc/hostname"].startswith("row 1: the column audio holds no audio bytes: embed them")
    assert "is not audio that can be read" in reasons["row-000002"]
    assert reasons["r3_1.wav"].startswith("row 3: no label")


def test_columns_that_are_missing(tmp_path):
    source = parquet_folder(tmp_path / "d", clip_rows().rename_column("label", "category"))
    with pytest.raises(ValueError, match="one of label, labels, events, it has audio, category, fold, .*: rename its"):
        read(source)
    source = parquet_folder(tmp_path / "e", clip_rows().remove_columns("fold"))
    for streaming in (True, False):
        with pytest.raises(ValueError, match="folds of .* must be left out: there is no column fold"):
            read(source, folds=["1"], streaming=streaming)


def test_numbers_of_classes_become_names():
    names = ClassLabel(names=["cat", "dog"])
    assert with_names(1, names) == "dog" and with_names("dog", names) == "dog"
    assert with_names(-1, names) is None and with_names(None, names) is None
    assert with_names([0, 1], List(names)) == ["cat", "dog"]
    assert with_names({"label": [1], "onset": [0.5]}, {"label": List(names)}) == {"label": ["dog"], "onset": [0.5]}
    assert with_names(1, Value("int64")) == 1


class KnownSize:
    def __init__(self, size: int | None) -> None:
        self.info = datasets.DatasetInfo(download_size=size)


@pytest.mark.parametrize(
    ("size", "streaming", "expected"),
    [
        (1_000_000, None, False),
        (2_000_000_000, None, False),
        (2_000_000_001, None, True),
        (None, None, True),
        (None, False, False),
        (1_000_000, True, True),
    ],
)
def test_large_and_unknown_sizes_are_streamed(size, streaming, expected):
    assert is_streamed(KnownSize(size), streaming) is expected


@pytest.mark.parametrize("streaming", [True, False])
def test_the_kind_of_data_set_that_is_opened(tmp_path, monkeypatch, streaming):
    opened, load = [], datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: opened.append(load(*a, **k)) or opened[-1])
    read(parquet_folder(tmp_path / "d", clip_rows()), streaming=streaming)
    assert [isinstance(one, IterableDataset) for one in opened] == [streaming]


def raising(error: Exception):
    def load_dataset_builder(*_: object) -> None:
        raise error

    return load_dataset_builder


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            DatasetNotFoundError("Dataset 'a/b' doesn't exist\nmore"),
            FileNotFoundError,
            "a/b is neither a folder nor .*t$",
        ),
        (
            ConnectionError("Couldn't reach 'a/b'"),
            ConnectionError,
            "a/b is no folder, and the Hub does not answer: Coul",
        ),
    ],
)
def test_no_such_data_set(monkeypatch, error, kind, message):
    monkeypatch.setattr(datasets, "load_dataset_builder", raising(error))
    with pytest.raises(kind, match=message):
        read("a/b")


@pytest.mark.parametrize("source", ["a/b", "a/b:huge"])
def test_a_configuration_must_be_named(monkeypatch, source):
    monkeypatch.setattr(datasets, "load_dataset_builder", raising(ValueError("Config name is missing.")))
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name: ["large", "small"])
    with pytest.raises(ValueError, match=f"{source} must name a configuration: a/b:CONFIG with one of large, small"):
        hub_builder(source)


def test_another_value_error_is_not_about_configurations(monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset_builder", raising(ValueError("something else")))
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name: ["small"])
    with pytest.raises(ValueError, match="^something else$"):
        hub_builder("a/b:small")


def audio_folder_builder(folder: Path) -> datasets.DatasetBuilder:
    """What the Hub's repositories of plain audio files are loaded with."""
    builder = datasets.load_dataset_builder(str(folder))
    builder.repo_id, builder.hash = "owner/sounds", "0123456789"
    return builder


def test_a_repository_of_files_is_read_as_a_folder(tmp_path, monkeypatch):
    folder = tmp_path / "sounds"
    for label, frequency_hz in [("dog", 300.0), ("cat", 400.0)]:
        write_audio(folder / "train" / label / "a.wav", frequency_hz)
    asked = []
    monkeypatch.setattr(hub_recordings, "snapshot_download", lambda *a, **k: asked.append((a, k)) or str(folder))
    found = downloaded_folder(audio_folder_builder(folder), Selection(split="train"))
    assert [row["label"] for row in found.rows] == ["cat", "dog"]
    assert asked == [(("owner/sounds",), {"repo_type": "dataset", "revision": "0123456789"})]


def test_train_is_all_of_a_repository_without_splits(tmp_path, monkeypatch):
    folder = tmp_path / "sounds"
    write_audio(folder / "a.wav")
    (folder / "metadata.csv").write_text("file_name,label\na.wav,dog\n")
    monkeypatch.setattr(hub_recordings, "snapshot_download", lambda *a, **k: str(folder))
    assert len(downloaded_folder(audio_folder_builder(folder), Selection(split="train")).rows) == 1


def test_a_repository_chooses_no_file_of_this_machine(tmp_path, monkeypatch):
    folder, secret = tmp_path / "sounds", tmp_path / "secret.wav"
    write_audio(folder / "a.wav")
    write_audio(secret, 500.0)
    lines = [{"file_name": name, "label": "dog"} for name in ("a.wav", "../secret.wav", str(secret))]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    monkeypatch.setattr(hub_recordings, "snapshot_download", lambda *a, **k: str(folder))
    found = downloaded_folder(audio_folder_builder(folder), Selection())
    assert [row["problems"] for row in found.rows] == [
        [],
        ["metadata.jsonl line 2: file_name must lie in the repository"],
        ["metadata.jsonl line 3: file_name must lie in the repository"],
    ]


def test_no_bars_without_a_terminal():
    assert datasets.is_progress_bar_enabled()
    with quiet_unless_terminal():
        assert not datasets.is_progress_bar_enabled()
    assert datasets.is_progress_bar_enabled()


# -- against a Hub on this machine


def tree(handler: hub_stand_in._Handler, repo_id: str, revision: str, folder: str | None = None) -> None:
    """Files below a folder, with the folders between, as the Hub lists them."""
    _, commit = handler.commit_of(repo_id, revision)
    prefix = "" if folder is None else f"{folder}/"
    names = [name for name in commit.files if name.startswith(prefix)]
    parents = {str(parent) for name in names for parent in Path(name).parents} - {"."}
    below = [parent for parent in parents if parent.startswith(prefix)]
    entries = [{"type": "directory", "path": name, "oid": "0" * 40, "size": 0} for name in sorted(below)]
    entries += [hub_stand_in.entry(name, commit.files[name]) for name in names]
    if "recursive=true" not in handler.path.lower():
        entries = [entry for entry in entries if "/" not in entry["path"].removeprefix(prefix)]
    handler.send_json(entries)


def resolve(handler: hub_stand_in._Handler, repo_id: str, revision: str, name: str) -> None:
    """A file, or the part of it that a stream asks for."""
    asked = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range", ""))
    file = handler.commit_of(repo_id, revision)[1].files.get(name)
    if asked is None or file is None:
        hub_stand_in._Handler.resolve(handler, repo_id, revision, name)
        return
    first, last = int(asked.group(1)), int(asked.group(2))
    whole = len(file.content)
    handler.send(206, file.content[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{whole}"})


DATASET_ROUTES = [
    (method, pattern.replace(hub_stand_in.KIND, "datasets"), serve)
    for method, pattern, serve in hub_stand_in.ROUTES
    if hub_stand_in.KIND in pattern and not pattern.endswith("tree/([^/]+)")
] + [
    ("GET", f"/api/datasets/{hub_stand_in.REPO}/tree/([^/]+)(?:/(.+))?", tree),
    ("GET|HEAD", f"/datasets/{hub_stand_in.REPO}/resolve/([^/]+)/(.+)", resolve),
]

READER = f"""
import json, sys
sys.path[:0] = [{str(Path(hub_recordings.__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]
from data import read_training_data
data = read_training_data(sys.argv[1], {RATE}, **json.loads(sys.argv[2]))
clips = [[clip.source, clip.label, len(clip.samples)] for clip in data.clips]
print(json.dumps([clips, [[scene.source, scene.events] for scene in data.scenes], data.skipped]))
"""


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(hub_stand_in, "ROUTES", [*hub_stand_in.ROUTES, *DATASET_ROUTES])
    with HubStandIn() as hub:
        yield hub


def publish(hub: HubStandIn, repo_id: str, folder: Path) -> None:
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    commit = Commit("data", {name: File(path.read_bytes(), name.endswith("parquet")) for name, path in files.items()})
    repository = hub.repositories[repo_id] = Repository(is_private=False)
    repository.add(repo_id, commit)


def read_in_a_process(hub: HubStandIn, home: Path, source: str, **options) -> list:
    command = [sys.executable, "-c", READER, source, json.dumps(options)]
    environment = client_environment(hub, home)
    done = subprocess.run(command, capture_output=True, text=True, cwd=home.parent, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "%|" not in done.stderr  # no progress bars without a terminal
    return json.loads(done.stdout)


@pytest.mark.parametrize("streaming", [None, False])
def test_parquet_from_a_hub(hub, tmp_path, streaming):
    parquet_folder(tmp_path / "d", clip_rows(4))
    publish(hub, "tester/sounds", tmp_path / "d")
    clips, scenes, skipped = read_in_a_process(hub, tmp_path / "home", "tester/sounds", streaming=streaming)
    assert clips == [[f"r{n}_1.wav", label, RATE // 2] for n, label in enumerate([None, "cat", "dog", None])]
    assert scenes == [] and skipped == []
    stored = list((tmp_path / "home").rglob("*.arrow"))
    assert bool(stored) == (streaming is False)


def test_files_from_a_hub(hub, tmp_path):
    for split in ("train", "test"):
        write_audio(tmp_path / "d" / split / "a.wav", 300.0)
        line = {"file_name": "a.wav", "events": [{"onset": 0.1, "offset": 0.2, "label": f"{split} dog"}]}
        (tmp_path / "d" / split / "metadata.jsonl").write_text(json.dumps(line))
    publish(hub, "tester/files", tmp_path / "d")
    clips, scenes, skipped = read_in_a_process(hub, tmp_path / "home", "tester/files", split="test")
    assert scenes == [["test/a.wav", [[0.1, 0.2, "test dog"]]]] and clips == [] and skipped == []
