"""Batch norm over the samples of all processes, so that two processes with half a batch each learn what one learns.

torch has this for GPUs alone; this one runs wherever `torch.distributed` does. Weights and buffers have the names of
`nn.BatchNorm1d` and `nn.BatchNorm2d`: state dicts go both ways."""

import torch
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


class SumOverProcesses(torch.autograd.Function):
    """Sum of a tensor of every process; so is its gradient."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, values: torch.Tensor) -> torch.Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total


class SyncedBatchNorm(_BatchNorm):
    """Batch norm on (batch, channels, ...) whose training statistics are those of all processes together.

    The variance is that of the differences from the common mean, which costs a second exchange and loses no digits.
    """

    def _check_input_dim(self, hidden: torch.Tensor) -> None:
        if hidden.ndim < 2:
            raise ValueError(f"hidden must have shape (batch, channels, ...), got {tuple(hidden.shape)}")

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        is_alone = not distributed.is_initialized() or distributed.get_world_size() == 1
        if is_alone or not self.training:
            return super().forward(hidden)
        self._check_input_dim(hidden)
        others = [dim for dim in range(hidden.ndim) if dim != 1]
        shape = (1, -1) + (1,) * (hidden.ndim - 2)
        values = hidden.float()
        own_count = values.new_tensor([values.numel() / values.shape[1]])
        sums = SumOverProcesses.apply(torch.cat([values.sum(others), own_count]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = values - mean.view(shape)
        variance = SumOverProcesses.apply(centred.square().sum(others)) / count
        self._update_running(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(shape) + self.bias.view(shape)).to(hidden.dtype)

    @torch.no_grad()
    def _update_running(self, mean: torch.Tensor, unbiased_variance: torch.Tensor) -> None:
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(unbiased_variance.to(self.running_var.dtype), self.momentum)


def synchronise_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with every batch norm over all processes, parameters and buffers kept: torch's own on a GPU."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                synced = SyncedBatchNorm(child.num_features, child.eps, child.momentum)
                synced.weight, synced.bias = child.weight, child.bias
                for buffer, value in child.named_buffers():
                    setattr(synced, buffer, value)
                setattr(module, name, synced.train(child.training))
    return model
