"""From audio to a `Detection`: read, log-mel, samples of every window and shift, decoded candidates, judged events.

Windows overlap and only their middle parts are kept, so every kept frame has seen `context_s` of audio on both sides
and an event keeps its time and score wherever the file is cut. All times come from one grid: output frame k of the file
is centred at k x `frame_duration_s`."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Pipeline, PreTrainedModel

from . import long_recordings_easysed
from .ast_checkpoint_easysed import read_ast_config
from .audio_easysed import AudioClip, read_audio
from .calibration_easysed import Calibration, setting_name
from .columns_easysed import Envelope
from .configuration_easysed import EasySEDConfig
from .decisions_easysed import DEFAULT_GOAL, Goal, Rule, Table, make_rule
from .decoding_easysed import decoding_for_exit
from .detection_easysed import Detection
from .draws_easysed import check_closed_form
from .evidence_easysed import find_candidates
from .feature_extraction_easysed import EasySEDFeatureExtractor
from .finder_easysed import EventFinder
from .input_easysed import all_warnings
from .judging_easysed import Judge
from .listening_easysed import Listener
from .long_recordings_easysed import AudioBlocks, Overview, announced_duration, listen_long
from .modeling_easysed import EasySEDForSoundEventDetection
from .receipt_easysed import decoding_id, model_identity, package_version
from .recording_easysed import Progress, RecordingSamples, frame_line, recording_features, sample_recording
from .sampling_easysed import Sampling
from .shifts_easysed import view_starts

TASK = "sound-event-detection"
PICTURE_COLUMNS = 2000
CHECKPOINT_FILES = ["config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json"]


class SoundEventDetectionPipeline(Pipeline):
    """Detects sound events in recordings of any length, rate and number of channels.

    Made by `SoundEventDetectionPipeline.from_pretrained(name)` or `transformers.pipeline("sound-event-detection",
    model=folder_or_hub_id)`.

    Attributes:
        model_name, revision: what the receipt says of the model, taken when the pipeline is made.
        calibration: of the checkpoint, or None.

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
        self.model_name, self.revision = model_identity(model)
        self._rules: dict[tuple, Rule] = {}
        labels = [model.config.id2label[number] for number in range(model.config.num_labels)]
        saved = model.config.calibration
        self.calibration = None if saved is None else Calibration(saved, labels)
        super().__init__(model, *args, task=task, **kwargs)  # checks the parameters of calls, so it needs the above
        self._check_sizes()

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

    def _sanitize_parameters(
        self,
        passes: int | None = None,
        shifts: int | None = None,
        exit: str | int | None = None,
        uncertainty: str | None = None,
        seed: int | None = None,
        progress: Progress | None = None,
        min_precision: float | None = None,
        min_recall: float | None = None,
        max_false_alarms_per_hour: float | None = None,
    ) -> tuple[dict, dict, dict]:
        sampling = {"method": uncertainty, "passes": passes, "seed": seed}
        forward: dict[str, Any] = {name: value for name, value in sampling.items() if value is not None}
        Sampling(**{"method": "mc", **forward}).check()
        if forward.get("method") == "moments":
            check_closed_form(self.model.config.monte_carlo_blocks)
        if shifts is not None:
            view_starts(shifts, self.feature_extractor.sampling_rate, self.feature_extractor.hop_length_samples)
            forward["shifts"] = shifts
        if progress is not None:
            forward["progress"] = progress
        if exit is not None:
            forward["exit"] = self._checked_exit(exit)
        goal = Goal(min_precision, min_recall, max_false_alarms_per_hour)
        if not goal.is_default and self.calibration is None:
            raise ValueError(f"a goal needs a calibration, and {self.model_name} has none: run training/calibrate.py")
        return {}, forward, {} if goal.is_default else {"goal": goal}

    def check_settings(self, **settings: Any) -> None:
        """Raises ValueError when a call with these keyword arguments would."""
        self._sanitize_parameters(**settings)

    def _checked_exit(self, chosen: str | int) -> str | int:
        num_exits = self.model.num_exits
        is_number = isinstance(chosen, int) and not isinstance(chosen, bool) and 1 <= chosen <= num_exits
        if chosen != "auto" and not is_number:
            raise ValueError(f"exit must be 'auto' or a number from 1 to {num_exits}, got {chosen!r}")
        return chosen

    def preprocess(self, source: Any) -> dict[str, Any]:
        """Reads one source; returns its clip and its features (frames, mels), or what reads a long one in blocks."""
        rate = self.feature_extractor.sampling_rate
        if (announced_duration(source) or 0.0) > long_recordings_easysed.LONG_S:
            return {"blocks": AudioBlocks(source, rate)}
        clip = read_audio(source, rate)
        return {"clip": clip, "input_values": recording_features(self.feature_extractor, clip.samples)}

    def _forward(
        self,
        model_inputs: dict[str, Any],
        exit: str | int = "auto",
        method: str = "mc",
        passes: int = 20,
        seed: int = 0,
        shifts: int = 2,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        sampling = Sampling(method, passes, seed)
        about = {"exit": exit, "sampling": list(sampling), "shifts": shifts}
        if "blocks" in model_inputs:
            listener = self.listener(exit, sampling, shifts)
            finder = EventFinder(self.decoding(exit), self.judge(exit, sampling, shifts).floor, self.feature_extractor)
            return {"overview": listen_long(model_inputs["blocks"], listener, finder, progress), **about}
        clip = model_inputs["clip"]
        recording = sample_recording(
            self.model,
            self.feature_extractor,
            clip.samples,
            sampling,
            shifts,
            exit_index=None if exit == "auto" else exit,
            doubt_limits=self.doubt_limits(exit, method),
            features=model_inputs["input_values"],
            progress=progress,
        )
        return {"clip": clip, "recording": recording, **about}

    def postprocess(self, model_outputs: dict[str, Any], goal: Goal = DEFAULT_GOAL) -> Detection:
        """Decodes the samples of one recording into a `Detection`."""
        exit, shifts, sampling = model_outputs["exit"], model_outputs["shifts"], Sampling(*model_outputs["sampling"])
        judge = self.judge(exit, sampling, shifts, goal)
        seen = model_outputs.get("overview")
        if seen is None:
            seen = self._overview(model_outputs["clip"], model_outputs["recording"], self.decoding(exit), judge.floor)
        warnings = seen.clip.warnings
        return Detection(
            events=judge.events(seen.found, warnings, seen.clip.duration),
            frame_times=seen.times,
            probabilities=seen.probabilities,
            labels=judge.labels,
            duration=seen.clip.duration,
            sampling_rate=seen.clip.original_sampling_rate,
            file=seen.clip.file,
            uncertainty=seen.total,
            warnings=warnings + judge.warnings,
            receipt=self.receipt(exit, sampling, shifts, goal),
            decision_rule=judge.sentences,
            log_mel=self._picture(seen.log_mel),
            envelope=seen.envelope,
            spread=seen.spread,
            mel_hz=self.feature_extractor.mel_hz(),
        )

    def _overview(
        self,
        clip: AudioClip,
        recording: RecordingSamples,
        decoding: dict[str, Any] | None,
        floor: float | np.ndarray,
    ) -> Overview:
        """What is seen in a recording that was listened to as a whole."""
        extractor = self.feature_extractor
        raw = line = frame_line(recording)
        envelope = Envelope(len(clip.samples))
        envelope.add(clip.samples)
        if self.calibration is not None:
            line = frame_line(recording, self.calibration.temperatures(recording.frame_exits))
        return Overview(
            found=find_candidates(recording, raw, line, decoding, clip.duration, floor, extractor),
            clip=replace(clip, warnings=all_warnings(clip)),
            times=np.minimum(recording.grid() / extractor.sampling_rate, clip.duration),
            probabilities=line.probabilities,
            total=line.total,
            log_mel=recording.log_mel,
            envelope=envelope.result(),
            spread=line.spread if recording.num_answers > 1 else None,
        )

    # ---- what streams and long recordings need as well ---------------------------------------------------------------

    def decoding(self, exit: str | int) -> dict[str, Any] | None:
        """Parameters of the decoding of an exit; "auto" is decoded like the deepest."""
        return decoding_for_exit(self.model.config.decoding, self.model.num_exits if exit == "auto" else exit)

    def judge(self, exit: str | int, sampling: Sampling, shifts: int, goal: Goal = DEFAULT_GOAL) -> Judge:
        """What makes events of candidates under this setting and goal."""
        exit_index = self.model.num_exits if exit == "auto" else exit
        setting = setting_name(sampling.method, shifts)
        rule = None if self.calibration is None else self._rule(goal, exit_index, setting)
        return Judge(self.model.config, self.decoding(exit), exit_index, self.calibration, setting, rule)

    def listener(
        self, exit: str | int, sampling: Sampling, shifts: int, sizes: tuple[int, int] | None = None
    ) -> Listener:
        """What hears audio as it comes under this setting; `sizes` of its windows as for `Listener`."""
        return Listener(
            self.model,
            self.feature_extractor,
            sampling,
            shifts,
            exit_index=None if exit == "auto" else exit,
            doubt_limits=self.doubt_limits(exit, sampling.method),
            temperatures=None if self.calibration is None else self.calibration.temperatures,
            sizes=sizes,
        )

    def doubt_limits(self, exit: str | int, method: str) -> list[float]:
        """Of the exits above the deepest, for "auto" where it was calibrated; see `sample_window`."""
        is_auto = exit == "auto" and self.calibration is not None and method != "exits"
        return self.calibration.doubt_limits(self.model.num_exits) if is_auto else []

    def _rule(self, goal: Goal, exit_index: int, setting: str) -> Rule:
        """Made once for every goal and setting."""
        key = (goal, exit_index, setting)
        if key not in self._rules:
            table = Table.load(self.calibration.check(exit_index, setting)["table"])
            outside = float(self.calibration.saved.get("outside_threshold", 0.0))
            self._rules[key] = make_rule(goal, table, self.calibration.labels, outside)
        return self._rules[key]

    def receipt(self, exit: str | int, sampling: Sampling, shifts: int, goal: Goal = DEFAULT_GOAL) -> dict[str, Any]:
        """What the same events can be had with again."""
        is_sampled = sampling.method == "mc"
        return {
            "model": self.model_name,
            "revision": self.revision,
            "version": package_version(),
            "seed": sampling.seed if is_sampled else None,
            "passes": sampling.passes if is_sampled else None,
            "shifts": shifts,
            "uncertainty": sampling.method,
            "exit": exit,
            "decoding": decoding_id(self.decoding(exit)),
            "calibration": None if self.calibration is None else self.calibration.id,
            "goal": {name: value for name, value in vars(goal).items() if value is not None},
        }

    def receipt_of(self, **settings: Any) -> dict[str, Any]:
        """The receipt of a call with these keyword arguments."""
        _, forward, post = self._sanitize_parameters(**settings)
        sampling = Sampling(forward.get("method", "mc"), forward.get("passes", 20), forward.get("seed", 0))
        return self.receipt(
            forward.get("exit", "auto"), sampling, forward.get("shifts", 2), post.get("goal", DEFAULT_GOAL)
        )

    def _picture(self, features: np.ndarray) -> np.ndarray:
        """(columns, mels) in dB: the loudest of neighbouring frames, so that a short event stays visible for hours."""
        step = -(-len(features) // PICTURE_COLUMNS)
        picture = np.maximum.reduceat(features, np.arange(0, len(features), step), axis=0)
        extractor = self.feature_extractor
        if extractor.mel_mean is None or extractor.mel_std is None:
            return picture
        return picture * np.array(extractor.mel_std, np.float32) + np.array(extractor.mel_mean, np.float32)


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
