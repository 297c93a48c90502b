"""One value of a checkpoint folder's config.json, changed in place: what tuning and calibration leave behind."""

import json
from pathlib import Path
from typing import Any

from modeling_easysed.bundled import resolve_checkpoint


def local_checkpoint(name: str) -> Path:
    """The folder of a bundled name or path.

    Raises:
        ValueError: for a Hub id, whose files are not ours to change.
    """
    folder = Path(resolve_checkpoint(name))
    if not (folder / "config.json").is_file():
        raise ValueError(f"--model must be a local checkpoint folder, got {name}: download it first")
    return folder


def set_config_value(folder: Path, key: str, value: dict[str, Any]) -> None:
    """Sets `key` in the folder's config.json and leaves everything else as it is."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config[key] = value
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
