"""`easysed models`: which checkpoints are at hand, read from their JSON alone."""

import argparse
import json
import re
import sys
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from modeling_easysed.bundled import (
    BUNDLED_CHECKPOINTS,
    DEFAULT_CHECKPOINT,
    CheckpointError,
    cached_checkpoints,
    read_config,
    read_weights_header,
)


@dataclass
class CheckpointSummary:
    """One line of the list. `problem` says why a checkpoint cannot be used; the numbers are then None."""

    name: str
    source: str  # "bundled" or "cached"
    is_default: bool
    size_bytes: int | None = None
    num_parameters: int | None = None
    num_exits: int | None = None
    classes: list[str] | None = None
    license: str | None = None
    problem: str | None = None


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Adds the command to the subparsers of `easysed`."""
    parser = commands.add_parser(
        "models",
        help="bundled and cached checkpoints: size, classes, exits, licence",
        description="Lists the bundled checkpoints and those in the cache of the Hugging Face Hub.",
    )
    parser.add_argument("--format", choices=("table", "json"), default="table", help="default: table")
    return parser


def run(args: argparse.Namespace) -> int:
    """Prints the list; an empty one is said on stderr and is no failure."""
    summaries = [summarize(name, "bundled", Path(folder)) for name, folder in BUNDLED_CHECKPOINTS.items()]
    summaries += [summarize(name, "cached", Path(folder)) for name, folder in cached_checkpoints().items()]
    if args.format == "json":
        print(json.dumps([asdict(summary) for summary in summaries], indent=2, ensure_ascii=False))
    elif summaries:
        print("\n".join(table_lines(summaries)))
    if not summaries:
        print("easysed models: no checkpoint is bundled or cached; pass --model a folder or a Hub id", file=sys.stderr)
    return 0


def summarize(name: str, source: str, folder: Path) -> CheckpointSummary:
    """Reads config.json, the header of the weights and the card's licence of one checkpoint folder."""
    summary = CheckpointSummary(name, source, name == DEFAULT_CHECKPOINT and source == "bundled")
    weights = folder / "model.safetensors"
    try:
        config = read_config(folder)
        summary.classes = list(config.get("id2label", {}).values())
        summary.license = _license(config, folder)
        tensors = read_weights_header(weights)
    except CheckpointError as error:
        summary.problem = str(error)
        return summary
    summary.size_bytes = weights.stat().st_size
    summary.num_exits = len({key.split(".")[1] for key in tensors if key.startswith("exits.")})
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    summary.num_parameters = sum(prod(one["shape"]) for key, one in tensors.items() if not key.endswith(buffers))
    return summary


def _license(config: dict[str, Any], folder: Path) -> str | None:
    """From the config's provenance, else from the head of the model card."""
    provenance = config.get("provenance")
    if isinstance(provenance, dict) and "license" in provenance:
        return str(provenance["license"])
    card = folder / "README.md"
    if not card.is_file():
        return None
    head = card.read_text(encoding="utf-8", errors="replace").removeprefix("---").split("\n---")[0]
    found = re.search(r"^license:\s*(\S+)", head, flags=re.MULTILINE)
    return None if found is None else found.group(1)


def table_lines(summaries: list[CheckpointSummary]) -> list[str]:
    """An aligned table, with the class names of every checkpoint below its line."""
    head = ("name", "source", "size", "parameters", "exits", "classes", "licence")
    rows = [head, *(_cells(summary) for summary in summaries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    details = [[], *([_detail(summary)] for summary in summaries)]
    return [line for pair in zip(lines, details, strict=True) for line in (pair[0], *pair[1])]


def _cells(summary: CheckpointSummary) -> tuple[str, ...]:
    return (
        summary.name + (" (default)" if summary.is_default else ""),
        summary.source,
        "-" if summary.size_bytes is None else f"{summary.size_bytes / 1e6:.1f} MB",
        "-" if summary.num_parameters is None else f"{summary.num_parameters / 1e6:.2f} M",
        "-" if summary.num_exits is None else str(summary.num_exits),
        "-" if summary.classes is None else str(len(summary.classes)),
        "-" if summary.license is None else summary.license,
    )


def _detail(summary: CheckpointSummary) -> str:
    if summary.problem is not None:
        return f"    cannot be used: {summary.problem}"
    shown = [] if summary.classes is None else summary.classes[:20]
    more = "" if summary.classes is None or len(summary.classes) <= 20 else ", ..."
    return f"    {', '.join(shown)}{more}"
