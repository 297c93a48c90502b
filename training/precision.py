"""Whether bfloat16 is fast here."""

import torch


def has_bf16(device: torch.device) -> bool:
    """Whether the device has bfloat16 in hardware; without, it is many times slower than float32 on a CPU."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported()
    return torch.cuda.is_bf16_supported()
