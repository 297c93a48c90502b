"""JSON, JSON Lines and CSV, and what all formats have in common: names, errors, files that are whole or not touched."""

import json
import os
import subprocess
import sys
import threading

import pandas
import pytest
from event_files import AWKWARD_TEXTS, awkward_detections, full_event, make_detection, make_event, random_texts

from modeling_easysed import read_events, write_events
from modeling_easysed.detection_easysed import ROW_COLUMNS
from modeling_easysed.formats.escapes import escape, join_reasons, split_reasons, unescape
from modeling_easysed.formats.names import FORMATS, SUFFIXES, format_of_name

AWKWARD = awkward_detections()
TEXT_FORMATS = [name for name in FORMATS if name != "parquet"]


def rows(detections) -> list[list[dict]]:
    return [[event.to_dict() for event in one.events] for one in detections]


# ---- round trips -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["json", "jsonl"])
@pytest.mark.parametrize("name", AWKWARD)
def test_json_carries_the_whole_detection(tmp_path, format, name):
    path = tmp_path / f"events{SUFFIXES[format]}"
    write_events(AWKWARD[name], path)
    (found,) = read_events(path)
    assert found.to_dict() == AWKWARD[name].to_dict()
    assert found.probabilities.shape == (0, len(found.labels)) and found.frame_times.shape == (0,)


@pytest.mark.parametrize("format", ["csv", "parquet"])
@pytest.mark.parametrize("name", AWKWARD)
def test_rows_carry_every_field_of_the_events(tmp_path, format, name):
    path = tmp_path / f"events{SUFFIXES[format]}"
    write_events(AWKWARD[name], path)
    found = read_events(path)
    if not AWKWARD[name].events:
        assert found == []
        return
    assert rows(found) == rows([AWKWARD[name]]) and found[0].file == AWKWARD[name].file
    assert (found[0].duration, found[0].sampling_rate, found[0].receipt) == (None, None, {})


def test_every_format_that_carries_everything_gives_the_same_events(tmp_path):
    expected = [make_detection([full_event(text)], file=f"{number}.wav") for number, text in enumerate(AWKWARD_TEXTS)]
    found = expected
    for format in ("json", "csv", "parquet", "jsonl"):  # each writes what the one before it has read
        write_events(found, tmp_path / f"events{SUFFIXES[format]}")
        found = read_events(tmp_path / f"events{SUFFIXES[format]}")
    assert rows(found) == rows(expected) and [one.file for one in found] == [one.file for one in expected]


def test_events_of_one_file_are_joined_and_sorted(tmp_path):
    (tmp_path / "a.csv").write_text("file,onset,offset,label\na,2,3,dog\nb,0,1,cat\na,0,1,rain\n")
    first, second = read_events(tmp_path / "a.csv")
    assert [event.label for event in first.events] == ["rain", "dog"] and (first.file, second.file) == ("a", "b")
    assert first.labels == ["rain", "dog"] and first.events[0].score is None


def test_json_of_several_is_an_array(tmp_path):
    detections = [make_detection([make_event()], file="a.wav"), make_detection([], file="b.wav")]
    write_events(iter(detections), tmp_path / "a.json")
    assert [one["file"] for one in json.loads((tmp_path / "a.json").read_text())] == ["a.wav", "b.wav"]
    assert [one.to_dict() for one in read_events(tmp_path / "a.json")] == [one.to_dict() for one in detections]
    write_events([], tmp_path / "a.json")
    assert read_events(tmp_path / "a.json") == []


def test_names_that_are_no_text_are_written_escaped(tmp_path):
    detection = make_detection([make_event()], file="\udcff.wav")
    for format in FORMATS:
        write_events(detection, tmp_path / "events", format)
        (found,) = read_events(tmp_path / "events", format)
        assert len(found.events) == 1
        if format != "audacity":
            assert found.file == ("\udcff.wav" if format in ("json", "jsonl") else "\\udcff.wav")


# ---- independent readers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", AWKWARD_TEXTS)
def test_pandas_reads_csv(tmp_path, text):
    write_events([make_detection([full_event(text)], file="a.wav"), make_detection([make_event()])], tmp_path / "a.csv")
    frame = pandas.read_csv(tmp_path / "a.csv", keep_default_na=False, na_values={"confidence": [""]})
    assert tuple(frame.columns) == ROW_COLUMNS and frame["label"].tolist() == [text, "dog_bark"]
    assert frame["onset"].tolist() == [3.21, 0.5] and frame["file"].tolist() == ["a.wav", "yard.wav"]
    assert frame["confidence"].isna().tolist() == [False, True] and frame["uncertainty_total"][0] == "0.21"
    assert frame["reasons"][0] == "unstable under time shift; faint"


