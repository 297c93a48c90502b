"""A quick score while training runs: frame F1 at probability 0.5 of every exit on strongly labelled soundscapes."""

from dataclasses import dataclass

import torch
from soundscape_split import read_split
from soundscapes import frame_targets
from tqdm import tqdm

from modeling_easysed import EasySEDConfig, EasySEDFeatureExtractor, EasySEDForSoundEventDetection
from modeling_easysed.audio_easysed import read_audio


@dataclass
class ValidationSet:
    """Features and frame targets of a split, computed once: lists of (1, frames, mels) and (output frames, classes)."""

    features: list[torch.Tensor]
    targets: list[torch.Tensor]


def load_validation(
    data_dir: str, split: str, extractor: EasySEDFeatureExtractor, config: EasySEDConfig
) -> ValidationSet:
    """Reads a split; events of classes that the model does not know are left out.

    Raises:
        ValueError: when nothing is left of them; FileNotFoundError: when the table or an audio file is missing.
    """
    references, _, paths = read_split(data_dir, split)
    labels = [config.id2label[index] for index in range(config.num_labels)]
    if not any(event[2] in labels for events in references.values() for event in events):
        raise ValueError(f"{split}.tsv of {data_dir} must hold an event of one of the classes {labels}, it has none")
    validation = ValidationSet([], [])
    for name, path in tqdm(paths.items(), desc="reading validation", leave=False, disable=None):
        samples = read_audio(path, config.sampling_rate).samples
        features = extractor(samples, sampling_rate=config.sampling_rate)["input_values"]
        num_frames = -(-features.shape[1] // config.frame_stride)
        events = [event for event in references[name] if event[2] in labels]
        validation.features.append(features)
        validation.targets.append(torch.from_numpy(frame_targets(events, labels, num_frames, config.frame_duration_s)))
    return validation


@torch.inference_mode()
def frame_scores(model: EasySEDForSoundEventDetection, validation: ValidationSet) -> dict[str, float]:
    """Macro F1 over classes of frames, per exit ("f1_1" is the shallowest), and the deepest exit's cross-entropy."""
    logits = [
        model(features.to(model.device)).exit_frame_logits[:, 0].float().cpu() for features in validation.features
    ]
    stacked = torch.cat(logits, dim=1)
    # (exits, all frames, classes)
    targets = torch.cat(validation.targets)
    active, truth = stacked > 0, targets > 0.5
    true_positives = (active & truth).sum(1)
    f1 = 2 * true_positives / (active.sum(1) + truth.sum(0)).clamp_min(1)
    scores = {f"f1_{index + 1}": value.item() for index, value in enumerate(f1.mean(1))}
    scores["bce"] = torch.nn.functional.binary_cross_entropy_with_logits(stacked[-1], targets).item()
    return scores
