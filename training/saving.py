"""What a run leaves behind in output_dir/model, and its way to the Hub."""

import csv
import json
from pathlib import Path
from typing import Any

ATTRIBUTION_COLUMNS = ("file", "author", "license", "source_url")
NUM_NAMED = 20  # skipped files that the terminal names; training_log.json names all


class PushError(Exception):
    """The model is saved, but could not be pushed."""


def write_attribution(rows: list[dict[str, str]], path: Path) -> None:
    """One row per recording that was learned from; "" where something is not known."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ATTRIBUTION_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_json(values: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def skipped_text(skipped: list[tuple[str, str]]) -> str:
    """A line that counts the files that could not be used, and a line for each of the first ones."""
    count = "1 file was skipped:" if len(skipped) == 1 else f"{len(skipped)} files were skipped:"
    lines = [count, *(f"  {file}: {reason}" for file, reason in skipped[:NUM_NAMED])]
    if len(skipped) > NUM_NAMED:
        lines.append(f"  and {len(skipped) - NUM_NAMED} more, see training_log.json")
    return "\n".join(lines)


def push(folder: Path, repo_id: str) -> list[str]:
    """Pushes the model and its students; returns what `hub.push` does.

    Raises:
        PushError: whatever went wrong; the message has the command that tries again.
    """
    try:
        from modeling_easysed import hub

        return hub.push(folder, repo_id, exits=None)
    except Exception as error:  # the trained model must outlive whatever a network or a server comes up with
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PushError(
            f"the model is saved in {folder}, but pushing it to {repo_id} failed: {reason}; "
            f"try again with: easysed push {folder} {repo_id}"
        ) from error
