"""The layouts of a local folder, and what is wrong in them."""

import json
from pathlib import Path

import pytest
from data import TrainingData, read_training_data
from labelled_audio import audio_bytes, write_audio

RATE = 16000


def read(folder: Path, **options) -> TrainingData:
    return read_training_data(str(folder), RATE, **options)


def labels_by_file(data: TrainingData) -> dict[str, str | None]:
    return {clip.source: clip.label for clip in data.clips}


def write_csv(folder: Path, text: str, *names: str) -> None:
    for number, name in enumerate(names):
        write_audio(folder / name, 300.0 + 50 * number)
    (folder / "metadata.csv").write_text(text, encoding="utf-8")


# -- metadata.csv


def test_csv_labels_folds_licenses_and_attribution(tmp_path):
    write_csv(
        tmp_path,
        "file_name,label,fold,license,author,source_url,freesound_id\n"
        "a_1.wav, dog ,1,CC0,ann,http://a,77\nb.wav,cat,2,CC-BY,,,\nc.wav,Background,1,CC0,,,\nd.wav,cow,1,NC,,,\n",
        *("a_1.wav", "b.wav", "c.wav", "d.wav"),
    )
    data = read(tmp_path, folds=["1"], exclude_licenses=["NC"])
    assert labels_by_file(data) == {"a_1.wav": "dog", "c.wav": None}
    assert data.labels == ["dog"] and data.skipped == [] and data.scenes == []
    assert data.attribution[0] == {"file": "a_1.wav", "author": "ann", "license": "CC0", "source_url": "http://a"}
    assert data.attribution[1] == {"file": "c.wav", "author": "", "license": "CC0", "source_url": ""}
    assert data.groups == {"a_1.wav": "77", "c.wav": "c"}
    assert labels_by_file(read(tmp_path, folds=["1", "2"])).keys() == {"a_1.wav", "b.wav", "c.wav", "d.wav"}


def test_csv_split_column(tmp_path, capsys):
    names = ("a.wav", "b.wav", "c.wav")
    write_csv(tmp_path, "file_name,label,split\na.wav,dog,train\nb.wav,dog,test\nc.wav,cat,train\n", *names)
    assert labels_by_file(read(tmp_path, split="test")) == {"b.wav": "dog"}
    assert labels_by_file(read(tmp_path, split="all")).keys() == set(names)
    capsys.readouterr()
    assert labels_by_file(read(tmp_path)).keys() == {"a.wav", "c.wav"}  # never the test split unasked
    assert "reading the split train; the others are test" in capsys.readouterr().err
    with pytest.raises(ValueError, match="split of .*metadata.csv must be one of test, train or all, got 'dev'"):
        read(tmp_path, split="dev")
    with pytest.raises(ValueError, match="folds of .* must be left out: there is no column fold, got"):
        read(tmp_path, folds=["1"])


def test_csv_without_splits_or_with_other_folds(tmp_path):
    write_csv(tmp_path, "file_name,label,fold\na.wav,dog,1\nb.wav,dog,2\n", "a.wav", "b.wav")
    with pytest.raises(ValueError, match="split of .* must be left out: there are no splits, got 'test'"):
        read(tmp_path, split="test")
    with pytest.raises(ValueError, match=r"folds of .* must be of 1, 2, got \['1', '3'\]"):
        read(tmp_path, folds=["1", "3"])
    with pytest.raises(ValueError, match=r"folds of .* must be of 1, 2, got \[\]"):
        read(tmp_path, folds=[])


def test_csv_without_labels_is_of_no_target_class(tmp_path, capsys):
    write_csv(tmp_path, "file_name,kind\na.wav,drum\n", "a.wav")
    assert labels_by_file(read(tmp_path)) == {"a.wav": None}
    assert "has no column label: its recordings are sounds of no target class" in capsys.readouterr().err


def test_csv_of_a_spreadsheet(tmp_path):
    write_csv(tmp_path, '\ufefffile_name, label\r\na.wav,"dog, big"\r\n', "a.wav")
    assert labels_by_file(read(tmp_path)) == {"a.wav": "dog, big"}


def test_csv_rows_that_are_wrong(tmp_path):
    write_csv(tmp_path, "file_name,label\na.wav,dog\nb.wav,  \n,cat\nc.wav\n", "a.wav", "b.wav", "c.wav")
    data = read(tmp_path)
    assert labels_by_file(data) == {"a.wav": "dog"}
    assert data.skipped == [
        ("metadata.csv", "metadata.csv line 4: no file_name"),
        ("b.wav", "metadata.csv line 3: no label (a sound of no target class has the label background)"),
        ("c.wav", "metadata.csv line 5: no label (a sound of no target class has the label background)"),
    ]


