"""What a user has of a new sound: a handful of clips of it, and recordings in which it does not occur.

Reads both, names and skips what is broken, refuses politely what cannot work, and splits everything by recording: a
fold holds clips, background and old sounds that no other fold has."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from data import Clip, Scene, decode_row, read_training_data
from labelled_folders import METADATA_NAMES, Selection, read_folder
from labelled_recordings import Row, as_dataset, recording_row
from recording_splits import folds_by_recording, group_of
from soundscapes import FADE_S, Recipe, event_sounds, find_events, trim_silence
from tqdm import tqdm

from modeling_easysed.audio_easysed import AudioError, read_audio
from modeling_easysed.cli.inputs import walk

MIN_RECORDINGS = 5
MIN_BACKGROUND_S = 60.0
MAX_FOLDS = 5
MAX_CLIP_S = 60.0  # of a clip without events: in longer ones the loudest stretch is often something else
SCENE_S = 10.0
MIN_EVENT_S = 0.08
MAX_NAMED = 10  # skipped files that the terminal names; report.json names all


@dataclass
class Positive:
    """One clip that holds the new sound.

    Attributes:
        samples: (samples,).
        events: (onset, offset), seconds.
        source: file name.
        group: the recording that it comes from.
    """

    samples: np.ndarray
    events: list[tuple[float, float]]
    source: str
    group: str


@dataclass
class RareEventData:
    """Everything that is learned from, and how it is split.

    Attributes:
        label: of the new sound.
        positives: its clips; positive_folds: (clips,).
        background: stretches (samples,) of `SCENE_S`, float16; background_folds: (stretches,).
        rehearsal: labelled clips of old classes; rehearsal_folds: (clips,).
        num_folds: in all three.
        skipped: (file, reason).
        notes: what was decided on the way, one sentence each.
        background_files: how many.
    """

    label: str
    positives: list[Positive]
    positive_folds: np.ndarray
    background: list[np.ndarray]
    background_folds: np.ndarray
    rehearsal: list[Clip]
    rehearsal_folds: np.ndarray
    num_folds: int
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    background_files: int = 0

    @property
    def groups(self) -> list[str]:
        """The recordings of the new sound, sorted."""
        return sorted({one.group for one in self.positives})

    @property
    def background_hours(self) -> float:
        return len(self.background) * SCENE_S / 3600


def check_label(label: str, known: Sequence[str]) -> None:
    """
    Raises:
        ValueError: for an empty name, one with line breaks, or one that the base knows.
    """
    if label.strip() == "" or label != label.strip() or not label.isprintable():
        raise ValueError(f"--label must be a name without line breaks or spaces around it, got {label!r}")
    if label in known:
        raise ValueError(
            f"--label {label} is a class of the base already: detect it with the base, or give the new sound a name of "
            f"its own, for example {label}_2"
        )


def read_rare_event_data(
    label: str,
    positives: Path,
    background: Path,
    sampling_rate: int,
    *,
    gap_s: float,
    max_background_hours: float,
    seed: int,
    rehearsal: Path | None = None,
    rehearsal_folds: list[str] | None = None,
) -> RareEventData:
    """Reads and splits everything.

    Args:
        label: of the new sound.
        positives: folder of clips, each with the sound; or with metadata.csv, metadata.jsonl or tables of events, of
            which what has this label is taken.
        background: folder of recordings in which it does not occur.
        sampling_rate: Hz of the samples.
        gap_s: pauses up to this length belong to one event.
        max_background_hours: what is more is left out, evenly.
        seed: of the folds.
        rehearsal: folder of labelled clips of old classes, or None; rehearsal_folds: which folds of its metadata.

    Raises:
        ValueError: for fewer than five recordings, less than a minute of background, or the sound among the background.
        FileNotFoundError: when a folder is missing.
    """
    skipped: list[tuple[str, str]] = []
    clips = read_positives(positives, label, sampling_rate, gap_s, skipped)
    num_recordings = len({clip.group for clip in clips})
    if num_recordings < MIN_RECORDINGS:
        raise ValueError(
            f"--positives must hold at least {MIN_RECORDINGS} recordings of {label} that can be used, got "
            f"{num_recordings} ({len(clips)} clips, {len(skipped)} skipped): record more; clips cut from one recording "
            "count once"
        )
    check_apart(positives, background, {clip.source for clip in clips})
    num_folds = min(MAX_FOLDS, num_recordings)
    folds = fold_numbers([clip.group for clip in clips], num_folds, seed)
    stretches, stretch_folds, num_files = read_background(
        background, sampling_rate, max_background_hours, num_folds, seed, skipped
    )
    old, old_folds = read_rehearsal(rehearsal, rehearsal_folds, label, sampling_rate, num_folds, seed, skipped)
    for file, reason in skipped[:MAX_NAMED]:
        print(f"skipped: {file}: {reason}", file=sys.stderr)
    if len(skipped) > MAX_NAMED:
        print(f"skipped: {len(skipped)} in all", file=sys.stderr)
    return RareEventData(
        label, clips, folds, stretches, stretch_folds, old, old_folds, num_folds, skipped, background_files=num_files
    )


# ---- the new sound ---------------------------------------------------------------------------------------------------


def read_positives(
    folder: Path, label: str, sampling_rate: int, gap_s: float, skipped: list[tuple[str, str]]
) -> list[Positive]:
    """Clips of the new sound with the stretches in which it sounds; what cannot be used is added to `skipped`."""
    positives, rows = [], positive_rows(folder, label)
    for row in tqdm(as_dataset(rows) if rows else [], "reading clips", leave=False, disable=not sys.stderr.isatty()):
        recording, problems = decode_row(row, sampling_rate)
        skipped += [(row["file_name"], problem) for problem in problems]
        if recording is None:
            continue
        found = events_of(recording, label, sampling_rate, gap_s)
        if isinstance(found, str):
            skipped.append((row["file_name"], found))
        else:
            positives.append(Positive(recording.samples, found, row["file_name"], row["group"]))
    return positives


def positive_rows(folder: Path, label: str) -> list[Row]:
    """The rows of the new sound: every audio file of a plain folder; of one with metadata, those with the label."""
    if not folder.is_dir():
        raise FileNotFoundError(f"--positives {folder} is no folder: put the clips of {label} into one")
    if any((folder / name).is_file() for name in METADATA_NAMES) or any(folder.glob("*.tsv")):
        rows = read_folder(folder, Selection(split="all")).rows
        return [row for row in rows if row["label"] == label or any(e["label"] == label for e in row["events"] or [])]
    return [recording_row(one.relative.as_posix(), str(one.path), {"label": label}, "folder") for one in walk(folder)]


def events_of(recording: Clip | Scene, label: str, sampling_rate: int, gap_s: float) -> list[tuple[float, float]] | str:
    """Where the sound is in a recording, or why it cannot be used."""
    if isinstance(recording, Scene):
        events = [(onset, offset) for onset, offset, name in recording.events if name == label]
        return events if events else f"no event is labelled {label}"
    duration_s = len(recording.samples) / sampling_rate
    if duration_s > MAX_CLIP_S:
        return f"is {duration_s:.0f} s long: cut the sound out, or say where it is in metadata.jsonl (events)"
    threshold_db = Recipe().threshold_db
    found = find_events(recording.samples, sampling_rate, threshold_db, gap_s, MIN_EVENT_S)
    if found:
        return found
    loud = trim_silence(recording.samples)
    if len(loud) < MIN_EVENT_S * sampling_rate or not np.any(loud):
        return f"is silent, or shorter than {MIN_EVENT_S} s"
    return [(0.0, duration_s)]


def fold_numbers(groups: Sequence[str], num_folds: int, seed: int) -> np.ndarray:
    """The fold (items,) of each item, whole groups in one fold."""
    numbers = np.zeros(len(groups), dtype=np.int64)
    for fold, items in enumerate(folds_by_recording(groups, num_folds, seed)):
        numbers[items] = fold
    return numbers


def check_apart(positives: Path, background: Path, sources: set[str]) -> None:
    """
    Raises:
        ValueError: when a clip of the new sound lies in the background as well.
    """
    paths = [positives / name for name in sorted(sources) if (positives / name).is_file()]
    sizes = {path.stat().st_size for path in paths}
    contents = {path.read_bytes(): path.name for path in paths}
    for one in walk(background) if background.is_dir() else []:
        twin = contents.get(one.path.read_bytes()) if one.path.stat().st_size in sizes else None
        if twin is not None:
            raise ValueError(
                f"--background must not hold the new sound, but {one.relative} is {twin} of --positives: keep them in "
                "separate folders"
            )


# ---- the background --------------------------------------------------------------------------------------------------


def read_background(
    folder: Path, sampling_rate: int, max_hours: float, num_folds: int, seed: int, skipped: list[tuple[str, str]]
) -> tuple[list[np.ndarray], np.ndarray, int]:
    """Stretches of one scene's length, their folds, and the number of files.

    Raises:
        ValueError: for less than a minute.
        FileNotFoundError: for no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"--background {folder} is no folder: put recordings without the new sound into one")
    pieces, groups = [], []
    files = list(walk(folder))
    for name, piece in background_pieces(files, sampling_rate, max_hours, skipped):
        pieces.append(piece)
        groups.append(group_of(name, {}))
    seconds = sum(len(piece) for piece in pieces) / sampling_rate
    if seconds < MIN_BACKGROUND_S:
        raise ValueError(
            f"--background must hold at least {MIN_BACKGROUND_S:.0f} s of recordings without the new sound, got "
            f"{seconds:.0f} s in {len(files)} files: record more, an hour or longer where false alarms matter"
        )
    folds = background_folds(groups, num_folds, seed)
    stretches, stretch_folds = [], []
    for fold in range(num_folds):
        own = whole_scenes([pieces[index] for index in np.flatnonzero(folds == fold)], sampling_rate)
        stretches += own
        stretch_folds += [fold] * len(own)
    return stretches, np.array(stretch_folds, dtype=np.int64), len(set(groups))


