"""The graph that a device runs: samples and dropout masks in, everything that events are made of out.

    waveform (batch, samples), edges (batch, 2, half a window)
      -> log-mel frames -> trunk -> plain pass of every exit        once
    masks (passes, sites, width)
      -> passes of the deepest exit                                 all at once

Masks are inputs because exporters freeze or remove random numbers. The front end is written with matrix products
instead of a Fourier transform: every runtime has them, and is fast at nothing else as much."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from modeling_easysed.exits_easysed import ExitHead
from modeling_easysed.export.errors import ExportError
from modeling_easysed.feature_extraction_easysed import POWER_FLOOR, EasySEDFeatureExtractor
from modeling_easysed.modeling_easysed import EasySEDForSoundEventDetection
from modeling_easysed.runtime.log_mel import folded_fourier

INPUTS = ("waveform", "edges", "masks")
OUTPUTS = ("frame_logits", "logits", "exit_frame_logits", "embeddings", "log_mel")
BACKBONES = ("cnn", "transformer")


class LogMel(nn.Module):
    """`EasySEDFeatureExtractor` in operators that every runtime has: slices, concatenation, products.

    A frame is folded around its centre before the transform. The Hann window is symmetric around it, so the cosines see
    only the even part and the sines only the odd one: half the work, and less rounding than with all samples.

    Args:
        extractor: that `check_exportable` lets pass.
    """

    def __init__(self, extractor: EasySEDFeatureExtractor) -> None:
        super().__init__()
        self.hop = extractor.hop_length_samples
        self.half = extractor.window_length_samples // 2
        self.num_hops = -(-2 * self.half // self.hop)  # that a window touches
        self.missing = self.num_hops * self.hop - 2 * self.half  # samples that make a window whole hops
        waves = folded_fourier(extractor.window_length_samples, extractor.fft_length_samples)
        for name, wave in zip(("cosines", "sines"), waves, strict=True):
            self.register_buffer(name, torch.from_numpy(wave))
        self.register_buffer("mel_filters", extractor.mel_filters.float())
        has_norm = extractor.mel_mean is not None and extractor.mel_std is not None
        size = extractor.feature_size
        self.register_buffer("mean", torch.tensor(extractor.mel_mean) if has_norm else torch.zeros(size))
        self.register_buffer("std", torch.tensor(extractor.mel_std) if has_norm else torch.ones(size))

    def forward(self, waveform: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        """(batch, samples) and (batch, 2, half a window) to normalised frames (batch, 1 + samples // hop, mels)."""
        num_frames = waveform.shape[1] // self.hop + 1
        num_hops = num_frames + self.num_hops - 1
        padded = F.pad(torch.cat([edges[:, 0], waveform, edges[:, 1]], dim=1), (0, self.missing))
        hops = padded[:, : num_hops * self.hop].unflatten(1, (-1, self.hop))
        # (batch, frames + hops of a window - 1, hop)
        frames = torch.cat([hops[:, first : first + num_frames] for first in range(self.num_hops)], dim=-1)
        left, right = frames[..., 1 : self.half + 1].flip(-1), frames[..., self.half : 2 * self.half]
        # (batch, frames, half a window), both from the centre outwards
        power = ((right + left) @ self.cosines).square() + ((right - left) @ self.sines).square()
        log_mel = 10.0 * torch.log10((power @ self.mel_filters).clamp_min(POWER_FLOOR))
        return (log_mel - self.mean) / self.std


class ExportGraph(nn.Module):
    """A student with its front end, in evaluation mode, in float32 on the CPU.

    Args:
        student: the model whose deepest exit is exported; it is changed.
        extractor: of the same checkpoint.

    Raises:
        ExportError: a model or a front end that has no graph.
    """

    def __init__(self, student: EasySEDForSoundEventDetection, extractor: EasySEDFeatureExtractor) -> None:
        super().__init__()
        check_exportable(student, extractor)
        self.front_end = LogMel(extractor)
        self.student = student.float().cpu()
        self.num_sites, self.width = student.exits[-1].num_sites, student.config.exit_hidden_size
        self.requires_grad_(False)
        self.eval()

    def forward(self, waveform: torch.Tensor, edges: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """All outputs, in the order of `OUTPUTS`.

        Args:
            waveform: (batch, samples), mono, full scale 1, at the model's rate.
            edges: (batch, 2, half a window), the samples before and after the waveform: those of the recording where
                the waveform is a window of it, zeros beyond its ends.
            masks: (passes, sites, width) factors of the head's dropout; ones give the plain pass.

        Returns:
            frame_logits: (passes, batch, output frames, classes) of the deepest exit.
            logits: (passes, batch, classes) of that exit.
            exit_frame_logits: (exits, batch, output frames, classes), plain.
            embeddings: (batch, output frames, width) of the deepest exit, plain.
            log_mel: (batch, frames, mels), normalised.
        """
        log_mel = self.front_end(waveform, edges)
        plain = []
        for head, hidden in zip(self.student.exits, self.student.easysed.stages(log_mel), strict=True):
            prepared = head.prepare(hidden, None)
            if head is not self.student.exits[-1]:
                plain.append(head.finish(prepared, None)[1])
        # The plain pass is one more pass: ExecuTorch's partitioner finds a cycle in a graph with both ways.
        with_plain = torch.cat([torch.ones(1, self.num_sites, self.width), masks])
        logits, frame_logits = head.finish_passes(prepared, None, with_plain)
        exit_frame_logits = torch.stack([*plain, frame_logits[0]])
        return frame_logits[1:], logits[1:], exit_frame_logits, _embeddings(head, prepared), log_mel


def _embeddings(head: ExitHead, prepared: torch.Tensor) -> torch.Tensor:
    """Input of the classifier in the plain pass, (batch, output frames, width)."""
    return prepared.transpose(1, 2) if head.num_sites == 1 else head.finish(prepared, None)[2]


def check_exportable(model: EasySEDForSoundEventDetection, extractor: EasySEDFeatureExtractor) -> None:
    """Raises ExportError for a model or a front end that has no graph."""
    if model.config.backbone not in BACKBONES or extractor.transform != "centered":
        raise ExportError(
            f"backbone must be one of {BACKBONES} with features of the transform 'centered' to be exported, got "
            f"{model.config.backbone!r} with {extractor.transform!r}: an Audio Spectrogram Transformer needs PyTorch"
        )
    if extractor.window_length_samples % 2 or extractor.min_num_frames > 0:
        raise ExportError(
            f"window_length_samples must be even and min_num_frames 0 to be exported, got "
            f"{extractor.window_length_samples} and {extractor.min_num_frames}"
        )


def trace(
    graph: ExportGraph, batch: int, num_samples: int, dynamic_shapes: dict[str, Any], is_any_length: bool
) -> torch.export.ExportedProgram:
    """The graph as operators, recorded with zeros of a size.

    Args:
        graph: what to record.
        batch, num_samples: of the zeros. Where a size stays open, it must not be 1: a size of 1 would be fixed.
        dynamic_shapes: what stays open, see `torch.export.export`.
        is_any_length: whether `samples` may be no multiple of the hop. The tracer cannot prove then that whole hops
            divide into hops, and notes that as an assertion, which ExecuTorch does not take.
    """
    zeros = torch.zeros(batch, num_samples), torch.zeros(batch, 2, graph.front_end.half)
    masks = torch.ones(3, graph.num_sites, graph.width)
    return torch.export.export(
        graph, (*zeros, masks), dynamic_shapes=dynamic_shapes, prefer_deferred_runtime_asserts_over_guards=is_any_length
    )


__all__ = ["INPUTS", "OUTPUTS", "ExportGraph", "LogMel", "check_exportable", "trace"]
