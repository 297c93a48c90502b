"""`easysed.json`: all that a device needs besides the graph, to go from samples to events with confidence and decision.

Labels, sizes of audio, windows and masks, decoding, calibration and decisions of the exported exit, and its receipt."""

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

from modeling_easysed.calibration_easysed import setting_name
from modeling_easysed.decoding_easysed import class_parameters
from modeling_easysed.draws_easysed import RECIPE
from modeling_easysed.export.graph import ExportGraph
from modeling_easysed.pipeline_easysed import SoundEventDetectionPipeline
from modeling_easysed.recording_easysed import window_sizes
from modeling_easysed.sampling_easysed import Sampling
from modeling_easysed.shifts_easysed import SHIFT_S

FILE_NAME = "easysed.json"
FORMAT, FORMAT_VERSION = "easysed-export", 1
PASSES, SHIFTS, SEED = 20, 2, 0  # the pipeline's defaults
METHODS = ("none", "mc", "exits")  # that the graph's outputs suffice for
AUDIO = "mono, full scale 1"
INPUTS = {
    "waveform": "float32 (batch, samples), {audio}; frame k of the output is centred at sample k x frame_samples",
    "edges": "float32 (batch, 2, edge_samples): samples before and after the waveform, zeros beyond a recording's ends",
    "masks": "float32 (passes, sites, width), see masks",
}
OUTPUTS = {
    "frame_logits": "(passes, batch, output frames, classes) of the exit",
    "logits": "(passes, batch, classes) of the exit",
    "exit_frame_logits": "(exits, batch, output frames, classes), the plain pass of this exit and all above it",
    "embeddings": "(batch, output frames, width), for the unfamiliarity",
    "log_mel": "(batch, 1 + samples // hop_length_samples, mels), normalised",
}
PACKAGES = ("torch", "transformers", "onnx", "onnxruntime", "executorch")


def describe(
    pipe: SoundEventDetectionPipeline, exit_index: int, graph: ExportGraph, license: str | None
) -> dict[str, Any]:
    """The description of one exit; `files` is filled when they are written.

    Args:
        pipe: of the whole checkpoint; calibration, decoding and receipt are those of `pipe(audio, exit=exit_index)`.
        exit_index: 1 = shallowest.
        graph: of that exit.
        license: of the weights.
    """
    config, extractor, labels = pipe.model.config, pipe.feature_extractor, _labels(pipe)
    window, context = window_sizes(pipe.model)
    receipt = pipe.receipt(exit_index, Sampling("mc", PASSES, SEED), SHIFTS)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": {
            "name": pipe.model_name,
            "revision": pipe.revision,
            "backbone": config.backbone,
            "exit": exit_index,
            "num_exits": pipe.model.num_exits,
            "parameters": sum(parameter.numel() for parameter in graph.student.parameters()),
            "license": license,
            "provenance": config.provenance,
        },
        "files": {},
        "labels": labels,
        "audio": {
            "sampling_rate": extractor.sampling_rate,
            "hop_length_samples": extractor.hop_length_samples,
            "edge_samples": graph.front_end.half,
            "frame_samples": extractor.hop_length_samples * config.frame_stride,
            "frame_duration_s": config.frame_duration_s,
            "mels": extractor.feature_size,
            "mel_mean_db": extractor.mel_mean,
            "mel_std_db": extractor.mel_std,
        },
        "windows": {"window_frames": window, "context_frames": context, "frame_stride": config.frame_stride},
        "inputs": {name: text.format(audio=AUDIO) for name, text in INPUTS.items()},
        "outputs": OUTPUTS,
        "masks": {
            "sites": graph.num_sites,
            "width": graph.width,
            "probability": config.dropout,
            "kept": 1.0 / (1.0 - config.dropout),
            "passes": PASSES,
            "seed": SEED,
            "recipe": RECIPE,
        },
        "shifts": {"steps": SHIFTS, "step_s": SHIFT_S},
        "decoding": decoding_of(pipe, exit_index),
        "calibration": calibration_of(pipe, exit_index),
        "decisions": decisions_of(pipe, exit_index),
        "receipt": receipt,
        "versions": {name: version for name in PACKAGES if (version := _version(name)) is not None},
    }


def decoding_of(pipe: SoundEventDetectionPipeline, exit_index: int) -> dict[str, Any]:
    """The exit's decoding: `config` as `decode` takes it, `parameters` with every default filled in, one per class."""
    own = pipe.decoding(exit_index)
    parameters = class_parameters(own, pipe.model.config.num_labels)
    return {"config": own, "parameters": {name: values.tolist() for name, values in parameters.items()}}


def calibration_of(pipe: SoundEventDetectionPipeline, exit_index: int) -> dict[str, Any] | None:
    """The checkpoint's calibration under its own id, without other exits and the methods that the graph cannot do."""
    if pipe.calibration is None or str(exit_index) not in pipe.calibration.saved["exits"]:
        return None
    saved = pipe.calibration.saved
    own = saved["exits"][str(exit_index)]
    settings = {name: value for name, value in own["settings"].items() if name.split("+")[0] in METHODS}
    kept = {key: value for key, value in saved.items() if key != "doubt_limits"}
    return {**kept, "exits": {str(exit_index): {**own, "settings": settings}}}


def decisions_of(pipe: SoundEventDetectionPipeline, exit_index: int) -> dict[str, Any]:
    """The rule of the default goal for every setting: thresholds per class, and what is promised in words."""
    calibration = calibration_of(pipe, exit_index)
    fitted = {} if calibration is None else calibration["exits"][str(exit_index)]["settings"]
    rules = {}
    for method in METHODS:
        for shifts in (0, SHIFTS):
            if setting_name(method, shifts) in fitted:
                rule = pipe.judge(exit_index, Sampling(method, PASSES, SEED), shifts).rule
                rules[setting_name(method, shifts)] = {
                    "accept": rule.accept.tolist(),
                    "review": float(rule.review),
                    "sentences": rule.sentences,
                    "warnings": rule.warnings,
                }
    return rules


def file_entry(path: Path, **measured: Any) -> dict[str, Any]:
    """What stands under `files`: size, hash, and what was measured when the file was checked."""
    content = path.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), **measured}


def write_description(folder: Path, description: dict[str, Any]) -> None:
    """Writes easysed.json into a folder."""
    text = json.dumps(description, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8")


def _labels(pipe: SoundEventDetectionPipeline) -> list[str]:
    return [pipe.model.config.id2label[number] for number in range(pipe.model.config.num_labels)]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


__all__ = ["FILE_NAME", "FORMAT", "FORMAT_VERSION", "describe", "file_entry", "write_description"]