def background_pieces(
    files: Sequence, sampling_rate: int, max_hours: float, skipped: list[tuple[str, str]]
) -> Iterator[tuple[str, np.ndarray]]:
    """(file, up to `SCENE_S` of it, float16), in order; evenly thinned where the files are longer than `max_hours`."""
    share = min(1.0, max_hours * 3600 / max(total_seconds(files), 1e-9))
    length, taken, seen = round(SCENE_S * sampling_rate), 0, 0
    for one in tqdm(files, "reading background", leave=False, disable=not sys.stderr.isatty()):
        name = one.relative.as_posix()
        try:
            samples = read_audio(str(one.path), sampling_rate).samples
        except AudioError as error:
            skipped.append((name, str(error).removeprefix(f"{one.path} ")))
            continue
        for start in range(0, len(samples), length):
            seen += 1
            if taken < share * seen:
                taken += 1
                yield name, samples[start : start + length].astype(np.float16)


def total_seconds(files: Sequence) -> float:
    """Of all that can be opened, from their headers."""
    total = 0.0
    for one in files:
        try:
            total += soundfile.info(str(one.path)).duration
        except (soundfile.SoundFileError, OSError):
            continue  # named when it is read
    return total


def background_folds(groups: Sequence[str], num_folds: int, seed: int) -> np.ndarray:
    """The fold (pieces,) of each piece: whole recordings, or stretches of time where these are too few or too long."""
    sizes = [groups.count(name) for name in set(groups)]
    if len(sizes) >= num_folds and max(sizes) <= 2 * len(groups) / num_folds:
        return fold_numbers(groups, num_folds, seed)
    return np.arange(len(groups)) * num_folds // len(groups)


