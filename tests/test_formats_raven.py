"""Raven selection tables, also as crowsetta and pandas read them."""

import crowsetta
import pandas
import pytest
from event_files import awkward_detections, full_event, make_detection, make_event, random_texts, same_events

from modeling_easysed import read_events, write_events

AWKWARD = awkward_detections()
CARRIED = (
    "onset",
    "offset",
    "label",
    "score",
    "confidence",
    "confidence_low",
    "confidence_high",
    "decision",
    "reasons",
)
HEADER = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\t"


@pytest.mark.parametrize("name", AWKWARD)
def test_round_trip(tmp_path, name):
    path = tmp_path / "a.selections.txt"
    write_events(AWKWARD[name], path)
    found = read_events(path)
    same_events(found, [AWKWARD[name]] if AWKWARD[name].events else [], CARRIED)
    assert [(one.file, one.duration, one.sampling_rate) for one in found] in ([], [(AWKWARD[name].file, None, None)])


def test_round_trip_of_random_names_in_many_recordings(tmp_path):
    texts = list(dict.fromkeys(random_texts(200)))
    detections = [make_detection([make_event(text), full_event(text)], file=text) for text in texts]
    write_events(detections, tmp_path / "a.selections.txt")
    found = read_events(tmp_path / "a.selections.txt")
    same_events(found, detections, CARRIED)
    assert [one.file for one in found] == texts


def test_crowsetta_reads_it(tmp_path):
    path = tmp_path / "yard.selections.txt"
    write_events(make_detection([make_event("Grünfink, = 鳥"), full_event("tab\there")]), path)
    boxes = crowsetta.formats.by_name("raven").from_file(path).to_bbox()
    assert [(box.onset, box.offset, box.low_freq, box.high_freq, box.label) for box in boxes] == [
        (0.5, 1.25, 0.0, 22050.0, "Grünfink, = 鳥"),
        (3.21, 4.08, 0.0, 22050.0, "tab%09here"),
    ]


def test_a_table_of_crowsetta_is_read(tmp_path):
    path = tmp_path / "yard.selections.txt"
    detection = make_detection([make_event(), full_event(reasons=["faint", "short"])])
    write_events(detection, path)
    crowsetta.formats.by_name("raven").from_file(path).to_file(tmp_path / "again.selections.txt")
    same_events(read_events(tmp_path / "again.selections.txt"), [detection], CARRIED)


def test_several_recordings_are_one_sequence(tmp_path):
    path = tmp_path / "all.selections.txt"
    first = make_detection([make_event()], file="deep/a.wav", duration=10.1)
    silent = make_detection([], file="b.wav", duration=0.2)
    last = make_detection([full_event()], file="C:\\new\\c.wav", duration=None, sampling_rate=8000)
    write_events([first, silent, last], path)
    frame = pandas.read_csv(path, sep="\t")
    assert frame["Selection"].tolist() == [1, 2] and frame["Begin Time (s)"].tolist() == [0.5, 13.51]
    assert frame["End Time (s)"].tolist() == [1.25, 14.38] and frame["File Offset (s)"].tolist() == [0.5, 3.21]
    assert frame["Begin Path"].tolist() == ["deep/a.wav", "C:\\new\\c.wav"]
    assert frame["Begin File"].tolist() == ["a.wav", "c.wav"] and frame["High Freq (Hz)"].tolist() == [22050.0, 4000.0]
    same_events(read_events(path), [first, last], CARRIED)


def test_a_table_of_raven_is_read(tmp_path):
    path = tmp_path / "yard.Table.1.selections.txt"
    path.write_bytes(
        (
            HEADER + "Begin File\tSpecies\tNotes\r\n"
            "1\tWaveform 1\t1\t2.5\t3\t100\t2000\tC:\\table.wav\tEATO\tnear\r\n"
            "1\tSpectrogram 1\t1\t2.5\t3\t100\t2000\tC:\\table.wav\tEATO\tnear\r\n"
            "2\tSpectrogram 1\t1\t0.5\t1\t100\t2000\tC:\\table.wav\t100%\r\n"
        ).encode()
    )
    (found,) = read_events(path)
    assert [(event.onset, event.offset, event.label) for event in found.events] == [(0.5, 1, "100%"), (2.5, 3, "EATO")]
    assert found.file == "C:\\table.wav" and found.events[0].score is None and found.events[0].reasons is None


def test_what_raven_needs_must_be_known(tmp_path):
    path = tmp_path / "a.selections.txt"
    with pytest.raises(ValueError, match=r"Raven needs the upper frequency .*: set detection.sampling_rate \(Hz\)"):
        write_events(make_detection([make_event()], sampling_rate=None), path)
    with pytest.raises(ValueError, match="need the duration of each: set detection.duration"):
        write_events([make_detection([], duration=None), make_detection([make_event()])], path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("Selection\tEnd Time (s)\tSpecies", "needs the column Begin Time (s)"),
        (HEADER, "needs the column Annotation or Label or Species or Common Name or Species Code"),
    ],
)
def test_tables_without_their_columns(tmp_path, header, message):
    path = tmp_path / "a.selections.txt"
    path.write_text(f"{header}\n")
    with pytest.raises(ValueError) as caught:
        read_events(path)
    assert str(caught.value) == f"{path}, line 1: a Raven selection table {message}"


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("x\t2\tdog", "onset must be a finite number, got 'x'"),
        ("1\t\tdog", "offset is missing"),
        ("1\t0.5\tdog", "offset must be > onset, got onset 1 and offset 0.5"),
        ("1\tnan\tdog", "offset must be a finite number, got 'nan'"),
        ("1\t2", "label is missing"),
        ("1\t2\tdog\t0.5\tlouder", "5 cells under 4 columns"),
        ("1\t2\tdog\thigh", "score must be a finite number, got 'high'"),
    ],
)
def test_bad_rows_name_file_and_line(tmp_path, cells, message):
    path = tmp_path / "a.selections.txt"
    path.write_text(f"Begin Time (s)\tEnd Time (s)\tAnnotation\tScore\n0\t1\tdog\n\n{cells}\n")
    with pytest.raises(ValueError) as caught:
        read_events(path)
    assert str(caught.value) == f"{path}, line 4: {message}"
