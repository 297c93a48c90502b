"""Whether an exported file equals its model, and how long it takes, on signals that need no recording."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modeling_easysed.draws_easysed import seed_masks
from modeling_easysed.export.errors import ExportError, quiet_native_code
from modeling_easysed.export.graph import OUTPUTS, ExportGraph
from modeling_easysed.feature_extraction_easysed import EasySEDFeatureExtractor
from modeling_easysed.monte_carlo_easysed import evaluating

TOLERANCE = 1e-4  # of a frame's probability
SECONDS, PASSES, SEED, NUM_RUNS = 10, 20, 0, 5

Run = Callable[[np.ndarray, np.ndarray, np.ndarray], list[np.ndarray]]  # waveform, edges, masks -> OUTPUTS


def check_signals(sampling_rate: int) -> dict[str, np.ndarray]:
    """Silence, noise at full scale, and sounds with pauses: {name: (samples,)}, float32, 10 s at most."""
    random = np.random.default_rng(0)
    times = np.arange(SECONDS * sampling_rate) / sampling_rate
    chirps = np.sin(2 * np.pi * (200.0 + 150.0 * times) * times) * (np.sin(2 * np.pi * 0.7 * times) > 0)
    clicks = np.exp(-((times % 0.5) * 60.0)) * random.standard_normal(len(times))
    signals = {
        "silence": np.zeros(len(times)),
        "full-scale noise": random.uniform(-1.0, 1.0, len(times)),
        "sounds with pauses": 0.3 * chirps + 0.2 * clicks + 1e-3 * random.standard_normal(len(times)),
        "short noise": 0.1 * random.standard_normal(len(times) // 7 + 77),
    }
    return {name: values.astype(np.float32) for name, values in signals.items()}


def check_export(
    run: Run, graph: ExportGraph, extractor: EasySEDFeatureExtractor, name: str, max_samples: int | None = None
) -> dict[str, Any]:
    """Compares an exported file with `monte_carlo` of its model and with the features of its front end.

    Args:
        run: of the exported file.
        graph: whose student is the model.
        extractor: of the checkpoint.
        name: of the file, for errors.
        max_samples: that a call takes; None = any number.

    Returns:
        `max_deviation` over all frame probabilities, `max_deviation_plain` of those of ones for masks, and
        `ms_per_10_s` of a call with 20 passes, the fastest of 5, on this
        machine (in proportion where a call takes less than 10 s).

    Raises:
        ExportError: a deviation above the tolerance, or passes that do not differ.
    """
    probability = graph.student.config.dropout
    masks = seed_masks(PASSES, graph.num_sites, graph.width, probability, SEED)
    ones = np.ones((1, graph.num_sites, graph.width), np.float32)
    worst = {"max_deviation": 0.0, "max_deviation_plain": 0.0}
    for signal, samples in check_signals(extractor.sampling_rate).items():
        samples = samples[:max_samples]
        waveform, edges = whole_hops(samples, graph.front_end.hop, graph.front_end.half)
        values = extractor(samples, sampling_rate=extractor.sampling_rate).input_values
        model = graph.student
        expected = model.monte_carlo(values, passes=PASSES, seed=SEED).frame_logits
        with evaluating(model):
            plain = model(values).exit_frame_logits
        sampled = dict(zip(OUTPUTS, run(waveform, edges, masks), strict=True))
        ordinary = dict(zip(OUTPUTS, run(waveform, edges, ones), strict=True))
        deviations = {
            "max_deviation": deviation(sampled["frame_logits"], expected),
            "max_deviation_plain": max(
                deviation(ordinary["frame_logits"], plain[-1:]), deviation(sampled["exit_frame_logits"], plain)
            ),
        }
        for kind, value in deviations.items():
            if not value <= TOLERANCE:  # also for NaN
                raise ExportError(f"{name} is not equal to its model: {kind} {value:.2g} > {TOLERANCE:g} on {signal}")
            worst[kind] = max(worst[kind], value)
        if probability > 0 and signal != "silence" and np.ptp(sampled["frame_logits"], axis=0).max() < 1e-6:
            raise ExportError(f"{name} gives the same for all masks on {signal}: its passes do nothing")
    return {**worst, "ms_per_10_s": _milliseconds(run, graph, masks, max_samples)}


def deviation(logits: np.ndarray, expected: torch.Tensor) -> float:
    """Largest difference of probabilities; infinite where shapes differ."""
    if logits.shape != tuple(expected.shape):
        return float("inf")
    return float((torch.from_numpy(logits).sigmoid() - expected.sigmoid()).abs().max())


def whole_hops(samples: np.ndarray, hop: int, half: int) -> tuple[np.ndarray, np.ndarray]:
    """A recording (samples,) as `waveform` (1, whole hops) and `edges` (1, 2, half a window) with what remains."""
    stop = len(samples) // hop * hop
    edges = np.zeros((1, 2, half), np.float32)
    edges[0, 1, : len(samples) - stop] = samples[stop:]
    return samples[None, :stop], edges


def _milliseconds(run: Run, graph: ExportGraph, masks: np.ndarray, max_samples: int | None) -> float:
    clip_samples = SECONDS * graph.student.config.sampling_rate
    noise = np.random.default_rng(1).uniform(-0.1, 0.1, clip_samples).astype(np.float32)[:max_samples]
    waveform, edges = whole_hops(noise, graph.front_end.hop, graph.front_end.half)
    durations = []
    for _ in range(NUM_RUNS):
        begin = time.perf_counter()
        run(waveform, edges, masks)
        durations.append(time.perf_counter() - begin)
    return round(1000.0 * min(durations) * clip_samples / len(noise), 1)


def onnx_run(path: Path) -> Run:
    """The ONNX file on onnxruntime, one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    return lambda waveform, edges, masks: session.run(
        list(OUTPUTS), {"waveform": waveform, "edges": edges, "masks": masks}
    )


def executorch_run(path: Path) -> Run:
    """The ExecuTorch program in its Python runtime, as many threads as it takes."""
    with quiet_native_code():  # which logs when it is imported and when its threads start
        from executorch.runtime import Runtime

        method = Runtime.get().load_program(path).load_method("forward")

    def run(*inputs: np.ndarray) -> list[np.ndarray]:
        with quiet_native_code():
            outputs = method.execute([torch.from_numpy(np.array(value)) for value in inputs])
        return [output.clone().numpy() for output in outputs]

    return run


__all__ = ["TOLERANCE", "check_export", "check_signals", "deviation", "executorch_run", "onnx_run", "whole_hops"]
