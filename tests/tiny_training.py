"""Data, settings and subprocesses for tests of training: six short clips, networks of a few thousand weights."""

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile
import torch
import yaml
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]
TRAIN = ROOT / "training" / "train.py"
RATE = 16000
TINY = {
    "steps": 4,
    "batch_size": 2,
    "warmup_steps": 1,
    "validate_every": 2,
    "checkpoint_every": 2,
    "log_every": 1,
    "num_workers": 0,
    "num_threads": 1,
    "mixed_precision": "no",
    "weak_fraction": 0.3,
    "features": {"feature_size": 32},
    "recipe": {"duration_s": 2.0, "num_variants": 1, "texture_duration_s": [0.5, 1.0]},
    "model": {
        "num_mel_bins": 32,
        "stem_channels": 4,
        "stage_channels": [4, 6],
        "stage_depths": [1, 1],
        "temporal_channels": 8,
        "temporal_dilations": [1],
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "exit_layers": [1, 2],
        "exit_hidden_size": 8,
        "exit_dilations": [1],
    },
}


def write_clip(path: Path, frequency_hz: float, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    time_s = np.arange(RATE) / RATE
    tone = np.sin(2 * np.pi * frequency_hz * time_s) * (time_s > 0.3) * (time_s < 0.8)
    noise = np.random.default_rng(seed).standard_normal(RATE) * 1e-3
    soundfile.write(path, 0.5 * tone + noise, RATE)


def write_data(folder: Path) -> Path:
    """Six clips of two classes in ESC-10's layout, and a validation split of two soundscapes."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "label", "fold", "author", "license"])
        for number in range(6):
            label, frequency_hz = [("dog_bark", 500.0), ("rain", 3000.0)][number % 2]
            write_clip(folder / "audio" / f"{number}.wav", frequency_hz, number)
            writer.writerow([f"audio/{number}.wav", label, 1 + number // 4, f"author {number}", "CC0"])
    for name in ("a.wav", "b.wav"):
        write_clip(folder / "audio" / "validation" / name, 500.0, 9)
    (folder / "validation.tsv").write_text(
        "filename\tonset\toffset\tevent_label\tsource\tsnr_db\na.wav\t0.3\t0.8\tdog_bark\tx\t20\nb.wav\t\t\t\t\t\n"
    )
    return folder


def write_config(folder: Path, data: Path, backbone: str = "cnn", model: dict | None = None, **overrides) -> Path:
    """tiny.yaml in `folder`; its output_dir is folder/run."""
    values = {**TINY, "clips": str(data), "validation": str(data), "folds": [1], "output_dir": str(folder / "run")}
    values["model"] = {**TINY["model"], "backbone": backbone, **({} if model is None else model)}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**values, **overrides}))
    return path


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}


def run(command: list[str], **options) -> subprocess.CompletedProcess:
    """A command to its end; the test fails with what it wrote when it takes too long."""
    return subprocess.run(
        command, capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=300, check=False, **options
    )


def two_processes() -> list[str]:
    """`accelerate launch` on two CPU processes, for a script or a module; --cpu would start one, without a word."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    return [*launcher, "--main_process_port", port]


def launch_two(config: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Training on two processes."""
    return run([*two_processes(), str(TRAIN), "--config", str(config), *arguments])


def weights_of(run_folder: Path) -> dict[str, torch.Tensor]:
    """Of the model that a run saved."""
    return load_file(run_folder / "model" / "model.safetensors")
