"""Which files `easysed detect` works on and where their outputs go: paths and folders to a list, before any model."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# What a walk through a folder takes. Containers that cannot be decoded are taken too: they are recordings, and their
# error says how to convert them. A path given by name is always tried, whatever its suffix.
AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".caf", ".au", ".w64", ".rf64"}
CONTAINER_SUFFIXES = {".m4a", ".3gp", ".aac", ".amr", ".wma", ".mka"}


@dataclass(frozen=True)
class Input:
    """One recording: where it lies, and where it lies below the folder that was given."""

    path: Path
    relative: Path


def collect(paths: Sequence[str]) -> tuple[list[Input], list[str]]:
    """Files to work on, each once, and one line for every path that gave none."""
    inputs: dict[Path, Input] = {}
    failures = []
    for name in paths:
        path = Path(name).expanduser()
        if path.is_dir():
            found = list(walk(path))
            if not found:
                failures.append(f"{name}: no audio files in this folder ({', '.join(sorted(AUDIO_SUFFIXES))})")
        elif path.exists():
            found = [Input(path, Path(path.name))]
        else:
            found = []
            failures.append(f"{name}: does not exist, check the path")
        for one in found:
            inputs.setdefault(one.path.resolve(), one)
    return list(inputs.values()), failures


def walk(folder: Path) -> Iterator[Input]:
    """Audio files below a folder, sorted, without hidden files and folders; links to folders are not followed."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES | CONTAINER_SUFFIXES:
                path = Path(root) / name
                yield Input(path, path.relative_to(folder))


def output_names(inputs: Sequence[Input], suffix: str) -> dict[Path, Path]:
    """One output name per input path, below an output folder.

    `rain.wav` becomes `rain.json`; where two inputs would meet, `rain.wav.json` and `rain.flac.json`; where these meet
    as well, a number is added.
    """
    plain = Counter(str(one.relative.with_suffix(suffix)) for one in inputs)
    names: dict[Path, Path] = {}
    taken: set[Path] = set()
    for one in inputs:
        name = one.relative.with_suffix(suffix)
        if plain[str(name)] > 1:
            name = one.relative.with_name(one.relative.name + suffix)
        number = 2
        while name in taken:
            name = one.relative.with_name(f"{one.relative.name}-{number}{suffix}")
            number += 1
        taken.add(name)
        names[one.path] = name
    return names
