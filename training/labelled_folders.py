"""A local folder of labelled audio as rows, in any of its layouts: metadata.csv, metadata.jsonl, tables of events
(TSV), one sub-folder per class, or one of these below each of train/, validation/, test/."""

import csv
import hashlib
import io
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from labelled_recordings import ATTRIBUTION, NO_TARGET_NAMES, RawEvent, Row, read_events, recording_row, text

from modeling_easysed.cli.inputs import AUDIO_SUFFIXES, CONTAINER_SUFFIXES, walk

SPLIT_FOLDERS = ("train", "validation", "test", "valid", "val", "dev", "eval")
METADATA_NAMES = ("metadata.csv", "metadata.jsonl")
EVENT_COLUMNS = ("filename", "onset", "offset", "event_label")
LAYOUTS = (
    "metadata.csv (file_name, label), metadata.jsonl (file_name and label or events), SPLIT.tsv "
    f"({', '.join(EVENT_COLUMNS)}) or one sub-folder per class"
)


class Selection(NamedTuple):
    """Which of the recordings are wanted."""

    split: str | None = None
    folds: Sequence[str] | None = None
    exclude_licenses: Sequence[str] = ()


class FolderRows(NamedTuple):
    """Rows, and what could not even become a row: (file, reason)."""

    rows: list[Row]
    skipped: list[tuple[str, str]]


def read_folder(folder: Path, selection: Selection) -> FolderRows:
    """The selected recordings of a folder, by the first of the layouts that it has; contradictions are marked.

    Raises:
        ValueError: for an unknown split or fold, missing columns, or a folder in no known layout.
    """
    found = _read_layout(folder, selection)
    mark_repeated(found.rows)
    return found


def _read_layout(folder: Path, selection: Selection) -> FolderRows:
    if (folder / "metadata.csv").is_file():
        return _read_csv(folder, selection)
    if (folder / "metadata.jsonl").is_file():
        return _read_jsonl(folder, selection)
    tables = sorted(folder.glob("*.tsv"))
    if tables:
        return _read_tables(folder, tables, selection)
    splits = [name for name in SPLIT_FOLDERS if _is_split_folder(folder / name)]
    if splits:
        return _read_split_folders(folder, splits, selection)
    return _read_class_folders(folder, selection)


def chosen_splits(split: str | None, names: Sequence[str], source: str) -> list[str]:
    """The splits to read.

    Args:
        split: a name, "all", or None: "train" where there is one, so that nothing trains on its test data unasked,
            else all of them.
        names: what there is.
        source: where, for the message.

    Raises:
        ValueError: for a split that is not there.
    """
    if split in names:
        return [str(split)]
    if split == "all" or (split is None and "train" not in names):
        return list(names)
    if split is None:
        if len(names) > 1:
            others = ", ".join(name for name in names if name != "train")
            print(f"{source}: reading the split train; the others are {others} (all reads everything)", file=sys.stderr)
        return ["train"]
    known = f"one of {', '.join(names)} or all" if names else "left out: there are no splits"
    raise ValueError(f"split of {source} must be {known}, got {split!r}")


def selected(
    statements: Sequence[tuple[Mapping[str, Any], str]], columns: Sequence[str], selection: Selection, source: str
) -> list[tuple[Mapping[str, Any], str]]:
    """The statements whose columns split, fold and license are wanted, with their places.

    Raises:
        ValueError: for a split or fold that does not occur.
    """
    splits = sorted({text(row.get("split")) for row, _ in statements}) if "split" in columns else []
    wanted_splits = chosen_splits(selection.split, splits, source)
    folds = sorted({text(row.get("fold")) for row, _ in statements}) if "fold" in columns else []
    wanted_folds = chosen_folds(selection.folds, folds, source)
    return [
        (row, where)
        for row, where in statements
        if (not splits or text(row.get("split")) in wanted_splits)
        and (wanted_folds is None or text(row.get("fold")) in wanted_folds)
        and text(row.get("license")) not in selection.exclude_licenses
    ]


def chosen_folds(folds: Sequence[str] | None, names: Sequence[str], source: str) -> list[str] | None:
    """The folds to read, None for no choice.

    Raises:
        ValueError: for a fold that is not there.
    """
    if folds is None:
        return None
    wanted = [str(fold) for fold in folds]
    if not wanted or not set(wanted) <= set(names):
        known = f"of {', '.join(names)}" if names else "left out: there is no column fold"
        raise ValueError(f"folds of {source} must be {known}, got {wanted}")
    return wanted


