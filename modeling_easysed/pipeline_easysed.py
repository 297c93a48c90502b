"""From audio to a `Detection`: read, log-mel, windows through the network, stitched probabilities, decoded events.

Windows overlap and only their middle parts are kept, so every kept frame has seen `context_s` of audio on both sides
and an event keeps its time and score wherever the file is cut. All times come from one grid: output frame k of the file
is centred at k x `frame_duration_s`."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Pipeline, PreTrainedModel

from .audio_easysed import read_audio
from .decoding_easysed import decode, decoding_for_exit, frame_borders
from .detection_easysed import NO_CALIBRATION, Detection, Event
from .feature_extraction_easysed import EasySEDFeatureExtractor
from .modeling_easysed import EasySEDForSoundEventDetection
from .receipt_easysed import decoding_id, model_identity, package_version
from .windows_easysed import batch_windows, join_windows, plan_windows

TASK = "sound-event-detection"
UNCERTAINTIES = ("mc", "exits", "moments", "none")
FEATURE_BLOCK_FRAMES = 12_000  # log-mel frames made at once (2 minutes), so that the spectrum of hours fits in memory
WINDOWS_PER_BATCH = 8
PICTURE_COLUMNS = 2000
CHECKPOINT_FILES = ["config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json"]

Progress = Callable[[int, int], None]  # windows done, windows in all


class SoundEventDetectionPipeline(Pipeline):
    """Detects sound events in recordings of any length, rate and number of channels.

    Made by `SoundEventDetectionPipeline.from_pretrained(name)` or `transformers.pipeline("sound-event-detection",
    model=folder_or_hub_id)`.

    Attributes:
        model_name, revision: what the receipt says of the model, taken when the pipeline is made.

    Raises:
        ValueError: without a feature extractor, or with one whose sizes are not the model's.
    """

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = True
    _load_tokenizer = False

    def __init__(self, model: PreTrainedModel, *args: Any, task: str = TASK, **kwargs: Any) -> None:
        super().__init__(model, *args, task=task, **kwargs)
        if self.feature_extractor is None:
            raise ValueError("feature_extractor must be given: EasySEDFeatureExtractor.from_pretrained(checkpoint)")
        self._check_sizes()
        self.model_name, self.revision = model_identity(self.model)

    def _check_sizes(self) -> None:
        config, extractor = self.model.config, self.feature_extractor
        needed = (config.sampling_rate, config.hop_length_samples, config.num_mel_bins)
        given = (extractor.sampling_rate, extractor.hop_length_samples, extractor.feature_size)
        if needed != given:
            raise ValueError(
                f"feature extractor must have the model's sampling rate, hop and mel bands {needed}, got {given}: "
                "load both from the same checkpoint"
            )

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
            name_or_path: bundled name such as "easysed-cnn", local folder, or Hub id.
            device: e.g. "cpu", "cuda:0"; None = an accelerator where there is one.
            dtype: of the network; "auto" = as saved.
            **hub_kwargs: of `huggingface_hub.snapshot_download`: `revision`, `token`, `cache_dir`, `local_files_only`.

        Raises:
            ValueError: unknown or broken checkpoint, missing weights; one line that names it.
        """
        folder = _resolve(name_or_path, hub_kwargs)
        try:
            model, report = EasySEDForSoundEventDetection.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, output_loading_info=True
            )
            extractor = EasySEDFeatureExtractor.from_pretrained(folder)
        except Exception as error:  # every library below has classes of its own; the first line of each names the cause
            raise ValueError(f"model {name_or_path} cannot be loaded: {_first_line(error)}") from error
        _check_report(str(name_or_path), report)
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
            exit: "auto" = the deepest exit, or its number, 1 = shallowest and fastest.
            seed: written to the receipt; the plain pass draws no random numbers.
            uncertainty, passes, shifts: this version computes the plain pass only: "none", None, None.
            progress: called with (windows done, windows in all).

        Raises:
            AudioError: audio that cannot be used.
            ValueError: a parameter outside of its range.
        """
        if isinstance(audio, (list, tuple)):
            return [self(one, **kwargs) for one in audio]
        self.call_count = 0  # windows are batched within a call: the base class's advice to batch calls is moot
        return super().__call__(audio, **kwargs)

    def _sanitize_parameters(
        self,
        passes: int | None = None,
        shifts: int | None = None,
        exit: str | int | None = None,
        uncertainty: str | None = None,
        seed: int | None = None,
        progress: Progress | None = None,
    ) -> tuple[dict, dict, dict]:
        _check_plain_pass(passes, shifts, uncertainty)
        forward = {} if progress is None else {"progress": progress}
        if exit is not None:
            forward["exit_index"] = self._exit_index(exit)
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise ValueError(f"seed must be an integer, got {seed!r}")
        return {}, forward, {} if seed is None else {"seed": seed}

    def _exit_index(self, chosen: str | int) -> int:
        num_exits = self.model.num_exits
        if chosen == "auto":
            return num_exits
        if isinstance(chosen, bool) or not isinstance(chosen, int) or not 1 <= chosen <= num_exits:
            raise ValueError(f"exit must be 'auto' or a number from 1 to {num_exits}, got {chosen!r}")
        return chosen

    def preprocess(self, source: Any) -> dict[str, Any]:
        """Reads one source; returns its clip and its features (frames, mels)."""
        clip = read_audio(source, self.feature_extractor.sampling_rate)
        return {"clip": clip, "input_values": self._features(clip.samples)}

    def _features(self, samples: np.ndarray) -> torch.Tensor:
        """(samples,) to (frames, mels), in blocks with enough margin that the frames are those of one transform."""
        extractor = self.feature_extractor
        hop = extractor.hop_length_samples
        margin = -(-extractor.fft_length_samples // hop)
        num_frames = extractor.num_frames(len(samples))
        blocks = []
        for start in range(0, num_frames, FEATURE_BLOCK_FRAMES):
            stop = min(start + FEATURE_BLOCK_FRAMES, num_frames)
            first = max(0, start - margin)
            piece = samples[first * hop : (stop + margin) * hop]
            frames = extractor(piece, sampling_rate=extractor.sampling_rate).input_values[0]
            blocks.append(frames[start - first : stop - first])
        return torch.cat(blocks)

    def _forward(
        self, model_inputs: dict[str, Any], exit_index: int | None = None, progress: Progress | None = None
    ) -> dict[str, Any]:
        features, config = model_inputs["input_values"], self.model.config
        index = self.model.num_exits if exit_index is None else exit_index
        frames_per_second = config.sampling_rate / config.hop_length_samples
        sizes = (round(seconds * frames_per_second) for seconds in (config.window_s, config.context_s))
        window_frames, context_frames = (-(-size // config.frame_stride) * config.frame_stride for size in sizes)
        windows = plan_windows(len(features), window_frames, context_frames, config.frame_stride)
        pieces: list[torch.Tensor] = []
        with _evaluating(self.model):
            for batch in batch_windows(windows, WINDOWS_PER_BATCH):
                values = torch.stack([features[start:stop] for start, stop in batch])
                # (windows, frames, mels)
                frame_logits = self.model(values, exit_index=index).frame_logits
                pieces.extend(torch.sigmoid(frame_logits.float()).cpu())
                if progress is not None:
                    progress(len(pieces), len(windows))
        probabilities = join_windows(pieces, windows, config.frame_stride)
        return {**model_inputs, "probabilities": probabilities, "exit_index": index}

    def postprocess(self, model_outputs: dict[str, Any], seed: int = 0) -> Detection:
        """Decodes the probabilities of one recording into a `Detection`."""
        clip, index = model_outputs["clip"], model_outputs["exit_index"]
        probabilities = model_outputs["probabilities"].numpy()
        config = self.model.config
        decoding = decoding_for_exit(config.decoding, index)
        borders = frame_borders(len(probabilities), config.frame_duration_s, clip.duration)
        labels = [config.id2label[number] for number in range(config.num_labels)]
        boxes = decode(probabilities, borders, decoding)
        return Detection(
            events=[Event(onset, offset, labels[number], score, exit=index) for onset, offset, number, score in boxes],
            frame_times=np.minimum(np.arange(len(probabilities)) * config.frame_duration_s, clip.duration),
            probabilities=probabilities,
            labels=labels,
            duration=clip.duration,
            sampling_rate=clip.original_sampling_rate,
            file=clip.file,
            warnings=[*clip.warnings, NO_CALIBRATION],
            receipt=self._receipt(index, seed, decoding),
            log_mel=self._picture(model_outputs["input_values"]),
        )

    def _receipt(self, exit_index: int, seed: int, decoding: dict[str, Any] | None) -> dict[str, Any]:
        return {
            "model": self.model_name,
            "revision": self.revision,
            "version": package_version(),
            "seed": seed,
            "passes": None,
            "shifts": None,
            "uncertainty": "none",
            "exit": exit_index,
            "decoding": decoding_id(decoding),
            "calibration": None,
        }

    def _picture(self, features: torch.Tensor) -> np.ndarray:
        """(columns, mels) in dB: the loudest of neighbouring frames, so that a short event stays visible for hours."""
        step = -(-len(features) // PICTURE_COLUMNS)
        picture = np.maximum.reduceat(features.numpy(), np.arange(0, len(features), step), axis=0)
        extractor = self.feature_extractor
        if extractor.mel_mean is None or extractor.mel_std is None:
            return picture
        return picture * np.array(extractor.mel_std, np.float32) + np.array(extractor.mel_mean, np.float32)


# ---- parameters and loading ------------------------------------------------------------------------------------------


def _check_plain_pass(passes: int | None, shifts: int | None, uncertainty: str | None) -> None:
    if uncertainty is not None and uncertainty not in UNCERTAINTIES:
        raise ValueError(f"uncertainty must be one of {UNCERTAINTIES}, got {uncertainty!r}")
    asked = {"passes": passes, "shifts": shifts, "uncertainty": None if uncertainty == "none" else uncertainty}
    for name, value in asked.items():
        if value is not None:
            raise ValueError(f"{name}={value!r} is not available: this version computes the plain pass only")


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


def _check_report(name: str, report: dict[str, Any]) -> None:
    """Refuses weights that do not cover the model: transformers would fill the rest with random numbers."""
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(
            f"model {name} cannot be loaded: its weights lack {len(missing)} tensors, the first is {missing[0]}; "
            "download or save it again"
        )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode inside, the model's own mode after."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


__all__ = ["TASK", "SoundEventDetectionPipeline"]
