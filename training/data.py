"""Labelled audio for training, through `datasets`: isolated clips and strongly labelled scenes, from a local folder or
the Hub.

The audio column stays undecoded (`Audio(decode=False)`): soundfile and soxr decode it, without torchcodec. Files and
rows that cannot be used are named, skipped and counted."""

import csv
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from broken_audio import missing_end
from datasets import Audio, Dataset
from hub_recordings import downloaded_folder, hub_builder, hub_dataset, hub_rows, is_parquet_folder
from labelled_folders import Selection, read_folder
from labelled_recordings import ATTRIBUTION, Row, as_dataset, evenly_spaced, events_within
from recording_splits import folds_by_recording, group_of, split_by_recording
from tqdm import tqdm

from modeling_easysed.audio_easysed import AudioError, read_audio

HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*(:[\w.-]+)?")
MAX_SKIPPED_LINES = 20
MAX_REASONS = 3
DECODED_AT_ONCE = 64  # files in memory before they are taken: a stream must not be read to its end at once
NUM_THREADS = min(4, os.cpu_count() or 1)


@dataclass
class Clip:
    """One labelled recording.

    Attributes:
        samples: (samples,) mono, full scale 1.
        label: class name; None for a sound of no target class.
        source: file name it came from.
    """

    samples: np.ndarray
    label: str | None
    source: str


@dataclass
class Scene:
    """A recording with strong labels.

    Attributes:
        samples: (samples,) mono, full scale 1.
        events: (onset, offset, label) in seconds, in order of onset; empty where nothing sounds.
        source: file name it came from.
    """

    samples: np.ndarray
    events: list[tuple[float, float, str]]
    source: str


@dataclass
class TrainingData:
    """What `read_training_data` found.

    Attributes:
        clips: isolated sounds.
        scenes: recordings with strong labels.
        skipped: (file, reason) of everything that could not be used.
        attribution: file, author, license and source_url of every recording used; "" where it is not known.
        groups: {file: the recording it comes from}, for `split_by_recording`.
    """

    clips: list[Clip]
    scenes: list[Scene]
    skipped: list[tuple[str, str]]
    attribution: list[dict[str, str]]
    groups: dict[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """All class names, sorted."""
        clip_labels = {clip.label for clip in self.clips if clip.label is not None}
        return sorted(clip_labels | {event[2] for scene in self.scenes for event in scene.events})


def read_metadata(data_dir: str | Path) -> list[dict[str, str]]:
    """Rows of `metadata.csv`.

    Raises:
        FileNotFoundError: when the folder has none.
    """
    path = Path(data_dir) / "metadata.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found: the data folder must hold metadata.csv and the audio it names")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def load_clips_dataset(
    data_dir: str | Path, column: str, values: list[str], exclude_licenses: list[str] | None = None
) -> Dataset:
    """The rows whose `column` is one of `values` as a Dataset with an undecoded `audio` column.

    Args:
        data_dir: folder with `metadata.csv`; its `file_name` is relative to the folder.
        column: "fold" or "split".
        values: what to keep, as text, e.g. ["1", "2", "3"].
        exclude_licenses: rows whose `license` is one of these are left out; None = every licence will do.

    Raises:
        ValueError: when nothing is left.
    """
    excluded = [] if exclude_licenses is None else exclude_licenses
    rows = [row for row in read_metadata(data_dir) if row[column] in values and row.get("license") not in excluded]
    if not rows:
        raise ValueError(f"no row of {data_dir}/metadata.csv has {column} in {values}")
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    columns["audio"] = [str(Path(data_dir) / name) for name in columns["file_name"]]
    return Dataset.from_dict(columns).cast_column("audio", Audio(decode=False))


def decode_clips(dataset: Iterable[Mapping[str, Any]], sampling_rate: int) -> list[Clip]:
    """Decodes every row to mono at `sampling_rate`; a row without a `label` column is a sound of no target class.

    Raises:
        AudioError: for the first file that cannot be read.
    """

    def decode(row: Mapping[str, Any]) -> Clip:
        samples = read_audio(row["audio"]["path"], sampling_rate).samples
        return Clip(samples, row.get("label"), Path(row["file_name"]).name)

    return list(in_threads(decode, dataset))


def labels_of(data_dir: str | Path) -> list[str]:
    """All class names of the folder, sorted: the order of the model's outputs."""
    return sorted({row["label"] for row in read_metadata(data_dir)})


