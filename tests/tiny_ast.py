"""A small Audio Spectrogram Transformer of transformers with random weights, and inputs for it."""

import warnings

import numpy as np
import torch
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

from modeling_easysed import EasySEDForSoundEventDetection

RATE = 16000
LABELS = [
    "Speech",
    "Male speech, man speaking",
    "Inside, small room",
    'Bell, "ding"',
    "Dog",
    "Rain on surface",
    "Engine",
    "Car passing by",
    "Siren",
    "Wind",
    "Step",
    "Music",
]


def make_ast(seed: int = 0, **sizes) -> ASTForAudioClassification:
    """A small AST whose every weight is far from its initial value, norms and biases too, so that a mix-up shows."""
    defaults = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
    labels = dict(enumerate(LABELS))
    ast = ASTForAudioClassification(ASTConfig(**{**defaults, "max_length": 128, "id2label": labels, **sizes})).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in ast.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return ast


def save_ast(ast: ASTForAudioClassification, folder, **features) -> str:
    ast.save_pretrained(folder)
    sizes = {"max_length": ast.config.max_length, "num_mel_bins": ast.config.num_mel_bins}
    ASTFeatureExtractor(**{**sizes, **features}).save_pretrained(folder)
    return str(folder)


def load(folder: str, **arguments) -> EasySEDForSoundEventDetection:
    """`from_ast` without its warning of new exits, which has a test of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return EasySEDForSoundEventDetection.from_ast(folder, **arguments)


def features(batch: int = 2, frames: int = 128, mels: int = 128, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, frames, mels, generator=torch.Generator().manual_seed(seed))


def make_audio(duration_s: float, seed: int = 0) -> np.ndarray:
    """Noise whose level rises and falls, so that probabilities vary."""
    times = np.arange(round(duration_s * RATE)) / RATE
    noise = np.random.default_rng(seed).standard_normal(len(times))
    return (0.3 * noise * np.abs(np.sin(2 * times)) ** 3).astype(np.float32)


def column_logits(ast: ASTForAudioClassification, input_values: torch.Tensor) -> torch.Tensor:
    """The AST's classifier on the mean of every time column's patches, (batch, columns, classes)."""
    tokens = ast.audio_spectrogram_transformer(input_values).last_hidden_state[:, 2:]
    rows = (ast.config.num_mel_bins - ast.config.patch_size) // ast.config.frequency_stride + 1
    return ast.classifier(tokens.reshape(len(tokens), rows, -1, tokens.shape[-1]).mean(1))
