"""EasySED: sound event detection with self-distillation exits. Names are imported when first used, so that
`easysed --help` and `modeling_easysed.metrics` do not wait for torch."""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "BUNDLED_CHECKPOINTS": "bundled",
    "DEFAULT_CHECKPOINT": "bundled",
    "Detection": "detection_easysed",
    "EasySEDConfig": "configuration_easysed",
    "EasySEDFeatureExtractor": "feature_extraction_easysed",
    "EasySEDForSoundEventDetection": "modeling_easysed",
    "EasySEDModel": "modeling_easysed",
    "Event": "detection_easysed",
    "SoundEventDetectionPipeline": "pipeline_easysed",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