def read_training_data(
    source: str,
    sampling_rate: int,
    *,
    split: str | None = None,
    folds: list[str] | None = None,
    exclude_licenses: Sequence[str] = (),
    exclude_labels: Sequence[str] = (),
    streaming: bool | None = None,
    max_recordings: int | None = None,
) -> TrainingData:
    """Reads and decodes labelled audio, whatever its layout, rates and channels.

    Args:
        source: a folder, or a data set of the Hub as `owner/name` or `owner/name:config`. A folder holds, first found
            first taken: `metadata.csv`; `metadata.jsonl`; tables of events `SPLIT.tsv` with audio in `audio/SPLIT/` or
            beside them; sub-folders `train/`, `validation/`, `test/` with any of these; one sub-folder per class; or
            parquet files. Sounds of no target class have the label, or lie in the folder, background, none or
            _background.
        sampling_rate: Hz of the samples.
        split: a split's name, or "all"; None reads "train" where there is one, else everything.
        folds: values of the column fold to keep; None keeps all.
        exclude_licenses: recordings whose license is one of these are left out.
        exclude_labels: recordings in which one of these sounds are left out.
        streaming: read a data set of the Hub without storing it; None does so over 2 GB or where its size is not known.
        max_recordings: read at most so many, spread over the data; of a streamed data set the first ones.

    Returns:
        Clips, scenes, and what was skipped, which is also written to stderr. A wrong event is left out of its scene; a
        scene left without any is skipped, since it would be taught as silence. A sound found under two labels is
        skipped, a clip being one sound: give it events.

    Raises:
        FileNotFoundError: for no such folder or data set.
        ConnectionError: when the Hub cannot be reached.
        ValueError: for an unknown split, fold or excluded label, missing columns, or when nothing is left.
    """
    if max_recordings is not None and max_recordings < 1:
        raise ValueError(f"max_recordings must be at least 1, got {max_recordings}")
    selection = Selection(split, folds, tuple(exclude_licenses))
    rows, num_rows, skipped = _open(source, selection, streaming, max_recordings)
    data, excluded = TrainingData([], [], list(skipped), []), set()
    decoded = in_threads(lambda row: (row, *decode_row(row, sampling_rate)), rows)
    for row, recording, reasons in tqdm(decoded, "decoding", num_rows, disable=not sys.stderr.isatty()):
        data.skipped += [(row["file_name"], reason) for reason in reasons]
        if recording is None:
            continue
        unwanted = labels_in(recording) & set(exclude_labels)
        excluded |= unwanted
        if unwanted:
            continue
        (data.clips if isinstance(recording, Clip) else data.scenes).append(recording)
        data.attribution.append({"file": row["file_name"], **{name: row[name] for name in ATTRIBUTION}})
        data.groups[row["file_name"]] = row["group"]
    if absent := sorted(set(exclude_labels) - excluded):
        raise ValueError(f"exclude_labels must be labels of {source}, it has none of {', '.join(absent)}")
    _report(data, source)
    return data


def labels_in(recording: Clip | Scene) -> set[str | None]:
    """What sounds in it; None for a sound of no target class."""
    return {recording.label} if isinstance(recording, Clip) else {event[2] for event in recording.events}


def _open(
    source: str, selection: Selection, streaming: bool | None, max_recordings: int | None
) -> tuple[Iterable[Row], int | None, list[tuple[str, str]]]:
    """Rows of a source with undecoded audio, how many where it is known, and what was skipped before."""
    folder = Path(source).expanduser()
    if folder.is_dir() and not is_parquet_folder(folder):
        found = read_folder(folder, selection)
    elif folder.is_dir() or HUB_NAME.fullmatch(source):
        name = str(folder) if folder.is_dir() else source
        builder = hub_builder(name)
        found = downloaded_folder(builder, selection)
        if found is None:
            dataset = hub_dataset(name, builder, selection.split, streaming)
            return *hub_rows(dataset, selection, max_recordings, source), []
    else:
        raise FileNotFoundError(
            f"{source} must be a folder or a data set of the Hub (owner/name), there is no such folder"
        )
    rows = [found.rows[index] for index in evenly_spaced(len(found.rows), max_recordings)]
    return as_dataset(rows) if rows else [], len(rows), found.skipped


def decode_row(row: Row, sampling_rate: int) -> tuple[Clip | Scene | None, list[str]]:
    """The recording of a row, None where it cannot be used, and what is wrong with it."""
    if row["problems"] and not row["events"]:
        return None, row["problems"]
    try:
        audio = read_audio(row["audio"], sampling_rate)
    except AudioError as error:
        return None, [str(error).removeprefix(f"{row['audio']['path']} ")]
    damage = [warning for warning in audio.warnings if warning.startswith("damaged")] + missing_end(row["audio"])
    if damage:
        return None, damage[:1]
    if row["events"] is None:
        return Clip(audio.samples, row["label"], row["file_name"]), []
    events, problems = events_within(row["events"], audio.duration)
    problems = row["problems"] + problems
    if problems and not events:
        return None, problems
    return Scene(audio.samples, events, row["file_name"]), problems


def in_threads(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """`function` of every item, in order; decoding and resampling leave Python's lock to other threads."""
    remaining = iter(items)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        while batch := list(islice(remaining, DECODED_AT_ONCE)):
            yield from pool.map(function, batch)


def _report(data: TrainingData, source: str) -> None:
    """Names what was skipped on stderr.

    Raises:
        ValueError: when nothing is left.
    """
    if not data.clips and not data.scenes:
        reasons = "; ".join(f"{file}: {reason}" for file, reason in data.skipped[:MAX_REASONS])
        what = f"all were skipped, {len(data.skipped)} reasons, first {reasons}" if reasons else "none was selected"
        raise ValueError(f"{source} must hold at least one recording that can be used, {what}")
    for file, reason in data.skipped[:MAX_SKIPPED_LINES]:
        print(f"skipped: {file}: {reason}", file=sys.stderr)
    if len(data.skipped) > MAX_SKIPPED_LINES:
        print(f"skipped: {len(data.skipped) - MAX_SKIPPED_LINES} more, {len(data.skipped)} in all", file=sys.stderr)


__all__ = [
    "Clip",
    "Scene",
    "TrainingData",
    "decode_clips",
    "folds_by_recording",
    "group_of",
    "labels_of",
    "load_clips_dataset",
    "read_metadata",
    "read_training_data",
    "split_by_recording",
]
