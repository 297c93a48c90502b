"""The two trunks, top-down: blocks, the CNN, the Transformer.

Both take (batch, frames, mels) and yield (batch, output frames, features) after every stage, one at a time, so that a
caller who needs a shallow exit alone never computes the deeper ones."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_easysed import EasySEDConfig

# ---- blocks ----------------------------------------------------------------------------------------------------------


def keep_frames(hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Zeroes what lies after a clip's end in (batch, channels, frames) or (batch, channels, frames, mels).

    A convolution pads a single clip with zeros; in a padded batch it must see the same zeros.
    """
    if mask is None:
        return hidden
    shape = (mask.shape[0], 1, mask.shape[1]) + (1,) * (hidden.ndim - 3)
    return hidden * mask.view(shape).to(hidden.dtype)


class ConvNorm(nn.Module):
    """3x3 convolution over (time, frequency) and batch norm, without activation."""

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        return self.norm(self.conv(keep_frames(hidden, mask)))


class Stem(nn.Module):
    """Two strided convolutions: time by `frame_stride`, frequency by 4, with a learned bias per frequency.

    The bias tells the convolutions after it, which are blind to position, where on the frequency axis they are.
    """

    def __init__(self, config: EasySEDConfig, out_channels: int) -> None:
        super().__init__()
        self.time_stride = config.frame_stride // 2
        self.conv1 = ConvNorm(1, config.stem_channels, (2, 2))
        self.conv2 = ConvNorm(config.stem_channels, out_channels, (self.time_stride, 2))
        self.frequency_bias = nn.Parameter(torch.zeros(1, config.stem_channels, 1, config.num_mel_bins // 2))

    def forward(self, input_values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        half_mask = None if mask is None else mask[:, ::2]
        hidden = input_values.unsqueeze(1)
        # (batch, 1, frames, mels)
        hidden = torch.relu(self.conv1(hidden, mask) + self.frequency_bias)
        # (batch, stem channels, frames / 2, mels / 2)
        return torch.relu(self.conv2(hidden, half_mask))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut; the first may halve frequency, never time."""

    def __init__(self, in_channels: int, out_channels: int, frequency_stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_channels, out_channels, (1, frequency_stride))
        self.conv2 = ConvNorm(out_channels, out_channels)
        self.pool = nn.AvgPool2d((1, frequency_stride)) if frequency_stride > 1 else nn.Identity()
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        residual = self.conv2(torch.relu(self.conv1(hidden, mask)), mask)
        return torch.relu(self.shortcut(self.pool(hidden)) + residual)


class ChannelDropout(nn.Module):
    """Drops whole channels of (batch, channels, frames), the same ones in every frame.

    One draw is then one thinned network that hears the whole clip: Monte Carlo passes differ by event, not by frame.
    Source: Tompson et al. 2015 (spatial dropout); Gal & Ghahramani 2016, A Theoretically Grounded Application of
    Dropout in Recurrent Neural Networks (one mask for all time steps).
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, hidden: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        """`keep`: (batch, channels) factors of a Monte Carlo pass; None = random in training, nothing in evaluation."""
        if keep is not None:
            return hidden * keep.unsqueeze(-1)
        return F.dropout1d(hidden, self.probability, self.training)


class TemporalBlock(nn.Module):
    """Dilated convolution over time with a shortcut, on (batch, channels, frames)."""

    def __init__(self, channels: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.dropout = ChannelDropout(dropout)
        self.conv = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm = nn.BatchNorm1d(channels)

    def forward(
        self, hidden: torch.Tensor, mask: torch.Tensor | None, keep: torch.Tensor | None = None
    ) -> torch.Tensor:
        return hidden + torch.relu(self.norm(self.conv(keep_frames(self.dropout(hidden, keep), mask))))


class FrameProjection(nn.Module):
    """Linear map of every frame with batch norm and ReLU: (batch, frames, features) to (batch, channels, frames)."""

    def __init__(self, in_features: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, channels, bias=False)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.linear(hidden).transpose(1, 2)))


# ---- the CNN ---------------------------------------------------------------------------------------------------------


class ResidualStage(nn.Module):
    """Residual blocks over (batch, channels, frames, mels)."""

    def __init__(self, in_channels: int, out_channels: int, depth: int, frequency_stride: int) -> None:
        super().__init__()
        blocks = [ResidualBlock(in_channels, out_channels, frequency_stride)]
        blocks += [ResidualBlock(out_channels, out_channels, 1) for _ in range(depth - 1)]
        self.blocks = nn.ModuleList(blocks)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        for block in self.blocks:
            hidden = block(hidden, mask)
        return hidden


class TemporalStage(nn.Module):
    """Drops the frequency axis and looks far in time: (batch, frames, features) to (batch, frames, channels)."""

    def __init__(self, in_features: int, channels: int, dilations: list[int], dropout: float) -> None:
        super().__init__()
        self.projection = FrameProjection(in_features, channels)
        self.blocks = nn.ModuleList(TemporalBlock(channels, dilation, dropout) for dilation in dilations)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        hidden = self.projection(hidden)
        for block in self.blocks:
            hidden = block(hidden, mask)
        return hidden.transpose(1, 2).contiguous()


def residual_stages(config: EasySEDConfig, num_stages: int) -> nn.ModuleList:
    """The first `num_stages` two-dimensional stages; each after the first halves frequency."""
    channels, depths = config.stage_channels, config.stage_depths
    return nn.ModuleList(
        ResidualStage(channels[max(i - 1, 0)], channels[i], depths[i], 1 if i == 0 else 2) for i in range(num_stages)
    )


def frames_first(hidden: torch.Tensor) -> torch.Tensor:
    """(batch, channels, frames, mels) to (batch, frames, channels x mels)."""
    return hidden.transpose(1, 2).contiguous().flatten(2)


class ConvolutionalBackbone(nn.Module):
    """Residual stages at one time resolution, each with half the frequencies of the one before, then a temporal stage.

    `feature_sizes` lists the features per frame that each stage hands to its exit.
    """

    def __init__(self, config: EasySEDConfig) -> None:
        super().__init__()
        channels = config.stage_channels
        num_stages = min(config.kept_exits, len(channels))
        self.stem = Stem(config, channels[0])
        self.stages = residual_stages(config, num_stages)
        mels = config.num_mel_bins // 4
        self.feature_sizes = [channels[i] * (mels >> i) for i in range(num_stages)]
        self.temporal_stage = None
        if config.kept_exits > num_stages:
            width = config.temporal_channels
            self.temporal_stage = TemporalStage(
                self.feature_sizes[-1], width, config.temporal_dilations, config.dropout
            )
            self.feature_sizes.append(width)

    def forward(self, input_values: torch.Tensor, mask: torch.Tensor | None) -> Iterator[torch.Tensor]:
        output_mask = None if mask is None else mask[:, :: 2 * self.stem.time_stride]
        hidden = self.stem(input_values, mask)
        for stage in self.stages:
            hidden = stage(hidden, output_mask)
            yield frames_first(hidden)
        if self.temporal_stage is not None:
            yield self.temporal_stage(frames_first(hidden), output_mask)


# ---- the Transformer -------------------------------------------------------------------------------------------------


def rotate_positions(states: torch.Tensor) -> torch.Tensor:
    """Rotary positions on (batch, heads, frames, head size): attention depends on distance, so any length works.

    Made on the fly: a table in a buffer would come back as garbage from `from_pretrained`.
    Source: Su et al. 2021, RoFormer, equation 34.
    """
    half = states.shape[-1] // 2
    frequency = 10000.0 ** -(torch.arange(half, device=states.device, dtype=torch.float32) / half)
    angle = torch.arange(states.shape[-2], device=states.device, dtype=torch.float32)[:, None] * frequency
    cos, sin = angle.cos().to(states.dtype), angle.sin().to(states.dtype)
    first, second = states[..., :half], states[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class SelfAttention(nn.Module):
    """Multi-head self-attention over frames with rotary positions."""

    def __init__(self, config: EasySEDConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        query, key, value = self.qkv(hidden).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        # each (batch, heads, frames, head size)
        attended = F.scaled_dot_product_attention(
            rotate_positions(query),
            rotate_positions(key),
            value,
            attn_mask=None if mask is None else mask[:, None, None, :].bool(),
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.output(attended.transpose(1, 2).flatten(2))


class RecomputedBlock(nn.Module):
    """A block that the backward pass may compute once more, to save memory.

    transformers' `gradient_checkpointing_enable` sets both attributes wherever it finds the first. As transformers' own
    `GradientCheckpointingLayer`, whose import takes longer than to load a network and hear a clip.
    """

    gradient_checkpointing = False
    _gradient_checkpointing_func: Callable[..., torch.Tensor]

    def __call__(self, *args: Any) -> torch.Tensor:
        if self.gradient_checkpointing and self.training:
            return self._gradient_checkpointing_func(super().__call__, *args)
        return super().__call__(*args)


class TransformerBlock(RecomputedBlock):
    """Pre-norm attention and MLP on (batch, frames, hidden size)."""

    def __init__(self, config: EasySEDConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.hidden_size)
        self.attention = SelfAttention(config)
        self.mlp_norm = nn.LayerNorm(config.hidden_size)
        self.mlp_in = nn.Linear(config.hidden_size, config.intermediate_size)
        self.mlp_out = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        hidden = hidden + self.dropout(self.attention(self.attention_norm(hidden), mask))
        mlp = self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(hidden))))
        return hidden + self.dropout(mlp)


class TransformerBackbone(nn.Module):
    """One token per output frame from a convolutional patch embedding, then pre-norm blocks with exits in between.

    Source: Gong et al. 2021, AST; Xiao et al. 2021, Early Convolutions Help Transformers See Better (the stem).
    """

    def __init__(self, config: EasySEDConfig) -> None:
        super().__init__()
        self.exit_layers = config.exit_layers[: config.kept_exits]
        self.stem = Stem(config, config.stage_channels[0])
        self.stem_stages = residual_stages(config, config.num_stem_stages)
        last = max(config.num_stem_stages - 1, 0)
        stem_features = config.stage_channels[last] * (config.num_mel_bins // 4 >> last)
        self.patch_projection = nn.Linear(stem_features, config.hidden_size)
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(self.exit_layers[-1]))
        self.exit_norms = nn.ModuleList(nn.LayerNorm(config.hidden_size) for _ in self.exit_layers)
        self.feature_sizes = [config.hidden_size] * len(self.exit_layers)

    def forward(self, input_values: torch.Tensor, mask: torch.Tensor | None) -> Iterator[torch.Tensor]:
        output_mask = None if mask is None else mask[:, :: 2 * self.stem.time_stride]
        hidden = self.stem(input_values, mask)
        for stage in self.stem_stages:
            hidden = stage(hidden, output_mask)
        hidden = self.patch_projection(frames_first(hidden))
        # (batch, output frames, hidden size)
        start = 0
        for norm, end in zip(self.exit_norms, self.exit_layers, strict=True):
            for block in self.blocks[start:end]:
                hidden = block(hidden, output_mask)
            start = end
            yield norm(hidden)
