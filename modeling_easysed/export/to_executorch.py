"""The graph as an ExecuTorch program with XNNPACK, for apps on Android and iOS: one clip, a window long at most."""

from pathlib import Path

import torch

from modeling_easysed.export.errors import ExportError, quiet_exporters
from modeling_easysed.export.graph import ExportGraph, trace

FILE_NAME = "easysed.pte"
MIN_HOPS, MAX_PASSES = 8, 32


def max_samples(graph: ExportGraph) -> int:
    """Samples that a program has memory for: a window of the model, in whole hops."""
    config = graph.student.config
    return round(config.window_s * config.sampling_rate / graph.front_end.hop) * graph.front_end.hop


def write_executorch(graph: ExportGraph, path: Path) -> None:
    """Writes one file. `waveform` has whole hops; what remains of a recording stands in `edges`.

    Raises:
        ExportError: a head that samples more than its classifier: passes x frames is a size too many for XNNPACK.
    """
    if graph.num_sites > 1:
        raise ExportError(
            f"monte_carlo_blocks must be 0 for ExecuTorch, got {graph.num_sites - 1}: export it with --to onnx"
        )
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    hop, most = graph.front_end.hop, max_samples(graph)
    hops = torch.export.Dim("hops", min=MIN_HOPS, max=most // hop)
    passes = torch.export.Dim("passes", max=MAX_PASSES)
    shapes = {"waveform": {1: hop * hops}, "edges": {}, "masks": {0: passes}}
    with quiet_exporters(), torch.backends.mkldnn.flags(enabled=False):  # its heuristics would bound the length
        program = trace(graph, 1, most, shapes, is_any_length=False)
        edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        path.write_bytes(edge.to_executorch().buffer)


__all__ = ["FILE_NAME", "MAX_PASSES", "max_samples", "write_executorch"]
