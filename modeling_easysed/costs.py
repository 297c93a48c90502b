"""What every exit costs as a model of its own: parameters, and multiply-accumulates for ten seconds of audio.

Counted by torch's own counter in convolutions and matrix products, attention among them; norms, activations and the
log-mel front end are left out, as usual. A student computes the heads of all its exits, and so does the pipeline, whose
confidence looks at each of them."""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from modeling_easysed.modeling_easysed import EasySEDForSoundEventDetection
from modeling_easysed.recording_easysed import window_sizes
from modeling_easysed.windows_easysed import plan_windows

SECONDS = 10
FLOPS_PER_MAC = 2


def exit_costs(model: EasySEDForSoundEventDetection) -> list[dict[str, Any]]:
    """Costs of `model.student(exit)` for every exit, shallowest first; the model is left as it is.

    Returns:
        Dicts with "exit" (1 = shallowest), "parameters" (buffers not among them) and "macs_per_10_s": one plain pass,
        in the overlapping windows of the pipeline where the model's window is shorter.
    """
    config = model.config
    num_frames = 1 + SECONDS * config.sampling_rate // config.hop_length_samples
    windows = plan_windows(num_frames, *window_sizes(model), config.frame_stride)
    # On the meta device nothing is computed, and attention is taken apart into the products that the counter knows; the
    # fused attention of the CPU is counted as nothing.
    values = torch.empty(1, num_frames, config.num_mel_bins, device="meta")
    costs = []
    for index in range(1, model.num_exits + 1):
        student = model.student(index).to("meta").eval()
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            for start, stop in windows:
                student(values[:, start:stop])
        parameters = sum(parameter.numel() for parameter in student.parameters())
        macs = counter.get_total_flops() // FLOPS_PER_MAC
        costs.append({"exit": index, "parameters": parameters, "macs_per_10_s": macs})
    return costs


__all__ = ["exit_costs"]
