"""Parquet, as polars and pandas read and write it."""

import sys

import pandas
import polars
import pytest
from event_files import AWKWARD_TEXTS, full_event, make_detection, make_event

from modeling_easysed import read_events, write_events
from modeling_easysed.detection_easysed import ROW_COLUMNS
from modeling_easysed.formats import parquet


def rows(detections) -> list[dict]:
    return [event.to_dict() for one in detections for event in one.events]


def test_polars_reads_it(tmp_path):
    events = [full_event(text) for text in AWKWARD_TEXTS]
    write_events([make_detection(events), make_detection([make_event()], file=None)], tmp_path / "a.parquet")
    frame = polars.read_parquet(tmp_path / "a.parquet")
    assert tuple(frame.columns) == ROW_COLUMNS and frame["label"].to_list() == [*AWKWARD_TEXTS, "dog_bark"]
    assert frame.schema["onset"] == frame.schema["uncertainty_total"] == polars.Float64
    assert frame.schema["exit"] == polars.Int64 and frame.schema["reasons"] == polars.List(polars.String)
    last = frame.row(-1, named=True)
    assert (last["file"], last["score"], last["confidence"], last["reasons"]) == (None, 0.91, None, None)
    assert frame["reasons"][0].to_list() == ["unstable under time shift", "faint"]


def test_pandas_reads_it(tmp_path):
    detection = make_detection([full_event(), full_event("=rain", 1.0, 2.0)])
    write_events(detection, tmp_path / "a.parquet")
    frame = pandas.read_parquet(tmp_path / "a.parquet")
    expected = detection.to_dataframe()
    assert tuple(frame.columns) == ROW_COLUMNS and frame["exit"].tolist() == [3, 3]
    pandas.testing.assert_frame_equal(
        frame.drop(columns="reasons"), expected.drop(columns="reasons"), check_dtype=False
    )


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_what_others_wrote_is_read(tmp_path, library):
    detection = make_detection([make_event(exit=2), full_event()])
    frame = detection.to_dataframe().assign(observer="anna")  # a column of no meaning here; reasons are joined
    if library == "pandas":
        frame.to_parquet(tmp_path / "a.parquet")
    else:
        polars.from_pandas(frame).write_parquet(tmp_path / "a.parquet")
    assert rows(read_events(tmp_path / "a.parquet")) == rows([detection])


def test_only_onset_offset_and_label_must_be_there(tmp_path):
    polars.DataFrame({"onset": [1], "offset": [2], "label": ["dog"]}).write_parquet(tmp_path / "a.parquet")
    (found,) = read_events(tmp_path / "a.parquet")
    assert found.file is None and found.events[0].score is None and found.events[0].onset == 1.0


def test_rows_of_many_recordings_share_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "ROWS_PER_GROUP", 4)
    detections = [make_detection([make_event(f"class_{number}")], file=f"{number}.wav") for number in range(10)]
    write_events(iter(detections), tmp_path / "a.parquet")
    import pyarrow.parquet

    assert pyarrow.parquet.ParquetFile(tmp_path / "a.parquet").num_row_groups == 3
    assert rows(read_events(tmp_path / "a.parquet")) == rows(detections)


@pytest.mark.parametrize("detections", [[], [make_detection([])]])
def test_no_events_are_a_table_without_rows(tmp_path, detections):
    write_events(detections, tmp_path / "a.parquet")
    frame = polars.read_parquet(tmp_path / "a.parquet")
    assert frame.height == 0 and frame.schema["onset"] == polars.Float64
    assert read_events(tmp_path / "a.parquet") == []


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"onset": [0.0, 2.0]}, "row 2: offset must be > onset, got onset 2 and offset 1"),
        ({"onset": [0.0, float("nan")]}, "row 2: onset must be a finite number, got nan"),
        ({"onset": [0.0, None]}, "row 2: onset is missing"),
        ({"onset": ["0", "x"]}, "row 2: onset must be a finite number, got 'x'"),
        ({"label": [1, 2]}, "row 1: label must be text, got 1"),
        ({"decision": ["accept", "maybe"]}, "row 2: decision must be one of accept, review, reject, got 'maybe'"),
    ],
)
def test_bad_rows_name_file_and_row(tmp_path, columns, message):
    path = tmp_path / "a.parquet"
    plain = {"onset": [0.0, 0.5], "offset": [1.0, 1.0], "label": ["dog", "rain"]}
    polars.DataFrame(plain | columns).write_parquet(path)
    with pytest.raises(ValueError) as caught:
        read_events(path)
    assert str(caught.value) == f"{path}, {message}"


def test_what_is_no_table_of_events(tmp_path):
    polars.DataFrame({"onset": [0.0], "end": [1.0]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="a.parquet: no column offset, label among onset, end"):
        read_events(tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_text("onset,offset,label\n")
    with pytest.raises(ValueError, match="a.parquet is not a Parquet file: "):
        read_events(tmp_path / "a.parquet")


def test_without_pyarrow_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r'^Parquet needs pyarrow: pip install "easysed\[parquet\]"$'):
        write_events(make_detection([]), tmp_path / "a.parquet")
    assert list(tmp_path.iterdir()) == []
