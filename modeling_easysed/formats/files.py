"""Reads and writes files of events; which format a file has comes from its name or is given."""

import contextlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from modeling_easysed.detection_easysed import Detection
from modeling_easysed.formats.audacity import read_audacity, write_audacity
from modeling_easysed.formats.names import BINARY_FORMATS, require_format
from modeling_easysed.formats.parquet import read_parquet, write_parquet
from modeling_easysed.formats.raven import read_raven, write_raven
from modeling_easysed.formats.rttm import read_rttm, write_rttm
from modeling_easysed.formats.text import read_csv, read_json, read_jsonl, write_csv, write_json, write_jsonl

# (detections, stream, several): `detections` may be a generator, which is written as it comes; `several` says that they
# are of a folder or of more than one recording, whatever became of them.
Write = Callable[[Iterable[Detection], Any, bool], None]

WRITERS: dict[str, Write] = {
    "json": write_json,
    "jsonl": write_jsonl,
    "csv": write_csv,
    "audacity": write_audacity,
    "raven": write_raven,
    "rttm": write_rttm,
    "parquet": write_parquet,
}
_READERS: dict[str, Callable[[Any, str], list[Detection]]] = {
    "json": read_json,
    "jsonl": read_jsonl,
    "csv": read_csv,
    "audacity": read_audacity,
    "raven": read_raven,
    "rttm": read_rttm,
    "parquet": read_parquet,
}


def read_events(path: str | Path, format: str | None = None) -> list[Detection]:
    """Reads the events of a file that `write_events`, `easysed detect` or another program has written.

    JSON and JSON Lines give back whole detections. CSV, Parquet, Raven tables and RTTM give one detection per recording
    with events, in order of appearance; an Audacity label track gives one. What a format does not carry is None; frames
    are in none of them: `frame_times` is (0,), `probabilities` (0, classes). Unknown columns are ignored.

    Args:
        path: the file, UTF-8 text or Parquet.
        format: "json", "jsonl", "csv", "audacity", "raven", "rttm" or "parquet"; None = by the end of the name, .json,
            .jsonl, .ndjson, .csv, .labels.txt, .selections.txt, .rttm, .parquet.

    Returns:
        Detections with their events sorted by onset, times in seconds from the start of each recording.

    Raises:
        ValueError: an unknown format, or a row that is no event: no number, NaN, offset <= onset; it names the line.
        ImportError: Parquet without pyarrow.
        OSError: a file that cannot be read.
    """
    path = Path(path).expanduser()
    name = require_format(path, format)
    if name in BINARY_FORMATS:
        with path.open("rb") as stream:
            return _READERS[name](stream, str(path))
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the first column
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return _READERS[name](stream, str(path))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: save it as UTF-8, or give its format if it is another") from error


def write_events(detections: Detection | Iterable[Detection], path: str | Path, format: str | None = None) -> None:
    """Writes the events of recordings into one file, which is either whole or not touched.

    JSON, JSON Lines, CSV and Parquet carry every field of an event, JSON and JSON Lines the whole detection but its
    frames. An Audacity label track carries onset, offset, label, confidence (or score) and decision of one recording; a
    Raven table these, score, interval, reasons and file; RTTM onset, offset, label, confidence (or score) and file.

    Args:
        detections: one detection, or any number of them; JSON is an object for one and an array otherwise.
        path: the file; its folder must be there.
        format: as for `read_events`; None = by the end of the name.

    Raises:
        ValueError: an unknown format; several recordings for Audacity; Raven without a sampling rate.
        ImportError: Parquet without pyarrow.
        OSError: a file that cannot be written.
    """
    several = not isinstance(detections, Detection)
    path = Path(path).expanduser()
    name = require_format(path, format)
    with replacing(path, binary=name in BINARY_FORMATS) as stream:
        WRITERS[name](detections if several else [detections], stream, several)


@contextlib.contextmanager
def replacing(path: Path, binary: bool = False) -> Iterator[IO[Any]]:
    """A stream whose content takes the place of `path` when the block ends, and is dropped when it fails.

    A link is followed. What is no regular file, such as a pipe, is written directly: it must not be replaced.
    """
    path = path.resolve()
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: its folder does not exist, create it first")
    settings = (
        {"mode": "wb"} if binary else {"mode": "w", "encoding": "utf-8", "newline": "", "errors": "backslashreplace"}
    )
    if path.exists() and not path.is_file():
        with path.open(**settings) as stream:
            yield stream
        return
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with part.open(**settings) as stream:
            yield stream
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
