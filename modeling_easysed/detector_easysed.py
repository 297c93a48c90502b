"""What a detector is on any runtime: settings checked, audio read, samples drawn, candidates judged, a receipt written.

    preprocess -> _forward -> postprocess       as in transformers' `Pipeline`, of which one runtime is made

Windows overlap and only their middle parts are kept, so every kept frame has seen `context_s` of audio on both sides
and an event keeps its time and score wherever the file is cut. All times come from one grid: output frame k of the file
is centred at k x `frame_duration_s`."""

from dataclasses import replace
from typing import Any

import numpy as np

from . import long_recordings_easysed
from .audio_easysed import AudioClip, read_audio
from .calibration_easysed import Calibration, setting_name
from .columns_easysed import Envelope
from .decisions_easysed import DEFAULT_GOAL, Goal, Rule, Table, make_rule
from .decoding_easysed import decoding_for_exit
from .detection_easysed import Detection
from .draws_easysed import check_closed_form
from .evidence_easysed import find_candidates
from .finder_easysed import EventFinder
from .input_easysed import all_warnings
from .judging_easysed import Judge
from .listening_easysed import Listener
from .long_recordings_easysed import AudioBlocks, Overview, announced_duration, listen_long
from .receipt_easysed import decoding_id, package_version
from .recording_easysed import RecordingSamples, frame_line, mean_probabilities, recording_features, sample_recording
from .sampling_easysed import Sampling
from .shifts_easysed import view_starts

PICTURE_COLUMNS = 2000


class Detector:
    """Detects sound events; a runtime adds how a model is loaded and called.

    Attributes:
        model: a `Network`, or a model of PyTorch.
        feature_extractor: of the same checkpoint.
        model_name, revision: what the receipt says of the model.
        calibration: of the checkpoint, or None.
    """

    model: Any
    feature_extractor: Any
    model_name: str | None
    revision: str
    calibration: Calibration | None

    def _identify(self, config: Any, model_name: str | None, revision: str) -> None:
        """Name, revision and calibration, taken when the detector is made."""
        self.model_name, self.revision = model_name, revision
        self._rules: dict[tuple, Rule] = {}
        labels = [config.id2label[number] for number in range(config.num_labels)]
        self.calibration = None if config.calibration is None else Calibration(config.calibration, labels)

    def split_settings(
        self,
        passes: int | None = None,
        shifts: int | None = None,
        exit: str | int | None = None,
        uncertainty: str | None = None,
        seed: int | None = None,
        progress: Any = None,
        min_precision: float | None = None,
        min_recall: float | None = None,
        max_false_alarms_per_hour: float | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Keyword arguments of a call for `_forward` and for `postprocess`; as `__call__` says.

        Raises:
            ValueError: one outside its range.
        """
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
        return forward, {} if goal.is_default else {"goal": goal}

    def check_settings(self, **settings: Any) -> None:
        """Raises ValueError when a call with these keyword arguments would."""
        self.split_settings(**settings)

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
        progress: Any = None,
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
        envelope = Envelope(len(clip.samples))
        envelope.add(clip.samples)
        if self.calibration is None:
            line = frame_line(recording)
            raw = line.probabilities
        else:
            line = frame_line(recording, self.calibration.temperatures(recording.frame_exits))
            raw = mean_probabilities(recording)
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
        forward, post = self.split_settings(**settings)
        sampling = Sampling(forward.get("method", "mc"), forward.get("passes", 20), forward.get("seed", 0))
        return self.receipt(
            forward.get("exit", "auto"), sampling, forward.get("shifts", 2), post.get("goal", DEFAULT_GOAL)
        )

    def _picture(self, features: np.ndarray) -> np.ndarray:
        """(columns, mels) in dB: the loudest of neighbouring frames, so that a short event stays visible for hours."""
        step = -(-len(features) // PICTURE_COLUMNS)
        picture = features
        if step > 1:
            picture = np.maximum.reduceat(features, np.arange(0, len(features), step), axis=0)
        extractor = self.feature_extractor
        if extractor.mel_mean is None or extractor.mel_std is None:
            return picture
        return picture * np.array(extractor.mel_std, np.float32) + np.array(extractor.mel_mean, np.float32)


def check_sizes(config: Any, extractor: Any) -> None:
    """Raises ValueError when a feature extractor's sizes are not the model's."""
    needed = (config.sampling_rate, config.hop_length_samples, config.num_mel_bins)
    given = (extractor.sampling_rate, extractor.hop_length_samples, extractor.feature_size)
    if needed != given:
        raise ValueError(
            f"feature extractor must have the model's sampling rate, hop and mel bands {needed}, got {given}: "
            "load both from the same checkpoint"
        )


__all__ = ["PICTURE_COLUMNS", "Detector", "check_sizes"]
