"""Runs an exported folder with numpy and onnxruntime alone: what an app does, and what it can be compared with.

    samples -> views (shifts) x windows -> graph -> mean probability on one time line -> decoded boxes

The numbers are those of `SoundEventDetectionPipeline` with the same exit, seed, passes and shifts, without PyTorch."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from modeling_easysed.decoding_easysed import Box, decode, frame_borders
from modeling_easysed.draws_easysed import seed_masks
from modeling_easysed.export.errors import ExportError, check_installed
from modeling_easysed.shifts_easysed import view_starts
from modeling_easysed.windows_easysed import kept_parts, plan_windows

DESCRIPTION, MODEL = "easysed.json", "easysed.onnx"


class ExportedDetector:
    """An exported checkpoint on onnxruntime.

    Args:
        folder: what `easysed export --to onnx` wrote.
        num_threads: of onnxruntime; None = its own choice.

    Attributes:
        description: what easysed.json holds.
        labels: class names.

    Raises:
        ExportError: onnxruntime is not installed, or the folder holds no export.
    """

    def __init__(self, folder: str | Path, num_threads: int | None = None) -> None:
        check_installed(["onnxruntime"], "export")
        import onnxruntime

        self.description = read_description(Path(folder))
        if not (Path(folder) / MODEL).is_file():
            raise ExportError(f"folder {folder} has no {MODEL}: make it with easysed export --to onnx")
        options = onnxruntime.SessionOptions()
        if num_threads is not None:
            options.intra_op_num_threads = num_threads
        self.session = onnxruntime.InferenceSession(str(Path(folder) / MODEL), options, ["CPUExecutionProvider"])
        self.labels: list[str] = self.description["labels"]
        self.audio: dict[str, Any] = self.description["audio"]

    def run(self, waveform: np.ndarray, masks: np.ndarray, edges: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """One call of the graph.

        Args:
            waveform: (batch, samples), mono, full scale 1, at the model's rate.
            masks: (passes, sites, width), see `masks`.
            edges: (batch, 2, edge samples); None = zeros, the waveform is a whole recording.

        Returns:
            All outputs by name, see easysed.json.
        """
        if edges is None:
            edges = np.zeros((len(waveform), 2, self.audio["edge_samples"]), np.float32)
        inputs = {"waveform": waveform, "edges": edges, "masks": masks}
        outputs = self.session.run(None, {name: np.asarray(value, np.float32) for name, value in inputs.items()})
        return dict(zip((one.name for one in self.session.get_outputs()), outputs, strict=True))

    def masks(self, passes: int | None = None, seed: int | None = None) -> np.ndarray:
        """Dropout masks of a seed, (passes, sites, width); `passes` 0 = the plain pass; None = as in easysed.json."""
        own = self.description["masks"]
        passes = own["passes"] if passes is None else passes
        if passes == 0:
            return np.ones((1, own["sites"], own["width"]), np.float32)
        seed = own["seed"] if seed is None else seed
        return seed_masks(passes, own["sites"], own["width"], own["probability"], seed)

    def probabilities(
        self, samples: np.ndarray, passes: int | None = None, seed: int | None = None, shifts: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean probabilities of a recording of any length.

        Args:
            samples: (samples,), mono, full scale 1, at the model's rate; at least 1.
            passes: of Monte Carlo dropout, 0 = the plain pass; None = as in easysed.json.
            seed: of the masks; None = as in easysed.json.
            shifts: steps of 30 ms to either side; None = as in easysed.json.

        Returns:
            Times (grid,) in seconds, and probabilities (grid, classes).

        Raises:
            ExportError: another shape, or no samples.
        """
        samples = np.asarray(samples, np.float32)
        if samples.ndim != 1 or len(samples) == 0:
            raise ExportError(f"samples must be mono with shape (samples,), at least one, got {samples.shape}")
        shifts = self.description["shifts"]["steps"] if shifts is None else shifts
        masks, frame_samples = self.masks(passes, seed), self.audio["frame_samples"]
        starts = view_starts(shifts, self.audio["sampling_rate"], frame_samples)
        views = {}
        for start in starts:
            view = self._view(samples, masks, start)
            if view is not None:
                views[start] = view
        step = frame_samples if len(views) == 1 else self.audio["hop_length_samples"]
        times = np.arange(0, len(samples) + 1, step)
        lines = [interpolated(values, start, frame_samples, times) for start, values in views.items()]
        return times / self.audio["sampling_rate"], np.mean(lines, axis=0, dtype=np.float32)

    def boxes(self, samples: np.ndarray, **settings: Any) -> list[Box]:
        """Decoded events with the model's own scores; `settings` as for `probabilities`."""
        times, values = self.probabilities(samples, **settings)
        duration_s = len(samples) / self.audio["sampling_rate"]
        step_s = times[1] if len(times) > 1 else self.audio["frame_duration_s"]
        return decode(values, frame_borders(len(values), step_s, duration_s), self.description["decoding"]["config"])

    def _view(self, samples: np.ndarray, masks: np.ndarray, start: int) -> np.ndarray | None:
        """Mean probabilities (output frames, classes) of the frames that start at a sample; None = none do."""
        hop, sizes = self.audio["hop_length_samples"], self.description["windows"]
        stride, context = sizes["frame_stride"], sizes["context_frames"]
        windows = plan_windows(1 + len(samples) // hop, sizes["window_frames"], context, stride)
        shifted, skipped = samples[start % hop :], start // hop
        pieces = []
        for begin, end in windows:
            begin, end = begin + skipped, min(end + skipped, 1 + len(shifted) // hop)
            if end <= begin or len(shifted) == 0:
                return None  # the recording ends before this view's first frame
            waveform, edges = window_of(shifted, begin * hop, (end - 1) * hop, self.audio["edge_samples"])
            logits = self.run(waveform[None], masks, edges[None])["frame_logits"][:, 0]
            pieces.append(sigmoid(logits).mean(0))
        kept = kept_parts([len(piece) for piece in pieces], windows, context, stride)
        return np.concatenate([piece[part] for piece, part in zip(pieces, kept, strict=True)])


def read_description(folder: Path) -> dict[str, Any]:
    """easysed.json of an exported folder.

    Raises:
        ExportError: there is none, or it is of another format.
    """
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        known = description["format"] == "easysed-export" and description["format_version"] == 1
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(
            f"folder {folder} has no usable {DESCRIPTION} ({error}): make it with easysed export"
        ) from error
    if not known:
        raise ExportError(
            f"{folder / DESCRIPTION} must be of the format easysed-export 1, got {description['format']} "
            f"{description['format_version']}: export it again, or update easysed"
        )
    return description


def window_of(samples: np.ndarray, begin: int, end: int, edge_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples begin .. end - 1 of a recording, and (2, edge samples) before and after them, zeros beyond its ends."""
    edges = np.zeros((2, edge_samples), np.float32)
    before = samples[max(0, begin - edge_samples) : begin]
    after = samples[end : end + edge_samples]
    edges[0, edge_samples - len(before) :] = before
    edges[1, : len(after)] = after
    return samples[begin:end], edges


def interpolated(values: np.ndarray, start: int, frame_samples: int, times: np.ndarray) -> np.ndarray:
    """As `shifts_easysed.interpolate_frames`, for arrays (frames, classes) and whole samples (grid,)."""
    position = np.clip((times - start) / frame_samples, 0, len(values) - 1)
    left = np.floor(position).astype(np.int64)
    right = np.minimum(left + 1, len(values) - 1)
    weight = (position - left).astype(np.float32)[:, None]
    return values[left] + weight * (values[right] - values[left])


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits, any shape, without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits))


__all__ = ["ExportedDetector", "interpolated", "read_description", "sigmoid", "window_of"]
