"""Configuration of EasySED: one dataclass that holds the sizes of the front end, of both backbones and of the exits,
the loss weights, and what training and tuning leave behind (labels, decoding, calibration, provenance)."""

from typing import Any

from transformers import PreTrainedConfig

BACKBONES = ("cnn", "transformer")
CLIP_POOLINGS = ("linear_softmax", "mean")
AUTO_MAP = {  # saving a model names that model's class alone; the others must load from the same folder too
    "AutoConfig": "configuration_easysed.EasySEDConfig",
    "AutoModel": "modeling_easysed.EasySEDModel",
    "AutoModelForAudioClassification": "modeling_easysed.EasySEDForSoundEventDetection",
}


class EasySEDConfig(PreTrainedConfig):
    """Configuration of an `EasySEDModel`.

    Args:
        backbone: "cnn" (residual stages over time and frequency, then dilated temporal blocks) or "transformer"
            (AST-style pre-norm blocks on one token per output frame).
        sampling_rate: Hz of the audio that the features come from.
        hop_length_samples: samples between two log-mel frames.
        num_mel_bins: mel bands of `input_values`.
        frame_stride: log-mel frames per output frame, 2 or 4; the same at every exit.
        stem_channels: channels of the first convolution (half resolution).
        stage_channels: channels of the CNN's two-dimensional stages; every stage after the first halves frequency.
        stage_depths: residual blocks per two-dimensional stage.
        temporal_channels: channels of the CNN's last stage, which sees time only; 0 leaves that stage out.
        temporal_dilations: dilation, in output frames, of each of its blocks.
        hidden_size: width of the Transformer.
        num_hidden_layers: its blocks.
        num_attention_heads: its heads; must divide `hidden_size`.
        intermediate_size: width of its MLP.
        exit_layers: 1-based blocks after which the Transformer has an exit; increasing, the last is the teacher.
        num_exits: exits that this model keeps (None = all). A student has fewer than its teacher.
        exit_hidden_size: width of every exit's embedding (equal, so that the hint loss compares like with like).
        exit_dilations: dilation of each temporal block in an exit head.
        exit_dropout_blocks: how many of these blocks, counted from the classifier, have dropout in front, besides the
            classifier itself.
        monte_carlo_blocks: how many of those keep their dropout in Monte Carlo passes, besides the classifier. 0 makes
            a pass nearly free and gives the moments of the logits in closed form; sampling the block as well measured
            no better.
        dropout: probability in the last CNN stage, the Transformer's blocks and the exit heads.
        clip_pooling: frames to clip, "linear_softmax" or "mean".
        frame_loss_weight, clip_loss_weight: weights of the two supervised losses.
        distillation_weight: alpha, share of the teacher's soft targets at a student exit (0 = plain training).
        distillation_temperature: T of the soft targets.
        hint_weight: lambda of the hint loss between embeddings.
        window_s, context_s: inference on long audio: window length, and what is cut off at both inner borders, seconds.
            The default CNN's deepest exit sees 2.8 s on either side, so that its windows equal one long pass.
        decoding: parameters tuned by `training/tune_decoding.py`, or None for defaults.
        calibration: what `training/calibrate.py` fitted, or None.
        provenance: data, folds, seed and command that made the weights, or None.

    Raises:
        ValueError: when a value breaks a rule; the message names the field, the rule and the value.
    """

    model_type = "easysed"

    backbone: str = "cnn"
    sampling_rate: int = 16000
    hop_length_samples: int = 160
    num_mel_bins: int = 64
    frame_stride: int = 4
    stem_channels: int = 16
    stage_channels: list[int] | tuple[int, ...] = (32, 64, 128)
    stage_depths: list[int] | tuple[int, ...] = (1, 1, 1)
    temporal_channels: int = 192
    temporal_dilations: list[int] | tuple[int, ...] = (1, 3, 9, 27)
    hidden_size: int = 192
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    intermediate_size: int = 576
    exit_layers: list[int] | tuple[int, ...] = (2, 4, 6)
    num_exits: int | None = None
    exit_hidden_size: int = 96
    exit_dilations: list[int] | tuple[int, ...] = (1, 4, 16)
    exit_dropout_blocks: int = 1
    monte_carlo_blocks: int = 0
    dropout: float = 0.2
    clip_pooling: str = "linear_softmax"
    frame_loss_weight: float = 1.0
    clip_loss_weight: float = 0.3
    distillation_weight: float = 0.3
    distillation_temperature: float = 1.0
    hint_weight: float = 0.003
    window_s: float = 30.0
    context_s: float = 3.0
    decoding: dict[str, Any] | None = None
    calibration: dict[str, Any] | None = None
    provenance: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        super().__post_init__(**kwargs)
        if self.label2id is None and self.id2label is not None:
            self.label2id = {label: index for index, label in self.id2label.items()}
        for name in ("stage_channels", "stage_depths", "temporal_dilations", "exit_layers", "exit_dilations"):
            setattr(self, name, list(getattr(self, name)))  # what JSON gives back
        self._check_choices()
        self._check_sizes()
        self._check_transformer()
        if self.num_exits is not None and not 1 <= self.num_exits <= self.max_exits:
            raise ValueError(f"num_exits must be between 1 and {self.max_exits}, got {self.num_exits}")

    @property
    def max_exits(self) -> int:
        """Exits of the full teacher that these sizes describe."""
        if self.backbone == "transformer":
            return len(self.exit_layers)
        return len(self.stage_channels) + (1 if self.temporal_channels > 0 else 0)

    @property
    def kept_exits(self) -> int:
        """Exits of this model: `num_exits`, or all."""
        return self.max_exits if self.num_exits is None else self.num_exits

    @property
    def frame_duration_s(self) -> float:
        """Seconds of one output frame, e.g. 4 x 160 / 16000 = 0.04."""
        return self.frame_stride * self.hop_length_samples / self.sampling_rate

    def _check_choices(self) -> None:
        if self.backbone not in BACKBONES:
            raise ValueError(f"backbone must be one of {BACKBONES}, got {self.backbone!r}")
        if self.clip_pooling not in CLIP_POOLINGS:
            raise ValueError(f"clip_pooling must be one of {CLIP_POOLINGS}, got {self.clip_pooling!r}")
        if self.frame_stride not in (2, 4):
            raise ValueError(f"frame_stride must be 2 or 4 log-mel frames, got {self.frame_stride}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if not 0 <= self.exit_dropout_blocks <= len(self.exit_dilations):
            raise ValueError(
                f"exit_dropout_blocks must be between 0 and the {len(self.exit_dilations)} blocks of exit_dilations, "
                f"got {self.exit_dropout_blocks}"
            )
        if not 0 <= self.monte_carlo_blocks <= self.exit_dropout_blocks:
            raise ValueError(
                f"monte_carlo_blocks must be between 0 and exit_dropout_blocks={self.exit_dropout_blocks}, "
                f"got {self.monte_carlo_blocks}"
            )
        if not 0.0 <= self.distillation_weight <= 1.0:
            raise ValueError(f"distillation_weight must be in [0, 1], got {self.distillation_weight}")
        if self.distillation_temperature <= 0:
            raise ValueError(f"distillation_temperature must be > 0, got {self.distillation_temperature}")

    def _check_sizes(self) -> None:
        for name in ("sampling_rate", "hop_length_samples", "num_mel_bins", "stem_channels", "exit_hidden_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if len(self.stage_channels) != len(self.stage_depths):
            raise ValueError(
                f"stage_channels and stage_depths must have the same length, got {self.stage_channels} "
                f"and {self.stage_depths}"
            )
        smallest = 4 * 2 ** (len(self.stage_channels) - 1)
        if self.num_mel_bins % smallest:
            raise ValueError(
                f"num_mel_bins must be a multiple of {smallest} for {len(self.stage_channels)} stages, "
                f"got {self.num_mel_bins}"
            )
        if self.context_s < 0 or self.window_s <= 2 * self.context_s:
            raise ValueError(
                f"window_s must be more than twice context_s >= 0, got window_s={self.window_s}, "
                f"context_s={self.context_s}"
            )

    def _check_transformer(self) -> None:
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"hidden_size must be a multiple of 2 x num_attention_heads={self.num_attention_heads} "
                f"(rotary positions turn pairs), got {self.hidden_size}"
            )
        layers = self.exit_layers
        increasing = all(a < b for a, b in zip(layers, layers[1:], strict=False))
        if not layers or not increasing or layers[0] < 1 or layers[-1] > self.num_hidden_layers:
            raise ValueError(
                f"exit_layers must be increasing and between 1 and num_hidden_layers={self.num_hidden_layers}, "
                f"got {layers}"
            )


EasySEDConfig.register_for_auto_class()

__all__ = ["EasySEDConfig"]
