"""Labelled clips from a folder with `metadata.csv` (ESC-10's layout), through `datasets`.

The audio column keeps paths (`Audio(decode=False)`): soundfile and soxr decode it, without torchcodec."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Audio, Dataset

from modeling_easysed.audio_easysed import read_audio


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


def decode_clips(dataset: Dataset, sampling_rate: int) -> list[Clip]:
    """Decodes every row to mono at `sampling_rate`; a row without a `label` column is a sound of no target class."""
    clips = []
    for row in dataset:
        samples = read_audio(row["audio"]["path"], sampling_rate).samples
        clips.append(Clip(samples, row.get("label"), Path(row["file_name"]).name))
    return clips


def labels_of(data_dir: str | Path) -> list[str]:
    """All class names of the folder, sorted: the order of the model's outputs."""
    return sorted({row["label"] for row in read_metadata(data_dir)})
