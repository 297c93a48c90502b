"""A data set of the Hub, or a local folder of parquet files, as rows: a column `audio` and `label`, `labels` or
`events`. Audio stays undecoded bytes.

Repositories of plain audio files are downloaded and read as a folder: `datasets` imports torchcodec to read these,
which does not load beside a CPU build of torch."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import datasets
import huggingface_hub.utils
from datasets import Audio, ClassLabel, Dataset, DatasetBuilder, Features, IterableDataset, LargeList, List
from datasets.packaged_modules.audiofolder.audiofolder import AudioFolder
from huggingface_hub import snapshot_download
from labelled_folders import FolderRows, Selection, chosen_folds, chosen_splits, read_folder
from labelled_recordings import Row, evenly_spaced, recording_row, text

STREAMED_FROM_BYTES = 2e9
LABEL_COLUMNS = ("label", "labels", "events")


def is_parquet_folder(folder: Path) -> bool:
    """Whether a local folder is a data set in parquet files, as one downloaded from the Hub, and nothing else."""
    if any(any(folder.glob(pattern)) for pattern in ("metadata.csv", "metadata.jsonl", "*.tsv")):
        return False
    return any(any(folder.glob(pattern)) for pattern in ("*.parquet", "data/*.parquet"))


def hub_builder(source: str) -> DatasetBuilder:
    """What `datasets` knows of `owner/name` or `owner/name:config`, or of a folder of parquet files.

    Raises:
        FileNotFoundError: when there is neither such a data set nor such a folder.
        ConnectionError: when the Hub cannot be reached.
        ValueError: when the configuration is missing or unknown.
    """
    name, _, config = source.partition(":")
    if Path(source).is_dir():
        name, config = source, ""
    try:
        return datasets.load_dataset_builder(name, config if config != "" else None)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{source} is neither a folder nor a data set of the Hub: {_first_line(error)}"
        ) from error
    except ConnectionError as error:
        raise ConnectionError(f"{source} is no folder, and the Hub does not answer: {_first_line(error)}") from error
    except ValueError as error:
        known = datasets.get_dataset_config_names(name)
        if config in known:
            raise
        raise ValueError(f"{source} must name a configuration: {name}:CONFIG with one of {', '.join(known)}") from error


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0]


def downloaded_folder(builder: DatasetBuilder, selection: Selection) -> FolderRows | None:
    """The recordings of a repository of plain audio files; None for every other kind of repository.

    Names that would leave the repository's folder become problems: metadata from elsewhere chooses no local file.
    """
    if builder.repo_id is None or not isinstance(builder, AudioFolder):
        return None
    if selection.split == "train" and list(builder.config.data_files) == ["train"]:
        selection = selection._replace(split=None)  # "train" is also the Hub's word for everything without a split
    with quiet_unless_terminal():
        folder = Path(snapshot_download(builder.repo_id, repo_type="dataset", revision=builder.hash))
    found = read_folder(folder, selection)
    for row in found.rows:
        parts = PurePosixPath(row["file_name"])
        if parts.is_absolute() or ".." in parts.parts:
            row["events"], row["problems"] = None, [f"{row['where']}: file_name must lie in the repository"]
    return found


def is_streamed(builder: DatasetBuilder, streaming: bool | None) -> bool:
    """Whether to read without storing: as asked, else where the size is over 2 GB or not known."""
    if streaming is not None:
        return streaming
    size = builder.info.download_size
    return size is None or size > STREAMED_FROM_BYTES


def hub_dataset(
    source: str, builder: DatasetBuilder, split: str | None, streaming: bool | None
) -> Dataset | IterableDataset:
    """The chosen splits, one after the other, with `audio` undecoded.

    Raises:
        ValueError: for an unknown split, or when a column that is needed is missing.
    """
    name = source if Path(source).is_dir() else source.partition(":")[0]
    config, streamed = builder.config.name, is_streamed(builder, streaming)
    chosen = chosen_splits(split, datasets.get_dataset_split_names(name, config), source)
    with quiet_unless_terminal():
        parts = [datasets.load_dataset(name, config, split=one, streaming=streamed) for one in chosen]
    return _undecoded(parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts), source)


def _undecoded(dataset: Dataset | IterableDataset, source: str) -> Dataset | IterableDataset:
    columns = list(next(iter(dataset.take(1)), {})) if dataset.column_names is None else dataset.column_names
    if "audio" not in columns or not set(LABEL_COLUMNS) & set(columns):
        raise ValueError(
            f"{source} must have a column audio and one of {', '.join(LABEL_COLUMNS)}, it has {', '.join(columns)}: "
            "rename its columns (Dataset.rename_column), or save it as a folder"
        )
    if dataset.features is not None and isinstance(dataset.features["audio"], Audio):
        return dataset.cast_column("audio", Audio(decode=False))
    return dataset


def hub_rows(
    dataset: Dataset | IterableDataset, selection: Selection, max_recordings: int | None, source: str
) -> tuple[Iterator[Row], int | None]:
    """The selected rows, and how many where it is known before they are read.

    At most `max_recordings`: spread over a stored data set, the first ones of a streamed one.

    Raises:
        ValueError: for a fold that is not there; of a streamed data set when all of it has been read.
    """
    columns = () if dataset.column_names is None else dataset.column_names
    if selection.folds is not None and "fold" not in columns:
        chosen_folds(selection.folds, [], source)
    if isinstance(dataset, IterableDataset):
        numbered = islice(_streamed(dataset, selection, source), max_recordings)
        return _rows(numbered, dataset.features), None
    facts = dataset.select_columns([name for name in ("fold", "license") if name in columns])
    facts = [_facts(row, dataset.features) for row in facts] if facts.column_names else [("", "")] * len(dataset)
    if selection.folds is not None:
        chosen_folds(selection.folds, sorted({fold for fold, _ in facts}), source)
    numbers = [number for number, fact in enumerate(facts) if _is_wanted(fact, selection)]
    numbers = [numbers[index] for index in evenly_spaced(len(numbers), max_recordings)]
    return _rows(zip(numbers, dataset.select(numbers), strict=True), dataset.features), len(numbers)


def _streamed(dataset: IterableDataset, selection: Selection, source: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    folds = set()
    for number, raw in enumerate(dataset):
        fact = _facts(raw, dataset.features)
        folds.add(fact[0])
        if _is_wanted(fact, selection):
            yield number, raw
    chosen_folds(selection.folds, sorted(folds), source)


def _facts(raw: Mapping[str, Any], features: Features | None) -> tuple[str, str]:
    """Fold and license of a row, "" where it has none."""
    known = {} if features is None else features
    fold, license_name = (text(with_names(raw.get(name), known.get(name))) for name in ("fold", "license"))
    return fold, license_name


def _is_wanted(fact: tuple[str, str], selection: Selection) -> bool:
    folds = selection.folds
    return (folds is None or fact[0] in [str(fold) for fold in folds]) and fact[1] not in selection.exclude_licenses


def _rows(numbered: Iterable[tuple[int, Mapping[str, Any]]], features: Features | None) -> Iterator[Row]:
    """Rows as they come; classes become their names, and a name that comes again gets its row's number."""
    known = {} if features is None else features
    seen: set[str] = set()
    for number, raw in numbered:
        fields = {name: with_names(value, known.get(name)) for name, value in raw.items()}
        where = f"row {number}"
        audio, problem = _content(fields["audio"], where)
        name = _name_of(fields, f"row-{number:06d}")
        name = name if name not in seen else f"{name}#{number}"
        seen.add(name)
        row = recording_row(name, audio, fields, where)
        if problem is not None:
            row["events"], row["problems"] = None, [problem]
        yield row


