"""The detector as a pipeline of transformers: `from_pretrained`, devices, datasets, the Hub; the rest is `Detector`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import Pipeline, PreTrainedModel

from .ast_checkpoint_easysed import read_ast_config
from .configuration_easysed import EasySEDConfig
from .detection_easysed import Detection
from .detector_easysed import Detector, check_sizes
from .feature_extraction_easysed import EasySEDFeatureExtractor
from .modeling_easysed import EasySEDForSoundEventDetection
from .receipt_easysed import model_identity

TASK = "sound-event-detection"
CHECKPOINT_FILES = ["config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json"]


class SoundEventDetectionPipeline(Detector, Pipeline):
    """Detects sound events in recordings of any length, rate and number of channels.

    Made by `SoundEventDetectionPipeline.from_pretrained(name)` or `transformers.pipeline("sound-event-detection",
    model=folder_or_hub_id)`.

    Raises:
        ValueError: another kind of model; no feature extractor, or one whose sizes are not the model's.
    """

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = True
    _load_tokenizer = False

    def __init__(self, model: PreTrainedModel, *args: Any, task: str = TASK, **kwargs: Any) -> None:
        if kwargs.get("feature_extractor") is None:
            raise ValueError("feature_extractor must be given: EasySEDFeatureExtractor.from_pretrained(checkpoint)")
        if model.config.model_type != EasySEDConfig.model_type:
            raise ValueError(
                f"model must be of type {EasySEDConfig.model_type!r}, got {model.config.model_type!r}: load an Audio "
                "Spectrogram Transformer with SoundEventDetectionPipeline.from_pretrained"
            )
        self._identify(model.config, *model_identity(model))
        super().__init__(model, *args, task=task, **kwargs)  # checks the parameters of calls, so it needs the above
        check_sizes(self.model.config, self.feature_extractor)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        device: int | str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        **hub_kwargs: Any,
    ) -> "SoundEventDetectionPipeline":
        """Loads model and feature extractor.

        Args:
            name_or_path: bundled name such as "easysed-cnn", local folder, or Hub id; also an Audio Spectrogram
                Transformer of transformers, whose one exit is then its own classifier (see `from_ast`).
            device: e.g. "cpu", "cuda:0"; None = an accelerator where there is one.
            dtype: of the network; "auto" = as saved.
            **hub_kwargs: of `huggingface_hub.snapshot_download`: `revision`, `token`, `cache_dir`, `local_files_only`.

        Raises:
            ValueError: unknown or broken checkpoint, missing weights; one line that names it.
        """
        folder = _resolve(name_or_path, hub_kwargs)
        try:
            model, extractor, missing_keys = _load(folder, dtype)
        except Exception as error:  # every library below has classes of its own; the first line of each names the cause
            raise ValueError(f"model {name_or_path} cannot be loaded: {_first_line(error)}") from error
        _check_missing(str(name_or_path), missing_keys)
        if hasattr(model.config, "custom_pipelines"):
            del model.config.custom_pipelines  # see save_pretrained
        return cls(model=model, feature_extractor=extractor, device=device)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Saves model, feature extractor and code, so that `transformers.pipeline` can load the folder.

        The base class leaves `custom_pipelines` in the live config: a later `model.save_pretrained`, which does not
        copy the pipeline's code, would make a broken folder.
        """
        try:
            super().save_pretrained(save_directory, **kwargs)
        finally:
            if hasattr(self.model.config, "custom_pipelines"):
                del self.model.config.custom_pipelines

    def __call__(self, audio: Any, **kwargs: Any) -> Detection | list[Detection] | Iterator[Detection]:
        """Detects events.

        Args:
            audio: path, bytes, file object, or `{"array": ..., "sampling_rate": ...}`; see `read_audio`. A list gives
                a list, a generator or dataset an iterator.
            exit: "auto" = the first exit that is sure enough (the deepest where nothing was calibrated), or its number,
                1 = shallowest and fastest.
            uncertainty: "mc" (Monte Carlo dropout, the default), "exits", "moments" or "none"; see sampling_easysed.
            passes: of Monte Carlo dropout, default 20.
            shifts: steps of 30 ms to either side, default 2; 0 = only the recording as it is.
            seed: of Monte Carlo dropout, default 0.
            min_precision, min_recall, max_false_alarms_per_hour: the goal of the decisions, see `Goal`; default: a
                precision of 0.9.
            progress: called with (windows done, windows in all).

        Raises:
            AudioError: audio that cannot be used.
            ValueError: a parameter outside of its range, or a goal or setting that needs a calibration without one.
        """
        if isinstance(audio, (list, tuple)):
            return [self(one, **kwargs) for one in audio]
        self.call_count = 0  # windows are batched within a call: the base class's advice to batch calls is moot
        return super().__call__(audio, **kwargs)

    def _sanitize_parameters(self, **settings: Any) -> tuple[dict, dict, dict]:
        forward, post = self.split_settings(**settings)
        return {}, forward, post


# ---- parameters and loading ------------------------------------------------------------------------------------------


def _resolve(name_or_path: str | Path, hub_kwargs: dict[str, Any]) -> str:
    """The local folder of a checkpoint, downloaded where it lies on the Hub: one request when offline, not twenty."""
    try:
        from modeling_easysed.bundled import check_folder, resolve_checkpoint
    except ImportError:  # code that came with a checkpoint, without the package: it knows no bundled names
        folder = str(name_or_path)
        return folder if Path(folder).is_dir() else _download(folder, hub_kwargs)
    folder = resolve_checkpoint(name_or_path)
    if not Path(folder).is_dir():
        folder = _download(folder, hub_kwargs)
        check_folder(Path(folder))
    return folder


def _download(hub_id: str, hub_kwargs: dict[str, Any]) -> str:
    try:
        from huggingface_hub import snapshot_download

        return snapshot_download(hub_id, allow_patterns=CHECKPOINT_FILES, **hub_kwargs)
    except OSError as error:  # no network, no such repository or revision
        raise ValueError(
            f"model {hub_id} cannot be found on the Hub or in its cache: check the id, the network and your rights "
            f"({_first_line(error)})"
        ) from error


def _load(
    folder: str, dtype: str | torch.dtype
) -> tuple[EasySEDForSoundEventDetection, EasySEDFeatureExtractor, list[str]]:
    """Model, feature extractor, and the names of tensors that the weights lack.

    Of an Audio Spectrogram Transformer only the deepest exit, its own classifier, has been trained: it is the one exit.
    """
    ast = read_ast_config(folder)
    if ast is not None:
        model = EasySEDForSoundEventDetection.from_ast(folder, [ast.num_hidden_layers], dtype=dtype)
        return model, EasySEDFeatureExtractor.from_ast(folder), []
    model, report = EasySEDForSoundEventDetection.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, output_loading_info=True
    )
    return model, EasySEDFeatureExtractor.from_pretrained(folder), sorted(report["missing_keys"])


def _check_missing(name: str, missing: list[str]) -> None:
    """Refuses weights that do not cover the model: transformers would fill the rest with random numbers."""
    if missing:
        raise ValueError(
            f"model {name} cannot be loaded: its weights lack {len(missing)} tensors, the first is {missing[0]}; "
            "download or save it again"
        )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


__all__ = ["TASK", "SoundEventDetectionPipeline"]
