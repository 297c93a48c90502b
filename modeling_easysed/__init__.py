"""EasySED: sound event detection with self-distillation exits.

Names are imported when first used, so that `easysed --help` and `modeling_easysed.metrics` do not wait for torch. The
first such use, or the import itself where transformers is already loaded, registers EasySED with transformers; before
`transformers.pipeline("sound-event-detection")` in any other order, call `modeling_easysed.register()`."""

import importlib
import sys
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
    "EventStream": "stream_easysed",
    "SoundEventDetectionPipeline": "pipeline_easysed",
    "read_events": "formats.files",
    "register": "registration",
    "write_events": "formats.files",
}
_WITHOUT_TORCH = ("bundled", "detection_easysed", "formats.files", "registration", "stream_easysed")

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES[name]
    if home not in _WITHOUT_TORCH:
        importlib.import_module(".registration", __name__).register()
    return getattr(importlib.import_module(f".{home}", __name__), name)


def __dir__() -> list[str]:
    return __all__


if "transformers" in sys.modules:
    importlib.import_module(".registration", __name__).register()
