"""The graph as an ONNX file, for onnxruntime on servers, phones and in browsers: any batch, length and passes."""

from pathlib import Path

import onnx
import torch

from modeling_easysed.export.errors import quiet_exporters
from modeling_easysed.export.graph import INPUTS, OUTPUTS, ExportGraph, trace

FILE_NAME = "easysed.onnx"
EXAMPLE_BATCH, EXAMPLE_HOPS, MIN_HOPS = 2, 100, 8
SHAPES = {
    "waveform": ("batch", "samples"),
    "edges": ("batch", 2, None),
    "masks": ("passes", None, None),
    "frame_logits": ("passes", "batch", "output_frames", None),
    "logits": ("passes", "batch", None),
    "exit_frame_logits": (None, "batch", "output_frames", None),
    "embeddings": ("batch", "output_frames", None),
    "log_mel": ("batch", "frames", None),
}  # None = as the graph has it


def write_onnx(graph: ExportGraph, path: Path) -> None:
    """Writes one file, weights inside."""
    batch, passes = torch.export.Dim("batch"), torch.export.Dim("passes")
    samples = torch.export.Dim("samples", min=MIN_HOPS * graph.front_end.hop)
    shapes = {"waveform": {0: batch, 1: samples}, "edges": {0: batch}, "masks": {0: passes}}
    with quiet_exporters():
        program = trace(graph, EXAMPLE_BATCH, EXAMPLE_HOPS * graph.front_end.hop, shapes, is_any_length=True)
        exported = torch.onnx.export(
            program, dynamo=True, input_names=list(INPUTS), output_names=list(OUTPUTS), verbose=False
        )
    model = exported.model_proto
    tidy(model)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def tidy(model: onnx.ModelProto) -> None:
    """Names the open sizes, and drops the exporter's notes on every node, a tenth of a small file."""
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
        for size, name in zip(value.type.tensor_type.shape.dim, SHAPES[value.name], strict=True):
            if isinstance(name, str):
                size.dim_param = name


__all__ = ["FILE_NAME", "tidy", "write_onnx"]
