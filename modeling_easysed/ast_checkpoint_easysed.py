"""Checkpoints of transformers' Audio Spectrogram Transformer: read, and their sizes and weights under EasySED's names.

What a checkpoint says of its input (mels, length, normalisation) stands in its feature extractor, so both are read."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

from .configuration_easysed import EasySEDConfig
from .kaldi_easysed import without_filter_warning

AST_MODEL_TYPE = ASTConfig.model_type
AST_SAMPLING_RATE, AST_HOP_SAMPLES = 16000, 160  # the transform of transformers holds for this rate alone
MAX_CONTEXT_S = 1.0
# Not tuned. A tagger of hundreds of classes is seldom sure: 0.5 would lose most of what it hears. A column hears
# 0.2 s at once, so that shorter events are one column's noise.
AST_DECODING = {"method": "boxes", "default": {"filter_s": 0.4, "min_duration_s": 0.2, "threshold": 0.3}}
BLOCK_MODULES = {  # EasySED's name: the name in transformers
    "attention_norm": "layernorm_before",
    "attention.output": "attention.o_proj",
    "mlp_norm": "layernorm_after",
    "mlp_in": "mlp.fc1",
    "mlp_out": "mlp.fc2",
}


def read_ast_config(name_or_path: str | Path, **hub_kwargs: Any) -> ASTConfig | None:
    """Configuration of a folder or Hub id that holds an Audio Spectrogram Transformer; None = another kind of model."""
    values, _ = ASTConfig.get_config_dict(name_or_path, **hub_kwargs)
    return ASTConfig.from_dict(values) if values.get("model_type") == AST_MODEL_TYPE else None


def load_ast(
    name_or_path: str | Path, needs_classifier: bool, dtype: str | torch.dtype = "auto", **hub_kwargs: Any
) -> ASTForAudioClassification:
    """The model of transformers, from safetensors alone.

    Raises:
        ValueError: another kind of model, or weights that lack a tensor.
    """
    if read_ast_config(name_or_path, **hub_kwargs) is None:
        raise ValueError(f"model {name_or_path} must have model_type {AST_MODEL_TYPE!r} to be loaded with from_ast")
    ast, report = ASTForAudioClassification.from_pretrained(
        name_or_path, dtype=dtype, use_safetensors=True, output_loading_info=True, **hub_kwargs
    )
    missing = sorted(name for name in report["missing_keys"] if needs_classifier or not name.startswith("classifier."))
    if missing:
        raise ValueError(
            f"the weights of {name_or_path} lack {len(missing)} tensors, the first is {missing[0]}: download them "
            "again, or pass id2label to from_ast where only the classifier is missing"
        )
    return ast


def load_ast_features(name_or_path: str | Path, **hub_kwargs: Any) -> ASTFeatureExtractor:
    """The feature extractor of transformers that belongs to a checkpoint.

    Raises:
        ValueError: for another sampling rate than 16 kHz.
    """
    with without_filter_warning():
        features = ASTFeatureExtractor.from_pretrained(name_or_path, **hub_kwargs)
    if features.sampling_rate != AST_SAMPLING_RATE:
        raise ValueError(
            f"sampling_rate of {name_or_path} must be {AST_SAMPLING_RATE} Hz, whose frames of 25 ms are 400 samples, "
            f"got {features.sampling_rate}"
        )
    return features


def ast_normalisation(features: ASTFeatureExtractor) -> tuple[float, float]:
    """Mean and divisor of the natural logarithm of mel power: (x - mean) / divisor."""
    return (features.mean, 2 * features.std) if features.do_normalize else (0.0, 1.0)


def easysed_config(
    config: ASTConfig,
    features: ASTFeatureExtractor,
    exit_layers: Sequence[int] | None,
    id2label: dict[int, str] | None,
) -> EasySEDConfig:
    """The same geometry in EasySED's words.

    Args:
        config, features: of one checkpoint.
        exit_layers: 1-based; None = after each quarter of the blocks.
        id2label: new labels, or None = the checkpoint's.

    Raises:
        ValueError: labels that are not numbered from 0, another activation, or sizes that break a rule.
    """
    labels = config.id2label if id2label is None else id2label
    if sorted(labels) != list(range(len(labels))):
        raise ValueError(f"id2label must be keyed by 0 to {len(labels) - 1}, got {sorted(labels)[:8]}")
    if config.hidden_act != "gelu":
        raise ValueError(f"hidden_act of an AST must be 'gelu', got {config.hidden_act!r}: it cannot be converted")
    given = (features.num_mel_bins, features.max_length)
    if given != (config.num_mel_bins, config.max_length):
        raise ValueError(
            f"feature extractor must have the model's mel bins and length {(config.num_mel_bins, config.max_length)}, "
            f"got {given}: save both from the same checkpoint"
        )
    depth = config.num_hidden_layers
    mean, divisor = ast_normalisation(features)
    window_s = config.max_length // config.time_stride * config.time_stride * AST_HOP_SAMPLES / AST_SAMPLING_RATE
    return EasySEDConfig(
        backbone="ast",
        sampling_rate=AST_SAMPLING_RATE,
        hop_length_samples=AST_HOP_SAMPLES,
        num_mel_bins=config.num_mel_bins,
        frame_stride=config.time_stride,
        patch_size=config.patch_size,
        frequency_stride=config.frequency_stride,
        max_length_frames=config.max_length,
        padding_value=-mean / divisor,
        hidden_size=config.hidden_size,
        num_hidden_layers=depth,
        num_attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        layer_norm_eps=config.layer_norm_eps,
        qkv_bias=config.qkv_bias,
        exit_layers=sorted({-(-depth * part // 4) for part in (1, 2, 3, 4)}) if exit_layers is None else exit_layers,
        exit_hidden_size=config.hidden_size,
        exit_dilations=(1,),
        window_s=window_s,
        context_s=min(MAX_CONTEXT_S, window_s / 10),
        decoding=AST_DECODING if id2label is None else None,
        id2label=dict(labels),
    )


def easysed_weights(
    state: dict[str, torch.Tensor], config: EasySEDConfig, with_classifier: bool
) -> dict[str, torch.Tensor]:
    """The tensors of `ASTForAudioClassification` under the names of EasySED; queries, keys and values become one.

    Args:
        state: its state dict.
        config: from `easysed_config`.
        with_classifier: whether the linear layer is kept; its layer norm always is.
    """
    theirs, ours, last = "audio_spectrogram_transformer.", "easysed.backbone.", len(config.exit_layers) - 1
    modules = {
        f"{ours}embedding.projection": f"{theirs}embeddings.patch_embeddings.projection",
        f"{ours}token_norms.{last}": f"{theirs}layernorm",
        f"{ours}exit_norms.{last}": "classifier.layernorm",
    }
    if with_classifier:
        modules[f"exits.{last}.classifier"] = "classifier.dense"
    for number in range(config.num_hidden_layers):
        for own, other in BLOCK_MODULES.items():
            modules[f"{ours}blocks.{number}.{own}"] = f"{theirs}layers.{number}.{other}"
    weights = {
        f"{own}.{part}": state[f"{other}.{part}"] for own, other in modules.items() for part in ("weight", "bias")
    }
    for name in ("cls_token", "distillation_token", "position_embeddings"):
        weights[f"{ours}embedding.{name}"] = state[f"{theirs}embeddings.{name}"]
    for number in range(config.num_hidden_layers):
        for part in ("weight", "bias") if config.qkv_bias else ("weight",):
            three = [state[f"{theirs}layers.{number}.attention.{letter}_proj.{part}"] for letter in "qkv"]
            weights[f"{ours}blocks.{number}.attention.qkv.{part}"] = torch.cat(three)
    return weights


def warn_of_untrained(config: EasySEDConfig, has_new_labels: bool) -> None:
    """Says which parts of a converted model hold random weights."""
    untrained = [f"exit {number}" for number in range(1, len(config.exit_layers))]
    if has_new_labels:
        untrained.append(f"the classifier of the {config.num_labels} new labels")
    if untrained:
        warnings.warn(f"untrained: {', '.join(untrained)}; train before you use what comes from there", stacklevel=3)


__all__ = [
    "AST_DECODING",
    "AST_MODEL_TYPE",
    "ast_normalisation",
    "easysed_config",
    "easysed_weights",
    "load_ast",
    "load_ast_features",
    "read_ast_config",
    "warn_of_untrained",
]
