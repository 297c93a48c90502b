"""A checkpoint's trunk and exits on onnxruntime, weights straight out of its safetensors file.

    graphs/step1.onnx   log-mel frames -> state      graphs/head1.onnx   state -> what passes share
    graphs/step2.onnx   state -> state               graphs/head2.onnx   ...

The graphs hold no weights: they name places in model.safetensors. The classifier, which all passes share, is a matrix
product here."""

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from modeling_easysed.receipt_easysed import hash_arrays
from modeling_easysed.runtime.choice import GRAPHS, WEIGHTS, read_index


class OnnxNetwork:
    """See `sampling_easysed.Network`.

    Args:
        folder: checkpoint with graphs, see `choice.graphs_fit`.
        num_threads: of onnxruntime; None = OMP_NUM_THREADS, or the processors that this process may use.
    """

    num_sites = 1

    def __init__(self, folder: str | Path, num_threads: int | None = None) -> None:
        self.folder = Path(folder)
        self.config = read_config(self.folder)
        self.num_exits: int = read_index(self.folder)["num_exits"]
        self.num_threads = own_threads() if num_threads is None else num_threads
        self._sessions: dict[str, Any] = {}
        self._classifiers = read_classifiers(self.folder / WEIGHTS, self.num_exits)
        self.width = self._classifiers[0][0].shape[1]

    def evaluating(self) -> AbstractContextManager[None]:
        """Nothing to prepare."""
        return nullcontext()

    def leaving_one(self) -> "OnnxNetwork":
        """Loaded anew with a thread less, where it has more than one."""
        return self if self.num_threads == 1 else OnnxNetwork(self.folder, self.num_threads - 1)

    def stages(self, values: np.ndarray) -> Iterator[np.ndarray]:
        """States after every stage, (1, ...)."""
        state = np.ascontiguousarray(values[None], np.float32)
        for number in range(1, self.num_exits + 1):
            state = self._run(f"step{number}", state)
            yield state

    def plain(self, exit_index: int, stage: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Hidden states (width, output frames), frame logits, embeddings."""
        hidden = self._run(f"head{exit_index}", stage)[0]
        weight, bias = self._classifiers[exit_index - 1]
        return hidden, (weight @ hidden).T + bias, hidden.T

    def passes(self, exit_index: int, shared: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """One matrix product: a mask on the input is a mask on the weights."""
        weight, bias = self._classifiers[exit_index - 1]
        thinned = weight * masks[:, :1]
        # (passes, classes, width)
        logits = thinned.reshape(-1, self.width) @ shared
        return np.add(logits.reshape(*thinned.shape[:2], -1).transpose(0, 2, 1), bias, order="C")

    def deviations(self, exit_index: int, shared: np.ndarray) -> np.ndarray:
        """As `FrameClassifier.variances`, its root."""
        weight, _ = self._classifiers[exit_index - 1]
        ratio = np.float32(self.config.dropout / (1.0 - self.config.dropout))
        return np.sqrt(ratio * (weight**2 @ shared**2).T)

    def _run(self, name: str, values: np.ndarray) -> np.ndarray:
        if name not in self._sessions:
            self._sessions[name] = self._open(name)
        return self._sessions[name].run(None, {"x": values})[0]

    def _open(self, name: str) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.num_threads
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # every graph has threads of its own
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(self.folder))
        content = (self.folder / GRAPHS / f"{name}.onnx").read_bytes()
        return onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])


def read_config(folder: Path) -> SimpleNamespace:
    """config.json by the names of `EasySEDConfig`, without transformers."""
    saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    labels = {int(number): label for number, label in saved["id2label"].items()}
    saved |= {"id2label": labels, "label2id": {label: number for number, label in labels.items()}}
    frame_duration_s = saved["frame_stride"] * saved["hop_length_samples"] / saved["sampling_rate"]
    return SimpleNamespace(**saved, num_labels=len(labels), frame_duration_s=frame_duration_s)


def read_classifiers(weights: Path, num_exits: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(classes, width) and (classes,) of every exit."""
    from safetensors import safe_open

    with safe_open(weights, "numpy") as file:
        names = [f"exits.{number}.classifier." for number in range(num_exits)]
        return [(file.get_tensor(name + "weight"), file.get_tensor(name + "bias")) for name in names]


def hash_file(weights: Path) -> str:
    """As `receipt_easysed.hash_weights` of the model that is loaded from the file."""
    from safetensors import safe_open

    with safe_open(weights, "numpy") as file:
        return hash_arrays((name, file.get_tensor(name).tobytes()) for name in file.keys())  # noqa: SIM118


def own_threads() -> int:
    """OMP_NUM_THREADS, or the processors that this process may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


__all__ = ["OnnxNetwork", "hash_file"]
