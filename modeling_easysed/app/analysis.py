"""One recording under one setting: checked, detected, with every single answer of the model kept for the page."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from modeling_easysed.app.catalogue import Entry
from modeling_easysed.audio_easysed import AudioClip, read_audio
from modeling_easysed.decisions_easysed import Goal
from modeling_easysed.detection_easysed import Detection, Event
from modeling_easysed.long_recordings_easysed import announced_duration
from modeling_easysed.recording_easysed import RecordingSamples, sample_recording
from modeling_easysed.sampling_easysed import Sampling, sigmoid

MAX_DURATION_S = 600.0  # the pipeline takes longer recordings in blocks, without single answers
MAX_FILE_BYTES = 50_000_000
MAX_PASSES, MAX_SHIFTS = 50, 4
GOALS = {"precision": "min_precision", "recall": "min_recall", "false alarms per hour": "max_false_alarms_per_hour"}
MARGIN_S = 0.6  # of what is shown around an event
SHOWN_S = 20.0  # of a longer event its beginning


class RefusedError(ValueError):
    """What the page cannot or will not do; one friendly line."""


@dataclass(frozen=True)
class Settings:
    """How to listen; words as for the pipeline."""

    exit: str | int = "auto"
    uncertainty: str = "mc"
    passes: int = 20
    shifts: int = 2
    goal: Goal = Goal()
    seed: int = 0

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.uncertainty, self.passes, self.seed)


def make_settings(
    entry: Entry, size: str, uncertainty: str, passes: float, shifts: float, goal: str, goal_value: float | None
) -> Settings:
    """Settings from what a page or a program sends.

    Raises:
        RefusedError: a value out of range, or a goal that needs a calibration without one.
    """
    try:
        exit = "auto" if size in ("auto", "", None) else int(size)
        passes, shifts = int(passes), int(shifts)
        goals = {} if goal in ("default", "", None) else {GOALS[goal]: goal_value}
    except KeyError:
        raise RefusedError(f"goal must be default, {', '.join(GOALS)}, got {goal!r}") from None
    except (TypeError, ValueError):
        raise RefusedError("size, passes and shifts must be whole numbers") from None
    if not 1 <= passes <= MAX_PASSES or not 0 <= shifts <= MAX_SHIFTS:
        raise RefusedError(f"passes must be from 1 to {MAX_PASSES} and shifts from 0 to {MAX_SHIFTS} here")
    if goals and not goal_value:  # none, or 0, which no goal can be
        raise RefusedError(f"the goal needs a number: what {goal} do you want?")
    try:
        settings = Settings(exit, uncertainty, passes, shifts, Goal(**goals))
        entry.pipe.check_settings(exit=exit, uncertainty=uncertainty, passes=passes, shifts=shifts, **goals)
    except (ValueError, TypeError) as error:
        raise RefusedError(str(error)) from error
    return settings


@dataclass
class Answers:
    """What the model said of one event, once for every pass (or exit) and time shift.

    Attributes:
        times: (frames,), seconds.
        curves: (samples, frames), probabilities of its class, without time shift.
        levels: {shift in seconds: (samples,)}, mean probability inside the event.
    """

    times: np.ndarray
    curves: np.ndarray
    levels: dict[float, np.ndarray]


@dataclass
class Analysis:
    """A detection, the single answers to each of its events, and the seconds that it took."""

    detection: Detection
    answers: list[Answers]
    seconds: float


def check_recording(path: Path) -> None:
    """Refuses what would take a host's time or memory.

    Raises:
        RefusedError: missing, too large or too long.
    """
    if not path.is_file():
        raise RefusedError("the recording is not there any more: upload it again")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise RefusedError(f"{path.name} is larger than {MAX_FILE_BYTES // 10**6} MB: cut it, or use `easysed detect`")
    duration = announced_duration(path)
    if duration is not None and duration > MAX_DURATION_S:
        raise RefusedError(
            f"{path.name} is {duration / 60:.1f} minutes long, at most {MAX_DURATION_S / 60:g} are taken here: cut it, "
            "or use `easysed detect`, which takes any length"
        )


def analyse(entry: Entry, path: str | Path | None, settings: Settings) -> Analysis:
    """Detects, and keeps the answers.

    Raises:
        RefusedError: anything that is wrong with the recording or the settings, in one line without server paths.
    """
    if path is None:
        raise RefusedError("no sound yet: upload a file, record one, or choose an example")
    path = Path(path)
    check_recording(path)
    started, pipe = time.perf_counter(), entry.pipe
    try:
        clip = read_audio(path, pipe.feature_extractor.sampling_rate)
        recording = _listen(entry, clip, settings)
        outputs = {"clip": clip, "recording": recording, "exit": settings.exit, "shifts": settings.shifts}
        detection = pipe.postprocess({**outputs, "sampling": list(settings.sampling)}, settings.goal)
    except Exception as error:  # whatever a recording provokes, its sender gets one line and the server goes on
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise RefusedError(lines[0].replace(str(path), path.name)) from error
    detection = replace(detection, file=path.name)
    seconds = time.perf_counter() - started
    return Analysis(detection, [_answers(entry, recording, event) for event in detection.events], seconds)


def _listen(entry: Entry, clip: AudioClip, settings: Settings) -> RecordingSamples:
    pipe = entry.pipe
    return sample_recording(
        pipe.model,
        pipe.feature_extractor,
        clip.samples,
        settings.sampling,
        settings.shifts,
        exit_index=None if settings.exit == "auto" else settings.exit,
        doubt_limits=pipe.doubt_limits(settings.exit, settings.uncertainty),
    )


def _answers(entry: Entry, recording: RecordingSamples, event: Event) -> Answers:
    pipe, index = entry.pipe, entry.pipe.model.config.label2id[event.label]
    rate, frame_samples = pipe.feature_extractor.sampling_rate, recording.frame_samples
    temperature = np.ones(len(recording.frame_exits), np.float32)
    if pipe.calibration is not None:
        temperature = pipe.calibration.temperatures(recording.frame_exits).astype(np.float32)
    lines = {}
    for start, logits in recording.views.items():
        own = logits[..., index]
        lines[start / rate] = sigmoid(own / temperature[: own.shape[-1]])
    # {start: (samples, frames)}
    until = min(event.offset, event.onset + SHOWN_S)
    levels = {}
    for start, line in lines.items():
        times = start + np.arange(line.shape[-1]) * frame_samples / rate
        inside = (times >= event.onset) & (times <= event.offset)
        inside = inside if inside.any() else np.arange(len(times)) == np.abs(times - event.onset).argmin()
        levels[start] = line[:, inside].mean(axis=1)
    times = np.arange(lines[0.0].shape[-1]) * frame_samples / rate
    near = (times >= event.onset - MARGIN_S) & (times <= until + MARGIN_S)
    return Answers(times[near], lines[0.0][:, near], levels)


__all__ = [
    "GOALS",
    "MAX_DURATION_S",
    "MAX_FILE_BYTES",
    "MAX_PASSES",
    "MAX_SHIFTS",
    "Analysis",
    "Answers",
    "RefusedError",
    "Settings",
    "analyse",
    "make_settings",
]
