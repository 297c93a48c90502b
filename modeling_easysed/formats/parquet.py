"""Parquet: one row per event with its file, typed columns, for pandas, polars, DuckDB, Spark and data sets on the Hub.

The columns are those of CSV, `ROW_COLUMNS`; reasons are a list of text. As with CSV, a recording without events leaves
no row, and duration, warnings and receipt are not carried. Needs pyarrow, the extra `easysed[parquet]`."""

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from modeling_easysed.detection_easysed import ROW_COLUMNS, Detection, Event
from modeling_easysed.formats.escapes import split_reasons
from modeling_easysed.formats.rows import detections_of, event_of

NEEDS_PYARROW = 'Parquet needs pyarrow: pip install "easysed[parquet]"'
ROWS_PER_GROUP = 65_536  # events of many short recordings share a row group: one for each would be mostly headers


def write_parquet(detections: Iterable[Detection], stream: BinaryIO, several: bool) -> None:
    """One row per event; null for what was not computed.

    Raises:
        ImportError: without pyarrow.
    """
    pyarrow, parquet = _pyarrow()
    schema = _schema(pyarrow)
    rows: list[dict[str, Any]] = []
    with parquet.ParquetWriter(stream, schema, compression="zstd") as writer:
        for detection in detections:
            rows += _rows(detection)
            if len(rows) >= ROWS_PER_GROUP:
                writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
                rows = []
        writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(NEEDS_PYARROW) from error
    return pyarrow, pyarrow.parquet


def _schema(pyarrow: Any) -> Any:
    """Text for file, label and decision, int64 for exit, a list of text for reasons, float64 for all else."""
    text = pyarrow.string()
    kinds = {"file": text, "label": text, "decision": text, "exit": pyarrow.int64(), "reasons": pyarrow.list_(text)}
    return pyarrow.schema([(column, kinds.get(column, pyarrow.float64())) for column in ROW_COLUMNS])


def _rows(detection: Detection) -> Iterator[dict[str, Any]]:
    for row, event in zip(detection.to_rows(), detection.events, strict=True):
        row["reasons"] = event.reasons
        if row["file"] is not None:  # a name that is no valid text, as the text formats write it
            row["file"] = row["file"].encode("utf-8", "backslashreplace").decode("utf-8")
        yield row


def read_parquet(stream: BinaryIO, name: str) -> list[Detection]:
    """One detection per file named in the rows; only onset, offset and label must be there.

    Raises:
        ImportError: without pyarrow.
    """
    return detections_of(_events(stream, name))


def _events(stream: BinaryIO, name: str) -> Iterator[tuple[str | None, Event]]:
    pyarrow, parquet = _pyarrow()
    try:
        source = parquet.ParquetFile(stream)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{name} is not a Parquet file: {str(error).splitlines()[0]}") from error
    there = source.schema_arrow.names
    missing = [column for column in ("onset", "offset", "label") if column not in there]
    if missing:
        raise ValueError(f"{name}: no column {', '.join(missing)} among {', '.join(there)}")
    index = 0
    for batch in source.iter_batches(columns=[column for column in ROW_COLUMNS if column in there]):
        for row in batch.to_pylist():
            index += 1
            if isinstance(row.get("reasons"), str):  # joined, as in CSV and in the DataFrame of a detection
                row["reasons"] = split_reasons(row["reasons"], row.get("decision"))
            yield row.get("file"), event_of(row, f"{name}, row {index}")
