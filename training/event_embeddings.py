"""What a model makes of the events of soundscapes mixed from clips: the ground that familiarity is judged on."""

from typing import Any

import numpy as np
import torch
from soundscapes import SoundscapeMixer


@torch.inference_mode()
def mixed_event_embeddings(
    model: Any, extractor: Any, mixer: SoundscapeMixer, seed: int, numbers: range
) -> tuple[np.ndarray, np.ndarray]:
    """Mean embedding of every event in the soundscapes `numbers` of `seed`.

    Returns:
        Embeddings (exits, events, size) and class indices (events,).
    """
    embeddings, classes = [], []
    for number in numbers:
        scape = mixer.mix(seed, number)
        features = extractor(scape.samples, sampling_rate=mixer.sampling_rate)["input_values"]
        own = model(features.to(model.device)).exit_embeddings[:, 0].float().cpu().numpy()
        # (exits, output frames, size)
        for onset, offset, label, *_ in scape.events:
            start = round(onset / model.frame_duration_s)
            stop = max(round(offset / model.frame_duration_s), start + 1)
            embeddings.append(own[:, start:stop].mean(1))
            classes.append(model.config.label2id[label])
    return np.stack(embeddings, axis=1), np.array(classes)
