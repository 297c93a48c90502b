"""Whether a checkpoint runs on onnxruntime here: decided without importing that, numpy or PyTorch."""

import hashlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

GRAPHS, INDEX, WEIGHTS = "graphs", "graphs.json", "model.safetensors"
FORMAT = 1


def runs_on_onnx(folder: str | Path, device: str = "auto") -> bool:
    """Whether onnxruntime is installed, the checkpoint's graphs fit, and no other device is wanted or at hand."""
    folder = Path(folder)
    wanted = device == "cpu" or (device == "auto" and not may_have_accelerator())
    return wanted and folder.is_dir() and importlib.util.find_spec("onnxruntime") is not None and graphs_fit(folder)


def may_have_accelerator() -> bool:
    """Whether PyTorch might find one, without asking it: only it knows for sure, and takes seconds to import."""
    return sys.platform == "darwin" or any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()


def graphs_fit(folder: Path) -> bool:
    """Whether a checkpoint has graphs that were made for its weights' layout."""
    try:
        index = read_index(folder)
        return index["format"] == FORMAT and index["header"] == header_hash(folder / WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read_index(folder: Path) -> dict[str, Any]:
    """{"format", "num_exits", "header": hash of the header of model.safetensors}."""
    return json.loads((folder / GRAPHS / INDEX).read_text(encoding="utf-8"))


def header_hash(weights: Path) -> str:
    """Of the names, sizes and places of all tensors."""
    with weights.open("rb") as file:
        length = file.read(8)
        return hashlib.sha256(length + file.read(int.from_bytes(length, "little"))).hexdigest()


__all__ = ["FORMAT", "GRAPHS", "INDEX", "WEIGHTS", "graphs_fit", "header_hash", "read_index", "runs_on_onnx"]
