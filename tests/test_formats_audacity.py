"""Audacity label tracks, also as crowsetta reads them."""

import crowsetta
import pytest
from event_files import awkward_detections, full_event, make_detection, make_event, random_texts, same_events

from modeling_easysed import read_events, write_events

AWKWARD = awkward_detections()


def carried(event) -> tuple[str, ...]:
    return ("onset", "offset", "label", "decision", "score" if event.confidence is None else "confidence")


@pytest.mark.parametrize("name", AWKWARD)
def test_round_trip(tmp_path, name):
    path = tmp_path / "a.labels.txt"
    write_events(AWKWARD[name], path)
    (found,) = read_events(path)
    assert (found.file, found.duration, found.sampling_rate) == (None, None, None)
    assert len(found.events) == len(AWKWARD[name].events)
    for event, expected in zip(found.events, AWKWARD[name].events, strict=True):
        same_events([make_detection([event])], [make_detection([expected])], carried(expected))


@pytest.mark.parametrize("score", [None, 0.5])
def test_round_trip_of_random_labels(tmp_path, score):
    detection = make_detection([make_event(text, score=score) for text in random_texts(500)])
    write_events(detection, tmp_path / "a.txt", "audacity")
    same_events(read_events(tmp_path / "a.txt", "audacity"), [detection], ("onset", "offset", "label", "score"))


def test_what_is_written(tmp_path):
    write_events(
        make_detection([make_event("dog bark"), full_event(), make_event("a\tb", score=None)]),
        tmp_path / "a",
        "audacity",
    )
    assert (tmp_path / "a").read_text() == (
        "0.500000\t1.250000\tdog bark (score 0.91)\n"
        "3.210000\t4.080000\tdog_bark (confidence 0.94, review)\n"
        "0.500000\t1.250000\ta%09b\n"
    )


def test_crowsetta_reads_it(tmp_path):
    path = tmp_path / "yard.labels.txt"
    detection = make_detection([make_event("Grünfink, = 鳥"), full_event(), make_event("new\nline\tand tab", 4.1, 4.2)])
    write_events(detection, path)
    sequence = crowsetta.formats.by_name("aud-seq").from_file(path).to_seq(round_times=False)
    assert sequence.onsets_s.tolist() == [0.5, 3.21, 4.1] and sequence.offsets_s.tolist() == [1.25, 4.08, 4.2]
    assert list(sequence.labels) == [
        "Grünfink, = 鳥 (score 0.91)",
        "dog_bark (confidence 0.94, review)",
        "new%0Aline%09and tab (score 0.91)",
    ]


def test_a_track_of_crowsetta_is_read(tmp_path):
    path = tmp_path / "yard.labels.txt"
    write_events(make_detection([make_event(), full_event()]), path)
    crowsetta.formats.by_name("aud-seq").from_file(path).to_file(tmp_path / "again.labels.txt")
    (found,) = read_events(tmp_path / "again.labels.txt")
    assert [(event.onset, event.label) for event in found.events] == [(0.5, "dog_bark"), (3.21, "dog_bark")]


def test_a_track_of_audacity_is_read(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeff2.5\t3.5\tcat (confidence high)\r\n\\\t100.0\t2000.0\r\n0.5\t1.0\t\r\n1\t2\r\n".encode())
    (found,) = read_events(path, "audacity")
    assert [(event.onset, event.offset, event.label) for event in found.events] == [
        (0.5, 1.0, ""),
        (1.0, 2.0, ""),
        (2.5, 3.5, "cat (confidence high)"),
    ]
    assert all(event.score is None and event.confidence is None for event in found.events)


def test_two_recordings_are_refused(tmp_path):
    detections = [make_detection([], file="a.wav"), make_detection([], file="b.wav")]
    with pytest.raises(ValueError, match="an Audacity label track holds one recording: write one file for each"):
        write_events(detections, tmp_path / "a.labels.txt")
    assert list(tmp_path.iterdir()) == []
    write_events(detections[:1], tmp_path / "a.labels.txt")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("dog", "must be onset<tab>offset<tab>label, got 'dog'"),
        ("1,5\t2\tdog", "onset must be a finite number, got '1,5'"),
        ("1\tnan\tdog", "offset must be a finite number, got 'nan'"),
        ("1\t1\tpoint", "offset must be > onset, got onset 1 and offset 1"),
    ],
)
def test_bad_lines_name_file_and_line(tmp_path, line, message):
    path = tmp_path / "a.labels.txt"
    path.write_text(f"0\t1\tdog\n\n{line}\n")
    with pytest.raises(ValueError) as caught:
        read_events(path)
    assert str(caught.value) == f"{path}, line 3: {message}"
