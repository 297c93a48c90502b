"""The names of the formats and what a file's name says about its format.

Nothing heavy is imported here: the command line shows these names before it loads anything."""

from pathlib import Path

# Of the files in an output folder. An Audacity label track and a Raven selection table are both .txt to their programs,
# so that the part before it tells them apart; `.selections.txt` is how Raven itself names its tables.
SUFFIXES = {
    "json": ".json",
    "jsonl": ".jsonl",
    "csv": ".csv",
    "audacity": ".labels.txt",
    "raven": ".selections.txt",
    "rttm": ".rttm",
    "parquet": ".parquet",
}
FORMATS = tuple(SUFFIXES)
BINARY_FORMATS = ("parquet",)


def format_of_name(path: str | Path) -> str | None:
    """The format that a file's name stands for; None where it leaves that open, as a plain .txt does."""
    name = Path(path).name.lower()
    if name.endswith(".ndjson"):
        return "jsonl"
    return next((one for one, suffix in SUFFIXES.items() if name.endswith(suffix)), None)


def require_format(path: str | Path, name: str | None = None) -> str:
    """The format to use for a file.

    Args:
        path: the file.
        name: one of `FORMATS`; None = what the file's name says.

    Raises:
        ValueError: an unknown format, or a name that leaves it open.
    """
    if name is not None:
        if name not in FORMATS:
            raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {name!r}")
        return name
    found = format_of_name(path)
    if found is None:
        endings = ", ".join(SUFFIXES.values())
        raise ValueError(f"{path}: the name does not tell the format ({endings}): give format='audacity' or another")
    return found