def _read_csv(folder: Path, selection: Selection) -> FolderRows:
    path = folder / "metadata.csv"
    columns, statements = read_table(path, ("file_name",), ",")
    if "label" not in columns:
        print(f"{path} has no column label: its recordings are sounds of no target class", file=sys.stderr)
    rows, skipped = [], []
    for fields, where in selected(statements, columns, selection, str(path)):
        if "label" not in columns:
            fields = {**fields, "label": NO_TARGET_NAMES[0]}
        _add(rows, skipped, folder, fields, where)
    return FolderRows(rows, skipped)


def _read_jsonl(folder: Path, selection: Selection) -> FolderRows:
    path = folder / "metadata.jsonl"
    statements, rows, skipped = [], [], []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        where = f"{path.name} line {number}"
        try:
            fields = json.loads(line) if line.strip() else None
        except json.JSONDecodeError as error:
            skipped.append((path.name, f"{where}: not JSON, {error.msg} at column {error.colno}"))
            continue
        if isinstance(fields, dict):
            statements.append((fields, where))
        elif fields is not None:
            skipped.append((path.name, f"{where}: must be a JSON object with file_name, got {type(fields).__name__}"))
    columns = sorted({name for fields, _ in statements for name in fields})
    for fields, where in selected(statements, columns, selection, str(path)):
        _add(rows, skipped, folder, fields, where)
    return FolderRows(rows, skipped)


def _add(rows: list[Row], skipped: list[tuple[str, str]], folder: Path, fields: Mapping[str, Any], where: str) -> None:
    """Adds the row of one statement, or says why there is none."""
    name = text(fields.get("file_name"))
    if name == "":
        skipped.append((where.split(" line ")[0], f"{where}: no file_name"))
        return
    rows.append(recording_row(name, str(folder / name), fields, where))


def _read_tables(folder: Path, tables: Sequence[Path], selection: Selection) -> FolderRows:
    """Tables of events: the splits are their names; a recording in several tables has the events of all."""
    chosen_folds(selection.folds, [], str(folder))
    skipped: list[tuple[str, str]] = []
    raw_events: dict[Path, list[RawEvent]] = {}
    facts: dict[Path, Mapping[str, Any]] = {}
    for split in chosen_splits(selection.split, [table.stem for table in tables], str(folder)):
        _, statements = read_table(folder / f"{split}.tsv", EVENT_COLUMNS, "\t")
        for fields, where in statements:
            name = text(fields["filename"])
            if name == "":
                skipped.append((f"{split}.tsv", f"{where}: no filename"))
            if name == "" or text(fields.get("license")) in selection.exclude_licenses:
                continue
            path = _audio_of_table(folder, split, name)
            facts.setdefault(path, {name: fields.get(name) for name in ATTRIBUTION})
            events = raw_events.setdefault(path, [])
            if any(text(fields[name]) for name in EVENT_COLUMNS[1:]):
                event = {"onset": fields["onset"], "offset": fields["offset"], "label": fields["event_label"]}
                events.append((where, event))
    rows = []
    for path, raw in raw_events.items():
        name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
        row = recording_row(name, str(path), {**facts[path], "events": []}, "the table")
        row["events"], row["problems"] = read_events(raw)
        rows.append(row)
    return FolderRows(rows, skipped)


def _audio_of_table(folder: Path, split: str, name: str) -> Path:
    """Where the audio of a table lies: audio/SPLIT/, else beside the table."""
    beside, usual = folder / name, folder / "audio" / split / name
    return beside if beside.is_file() and not usual.is_file() else usual


def _is_split_folder(folder: Path) -> bool:
    """Whether a folder named like a split is one, and not the class of that name (trains can be heard too)."""
    if not folder.is_dir():
        return False
    if any((folder / name).is_file() for name in METADATA_NAMES):
        return True
    has_audio = any(one.suffix.lower() in AUDIO_SUFFIXES | CONTAINER_SUFFIXES for one in folder.iterdir())
    return not has_audio and any(one.is_dir() and not one.name.startswith(".") for one in folder.iterdir())