def whole_scenes(pieces: Sequence[np.ndarray], sampling_rate: int) -> list[np.ndarray]:
    """Pieces of one scene's length; shorter ones are joined, with a fade of 10 ms at every seam; the rest is left out.

    At least one scene, the pieces repeated where they are too short for it.
    """
    length, fade = round(SCENE_S * sampling_rate), round(FADE_S * sampling_rate)
    whole = [piece for piece in pieces if len(piece) == length]
    short = [piece.copy() for piece in pieces if fade * 2 < len(piece) < length]
    ramp = ((np.arange(fade) + 1) / fade).astype(np.float16)
    for piece in short:
        piece[:fade] *= ramp
        piece[-fade:] *= ramp[::-1]
    joined = np.concatenate(short) if short else np.zeros(0, np.float16)
    whole += [joined[start : start + length] for start in range(0, len(joined) - length + 1, length)]
    if not whole and len(joined) > 0:
        whole = [np.resize(joined, length)]
    return whole


# ---- sounds of the old classes ---------------------------------------------------------------------------------------


def read_rehearsal(
    folder: Path | None,
    chosen: list[str] | None,
    label: str,
    sampling_rate: int,
    num_folds: int,
    seed: int,
    skipped: list[tuple[str, str]],
) -> tuple[list[Clip], np.ndarray]:
    """Clips of other labels with their folds; clips of the new label are left out and named."""
    if folder is None:
        return [], np.zeros(0, dtype=np.int64)
    data = read_training_data(str(folder), sampling_rate, split="all" if chosen is None else None, folds=chosen)
    skipped += data.skipped
    clips = []
    for clip in data.clips:
        if clip.label == label:
            skipped.append((clip.source, f"has the new label {label}: it belongs to --positives"))
        elif clip.label is not None and event_sounds(clip, sampling_rate, Recipe()):
            clips.append(clip)
    groups = [data.groups.get(clip.source, clip.source) for clip in clips]
    if len(set(groups)) < num_folds:
        raise ValueError(f"--rehearsal must hold at least {num_folds} labelled recordings, got {len(set(groups))}")
    return clips, fold_numbers(groups, num_folds, seed)


__all__ = [
    "MIN_BACKGROUND_S",
    "MIN_RECORDINGS",
    "SCENE_S",
    "Positive",
    "RareEventData",
    "check_label",
    "read_rare_event_data",
]