def test_csv_columns_and_encoding(tmp_path):
    write_csv(tmp_path, "path,label\na.wav,dog\n", "a.wav")
    with pytest.raises(ValueError, match="must have the columns file_name, it has path, label"):
        read(tmp_path)
    (tmp_path / "metadata.csv").write_bytes(b"file_name,label\na.wav,\xff\n")
    with pytest.raises(ValueError, match="metadata.csv must be UTF-8, byte 22 is not: save it as UTF-8"):
        read(tmp_path)


def test_one_file_under_two_labels_and_one_named_twice(tmp_path):
    text = "file_name,label\na.wav,dog\na.wav,cat\nb.wav,dog\nb.wav,dog\n"
    write_csv(tmp_path, text, "a.wav", "b.wav")
    data = read(tmp_path)
    assert labels_by_file(data) == {"b.wav": "dog"} and len(data.clips) == 1
    reason = "the same sound has the labels cat, dog: keep one, or give it events"
    assert data.skipped == [
        ("a.wav", reason),
        ("a.wav", reason),
        ("b.wav", "metadata.csv line 5: the file is named twice, only metadata.csv line 4 counts"),
    ]


# -- metadata.jsonl


def test_jsonl_clips_and_scenes(tmp_path):
    lines = [
        {"file_name": "a.wav", "label": "dog", "author": "ann"},
        {"file_name": "b.wav", "labels": ["cat"]},
        {"file_name": "c.wav", "labels": []},
        {"file_name": "d.wav", "events": [{"onset": 0.2, "offset": 0.4, "label": "cow"}, [1, 2]]},
        {"file_name": "e.wav", "events": []},
        {"file_name": "f.wav", "labels": ["dog", "cat"]},
        {"file_name": "g.wav"},
    ]
    for number in range(7):
        write_audio(tmp_path / f"{'abcdefg'[number]}.wav", 300.0 + 50 * number)
    text = "\n".join(json.dumps(line) for line in lines) + '\n{"file_name": \n\n["a.wav"]\n'
    (tmp_path / "metadata.jsonl").write_text(text)
    data = read(tmp_path)
    assert labels_by_file(data) == {"a.wav": "dog", "b.wav": "cat", "c.wav": None}
    assert {scene.source: scene.events for scene in data.scenes} == {"d.wav": [(0.2, 0.4, "cow")], "e.wav": []}
    assert data.labels == ["cat", "cow", "dog"]
    assert [entry["author"] for entry in data.attribution] == ["ann", "", "", "", ""]
    reasons = dict(data.skipped)
    assert reasons.keys() == {"metadata.jsonl", "d.wav", "f.wav", "g.wav"} and len(data.skipped) == 5
    wrong_event = "metadata.jsonl line 4, event 2: an event must have onset, offset and label, got [1, 2]"
    assert reasons["d.wav"] == wrong_event
    assert reasons["f.wav"].startswith("metadata.jsonl line 6: a clip is one sound, this one has the labels cat, dog")
    assert reasons["g.wav"].startswith("metadata.jsonl line 7: no label")
    file_reasons = [reason for file, reason in data.skipped if file == "metadata.jsonl"]
    assert file_reasons[0].startswith("metadata.jsonl line 8: not JSON, Expecting value at column")
    assert file_reasons[1] == "metadata.jsonl line 10: must be a JSON object with file_name, got list"


def test_jsonl_scene_named_twice(tmp_path):
    write_audio(tmp_path / "a.wav")
    line = json.dumps({"file_name": "a.wav", "events": [{"onset": 0, "offset": 0.1, "label": "dog"}]})
    (tmp_path / "metadata.jsonl").write_text(f"{line}\n{line}\n")
    data = read(tmp_path)
    assert len(data.scenes) == 1
    reason = "metadata.jsonl line 2: the file is named twice, only metadata.jsonl line 1 counts"
    assert data.skipped == [("a.wav", reason)]


# -- tables of events

HEADER = "filename\tonset\toffset\tevent_label\n"