def _read_split_folders(folder: Path, splits: Sequence[str], selection: Selection) -> FolderRows:
    rows, skipped = [], []
    for split in chosen_splits(selection.split, splits, str(folder)):
        found = _read_layout(folder / split, selection._replace(split="all"))
        rows += [{**row, "file_name": f"{split}/{row['file_name']}"} for row in found.rows]
        skipped += [(f"{split}/{name}", reason) for name, reason in found.skipped]
    others = [one.name for one in _sub_folders(folder) if one.name not in splits]
    skipped += [(f"{name}/", f"is no split, stands beside {', '.join(splits)}") for name in others]
    return FolderRows(rows, skipped)


def _read_class_folders(folder: Path, selection: Selection) -> FolderRows:
    chosen_folds(selection.folds, [], str(folder))
    chosen_splits(selection.split, [], str(folder))
    rows, skipped = [], []
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix.lower() in AUDIO_SUFFIXES | CONTAINER_SUFFIXES:
            skipped.append((path.name, "lies in no class's folder: move it to the folder of its label"))
    for class_folder in _sub_folders(folder):
        metadata = [name for name in METADATA_NAMES if (class_folder / name).is_file()]
        if metadata:
            raise ValueError(f"{class_folder} is no class, it holds {metadata[0]}: pass it instead of {folder}")
        found = [(class_folder.name / one.relative).as_posix() for one in walk(class_folder)]
        for name in found:
            rows.append(recording_row(name, str(folder / name), {"label": class_folder.name}, f"{class_folder.name}/"))
        if not found:
            skipped.append((f"{class_folder.name}/", "holds no audio files"))
    if not rows:
        raise ValueError(f"{folder} must hold {LAYOUTS}, got none of them with audio")
    return FolderRows(rows, skipped)


def _sub_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def read_table(
    path: Path, needed: Sequence[str], delimiter: str
) -> tuple[list[str], list[tuple[dict[str, str | None], str]]]:
    """The columns of a table with a header, and its rows with their places.

    Raises:
        ValueError: when a needed column is missing, or the file is not UTF-8.
    """
    reader = csv.DictReader(io.StringIO(_read_text(path), newline=""), delimiter=delimiter)
    columns = [name.strip() for name in reader.fieldnames] if reader.fieldnames is not None else []
    missing = [name for name in needed if name not in columns]
    if missing:
        raise ValueError(f"{path} must have the columns {', '.join(needed)}, it has {', '.join(columns)}")
    reader.fieldnames = columns
    return columns, [(row, f"{path.name} line {reader.line_num}") for row in reader]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # spreadsheets write a byte order mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8, byte {error.start} is not: save it as UTF-8") from error


def mark_repeated(rows: Sequence[Row]) -> None:
    """Adds a problem to every clip whose sound has another label elsewhere, and to rows of a file already named.

    One sound under two labels is a contradiction: a clip is one sound, and which label is right cannot be known.
    """
    first_of: dict[str, str] = {}
    for clips in _equal_files([row for row in rows if row["events"] is None and not row["problems"]]):
        labels = sorted({str(row["label"] if row["label"] is not None else NO_TARGET_NAMES[0]) for row in clips})
        for row in clips if len(labels) > 1 else []:
            row["problems"].append(f"the same sound has the labels {', '.join(labels)}: keep one, or give it events")
    for row in rows:
        path = str(Path(row["audio"]).resolve())
        if path in first_of and not row["problems"]:
            row["problems"].append(f"{row['where']}: the file is named twice, only {first_of[path]} counts")
            row["events"] = None if row["events"] is None else []
        first_of.setdefault(path, row["where"])


def _equal_files(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows whose files are equal byte by byte; only files of equal size are read, empty ones not at all."""
    sizes = {row["audio"]: _size(row["audio"]) for row in rows}
    how_many = Counter(sizes[row["audio"]] for row in rows)
    equal: dict[bytes, list[Row]] = defaultdict(list)
    for row in rows:
        size = sizes[row["audio"]]
        if size > 0 and how_many[size] > 1:
            with open(row["audio"], "rb") as file:
                equal[hashlib.file_digest(file, "sha256").digest()].append(row)
    return list(equal.values())


def _size(path: str) -> int:
    return Path(path).stat().st_size if Path(path).is_file() else 0
