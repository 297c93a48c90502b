"""What `run.py` measures of whole commands: seconds and peak memory, start and loading included."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from speed_cases import PLAIN, TRUSTED

from modeling_easysed.audio_easysed import read_audio

STEREO_RATE = 44100
STARTER = """
import resource, subprocess, sys, time
start = time.perf_counter()
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""
EASYSED = [sys.executable, "-m", "modeling_easysed.cli.main"]


def run_once(command: list[str], threads: int) -> tuple[float, float]:
    """Seconds, and peak resident memory in MB.

    A small process starts the command: a child's peak counts what its parent had when it was forked.

    Raises:
        RuntimeError: the command failed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run([sys.executable, "-S", "-c", STARTER, *command], env=environment, capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:].decode(errors='replace')}")
    seconds, kilobytes = done.stdout.split()[-2:]
    return float(seconds), int(kilobytes) / 1024


def best_of(command: list[str], threads: int, repeats: int) -> dict[str, float]:
    """The fastest of several runs: what else the machine does only ever adds."""
    seconds, memory = zip(*(run_once(command, threads) for _ in range(repeats)), strict=True)
    return {"seconds": round(min(seconds), 3), "peak_mb": round(max(memory), 1)}


def starts(clip: Path, repeats: int) -> dict[str, dict[str, float]]:
    """The commands that a person waits for."""
    detect = [*EASYSED, "detect", str(clip)]
    commands = {
        "import torch and transformers": [sys.executable, "-c", "import torch, transformers"],
        "from transformers import PreTrainedModel": [
            sys.executable,
            "-c",
            "import torch; from transformers import PreTrainedModel",
        ],
        "easysed --help": [*EASYSED, "--help"],
        "easysed models": [*EASYSED, "models"],
        "easysed doctor clip.wav": [*EASYSED, "doctor", str(clip)],
        "easysed detect clip.wav, onnxruntime": [*detect, "--runtime", "onnx"],
        "easysed detect clip.wav, PyTorch": [*detect, "--runtime", "torch", "--device", "cpu"],
    }
    return {name: best_of(command, 1, repeats) for name, command in commands.items()}


def long_file(model: str, sounds: list[Path], minutes: float, threads: int) -> dict[str, dict[str, float]]:
    """One recording of 44.1 kHz stereo FLAC through `easysed detect`, file to events."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "long.flac")
        write_stereo(path, sounds, minutes)
        for title, settings in (("plain", PLAIN), ("trusted", TRUSTED)):
            options = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
            for runtime in ("onnx", "torch"):
                command = [*EASYSED, "detect", str(path), "--model", model, "--device", "cpu", "--runtime", runtime]
                one = best_of([*command, *options, "--format", "csv"], threads, 1)
                found[f"{title}, {runtime}"] = {**one, "times_real_time": round(60 * minutes / one["seconds"], 1)}
    return found


def write_stereo(path: Path, sounds: list[Path], minutes: float) -> None:
    """The sounds one after the other, again and again."""
    mono = np.concatenate([read_audio(one, STEREO_RATE).samples for one in sounds])
    needed = round(60 * minutes * STEREO_RATE)
    mono = np.resize(mono, needed)
    soundfile.write(path, np.stack([mono, 0.8 * mono], axis=1), STEREO_RATE)


def describe_machine() -> dict[str, Any]:
    """Processor, processors that may be used, versions."""
    import importlib.metadata
    import platform

    names = ("torch", "transformers", "onnxruntime", "numpy", "soxr", "executorch")
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": processor(),
        "processors": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    } | {"versions": versions}


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"