def test_tables_with_audio_in_a_folder_or_beside(tmp_path):
    write_audio(tmp_path / "audio" / "train" / "a.wav")
    write_audio(tmp_path / "b.wav", 500.0)
    (tmp_path / "train.tsv").write_text(HEADER + "a.wav\t0.30\t0.45\t dog \na.wav\t0.1\t0.2\tcat\nb.wav\t\t\t\n")
    (tmp_path / "test.tsv").write_text(HEADER + "b.wav\t0.1\t0.2\tcow\n")
    data = read(tmp_path, split="train")
    assert {scene.source: scene.events for scene in data.scenes} == {
        "audio/train/a.wav": [(0.1, 0.2, "cat"), (0.3, 0.45, "dog")],
        "b.wav": [],
    }
    assert read(tmp_path).labels == ["cat", "dog"] and read(tmp_path, split="test").labels == ["cow"]
    both = {scene.source: scene.events for scene in read(tmp_path, split="all").scenes}
    assert both["b.wav"] == [(0.1, 0.2, "cow")]
    with pytest.raises(ValueError, match="split of .* must be one of test, train or all, got 'dev'"):
        read(tmp_path, split="dev")
    with pytest.raises(ValueError, match="folds of .* must be left out: there is no column fold"):
        read(tmp_path, folds=["1"])


def test_table_rows_that_are_wrong(tmp_path):
    write_audio(tmp_path / "a.wav", duration_s=1.0)
    write_audio(tmp_path / "b.wav", duration_s=1.0)
    write_audio(tmp_path / "c.wav", duration_s=1.0)
    rows = [
        ("a.wav", "0.5", "0.5", "dog"),  # line 2
        ("a.wav", "0.5", "1.2", "dog"),
        ("a.wav", "0.5", "0.7", " "),
        ("a.wav", "", "0.7", "dog"),
        ("a.wav", "-0.1", "0.7", "dog"),
        ("a.wav", "nan", "0.7", "dog"),
        ("a.wav", "0.5", "1.05", "dog"),  # a little beyond the end: moved to it
        ("a.wav", "1.02", "1.05", "dog"),
        ("a.wav", "0.1", "0.2", "none"),  # no event, and not wrong
        ("b.wav", "0.5", "0.1", "dog"),  # its only event: the scene would be taught as silence
        ("", "0.1", "0.2", "dog"),
        ("c.wav", "0.1", "0.2", "none"),
    ]
    (tmp_path / "x.tsv").write_text(HEADER + "\n".join("\t".join(row) for row in rows))
    data = read(tmp_path)
    assert {scene.source: scene.events for scene in data.scenes} == {"a.wav": [(0.5, 1.0, "dog")], "c.wav": []}
    assert [entry["file"] for entry in data.attribution] == ["a.wav", "c.wav"]
    assert data.skipped == [
        ("x.tsv", "x.tsv line 12: no filename"),
        ("a.wav", "x.tsv line 4: the event at 0.5 s has no label"),
        ("a.wav", "x.tsv line 5: onset and offset must be seconds, got '' and '0.7'"),
        ("a.wav", "x.tsv line 7: onset and offset must be seconds, got 'nan' and '0.7'"),
        ("a.wav", "x.tsv line 2: an event must have 0 <= onset < offset, got 0.5 and 0.5"),
        ("a.wav", "x.tsv line 3: the event from 0.5 to 1.2 s ends after the recording's 1.00 s"),
        ("a.wav", "x.tsv line 6: an event must have 0 <= onset < offset, got -0.1 and 0.7"),
        ("a.wav", "x.tsv line 9: the event from 1.02 to 1.05 s ends after the recording's 1.00 s"),
        ("b.wav", "x.tsv line 11: an event must have 0 <= onset < offset, got 0.5 and 0.1"),
    ]


def test_table_columns_and_licenses(tmp_path):
    write_audio(tmp_path / "a.wav")
    write_audio(tmp_path / "b.wav")
    (tmp_path / "x.tsv").write_text(HEADER[:-1] + "\tlicense\na.wav\t\t\t\tNC\nb.wav\t\t\t\tCC0\n")
    data = read(tmp_path, exclude_licenses=["NC"])
    assert data.attribution == [{"file": "b.wav", "author": "", "license": "CC0", "source_url": ""}]
    (tmp_path / "x.tsv").write_text("filename\tonset\na.wav\t0\n")
    with pytest.raises(ValueError, match="x.tsv must have the columns filename, onset, offset, event_label, it has"):
        read(tmp_path)


# -- one sub-folder per class


