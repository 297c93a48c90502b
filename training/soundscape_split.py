"""A split of strongly labelled soundscapes, and a model's frame probabilities on it.

A split is `DATA/SPLIT.tsv` (columns filename, onset, offset, event_label; an empty onset = a file without events) with
its audio in `DATA/audio/SPLIT/`. `tune_decoding.py` and `evaluate.py` share what is here."""

import csv
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import torch
from tqdm import tqdm

from modeling_easysed import EasySEDFeatureExtractor, EasySEDForSoundEventDetection, SoundEventDetectionPipeline
from modeling_easysed.audio_easysed import read_audio
from modeling_easysed.bundled import resolve_checkpoint
from modeling_easysed.decoding_easysed import frame_borders
from modeling_easysed.runtime.choice import runs_on_onnx
from modeling_easysed.sampling_easysed import sigmoid

COLUMNS = ("filename", "onset", "offset", "event_label")

References = dict[str, list[list]]  # {file: [[onset, offset, label], ...]}, seconds


class FramePrediction(NamedTuple):
    """Probabilities of one file: (exits, frames, classes), and the frames' borders (frames + 1,) in seconds."""

    probabilities: np.ndarray
    borders: np.ndarray


def read_split(data_dir: str | Path, split: str) -> tuple[References, dict[str, float], dict[str, Path]]:
    """Reads a split's table and the lengths of its files.

    Returns:
        References {file: [[onset, offset, label], ...]} with an empty list for a file without events, durations
        {file: seconds}, and paths {file: Path}; the same files in the same order.

    Raises:
        FileNotFoundError: when the table or an audio file is missing.
        ValueError: when a column is missing, the table is empty, or a row's times are no event.
    """
    table = Path(data_dir) / f"{split}.tsv"
    if not table.is_file():
        raise FileNotFoundError(f"{table} not found: --data must hold {split}.tsv and audio/{split}/")
    references: References = {}
    with table.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, delimiter="\t")
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
        if missing:
            raise ValueError(f"{table} must have the columns {', '.join(COLUMNS)}, it lacks {', '.join(missing)}")
        for row in reader:
            events = references.setdefault(row["filename"], [])
            if row["onset"]:
                events.append(_event_of_row(row, f"{table} line {reader.line_num}"))
    if not references:
        raise ValueError(f"{table} must name at least one file, got none")
    paths = {name: Path(data_dir) / "audio" / split / name for name in references}
    absent = [str(path) for path in paths.values() if not path.is_file()]
    if absent:
        raise FileNotFoundError(f"{len(absent)} of {len(paths)} files named in {table} not found, first {absent[0]}")
    durations = {name: float(soundfile.info(path).duration) for name, path in paths.items()}
    return references, durations, paths


def _event_of_row(row: Mapping[str, str], where: str) -> list:
    try:
        onset, offset = float(row["onset"]), float(row["offset"])
    except ValueError:
        raise ValueError(
            f"{where}: onset and offset must be seconds, got {row['onset']!r}, {row['offset']!r}"
        ) from None
    if not 0 <= onset < offset:
        raise ValueError(f"{where}: an event must have 0 <= onset < offset, got {onset} and {offset}")
    return [onset, offset, row["event_label"]]


def load_model(name: str) -> tuple[EasySEDForSoundEventDetection, EasySEDFeatureExtractor]:
    """Model in evaluation mode, on the GPU where there is one, and its extractor, by bundled name, folder or Hub id."""
    checkpoint = resolve_checkpoint(name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = EasySEDForSoundEventDetection.from_pretrained(checkpoint).to(device).eval()
    return model, EasySEDFeatureExtractor.from_pretrained(checkpoint)


def load_detector(name: str, runtime: str = "torch") -> Any:
    """What detects events of audio, by bundled name, folder or Hub id: the pipeline, or "onnx" as commands use it.

    Raises:
        ValueError: "onnx" for a checkpoint without graphs that fit, or without onnxruntime.
    """
    if runtime == "torch":
        return SoundEventDetectionPipeline.from_pretrained(name)
    folder = resolve_checkpoint(name)
    if not runs_on_onnx(folder, "cpu"):
        raise ValueError(f"--runtime onnx needs onnxruntime and a checkpoint with graphs, got {name}")
    from modeling_easysed.runtime.detector import OnnxDetector

    return OnnxDetector(folder)


def class_names(model: EasySEDForSoundEventDetection, references: References) -> list[str]:
    """The model's classes in the order of its outputs.

    Raises:
        ValueError: when a reference has a label that the model does not know.
    """
    classes = [model.config.id2label[index] for index in range(model.config.num_labels)]
    unknown = {event[2] for events in references.values() for event in events} - set(classes)
    if unknown:
        raise ValueError(f"every label must be one of the model's {classes}, got {sorted(unknown)}")
    return classes


@torch.inference_mode()
def predict_split(
    model: EasySEDForSoundEventDetection, feature_extractor: EasySEDFeatureExtractor, paths: Mapping[str, Path]
) -> dict[str, FramePrediction]:
    """Probabilities of every exit in one forward pass per file, each file whole.

    Args:
        model: in evaluation mode.
        feature_extractor: the one saved with it.
        paths: {file: path}, as from `read_split`.

    Returns:
        {file: FramePrediction}, in the order of `paths`.
    """
    predictions = {}
    sampling_rate = feature_extractor.sampling_rate
    for name, path in tqdm(paths.items(), desc="predicting", unit="file", disable=not sys.stderr.isatty()):
        clip = read_audio(path, sampling_rate)
        features = feature_extractor(clip.samples, sampling_rate=sampling_rate, return_tensors="pt")
        logits = model(features["input_values"].to(model.device)).exit_frame_logits[:, 0]
        # (exits, frames, classes)
        probabilities = torch.sigmoid(logits.float()).cpu().numpy()
        borders = frame_borders(probabilities.shape[1], model.frame_duration_s, clip.duration)
        predictions[name] = FramePrediction(probabilities, borders)
    return predictions


def predict_split_on_onnx(name: str, paths: Mapping[str, Path]) -> dict[str, FramePrediction]:
    """As `predict_split`, by what commands run where nothing needs PyTorch: features in numpy, graphs on onnxruntime.

    Args:
        name: bundled name or checkpoint folder.
        paths: {file: path}, as from `read_split`.

    Raises:
        ValueError: a checkpoint without graphs that fit, or no onnxruntime.
    """
    detector, predictions = load_detector(name, "onnx"), {}
    network, extractor = detector.model, detector.feature_extractor
    for file, path in tqdm(paths.items(), desc="predicting", unit="file", disable=not sys.stderr.isatty()):
        clip = read_audio(path, extractor.sampling_rate)
        stages = enumerate(network.stages(extractor.frames(clip.samples)), start=1)
        probabilities = np.stack([sigmoid(network.plain(number, stage)[1]) for number, stage in stages])
        borders = frame_borders(probabilities.shape[1], network.config.frame_duration_s, clip.duration)
        predictions[file] = FramePrediction(probabilities, borders)
    return predictions
