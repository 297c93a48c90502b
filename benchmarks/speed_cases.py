"""What `run.py` measures on 10 s of noise: yardsticks, front ends, networks on every runtime, detections, decoding.

A case is something to call again and again. Cases of one group take turns, so that a busy machine slows all alike."""

import copy
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from network_speed import Cnn14Shape
from throughput import watched
from trust_cost import recording

from modeling_easysed import BUNDLED_CHECKPOINTS, SoundEventDetectionPipeline
from modeling_easysed.costs import exit_costs
from modeling_easysed.decoding_easysed import candidate_boxes, frame_borders
from modeling_easysed.export.graph import ExportGraph
from modeling_easysed.recording_easysed import FrameLine, frame_line, sample_recording
from modeling_easysed.runtime.detector import OnnxDetector
from modeling_easysed.sampling_easysed import Sampling

SECONDS, RATE, MELS = 10, 16000, 64
MATRIX = 1536  # rows and columns of the product that gives the ceiling
AST_FRAMES, AST_MELS = 1024, 128
TRUSTED = {"uncertainty": "mc", "passes": 20, "shifts": 2}
PLAIN = {"uncertainty": "none", "shifts": 0}
CLASS_COUNTS = (10, 527)


@dataclass
class Case:
    """`run` once is one measurement; `macs`: multiply-accumulates of it, None = not counted."""

    name: str
    run: Callable[[], object]
    macs: int | None = None


def ceiling() -> list[Case]:
    """A matrix product: what the machine can do."""
    left, right = torch.randn(MATRIX, MATRIX), torch.randn(MATRIX, MATRIX)
    return [Case("matrix product", lambda: left @ right, MATRIX**3)]


def yardsticks() -> list[Case]:
    """CNN14's convolutions and the Audio Spectrogram Transformer; random weights."""
    from transformers import ASTConfig, ASTModel

    cnn14, ast = Cnn14Shape().eval(), ASTModel(ASTConfig()).eval()
    log_mel, patches = torch.randn(1, 100 * SECONDS + 1, MELS), torch.randn(1, AST_FRAMES, AST_MELS)
    return [
        Case("CNN14's shape", lambda: cnn14(log_mel), cnn14_macs(100 * SECONDS + 1)),
        Case("AST base", lambda: ast(patches)),
    ]


def cnn14_macs(num_frames: int) -> int:
    """Of its twelve 3 x 3 convolutions."""
    macs, frames, mels = 0, num_frames, MELS
    for index, pair in enumerate(Cnn14Shape().pairs):
        if index > 0:
            frames, mels = frames // 2, mels // 2
        macs += sum(layer.weight.numel() for layer in pair if isinstance(layer, torch.nn.Conv2d)) * frames * mels
    return macs


def front_ends(threads: int) -> list[Case]:
    """Samples to normalised log-mel frames."""
    samples = recording(SECONDS, RATE)["array"]
    pipe, detector = detectors("easysed-cnn", threads)
    return [
        Case("PyTorch", partial(pipe.feature_extractor.frames, samples)),
        Case("numpy", partial(detector.feature_extractor.frames, samples)),
    ]


def networks(name: str, threads: int, is_quick: bool) -> list[Case]:
    """Every exit as a student on every runtime: log-mel frames to frame logits, the plain pass."""
    pipe, detector = detectors(name, threads)
    values = np.random.default_rng(0).standard_normal((100 * SECONDS + 1, MELS)).astype(np.float32)
    tensor, cases = torch.from_numpy(values)[None], []
    for cost in exit_costs(pipe.model):
        number, macs = cost["exit"], cost["macs_per_10_s"]
        student = pipe.model.student(number).eval()
        title = f"exit {number}"
        cases.append(Case(f"{title}, PyTorch", partial(student, tensor, exit_index=number), macs))
        cases.append(Case(f"{title}, onnxruntime", partial(only_exit, detector.model, values, number), macs))
        if not is_quick and number == pipe.model.num_exits:
            compiled = torch.compile(copy.deepcopy(student))
            cases.append(Case(f"{title}, PyTorch compiled", partial(compiled, tensor, exit_index=number), macs))
    return cases


def only_exit(network: Any, values: np.ndarray, exit_index: int) -> np.ndarray:
    """The plain frame logits of one exit, nothing else computed."""
    for number, stage in enumerate(network.stages(values), start=1):
        if number == exit_index:
            return network.plain(number, stage)[1]
    raise ValueError(f"exit must be from 1 to {network.num_exits}, got {exit_index}")


def exported(name: str, threads: int) -> list[Case]:
    """The phone's graph, samples in: float32 and int8 weights on onnxruntime, and ExecuTorch where it is installed."""
    import importlib.util

    from modeling_easysed.export.to_onnx import write_onnx

    pipe = SoundEventDetectionPipeline.from_pretrained(name, device="cpu")
    cases = []
    for number in (1, pipe.model.num_exits):
        graph = ExportGraph(pipe.model.student(number), pipe.feature_extractor)
        with tempfile.TemporaryDirectory() as folder:
            path, small = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
            write_onnx(graph, path)
            quantize(path, small)
            for precision, file in (("float32", path), ("int8 weights", small)):
                cases.append(Case(f"exit {number}, graph, {precision}", onnx_call(file, graph, threads)))
            if importlib.util.find_spec("executorch") is not None:
                cases.append(Case(f"exit {number}, graph, ExecuTorch", executorch_call(Path(folder), graph)))
    return cases


