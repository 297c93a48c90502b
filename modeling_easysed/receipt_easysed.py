"""The receipt of a detection: what must be the same for the same file to give the same events."""

import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HASH_DIGITS = 16


def model_identity(model: Any) -> tuple[str | None, str]:
    """Name and revision of a model of PyTorch.

    Returns:
        Hub id or folder's name (None for a model made in memory), and the Hub's commit or a hash of the weights.
    """
    name, commit = folder_identity(model.config.name_or_path)
    return name, hash_weights(model) if commit is None else commit


def folder_identity(name: str) -> tuple[str | None, str | None]:
    """Name and commit of a checkpoint that was loaded from `name`; the commit is None outside the Hub's cache."""
    folder = Path(name)
    if name and folder.parent.name == "snapshots":  # in the Hub's cache: models--owner--name/snapshots/commit
        return folder.parent.parent.name.removeprefix("models--").replace("--", "/", 1), folder.name
    if name and folder.is_dir():
        name = folder.resolve().name
    return (name if name else None), None


def hash_weights(model: Any) -> str:
    """Equal for equal weights and buffers, on any device."""
    from torch import uint8

    tensors = ((name, tensor.detach().cpu().contiguous()) for name, tensor in model.state_dict().items())
    return hash_arrays((name, tensor.reshape(-1).view(uint8).numpy()) for name, tensor in tensors)


def hash_arrays(arrays: Iterable[tuple[str, Any]]) -> str:
    """Of (name, bytes) in any order."""
    digest = hashlib.sha256()
    for name, content in sorted(arrays, key=lambda one: one[0]):
        digest.update(name.encode())
        digest.update(content)
    return f"sha256:{digest.hexdigest()[:HASH_DIGITS]}"


def decoding_id(decoding: dict[str, Any] | None) -> str:
    """The id that tuning gave to decoding parameters, else a hash of them; "default" for None."""
    if decoding is None:
        return "default"
    if "id" in decoding:
        return str(decoding["id"])
    return f"sha256:{hashlib.sha256(json.dumps(decoding, sort_keys=True).encode()).hexdigest()[:HASH_DIGITS]}"


def package_version() -> str | None:
    """Of the package, or of the installed one where this code came with a checkpoint; None without any."""
    version = getattr(sys.modules.get(__package__), "__version__", None)
    if version is not None:
        return version
    try:
        return importlib.metadata.version("easysed")
    except importlib.metadata.PackageNotFoundError:
        return None


__all__ = ["decoding_id", "folder_identity", "hash_arrays", "hash_weights", "model_identity", "package_version"]