def test_class_folders(tmp_path):
    write_audio(tmp_path / "dog" / "a.wav", 300.0)
    write_audio(tmp_path / "dog" / "evening" / "a.FLAC", 350.0, kind="FLAC")
    write_audio(tmp_path / "cat" / "a.ogg", 400.0, kind="OGG")
    write_audio(tmp_path / "_background" / "b.wav", 450.0)
    write_audio(tmp_path / "lost.wav", 500.0)
    write_audio(tmp_path / ".cache" / "c.wav", 550.0)
    (tmp_path / "cow").mkdir()
    for name in ("README.md", "dog/notes.txt", "dog/a.json", "dog/.hidden.wav", "dog/README"):
        (tmp_path / name).write_text("no audio")
    data = read(tmp_path)
    assert labels_by_file(data) == {
        "_background/b.wav": None,
        "cat/a.ogg": "cat",
        "dog/a.wav": "dog",
        "dog/evening/a.FLAC": "dog",
    }
    assert data.attribution[0] == {"file": "_background/b.wav", "author": "", "license": "", "source_url": ""}
    assert data.skipped == [
        ("lost.wav", "lies in no class's folder: move it to the folder of its label"),
        ("cow/", "holds no audio files"),
    ]
    for options, message in [({"split": "test"}, "there are no splits"), ({"folds": ["1"]}, "there is no column fold")]:
        with pytest.raises(ValueError, match=message):
            read(tmp_path, **options)


@pytest.mark.parametrize("name", ["background", "none", "_background", "Background"])
def test_folders_of_no_target_class(tmp_path, name):
    write_audio(tmp_path / name / "a.wav")
    assert labels_by_file(read(tmp_path)) == {f"{name}/a.wav": None}


def test_one_sound_in_two_class_folders(tmp_path):
    write_audio(tmp_path / "cat" / "a.wav", 300.0)
    write_audio(tmp_path / "dog" / "other_name.wav", 300.0)
    write_audio(tmp_path / "dog" / "a.wav", 400.0)  # the same name and size, another sound
    write_audio(tmp_path / "dog" / "copy.wav", 400.0)  # a copy under the same label is no contradiction
    (tmp_path / "cat" / "empty.wav").write_bytes(b"")
    (tmp_path / "dog" / "empty.wav").write_bytes(b"")
    data = read(tmp_path)
    assert labels_by_file(data) == {"dog/a.wav": "dog", "dog/copy.wav": "dog"}
    contradicted = {
        file for file, reason in data.skipped if reason.startswith("the same sound has the labels cat, dog")
    }
    assert contradicted == {"cat/a.wav", "dog/other_name.wav"} and len(data.skipped) == 4


def test_class_folders_below_splits(tmp_path):
    for split, frequency_hz in [("train", 300.0), ("validation", 400.0), ("test", 500.0)]:
        write_audio(tmp_path / split / "dog" / "a.wav", frequency_hz)
        write_audio(tmp_path / split / "none" / "b.wav", frequency_hz + 20)
    (tmp_path / "docs").mkdir()
    data = read(tmp_path, split="validation")
    assert labels_by_file(data) == {"validation/dog/a.wav": "dog", "validation/none/b.wav": None}
    assert data.skipped == [("docs/", "is no split, stands beside train, validation, test")]
    assert labels_by_file(read(tmp_path)).keys() == {"train/dog/a.wav", "train/none/b.wav"}
    assert len(read(tmp_path, split="all").clips) == 6
    with pytest.raises(ValueError, match="must be one of train, validation, test or all, got 'dev'"):
        read(tmp_path, split="dev")


def test_metadata_below_splits(tmp_path):
    write_csv_in = tmp_path / "train"
    write_csv_in.mkdir()
    write_csv(write_csv_in, "file_name,label\na.wav,dog\n", "a.wav")
    data = read(tmp_path)
    assert labels_by_file(data) == {"train/a.wav": "dog"} and data.groups == {"train/a.wav": "a"}


def test_trains_can_be_a_class(tmp_path):
    write_audio(tmp_path / "train" / "a.wav", 300.0)
    write_audio(tmp_path / "car" / "b.wav", 400.0)
    assert read(tmp_path).labels == ["car", "train"]


def test_a_folder_in_no_layout(tmp_path):
    with pytest.raises(ValueError, match="must hold metadata.csv .* or one sub-folder per class, got none of them"):
        read(tmp_path)
    (tmp_path / "a.wav").write_bytes(audio_bytes())
    with pytest.raises(ValueError, match="must hold metadata.csv"):
        read(tmp_path)


def test_the_folder_above_a_data_folder(tmp_path):
    write_audio(tmp_path / "birds" / "a.wav")
    write_csv(tmp_path / "birds", "file_name,label\na.wav,dog\n", "a.wav")
    with pytest.raises(ValueError, match="birds is no class, it holds metadata.csv: pass it instead of"):
        read(tmp_path)
