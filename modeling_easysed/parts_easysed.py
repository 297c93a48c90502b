"""What a detector consists of, in modules of PyTorch alone: a trunk and its exits.

`modeling_easysed` makes transformers' models of them. `BareDetector` is the same network without transformers' loading
and saving, whose import takes longer than to hear a minute of sound; its weights have the same names."""

from collections.abc import Iterator

import torch
from torch import nn

from .ast_easysed import PatchBackbone
from .backbones_easysed import ConvolutionalBackbone, TransformerBackbone
from .configuration_easysed import EasySEDConfig
from .exits_easysed import ExitHead, TokenHead

BACKBONES = {"cnn": ConvolutionalBackbone, "transformer": TransformerBackbone, "ast": PatchBackbone}


def build_backbone(config: EasySEDConfig) -> nn.Module:
    """The trunk of a config; `feature_sizes` lists the features per frame that each stage hands to its exit."""
    return BACKBONES[config.backbone](config)


def build_exits(config: EasySEDConfig, feature_sizes: list[int]) -> nn.ModuleList:
    """An exit for every stage, shallowest first."""
    heads: list[nn.Module] = [ExitHead(config, size) for size in feature_sizes]
    if config.backbone == "ast" and config.kept_exits == config.max_exits:
        heads[-1] = TokenHead(config)
    return nn.ModuleList(heads)


class BareTrunk(nn.Module):
    """As `EasySEDModel`, its stages alone."""

    def __init__(self, config: EasySEDConfig) -> None:
        super().__init__()
        self.backbone = build_backbone(config)

    def stages(self, input_values: torch.Tensor) -> Iterator[torch.Tensor]:
        """Hidden states (batch, output frames, features) of (batch, frames, mels), one stage after the other."""
        return self.backbone(input_values.to(next(self.parameters()).dtype), None)


class BareDetector(nn.Module):
    """As `EasySEDForSoundEventDetection`, for use by `TorchNetwork`."""

    def __init__(self, config: EasySEDConfig) -> None:
        super().__init__()
        self.config = config
        self.easysed = BareTrunk(config)
        self.exits = build_exits(config, self.easysed.backbone.feature_sizes)

    @property
    def num_exits(self) -> int:
        return len(self.exits)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


__all__ = ["BareDetector", "build_backbone", "build_exits"]