def test_csv_that_pandas_wrote_is_read(tmp_path):
    detection = make_detection([make_event(exit=2), full_event()])
    detection.to_dataframe().to_csv(tmp_path / "a.csv")  # with an index column
    assert rows(read_events(tmp_path / "a.csv")) == rows([detection])


def test_a_csv_that_a_spreadsheet_saved_is_read(tmp_path):
    (tmp_path / "a.csv").write_bytes("\ufeffonset,offset,label\r\n0.5,1,Grünfink\r\n\r\n".encode())
    assert read_events(tmp_path / "a.csv")[0].events[0].label == "Grünfink"


def test_pandas_reads_json_lines(tmp_path):
    write_events([make_detection([make_event()], file="a.wav"), make_detection([])], tmp_path / "a.jsonl")
    frame = pandas.read_json(tmp_path / "a.jsonl", lines=True)
    assert frame["file"].tolist() == ["a.wav", "yard.wav"] and frame["events"][0][0]["onset"] == 0.5


# ---- escapes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reserved", ["\t\n\r", '\t\n\r "<%\u2028'])
def test_escapes_are_reversible(reserved):
    for text in [*AWKWARD_TEXTS, *random_texts(2000)]:
        escaped = escape(text, reserved)
        assert not set(escaped) & set(reserved.replace("%", "")) and unescape(escaped, reserved) == text


def test_only_what_breaks_is_escaped():
    assert escape("C:\\new\\100%.wav", "\t\n\r") == "C:\\new\\100%.wav"
    assert (escape("a\tb", "\t"), escape("a%09b", "\t"), escape("a%41b", "\t")) == ("a%09b", "a%2509b", "a%41b")


@pytest.mark.parametrize("decision", [None, "review"])
def test_reasons_are_reversible(decision):
    for texts in ([], None, *([text] for text in AWKWARD_TEXTS), random_texts(50), random_texts(50, seed=1)):
        assert split_reasons(join_reasons(texts, decision), decision) == texts
    assert join_reasons(["short", "faint"], decision) == "short; faint"
    assert join_reasons([], "accept") == join_reasons(None, None) == ""


# ---- names and files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.JSON", "json"),
        ("a.ndjson", "jsonl"),
        ("deep.csv/a.labels.txt", "audacity"),
        ("a.Table.1.selections.txt", "raven"),
        ("a.txt", None),
        ("csv", None),
    ],
)
def test_what_a_name_says(name, format):
    assert format_of_name(name) == format


def test_names_that_leave_the_format_open_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a.txt: the name does not tell the format .* give format='audacity'"):
        write_events(make_detection([]), tmp_path / "a.txt")
    with pytest.raises(ValueError, match=r"format must be one of json, .* parquet, got 'xml'"):
        read_events(tmp_path / "a.json", "xml")
    with pytest.raises(FileNotFoundError, match="none/a.json: its folder does not exist, create it first"):
        write_events(make_detection([]), tmp_path / "none" / "a.json")


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_is_whole_or_not_touched(tmp_path, format):
    def broken():
        yield make_detection([make_event()])
        raise RuntimeError("power cut")

    path = tmp_path / "events"
    path.write_text("before")
    with pytest.raises(RuntimeError, match="power cut"):
        write_events(broken(), path, format)
    assert path.read_text() == "before" and [one.name for one in tmp_path.iterdir()] == ["events"]


