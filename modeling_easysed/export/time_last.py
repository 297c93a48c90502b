"""A trunk that computes the same with time as the last axis: (batch, channels, mels, frames).

onnxruntime's convolutions are quick along rows of hundreds of frames and slow along rows of four mel bands, and those
of images quicker than those of sequences: what has no mel bands any more keeps one. The weights stay as they lie in the
checkpoint: a graph names their transposes, which onnxruntime makes once, when it loads."""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from modeling_easysed.backbones_easysed import FrameProjection, Stem, TemporalBlock


class Convolution(nn.Module):
    """A `Conv2d` over (mels, frames)."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        conv = self.conv
        return F.conv2d(hidden, conv.weight.transpose(2, 3), conv.bias, conv.stride[::-1], conv.padding[::-1])


class Projection(nn.Module):
    """A `FrameProjection` of (batch, channels, mels, frames) to (batch, features, 1, frames)."""

    def __init__(self, projection: FrameProjection) -> None:
        super().__init__()
        self.linear, self.norm = projection.linear, norm_of_images(projection.norm)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        weight = self.linear.weight.unflatten(1, (*hidden.shape[1:3], 1))
        # (features, channels, mels, 1)
        return torch.relu(self.norm(F.conv2d(hidden, weight)))


class TimeConvolution(nn.Module):
    """A `TemporalBlock` of (batch, channels, 1, frames), without dropout."""

    def __init__(self, block: TemporalBlock) -> None:
        super().__init__()
        self.conv, self.norm = block.conv, norm_of_images(block.norm)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        conv = self.conv
        found = F.conv2d(hidden, conv.weight.unsqueeze(2), None, 1, (0, *conv.padding), (1, *conv.dilation))
        return hidden + torch.relu(self.norm(found))


def norm_of_images(norm: nn.BatchNorm1d) -> nn.BatchNorm2d:
    """The same for four axes."""
    own = nn.BatchNorm2d(norm.num_features, norm.eps)
    own.load_state_dict(norm.state_dict())
    return own.to(norm.weight.dtype).train(norm.training)


class MelsFirst(nn.Module):
    """(batch, frames, mels) to (batch, mels, frames)."""

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return hidden.transpose(1, 2)


class FramesFirst(nn.Module):
    """(batch, channels, mels, frames) to (batch, frames, channels x mels), as `backbones_easysed.frames_first`."""

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return hidden.permute(0, 3, 1, 2).contiguous().flatten(2)


def time_last(module: nn.Module) -> nn.Module:
    """A copy with time last, all of it of images; frequency biases and pools are turned, kernels when called."""
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
            elif isinstance(child, TemporalBlock):
                setattr(parent, name, TimeConvolution(child))
    return module


__all__ = ["FramesFirst", "MelsFirst", "time_last"]
