"""An exponential moving average of a model's weights: what is validated and saved."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.tensor import DTensor


class AveragedWeights:
    """Moving average of a model's parameters and buffers.

    It holds what this process holds of them: everything, or under FSDP its own shards.

    Args:
        model: prepared and unwrapped.
        decay: weight of the past per step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in tensors_of(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """The decay grows with the step, so that the average forgets its random start."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in tensors_of(model).items():
            if value.dtype.is_floating_point:
                self.values[name].lerp_(value.detach(), 1 - decay)
            else:
                self.values[name].copy_(value)

    @contextmanager
    def swapped_in(self, model: nn.Module) -> Iterator[None]:
        """The model has the averaged weights inside, its own again after it."""
        own = {name: value.detach().clone() for name, value in tensors_of(model).items()}
        try:
            _copy_into(model, self.values)
            yield
        finally:
            _copy_into(model, own)

    def save(self, path: Path) -> None:
        save_file({name: _local(value).contiguous() for name, value in self.values.items()}, path)

    def load(self, path: Path) -> None:
        """Reads what `save` wrote.

        Raises:
            ValueError: when it belongs to another model.
        """
        saved = load_file(path)
        if saved.keys() != self.values.keys():
            raise ValueError(f"{path} belongs to another model: resume with the settings that the run began with")
        for name, value in self.values.items():
            _local(value).copy_(saved[name])


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name."""
    return dict(chain(model.named_parameters(), model.named_buffers()))


def _local(value: torch.Tensor) -> torch.Tensor:
    return value.to_local() if isinstance(value, DTensor) else value


@torch.no_grad()
def _copy_into(model: nn.Module, values: dict[str, torch.Tensor]) -> None:
    for name, value in tensors_of(model).items():
        value.copy_(values[name])