def test_links_stay_links(tmp_path):
    (tmp_path / "target.csv").write_text("")
    (tmp_path / "link.csv").symlink_to(tmp_path / "target.csv")
    write_events(make_detection([make_event()]), tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink() and "dog_bark" in (tmp_path / "target.csv").read_text()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_written_not_replaced(tmp_path):
    path = tmp_path / "pipe.csv"
    os.mkfifo(path)
    found = []
    reader = threading.Thread(target=lambda: found.append(path.read_text()), daemon=True)
    reader.start()
    write_events(make_detection([make_event()]), path)
    reader.join(timeout=10)
    assert "dog_bark" in found[0] and path.is_fifo()


def test_torch_is_not_imported():
    script = (
        "import sys; from modeling_easysed import read_events; print({'torch', 'pyarrow', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr


# ---- what cannot be read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,1,2", "label is missing"),
        ("a,,2,dog", "onset is missing"),
        ("a,one,2,dog", "onset must be a finite number, got 'one'"),
        ("a,nan,2,dog", "onset must be a finite number, got 'nan'"),
        ("a,1,inf,dog", "offset must be a finite number, got 'inf'"),
        ("a,2,2,dog", "offset must be > onset, got onset 2 and offset 2"),
        ("a,-1,2,dog", "onset must be >= 0 seconds, got -1"),
        ("a,1,2,dog,NaN", "score must be a finite number, got 'NaN'"),
        ("a,1,2,dog,0.5,1.5", "exit must be a whole number, got '1.5'"),
        ("a,1,2,dog,0.5,1,maybe", "decision must be one of accept, review, reject, got 'maybe'"),
        ("a,1,2,dog,0.5,1,accept,x", "1 more cells than columns"),
    ],
)
def test_bad_rows_of_csv_name_file_and_line(tmp_path, row, message):
    path = tmp_path / "a.csv"
    path.write_text(f'file,onset,offset,label,score,exit,decision\n"a",0,1,"two\nlines"\n\n{row}\n')
    with pytest.raises(ValueError) as caught:
        read_events(path)
    assert str(caught.value).startswith(f"{path}, line 5: {message}") and "\n" not in str(caught.value)


def test_a_bad_row_over_several_lines_is_named_by_its_first(tmp_path):
    (tmp_path / "a.csv").write_text('onset,offset,label\n1,0,"two\nlines"\n')
    with pytest.raises(ValueError, match="a.csv, line 2: offset must be > onset"):
        read_events(tmp_path / "a.csv")


def test_an_open_quote_does_not_swallow_the_rows_below(tmp_path):
    (tmp_path / "a.csv").write_text('onset,offset,label\n0,1,"dog\n1,2,cat\n')
    with pytest.raises(ValueError, match="a.csv, line 3: no valid CSV: unexpected end of data"):
        read_events(tmp_path / "a.csv")


def test_a_csv_without_its_columns(tmp_path):
    (tmp_path / "a.csv").write_text("onset;offset;label\n0;1;dog\n")
    with pytest.raises(ValueError, match="a.csv, line 1: no column onset, offset, label among onset;offset;label"):
        read_events(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "column 2: no valid JSON: Expecting value"),
        ("{\n'a': 1}", "line 2, column 1: no valid JSON"),
        ("[[]]", "detection 1: must be a detection, an object with a list of events"),
        ('{"events": 1}', "must be a detection"),
        ('{"events": [1]}', "event 1: must be an object, got 1"),
        (
            '{"events": [{"onset": true, "offset": 1, "label": "a"}]}',
            "event 1: onset must be a finite number, got True",
        ),
        ('{"events": [{"onset": NaN, "offset": 1, "label": "a"}]}', "event 1: onset must be a finite number, got nan"),
        ('{"events": [{"onset": 0, "offset": 1, "label": 5}]}', "event 1: label must be text, got 5"),
        ('{"events": [{"onset": 0, "offset": 1, "label": "a", "uncertainty": 5}]}', "uncertainty must be an object"),
        ('{"events": [{"onset": 0, "offset": 1, "label": "a", "reasons": "b"}]}', "reasons must be a list of text"),
        ('{"events": [], "file": 5}', "file must be text, got 5"),
        ('{"events": [], "receipt": []}', "receipt must be an object, got []"),
        ('{"events": [], "sampling_rate": 0.5}', "sampling_rate must be a whole number, got 0.5"),
        ('{"events": [], "warnings": [1]}', "warnings must be a list of text, got [1]"),
    ],
)
def test_bad_json_names_file_and_event(tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        read_events(path)
    assert str(caught.value).startswith(str(path)) and message in str(caught.value)


def test_bad_json_lines_name_the_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"events": []}\n\n{"events": [{"onset": 3, "offset": 1, "label": "a"}]}\n')
    with pytest.raises(ValueError, match="a.jsonl, line 3, event 1: offset must be > onset, got onset 3 and offset 1"):
        read_events(path)


@pytest.mark.parametrize("format", TEXT_FORMATS)
def test_what_is_no_text_is_one_line(tmp_path, format):
    (tmp_path / "a").write_bytes(b"\xff\xfe0\x00")
    with pytest.raises(ValueError, match="a is not UTF-8 text"):
        read_events(tmp_path / "a", format)


def test_a_detection_without_frames_says_so():
    detection = make_detection([make_event()], duration=None)
    assert repr(detection).startswith("Detection('yard.wav', events=[dog_bark 0.50-1.25 s]")
    detection.frame_times = detection.frame_times[:0]
    with pytest.raises(ValueError, match="plot needs the frames, which no file of events holds"):
        detection.plot()
