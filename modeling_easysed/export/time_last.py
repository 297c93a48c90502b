"""A trunk that computes the same with time as the last axis: (batch, channels, mels, frames).

onnxruntime's convolutions are quick along rows of hundreds of frames and slow along rows of four mel bands. The weights
stay as they lie in the checkpoint: a graph names their transposes, which onnxruntime makes once, when it loads."""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from modeling_easysed.backbones_easysed import FrameProjection, Stem


class Convolution(nn.Module):
    """A `Conv2d` over (mels, frames)."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        conv = self.conv
        return F.conv2d(hidden, conv.weight.transpose(2, 3), conv.bias, conv.stride[::-1], conv.padding[::-1])


class Projection(nn.Module):
    """A `FrameProjection` of (batch, channels, mels, frames)."""

    def __init__(self, projection: FrameProjection) -> None:
        super().__init__()
        self.linear, self.norm = projection.linear, projection.norm

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(F.conv1d(hidden.flatten(1, 2), self.linear.weight.unsqueeze(-1))))


class MelsFirst(nn.Module):
    """(batch, frames, mels) to (batch, mels, frames)."""

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return hidden.transpose(1, 2)


class FramesFirst(nn.Module):
    """(batch, channels, mels, frames) to (batch, frames, channels x mels), as `backbones_easysed.frames_first`."""

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return hidden.permute(0, 3, 1, 2).contiguous().flatten(2)


def time_last(module: nn.Module) -> nn.Module:
    """A copy with time last wherever it has both axes; frequency biases and pools are turned, kernels when called."""
    module = copy.deepcopy(module)
    for parent in list(module.modules()):
        if isinstance(parent, Stem):
            parent.frequency_bias = nn.Parameter(parent.frequency_bias.transpose(2, 3).contiguous())
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                setattr(parent, name, Convolution(child))
            elif isinstance(child, nn.AvgPool2d):
                setattr(parent, name, nn.AvgPool2d(child.kernel_size[::-1]))
            elif isinstance(child, FrameProjection):
                setattr(parent, name, Projection(child))
    return module


__all__ = ["FramesFirst", "MelsFirst", "time_last"]
