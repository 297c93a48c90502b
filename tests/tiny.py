"""Tiny configurations with random weights, for tests that need a network but no trained one."""

import torch
from torch import nn

from modeling_easysed import EasySEDConfig, EasySEDForSoundEventDetection

LABELS = {0: "dog_bark", 1: "rain", 2: "rooster"}


def tiny_config(backbone: str = "cnn", **overrides) -> EasySEDConfig:
    sizes = {
        "num_mel_bins": 32,
        "stem_channels": 4,
        "stage_channels": [4, 6],
        "stage_depths": [1, 2],
        "temporal_channels": 8,
        "temporal_dilations": [1, 2],
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "exit_layers": [1, 3],
        "exit_hidden_size": 8,
        "exit_dilations": [1],
    }
    return EasySEDConfig(backbone=backbone, id2label=LABELS, **{**sizes, **overrides})


def tiny_model(backbone: str = "cnn", seed: int = 0, **overrides) -> EasySEDForSoundEventDetection:
    """A model in eval mode whose batch norms are not trivial, so that a forgotten buffer shows."""
    torch.manual_seed(seed)
    model = EasySEDForSoundEventDetection(tiny_config(backbone, **overrides)).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.3, 0.3)
    return model
