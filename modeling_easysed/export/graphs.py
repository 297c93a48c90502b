"""The graphs that `modeling_easysed.runtime` runs, written into a checkpoint; weights stay where they are.

    python -m modeling_easysed.export.graphs CHECKPOINT

Every stage and every exit head is a graph of its own, so that a window can stop at the first exit that is sure enough.
A weight is named by its place in model.safetensors, where onnxruntime maps it from; what lies nowhere there stays in
the graph. Every graph is compared with PyTorch before anything is written."""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from modeling_easysed.backbones_easysed import ConvolutionalBackbone
from modeling_easysed.bundled import read_weights_header, resolve_checkpoint
from modeling_easysed.export.errors import ExportError, quiet_exporters
from modeling_easysed.export.graph import BACKBONES
from modeling_easysed.export.time_last import FramesFirst, MelsFirst, time_last
from modeling_easysed.modeling_easysed import EasySEDForSoundEventDetection
from modeling_easysed.monte_carlo_easysed import evaluating
from modeling_easysed.runtime.choice import FORMAT, GRAPHS, INDEX, WEIGHTS, header_hash
from modeling_easysed.runtime.log_mel import ArrayLogMel
from modeling_easysed.runtime.network import OnnxNetwork

EXAMPLE_FRAMES = 100  # output frames of the recording that is traced
MIN_EXTERNAL_BYTES = 64
TOLERANCE = 1e-4  # of prepared hidden states


class Chain(nn.Module):
    """Modules of a trunk one after the other, without a mask."""

    def __init__(self, *parts: nn.Module, head: nn.Module | None = None) -> None:
        super().__init__()
        self.parts, self.head = nn.ModuleList(parts), head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.parts:
            x = part(x) if isinstance(part, (nn.Linear, nn.LayerNorm, Chain)) else part(x, None)
        if self.head is None:
            return x
        prepared = self.head.prepare(x, None)
        # (batch, width, output frames), with one mel band in between where time is last
        return prepared.squeeze(2) if prepared.ndim == 4 else prepared


def chains_of(model: EasySEDForSoundEventDetection) -> tuple[list[Chain], list[Chain]]:
    """What leads from state to state, and from every state to what the passes of its exit share."""
    trunk, exits = model.easysed.backbone, model.exits
    if isinstance(trunk, ConvolutionalBackbone):
        stages = [time_last(stage) for stage in trunk.stages]
        steps = [Chain(MelsFirst(), time_last(trunk.stem), stages[0]), *(Chain(stage) for stage in stages[1:])]
        if trunk.temporal_stage is not None:
            last = time_last(trunk.temporal_stage)
            steps.append(Chain(last.projection, *last.blocks))
        return steps, [Chain(head=time_last(head)) for head in exits]
    borders = [0, *trunk.exit_layers]
    blocks = [trunk.blocks[begin:end] for begin, end in zip(borders, borders[1:], strict=False)]
    stem = Chain(MelsFirst(), time_last(trunk.stem), *map(time_last, trunk.stem_stages), FramesFirst())
    first = Chain(stem, trunk.patch_projection, *blocks[0])
    heads = [Chain(norm, head=head) for norm, head in zip(trunk.exit_norms, exits, strict=True)]
    return [first, *(Chain(*own) for own in blocks[1:])], heads


