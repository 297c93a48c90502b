"""Trained checkpoints as teachers of a new network: the mean of their logits is the soft target.

Teachers need not look like the student: they share its classes, its mel bands and its time line. Source: Hinton et al.
2015, Distilling the Knowledge in a Neural Network (an ensemble into one network)."""

from collections.abc import Sequence

import torch
from torch import nn

from modeling_easysed import EasySEDConfig, EasySEDFeatureExtractor, EasySEDForSoundEventDetection
from modeling_easysed.bundled import resolve_checkpoint


class Teachers(nn.Module):
    """Frozen networks in evaluation mode.

    Args:
        names: bundled names, folders or Hub ids.
        extractor: the student's, whose features `input_values` are.
        config: the student's.

    Attributes:
        provenance: {"backbone", "seed"} of every teacher.

    Raises:
        ValueError: when a teacher has other classes, other features or another time line than the student.
    """

    def __init__(self, names: Sequence[str], extractor: EasySEDFeatureExtractor, config: EasySEDConfig) -> None:
        super().__init__()
        self.networks, self.normalizations = nn.ModuleList(), nn.ParameterList()
        for name in names:
            checkpoint = resolve_checkpoint(name)
            network = EasySEDForSoundEventDetection.from_pretrained(checkpoint)
            _check_alike(name, network.config, config)
            self.networks.append(network)
            own = EasySEDFeatureExtractor.from_pretrained(checkpoint)
            self.normalizations.append(renormalization(extractor, own))
        self.provenance = [
            {
                "backbone": one.config.backbone,
                "seed": None if one.config.provenance is None else one.config.provenance["seed"],
            }
            for one in self.networks
        ]
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "Teachers":
        return super().train(False)

    @torch.no_grad()
    def forward(self, input_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean clip logits (batch, classes) and frame logits (batch, output frames, classes) of the deepest exits.

        `input_values`: (batch, frames, mels), normalised as the student's are.
        """
        outputs = [
            network(input_values * scale_and_shift[0] + scale_and_shift[1])
            for network, scale_and_shift in zip(self.networks, self.normalizations, strict=True)
        ]
        logits = torch.stack([output.logits.float() for output in outputs]).mean(0)
        return logits, torch.stack([output.frame_logits.float() for output in outputs]).mean(0)


def renormalization(of: EasySEDFeatureExtractor, to: EasySEDFeatureExtractor) -> torch.Tensor:
    """(2, mels): factor and summand that turn features normalised by one extractor into those of another."""
    (mean, deviation), (new_mean, new_deviation) = (
        (
            torch.zeros(one.feature_size) if one.mel_mean is None else torch.tensor(one.mel_mean),
            torch.ones(one.feature_size) if one.mel_std is None else torch.tensor(one.mel_std),
        )
        for one in (of, to)
    )
    return torch.stack([deviation / new_deviation, (mean - new_mean) / new_deviation])


def _check_alike(name: str, teacher: EasySEDConfig, student: EasySEDConfig) -> None:
    for what in ("id2label", "sampling_rate", "hop_length_samples", "num_mel_bins", "frame_stride"):
        if getattr(teacher, what) != getattr(student, what):
            raise ValueError(
                f"teacher {name} must have the student's {what}={getattr(student, what)}, got {getattr(teacher, what)}"
            )
