"""The detectors that commands use: of a checkpoint's folder, without transformers' models."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modeling_easysed.detection_easysed import Detection
from modeling_easysed.detector_easysed import Detector, check_sizes
from modeling_easysed.receipt_easysed import folder_identity
from modeling_easysed.runtime.choice import WEIGHTS
from modeling_easysed.runtime.log_mel import ArrayLogMel
from modeling_easysed.runtime.network import OnnxNetwork, hash_file


class FolderDetector(Detector):
    """Detects sound events as `SoundEventDetectionPipeline` does, with features made in numpy.

    Args:
        folder: checkpoint.
        model: its `Network`.

    Raises:
        ValueError: features that have no counterpart in numpy, or whose sizes are not the model's.
    """

    def __init__(self, folder: str | Path, model: Any) -> None:
        folder = Path(folder)
        self.model = model
        saved = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
        self.feature_extractor = ArrayLogMel(saved)
        check_sizes(model.config, self.feature_extractor)
        name, commit = folder_identity(str(folder))
        self._identify(self.model.config, name, hash_file(folder / WEIGHTS) if commit is None else commit)

    def __call__(self, audio: Any, **settings: Any) -> Detection | list[Detection] | Iterator[Detection]:
        """Detects events; arguments and errors as for `SoundEventDetectionPipeline`."""
        if isinstance(audio, (list, tuple)):
            return [self(one, **settings) for one in audio]
        forward, post = self.split_settings(**settings)
        if isinstance(audio, Iterator):
            return (self._one(one, forward, post) for one in audio)
        return self._one(audio, forward, post)

    def _one(self, source: Any, forward: dict[str, Any], post: dict[str, Any]) -> Detection:
        return self.postprocess(self._forward(self.preprocess(source), **forward), **post)


class OnnxDetector(FolderDetector):
    """On onnxruntime.

    Args:
        folder: checkpoint with graphs, see `choice.runs_on_onnx`.
        num_threads: as for `OnnxNetwork`.
    """

    def __init__(self, folder: str | Path, num_threads: int | None = None) -> None:
        super().__init__(folder, OnnxNetwork(folder, num_threads))


__all__ = ["FolderDetector", "OnnxDetector"]
