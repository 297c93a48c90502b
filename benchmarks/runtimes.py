"""A detector on the runtime that a benchmark asks for; imports what that needs and no more."""

import argparse
from typing import Any

from modeling_easysed.bundled import resolve_checkpoint

RUNTIMES = ("onnx", "torch")


def add_runtime(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runtime", choices=RUNTIMES, default="onnx", help="onnx is what `easysed detect` takes")


def detector_on(runtime: str, model: str, threads: int = 1) -> Any:
    """An `OnnxDetector`, or a `SoundEventDetectionPipeline` on the CPU."""
    if runtime == "onnx":
        from modeling_easysed.runtime.detector import OnnxDetector

        return OnnxDetector(resolve_checkpoint(model), threads)
    import torch

    from modeling_easysed import SoundEventDetectionPipeline

    torch.set_num_threads(threads)
    return SoundEventDetectionPipeline.from_pretrained(model, device="cpu")