def with_names(value: Any, feature: Any) -> Any:
    """A value with the numbers of classes replaced by their names, however deep they stand; None for no class."""
    if value is None or (isinstance(feature, ClassLabel) and value == -1):
        return None
    if isinstance(feature, ClassLabel):
        return feature.int2str(value) if isinstance(value, int) else value
    if isinstance(feature, (List, LargeList)):
        return [with_names(one, feature.feature) for one in value]
    if isinstance(feature, dict) and isinstance(value, Mapping):
        return {name: with_names(one, feature.get(name)) for name, one in value.items()}
    return value


def _content(audio: Any, where: str) -> tuple[dict[str, Any], str | None]:
    """The bytes of a row and what is wrong: a path alone would be a file of whoever made the data set."""
    if isinstance(audio, Mapping) and audio.get("bytes") is not None:
        return {"path": audio.get("path"), "bytes": audio["bytes"]}, None
    return {
        "path": None,
        "bytes": None,
    }, f"{where}: the column audio holds no audio bytes: embed them (push_to_hub does)"


def _name_of(fields: Mapping[str, Any], default: str) -> str:
    path = fields["audio"].get("path") if isinstance(fields["audio"], Mapping) else None
    names = [text(fields.get("file_name")), text(path), default]
    return next(name for name in names if name != "")


@contextmanager
def quiet_unless_terminal() -> Iterator[None]:
    """No progress bars of the libraries where nobody sees them."""
    if sys.stderr.isatty() or not datasets.is_progress_bar_enabled():
        yield
        return
    hub_bars = not huggingface_hub.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    if hub_bars:
        huggingface_hub.utils.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
        if hub_bars:
            huggingface_hub.utils.enable_progress_bars()