def quantize(path: Path, to: Path) -> None:
    """Dynamic int8: weights stored in 8 bits, activations quantised as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(path, to, weight_type=QuantType.QUInt8)


def graph_inputs(graph: ExportGraph) -> dict[str, np.ndarray]:
    samples = recording(SECONDS, RATE)["array"][None]
    edges = np.zeros((1, 2, graph.front_end.half), np.float32)
    return {"waveform": samples, "edges": edges, "masks": np.ones((20, graph.num_sites, graph.width), np.float32)}


def onnx_call(path: Path, graph: ExportGraph, threads: int) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path.read_bytes(), options, ["CPUExecutionProvider"])
    return partial(session.run, None, graph_inputs(graph))


def executorch_call(folder: Path, graph: ExportGraph) -> Callable[[], object]:
    from executorch.runtime import Runtime

    from modeling_easysed.export.to_executorch import write_executorch

    write_executorch(graph, folder / "easysed.pte")
    content = (folder / "easysed.pte").read_bytes()
    program = Runtime.get().load_program(content)
    method = program.load_method("forward")
    inputs = [torch.from_numpy(one) for one in graph_inputs(graph).values()]

    def call(alive: tuple = (content, program)) -> object:  # the method reads what both hold, and keeps neither
        return method.execute(inputs)

    return call


def detections(name: str, threads: int) -> list[Case]:
    """Samples to judged events, the smallest student and the teacher, plain and with 20 passes x 5 shifts.

    Of the latter also the part before decoding, see `infer`.
    """
    source, cases = recording(SECONDS, RATE), []
    for runtime, detector in zip(("PyTorch", "onnxruntime"), detectors(name, threads), strict=True):
        for number in (1, detector.model.num_exits):
            for title, settings in (("plain", PLAIN), ("trusted", TRUSTED)):
                run = partial(detector, source, exit=number, **settings)
                cases.append(Case(f"exit {number}, {title}, {runtime}", run))
            run = partial(infer, detector, source["array"], number)
            cases.append(Case(f"exit {number}, trusted inference, {runtime}", run))
    return cases


def infer(detector: Any, samples: np.ndarray, exit_index: int) -> FrameLine:
    """Samples to mean probabilities, entropies and spread with 20 passes x 5 shifts: a trusted detection before events.

    Without checks of the audio, decoding, evidence, judging, and what pictures are drawn from.
    """
    network, extractor = detector.model, detector.feature_extractor
    sampling = Sampling(TRUSTED["uncertainty"], TRUSTED["passes"])
    recording = sample_recording(network, extractor, samples, sampling, TRUSTED["shifts"], exit_index)
    return frame_line(recording, detector.calibration.temperatures(recording.frame_exits))


PARTS = {  # functions that detector_easysed calls; the rest is judging, envelopes and the like
    "features": ("recording_features",),
    "network and passes": ("sample_recording",),
    "means, entropies and spread": ("frame_line", "mean_probabilities"),
    "decoding and evidence": ("find_candidates",),
    "checks of the audio": ("read_audio", "all_warnings"),
}


def parts(name: str, exit_index: int, repeats: int) -> dict[str, float]:
    """Mean milliseconds of the parts of a trusted detection on onnxruntime, one thread."""
    _, detector = detectors(name, 1)
    source = recording(SECONDS, RATE)
    run = partial(detector, source, exit=exit_index, **TRUSTED)
    for _ in range(3):
        run()  # warms caches up
    with watched(PARTS) as spent:
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        total = time.perf_counter() - start
    found = {part: round(1000 * spent[part] / repeats, 2) for part in PARTS}
    return {**found, "the rest": round(1000 * total / repeats - sum(found.values()), 2)}


def decodings() -> list[Case]:
    """Probabilities of 10 s at 100 per second to candidate boxes."""
    cases = []
    for num_classes in CLASS_COUNTS:
        generator = np.random.default_rng(0)
        knots = generator.standard_normal((1 + SECONDS, num_classes)) * 3 - 2
        times = np.linspace(0, SECONDS, 100 * SECONDS + 1)
        logits = np.stack([np.interp(times, np.arange(1 + SECONDS), column) for column in knots.T], axis=1)
        probabilities = 1 / (1 + np.exp(-logits))
        borders = frame_borders(len(times), 0.01, SECONDS)
        cases.append(Case(f"{num_classes} classes", partial(candidate_boxes, probabilities, borders)))
    return cases


def detectors(name: str, threads: int) -> tuple[SoundEventDetectionPipeline, OnnxDetector]:
    """On PyTorch and on onnxruntime; PyTorch's threads are those of the process."""
    return SoundEventDetectionPipeline.from_pretrained(name, device="cpu"), OnnxDetector(
        BUNDLED_CHECKPOINTS[name], threads
    )
