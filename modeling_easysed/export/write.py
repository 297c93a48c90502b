"""A checkpoint's exit into a folder: graph, description, check; whole or not at all.

pipeline -> student(exit) -> ExportGraph -> easysed.onnx or easysed.pte, checked -> easysed.json -> moved into place"""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modeling_easysed import SoundEventDetectionPipeline
from modeling_easysed.cli.models import summarize
from modeling_easysed.export.check import check_export, executorch_run, onnx_run
from modeling_easysed.export.description import FILE_NAME, FORMAT, describe, file_entry, write_description
from modeling_easysed.export.errors import ExportError
from modeling_easysed.export.graph import ExportGraph, check_exportable
from modeling_easysed.export.runtime_files import runtime_folder


@dataclass
class Exported:
    """What was written.

    Attributes:
        folder: where.
        description: what stands in easysed.json; `files` holds sizes, deviations and times.
    """

    folder: Path
    description: dict[str, Any]


def export_checkpoint(
    name_or_path: str, target: str, exit_index: int | None, out: str | Path, runtime: str | Path | None = None
) -> Exported:
    """Exports one exit and checks it.

    Args:
        name_or_path: bundled name, folder or Hub id.
        target: "onnx", "executorch", or "web" for a page around the ONNX file.
        exit_index: 1 = shallowest; None = the deepest.
        out: folder that does not exist, is empty or holds an earlier export.
        runtime: of "web", see `runtime_folder`.

    Raises:
        ExportError: the model has no graph, the folder cannot be taken, the file does not equal its model, or there is
            no runtime for the page.
        ValueError: no such checkpoint.
    """
    folder = Path(out).expanduser()
    check_out(folder)
    runtime = runtime_folder(runtime) if target == "web" else None
    pipe = SoundEventDetectionPipeline.from_pretrained(name_or_path, device="cpu")
    exit_index = pipe.model.num_exits if exit_index is None else exit_index
    if not 1 <= exit_index <= pipe.model.num_exits:
        raise ExportError(f"exit must be between 1 and {pipe.model.num_exits} for {name_or_path}, got {exit_index}")
    check_exportable(pipe.model, pipe.feature_extractor)
    graph = ExportGraph(pipe.model.student(exit_index), pipe.feature_extractor)
    description = describe(pipe, exit_index, graph, _license(pipe))
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=_existing_parent(folder)) as name:
        fresh = Path(name) / folder.name
        fresh.mkdir()
        file_name, measured = _write_graph(graph, pipe, target, fresh)
        description["files"][file_name] = file_entry(fresh / file_name, target=target, **measured)
        if target == "web":
            from modeling_easysed.export.to_web import write_page

            write_page(fresh, description, runtime)
        else:
            write_description(fresh, description)
        move_into_place(fresh, folder)
    return Exported(folder, description)


def _write_graph(
    graph: ExportGraph, pipe: SoundEventDetectionPipeline, target: str, folder: Path
) -> tuple[str, dict[str, Any]]:
    """Name of the file, and what its check measured."""
    if target in ("onnx", "web"):
        from modeling_easysed.export.to_onnx import FILE_NAME as name
        from modeling_easysed.export.to_onnx import write_onnx

        write_onnx(graph, folder / name)
        return name, check_export(onnx_run(folder / name), graph, pipe.feature_extractor, name)
    from modeling_easysed.export.to_executorch import FILE_NAME as name
    from modeling_easysed.export.to_executorch import MAX_PASSES, max_samples, write_executorch

    write_executorch(graph, folder / name)
    limit = max_samples(graph)
    measured = check_export(executorch_run(folder / name), graph, pipe.feature_extractor, name, limit)
    limits = {"batch": 1, "samples": f"a multiple of {graph.front_end.hop}", "max_samples": limit}
    return name, {**measured, "limits": {**limits, "max_passes": MAX_PASSES}}


def _license(pipe: SoundEventDetectionPipeline) -> str | None:
    return summarize("", "", Path(pipe.model.config.name_or_path)).license


# ---- the folder ------------------------------------------------------------------------------------------------------


def check_out(folder: Path) -> None:
    """Raises ExportError where an export cannot go, before anything is computed."""
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"--out {folder} is a file: name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not is_export(folder):
        raise ExportError(f"--out {folder} holds other files: name a new folder, or one with an earlier export")
    parent = _existing_parent(folder)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ExportError(f"--out {folder} cannot be written: no right to write in {parent}")
    try:
        with tempfile.TemporaryDirectory(dir=parent):
            pass
    except OSError as error:
        raise ExportError(f"--out {folder} cannot be written: {error.strerror} in {parent}") from error


def is_export(folder: Path) -> bool:
    """Whether a folder holds an export and nothing else, so that it may be replaced."""
    try:
        description = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        ours = {FILE_NAME, *description["files"], *description.get("page", {}).get("files", [])}
        return description["format"] == FORMAT and {path.name for path in folder.iterdir()} <= ours
    except (OSError, ValueError, KeyError, TypeError):
        return False


def move_into_place(fresh: Path, folder: Path) -> None:
    """Renames a finished folder to where it belongs; an earlier export goes only once the new one can come."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.is_dir() and any(folder.iterdir()):
        old = fresh.parent / "old"
        folder.rename(old)
        try:
            fresh.rename(folder)
        except OSError:
            old.rename(folder)
            raise
        shutil.rmtree(old)
        return
    if folder.is_dir():
        folder.rmdir()
    fresh.rename(folder)


def _existing_parent(folder: Path) -> Path:
    """The nearest folder above that exists, on whose disk the export is made."""
    parent = folder.absolute().parent
    while not parent.exists():
        parent = parent.parent
    return parent


__all__ = ["Exported", "check_out", "export_checkpoint", "is_export", "move_into_place"]
