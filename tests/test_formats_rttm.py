"""RTTM, also as pyannote.database reads it."""

import pytest
from event_files import (
    AWKWARD_TEXTS,
    awkward_detections,
    full_event,
    make_detection,
    make_event,
    random_texts,
    same_events,
)
from pyannote.database.util import load_rttm

from modeling_easysed import read_events, write_events

AWKWARD = awkward_detections()


def expected_of(detection):
    """The one number of RTTM comes back as the score."""
    for event in detection.events:
        event.score = event.score if event.confidence is None else event.confidence
    return detection


@pytest.mark.parametrize("name", AWKWARD)
def test_round_trip(tmp_path, name):
    path = tmp_path / "a.rttm"
    write_events(AWKWARD[name], path)
    found = read_events(path)
    expected = expected_of(awkward_detections()[name])
    same_events(found, [expected] if expected.events else [], ("onset", "offset", "label", "score"))
    assert [(one.file, one.duration, one.sampling_rate) for one in found] in ([], [(expected.file, None, None)])


def test_round_trip_of_random_names(tmp_path):
    texts = list(dict.fromkeys(random_texts(500)))
    detections = [make_detection([make_event(text)], file=text) for text in texts]
    write_events(detections, tmp_path / "a.rttm")
    found = read_events(tmp_path / "a.rttm")
    same_events(found, detections, ("onset", "offset", "label", "score"))
    assert [one.file for one in found] == texts


def test_what_is_written(tmp_path):
    detection = make_detection([make_event("dog bark"), full_event(), make_event("", score=None)], file="my yard.wav")
    write_events(detection, tmp_path / "a.rttm")
    assert (tmp_path / "a.rttm").read_text() == (
        "SPEAKER my%20yard.wav 1 0.500000 0.750000 <NA> <NA> dog%20bark 0.91 <NA>\n"
        "SPEAKER my%20yard.wav 1 3.210000 0.870000 <NA> <NA> dog_bark 0.94 <NA>\n"
        "SPEAKER my%20yard.wav 1 0.500000 0.750000 <NA> <NA> <NA> <NA> <NA>\n"
    )


def test_pyannote_reads_it(tmp_path):
    first = make_detection([make_event("dog bark"), full_event("dog_bark")], file="my yard.wav")
    second = make_detection([make_event("Grünfink 鳥", 1.0, 2.5)], file="deep/b.wav")
    write_events([first, second], tmp_path / "a.rttm")
    found = load_rttm(tmp_path / "a.rttm")
    assert sorted(found) == ["deep/b.wav", "my%20yard.wav"]
    tracks = [(segment.start, segment.end, label) for segment, _, label in found["my%20yard.wav"].itertracks(True)]
    assert tracks == [(0.5, 1.25, "dog%20bark"), (3.21, pytest.approx(4.08), "dog_bark")]
    assert found["deep/b.wav"].labels() == ["Grünfink%20鳥"]


@pytest.mark.parametrize("text", AWKWARD_TEXTS)
def test_any_white_space_is_escaped(tmp_path, text):
    """Simple readers split at all that Unicode calls white space."""
    write_events(make_detection([make_event(text)], file=text), tmp_path / "a.rttm")
    (line,) = (tmp_path / "a.rttm").read_text().splitlines()
    assert len(line.split()) == 10


@pytest.mark.parametrize("text", [text for text in AWKWARD_TEXTS if text not in ("", "NA")])  # NA is null to pandas
def test_pyannote_reads_awkward_names_whole(tmp_path, text):
    write_events(
        make_detection([make_event(text, 1.0, 2.0), make_event("rain", 3.0, 4.0)], file=text), tmp_path / "a.rttm"
    )
    ((uri, annotation),) = load_rttm(tmp_path / "a.rttm").items()
    assert len(annotation) == 2 and "rain" in annotation.labels() and not set(uri) & set(' \t\n"')


def test_rttm_of_other_programs_is_read(tmp_path):
    path = tmp_path / "a.rttm"
    path.write_bytes(
        b";; made by hand\r\n"
        b"SPKR-INFO meeting 1 <NA> <NA> <NA> unknown anna <NA> <NA>\r\n"
        b"SPEAKER meeting 1  2.5   0.2 <NA> <NA> anna <NA>\r\n"
        b"SPEAKER\tmeeting\t1\t0.1\t0.2\t<NA>\t<NA>\t100%\t0.5\t<NA>\r\n\r\n"
    )
    (found,) = read_events(path)
    assert [(event.onset, event.offset, event.label, event.score) for event in found.events] == [
        (0.1, 0.3, "100%", 0.5),
        (2.5, 2.7, "anna", None),
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("f 1 0 1 <NA> <NA>", "a SPEAKER line has 9 or 10 fields, got 7"),
        ("f 1 x 1 <NA> <NA> dog <NA> <NA>", "onset must be a finite number, got 'x'"),
        ("f 1 0 nan <NA> <NA> dog <NA> <NA>", "duration must be a finite number, got 'nan'"),
        ("f 1 0 0 <NA> <NA> dog <NA> <NA>", "duration must be > 0 seconds, got 0"),
        ("f 1 -1 2 <NA> <NA> dog <NA> <NA>", "onset must be >= 0 seconds, got -1"),
        ("f 1 0 1 <NA> <NA> dog sure <NA>", "score must be a finite number, got 'sure'"),
    ],
)
def test_bad_lines_name_file_and_line(tmp_path, fields, message):
    path = tmp_path / "a.rttm"
    path.write_text(f";; comment\nSPEAKER {fields}\n")
    with pytest.raises(ValueError) as caught:
        read_events(path)
    assert str(caught.value) == f"{path}, line 2: {message}"