def write_graphs(folder: str | Path) -> Path:
    """Writes `graphs` into a checkpoint, in place of earlier ones; returns that folder.

    Raises:
        ExportError: a model that has no such graphs, or a graph that does not equal it.
    """
    folder = Path(folder)
    model = EasySEDForSoundEventDetection.from_pretrained(folder, dtype=torch.float32)
    if model.config.backbone not in BACKBONES or model.config.monte_carlo_blocks > 0:
        raise ExportError(
            f"backbone must be one of {BACKBONES} with monte_carlo_blocks=0 to have graphs, got "
            f"{model.config.backbone!r} with {model.config.monte_carlo_blocks}"
        )
    try:
        ArrayLogMel(json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8")))
    except ValueError as error:
        raise ExportError(f"the features of {folder} have no counterpart without PyTorch: {error}") from error
    places = places_of(folder / WEIGHTS)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        fresh = Path(name) / GRAPHS
        fresh.mkdir()
        for graph_name, content in traced(model).items():
            (fresh / f"{graph_name}.onnx").write_bytes(with_weights_elsewhere(content, places))
        index = {"format": FORMAT, "num_exits": model.num_exits, "header": header_hash(folder / WEIGHTS)}
        (fresh / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(folder / GRAPHS, ignore_errors=True)
        fresh.rename(folder / GRAPHS)
    try:
        check_graphs(folder, model)
    except ExportError:
        shutil.rmtree(folder / GRAPHS)
        raise
    return folder / GRAPHS


def traced(model: EasySEDForSoundEventDetection) -> dict[str, onnx.ModelProto]:
    """{"step1": graph, "head1": ...}, any batch and any number of frames."""
    steps, heads = chains_of(model)
    config = model.config
    state = torch.zeros(2, EXAMPLE_FRAMES * config.frame_stride, config.num_mel_bins)
    graphs = {}
    with evaluating(model), torch.no_grad(), quiet_exporters():
        for number, (step, head) in enumerate(zip(steps, heads, strict=True), start=1):
            graphs[f"step{number}"] = trace(step, state, 1 if number > 1 else config.frame_stride)
            state = step(state)
            graphs[f"head{number}"] = trace(head, state, 1)
    return graphs


def trace(module: nn.Module, example: torch.Tensor, stride: int) -> onnx.ModelProto:
    """One graph from "x" to "y"; the weights stay as they are, onnxruntime folds them when it loads.

    `stride`: frames of "x" for one output frame. A single output frame would be traced as a case of its own.
    """
    time_axis = 1 if example.ndim == 3 else 3
    shapes = {"x": {0: torch.export.Dim("batch"), time_axis: torch.export.Dim("frames", min=stride + 1)}}
    program = torch.export.export(module.eval(), (example,), dynamic_shapes=shapes)
    exported = torch.onnx.export(
        program, dynamo=True, optimize=False, input_names=["x"], output_names=["y"], verbose=False
    )
    return exported.model_proto


def places_of(weights: Path) -> dict[bytes, tuple[int, int]]:
    """{content of a tensor: (offset, length) in the file}."""
    content = weights.read_bytes()
    first = 8 + int.from_bytes(content[:8], "little")
    spans = (tensor["data_offsets"] for tensor in read_weights_header(weights).values())
    return {content[first + begin : first + end]: (first + begin, end - begin) for begin, end in spans}


def with_weights_elsewhere(model: onnx.ModelProto, places: dict[bytes, tuple[int, int]]) -> bytes:
    """The graph as a file, its weights named by their place in model.safetensors."""
    for tensor in model.graph.initializer:
        content = onnx.numpy_helper.to_array(tensor).tobytes()
        if len(content) < MIN_EXTERNAL_BYTES or content not in places:
            continue
        for field in ("raw_data", "float_data"):
            tensor.ClearField(field)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        offset, length = places[content]
        for key, value in (("location", WEIGHTS), ("offset", str(offset)), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)
    drop_empty_biases(model)
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    return model.SerializeToString()


def drop_empty_biases(model: onnx.ModelProto) -> None:
    """Takes away what the exporter computes as the bias of a convolution that has none: zeros, in four nodes.

    They hide from onnxruntime that batch norm follows the convolution, which then takes twice the time.
    """
    given = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Conv" and len(node.input) == 3 and node.input[2] not in given:
            del node.input[2]
    needed = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))


def check_graphs(folder: Path, model: EasySEDForSoundEventDetection) -> float:
    """Largest deviation from PyTorch on noise of several lengths.

    Raises:
        ExportError: above `TOLERANCE`.
    """
    network, generator, worst = OnnxNetwork(folder), np.random.default_rng(0), 0.0
    with evaluating(model):
        for num_frames in (1, 4 * model.config.frame_stride, 137, 1001):
            values = generator.standard_normal((num_frames, model.config.num_mel_bins)).astype(np.float32)
            pairs = zip(network.stages(values), model.easysed.stages(torch.from_numpy(values)[None]), strict=True)
            for number, (own, hidden) in enumerate(pairs, start=1):
                expected = model.exits[number - 1].prepare(hidden, None)[0].numpy()
                worst = max(worst, float(np.abs(network.plain(number, own)[0] - expected).max()))
    if not worst <= TOLERANCE:
        raise ExportError(f"the graphs of {folder} differ from the model by {worst:.1e}, at most {TOLERANCE:.0e}")
    return worst


if __name__ == "__main__":
    try:
        print(write_graphs(resolve_checkpoint(sys.argv[1])))
    except (IndexError, ValueError) as error:
        sys.exit(f"usage: python -m modeling_easysed.export.graphs CHECKPOINT ({error})")

__all__ = ["chains_of", "check_graphs", "write_graphs"]
