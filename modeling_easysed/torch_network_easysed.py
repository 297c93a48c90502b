"""A model of PyTorch as the network that samples are drawn from: arrays in, arrays out, tensors between."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Union

import numpy as np
import torch

from .monte_carlo_easysed import evaluating

if TYPE_CHECKING:
    from .modeling_easysed import EasySEDForSoundEventDetection
    from .parts_easysed import BareDetector


class TorchNetwork:
    """See `sampling_easysed.Network`.

    Args:
        model: on any device, of any dtype.
    """

    def __init__(self, model: Union["EasySEDForSoundEventDetection", "BareDetector"]) -> None:
        self.model, self.config, self.num_exits = model, model.config, model.num_exits
        head = model.exits[-1]
        self.num_sites, self.width = head.num_sites, head.classifier.in_features

    def evaluating(self) -> AbstractContextManager[None]:
        """Evaluation mode, no gradients."""
        return evaluating(self.model)

    def leaving_one(self) -> "TorchNetwork":
        """As it is: PyTorch's number of threads is not the network's own."""
        return self

    def stages(self, values: np.ndarray) -> Iterator[torch.Tensor]:
        """Hidden states (1, output frames, features)."""
        return self.model.easysed.stages(torch.from_numpy(values)[None].to(self.model.device))

    def plain(self, exit_index: int, stage: torch.Tensor) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
        """The prepared hidden states, frame logits, embeddings."""
        head = self.model.exits[exit_index - 1]
        prepared = head.prepare(stage, None)
        _, frame_logits, embeddings = head.finish(prepared, None)
        return prepared, _array(frame_logits[0]), _array(embeddings[0])

    def passes(self, exit_index: int, shared: torch.Tensor, masks: np.ndarray) -> np.ndarray:
        """All passes at once."""
        keep = torch.from_numpy(masks).to(shared)
        return _array(self.model.exits[exit_index - 1].finish_passes(shared, None, keep)[1][:, 0])

    def deviations(self, exit_index: int, shared: torch.Tensor) -> np.ndarray:
        """In closed form."""
        return _array(self.model.exits[exit_index - 1].variances(shared)[0].float().sqrt())


def _array(values: torch.Tensor) -> np.ndarray:
    return values.float().cpu().numpy()


__all__ = ["TorchNetwork"]
