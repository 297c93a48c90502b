"""Whose recordings a model was trained on: one row per clip, from the table beside the checkpoint or the clips' own."""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

FILE_NAME = "attribution.csv"
COLUMNS = ("file", "author", "license", "source_url")
METADATA_COLUMNS = ("file_name", "fold", "author", "license", "source_url")

Clip = dict[str, str]  # with the keys of COLUMNS


def read_attribution(model_folder: Path, clips_folder: Path | None, provenance: dict[str, Any] | None) -> list[Clip]:
    """Rows of MODEL/attribution.csv where it is there, else of CLIPS/metadata.csv for the folds trained on.

    Args:
        model_folder: the checkpoint.
        clips_folder: the training clips, or None.
        provenance: of the checkpoint's config; `folds` and `excluded_licenses` say which clips were used.

    Returns:
        One row per clip; none where nobody said whose clips they are.

    Raises:
        ValueError: a table without the columns above, or clips without the folds that were trained on.
    """
    if (model_folder / FILE_NAME).is_file():
        return [{key: row[key] for key in COLUMNS} for row in _read(model_folder / FILE_NAME, COLUMNS)]
    if clips_folder is None:
        return []
    if provenance is None or "folds" not in provenance:
        raise ValueError(
            f"--clips needs the folds that the model was trained on in its config's provenance, got {provenance}: "
            f"write {model_folder / FILE_NAME} with the columns {', '.join(COLUMNS)} instead"
        )
    folds = [str(fold) for fold in provenance["folds"]]
    excluded = provenance.get("excluded_licenses", [])
    rows = _read(clips_folder / "metadata.csv", METADATA_COLUMNS)
    used = [row for row in rows if row["fold"] in folds and row["license"] not in excluded]
    if not used:
        raise ValueError(f"{clips_folder / 'metadata.csv'} has no clip of the folds {folds}: pass the training clips")
    return [{**{key: row[key] for key in COLUMNS[1:]}, "file": Path(row["file_name"]).name} for row in used]


def write_attribution(clips: list[Clip], path: Path) -> None:
    """The table as `read_attribution` reads it."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(clips)


def license_counts(clips: list[Clip]) -> list[tuple[str, int]]:
    """Licences and their number of clips, the most frequent first."""
    return Counter(clip["license"] for clip in clips).most_common()


def _read(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows, names = list(reader), reader.fieldnames
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): pass the folder with metadata.csv") from error
    missing = [name for name in columns if names is None or name not in names]
    if missing:
        raise ValueError(f"{path} must have the columns {', '.join(columns)}, it lacks {', '.join(missing)}")
    return rows


__all__ = ["FILE_NAME", "Clip", "license_counts", "read_attribution", "write_attribution"]
