"""Where checkpoints lie (bundled, local folders, the Hub's cache) and what is wrong with a folder, before torch is
imported. Only JSON and the JSON header of safetensors files are read here, and never a pickle."""

import json
import os
import struct
from importlib.resources import files
from pathlib import Path
from typing import Any

DEFAULT_CHECKPOINT = "easysed-cnn"
MODEL_VARIABLE = "EASYSED_MODEL"  # checkpoints that the app shows
DEVICE_VARIABLE = "EASYSED_DEVICE_PAGE"  # folder of the page that it serves for the device
OWN_MODEL_TYPE = "easysed"
AST_MODEL_TYPE = "audio-spectrogram-transformer"  # of transformers; `from_ast` loads it
PICKLE_NAMES = ("pytorch_model.bin", "model.pt", "model.pth", "model.bin", "model.ckpt")
HEADER_LIMIT_BYTES = 100_000_000  # safetensors' own limit: a longer header is no header


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one line and says what to do next."""


def _bundled() -> dict[str, str]:
    root = Path(str(files(__package__) / "checkpoints"))
    found = sorted(path.parent for path in root.glob("*/config.json"))
    return {folder.name: str(folder) for folder in found}


BUNDLED_CHECKPOINTS: dict[str, str] = _bundled()  # name: folder inside the package


def resolve_checkpoint(name_or_path: str | os.PathLike) -> str:
    """What `from_pretrained` understands for a bundled name, a folder or a Hub id.

    Args:
        name_or_path: a name of `BUNDLED_CHECKPOINTS`, a local folder, or `owner/name` on the Hub.

    Returns:
        A folder that was checked, or the Hub id as given.

    Raises:
        CheckpointError: unknown name, or a folder without usable config, features or weights.
    """
    name = os.fspath(name_or_path)
    folder = Path(name).expanduser()
    if name in BUNDLED_CHECKPOINTS:
        folder = Path(BUNDLED_CHECKPOINTS[name])
    elif folder.is_file():
        raise CheckpointError(f"model {name} is a file: pass the folder that holds config.json and model.safetensors")
    elif not folder.is_dir():
        return _hub_id(name)
    check_folder(folder)
    return str(folder)


def _hub_id(name: str) -> str:
    bundled = ", ".join(BUNDLED_CHECKPOINTS) if BUNDLED_CHECKPOINTS else "none in this installation"
    owner, _, repository = name.partition("/")
    looks_local = name.startswith((".", "/", "~")) or "\\" in name or name.endswith("/")
    if owner and repository and "/" not in repository and not looks_local:
        return name
    what = "folder does not exist" if looks_local or "/" in name else "name is unknown"
    raise CheckpointError(
        f"model {name!r}: {what}; pass a bundled checkpoint ({bundled}), a folder, or a Hub id like owner/name"
    )


def check_folder(folder: Path) -> dict[str, Any]:
    """Checks config, features and weights of a checkpoint folder and returns its config.

    Raises:
        CheckpointError: the first thing that is missing or broken.
    """
    config = read_config(folder, (OWN_MODEL_TYPE, AST_MODEL_TYPE))
    if not (folder / "preprocessor_config.json").is_file():
        raise CheckpointError(
            f"model folder {folder} has no preprocessor_config.json: save the feature extractor there as well"
        )
    weights = folder / "model.safetensors"
    if weights.is_file():
        read_weights_header(weights)
    elif not (folder / "model.safetensors.index.json").is_file():
        pickles = [name for name in PICKLE_NAMES if (folder / name).exists()]
        also = f" ({pickles[0]} is a pickle and is never read)" if pickles else ""
        raise CheckpointError(f"model folder {folder} has no model.safetensors{also}: save the model as safetensors")
    return config


def read_config(folder: Path, model_types: tuple[str, ...] = (OWN_MODEL_TYPE,)) -> dict[str, Any]:
    """The checkpoint's config.json, of one of these kinds of model.

    Raises:
        CheckpointError: missing, not JSON, or of another kind of model.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"model folder {folder} has no config.json: pass the folder of a checkpoint") from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} is not readable JSON ({reason}): restore it or save the model again") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in model_types:
        allowed = " or ".join(repr(name) for name in model_types)
        raise CheckpointError(f"{path} must say model_type {allowed}, got {kind!r}: this is no EasySED checkpoint")
    return config


def read_weights_header(path: Path) -> dict[str, Any]:
    """Names, types and shapes of the tensors of a safetensors file, after a check of its length.

    Source: the safetensors format, 8 bytes little-endian header length, a JSON header, then the tensors.

    Raises:
        CheckpointError: the file is no safetensors file or is cut short.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, HEADER_LIMIT_BYTES):
                raise ValueError("header longer than the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        expected = 8 + length + max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: copy or download it again") from error
    if size != expected:
        raise CheckpointError(f"{path} must have {expected} bytes, got {size}: copy or download it again")
    return header


def cached_checkpoints() -> dict[str, str]:
    """EasySED checkpoints in the Hub's cache: id -> folder of the newest snapshot."""
    newest: dict[str, Path] = {}
    for path in sorted(_hub_cache().glob("models--*/snapshots/*/config.json"), key=lambda path: path.lstat().st_mtime):
        try:
            read_config(path.parent)
        except CheckpointError:
            continue  # another kind of model
        newest[path.parts[-4].removeprefix("models--").replace("--", "/")] = path.parent
    return {name: str(folder) for name, folder in sorted(newest.items())}


def _hub_cache() -> Path:
    """The cache folder by the Hub client's own rules, without importing it."""
    home = os.environ.get("HF_HOME", os.environ.get("XDG_CACHE_HOME", "~/.cache") + "/huggingface")
    return Path(os.environ.get("HF_HUB_CACHE", f"{home}/hub")).expanduser()


__all__ = [
    "BUNDLED_CHECKPOINTS",
    "DEFAULT_CHECKPOINT",
    "CheckpointError",
    "cached_checkpoints",
    "check_folder",
    "read_config",
    "read_weights_header",
    "resolve_checkpoint",
]
