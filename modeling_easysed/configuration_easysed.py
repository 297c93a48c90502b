"""Configuration of EasySED: one dataclass that holds the sizes of the front end, of every backbone and of the exits,
the loss weights, and what training and tuning leave behind (labels, decoding, calibration, provenance)."""

from typing import Any

from transformers import PreTrainedConfig

BACKBONES = ("cnn", "transformer", "ast")
CLIP_POOLINGS = ("linear_softmax", "mean")
DISTILLATION_TARGETS = ("deepest", "ensemble")
AUTO_MAP = {  # saving a model names that model's class alone; the others must load from the same folder too
    "AutoConfig": "configuration_easysed.EasySEDConfig",
    "AutoModel": "modeling_easysed.EasySEDModel",
    "AutoModelForAudioClassification": "modeling_easysed.EasySEDForSoundEventDetection",
}
AST_GEOMETRY = {  # of MIT/ast-finetuned-audioset-10-10-0.4593: EasySEDConfig(backbone="ast", **AST_GEOMETRY)
    "num_mel_bins": 128,
    "frame_stride": 10,
    "patch_size": 16,
    "frequency_stride": 10,
    "max_length_frames": 1024,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "exit_layers": (3, 6, 9, 12),
    "exit_hidden_size": 768,
    "exit_dilations": (1,),
    "window_s": 10.2,  # 1020 frames: the columns of 1024 frames end at frame 1016, so that nothing is lost
    "context_s": 1.0,
    "padding_value": 0.46703,  # a log-mel value of 0, normalised with AudioSet's mean and deviation
}


class EasySEDConfig(PreTrainedConfig):
    """Configuration of an `EasySEDModel`.

    Args:
        backbone: "cnn" (residual stages over time and frequency, then dilated temporal blocks), "transformer"
            (AST-style pre-norm blocks on one token per output frame) or "ast" (the original Audio Spectrogram
            Transformer on patches; its sizes are `AST_GEOMETRY`, its weights come with `from_ast`).
        sampling_rate: Hz of the audio that the features come from.
        hop_length_samples: samples between two log-mel frames.
        num_mel_bins: mel bands of `input_values`.
        frame_stride: log-mel frames per output frame, 2 or 4; the same at every exit. "ast": from patch to patch.
        stem_channels: channels of the first convolution (half resolution).
        stage_channels: channels of the CNN's two-dimensional stages; every stage after the first halves frequency.
        stage_depths: residual blocks per two-dimensional stage.
        temporal_channels: channels of the CNN's last stage, which sees time only; 0 leaves that stage out.
        temporal_dilations: dilation, in output frames, of each of its blocks.
        num_stem_stages: residual stages (`stage_channels`) of the Transformer's stem, before its blocks.
        hidden_size: width of the Transformer or AST.
        num_hidden_layers: its blocks.
        num_attention_heads: its heads; must divide `hidden_size`.
        intermediate_size: width of its MLP.
        exit_layers: 1-based blocks after which it has an exit; increasing, the last is the teacher. "ast": the last is
            its last block, whose exit is the AST's own classifier.
        patch_size: cells of an AST's patch, in time and in frequency.
        frequency_stride: mel bands from patch to patch.
        max_length_frames: log-mel frames that an AST has positions for; a shorter input is filled up.
        padding_value: of what follows a clip, in normalised log-mel.
        layer_norm_eps: of an AST's layer norms.
        qkv_bias: whether an AST's queries, keys and values have a bias.
        num_exits: exits that this model keeps (None = all). A student has fewer than its teacher.
        exit_hidden_size: width of every exit's embedding (equal, so that the hint loss compares like with like). "ast":
            `hidden_size`, the width of its own classifier's input.
        exit_dilations: dilation of each temporal block in an exit head.
        exit_dropout_blocks: how many of these blocks, counted from the classifier, have dropout in front, besides the
            classifier itself.
        monte_carlo_blocks: how many of those keep their dropout in Monte Carlo passes, besides the classifier. 0 makes
            a pass nearly free and gives the moments of the logits in closed form; sampling the block as well measured
            no better.
        dropout: probability in the last CNN stage, the Transformer's blocks and the exit heads. An AST has it in front
            of its classifier alone, and in the other exit heads.
        clip_pooling: frames to clip, "linear_softmax" or "mean".
        frame_loss_weight, clip_loss_weight: weights of the two supervised losses, each class for itself.
        class_loss_weight: weight of a third one, which tells the classes of a clip apart (softmax over classes).
        distillation_weight: alpha, share of the teacher's soft targets at a student exit (0 = plain training).
        distillation_target: whose they are, "deepest" or "ensemble" (the mean logits of all exits).
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
    num_stem_stages: int = 0
    hidden_size: int = 192
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    intermediate_size: int = 576
    exit_layers: list[int] | tuple[int, ...] = (2, 4, 6)
    patch_size: int = 16
    frequency_stride: int = 10
    max_length_frames: int = 1024
    padding_value: float = 0.0
    layer_norm_eps: float = 1e-12
    qkv_bias: bool = True
    num_exits: int | None = None
    exit_hidden_size: int = 96
    exit_dilations: list[int] | tuple[int, ...] = (1, 4, 16)
    exit_dropout_blocks: int = 1
    monte_carlo_blocks: int = 0
    dropout: float = 0.2
    clip_pooling: str = "linear_softmax"
    frame_loss_weight: float = 1.0
    clip_loss_weight: float = 0.3
    class_loss_weight: float = 0.0
    distillation_weight: float = 0.3
    distillation_target: str = "deepest"
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
        self._check_exit_layers()
        if self.backbone == "ast":
            self._check_ast()
        else:
            self._check_stem_and_heads()
        if self.num_exits is not None and not 1 <= self.num_exits <= self.max_exits:
            raise ValueError(f"num_exits must be between 1 and {self.max_exits}, got {self.num_exits}")

    @property
    def max_exits(self) -> int:
        """Exits of the full teacher that these sizes describe."""
        if self.backbone in ("transformer", "ast"):
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

    @property
    def loss_weights(self) -> dict[str, float]:
        """What `losses_easysed.part_weights` takes."""
        return {
            "frame_weight": self.frame_loss_weight,
            "clip_weight": self.clip_loss_weight,
            "class_weight": self.class_loss_weight,
            "distillation_weight": self.distillation_weight,
            "hint_weight": self.hint_weight,
        }

    @property
    def num_patch_rows(self) -> int:
        """Patches of an AST above one another, e.g. (128 - 16) // 10 + 1 = 12."""
        return (self.num_mel_bins - self.patch_size) // self.frequency_stride + 1

    @property
    def num_patch_columns(self) -> int:
        """Patches of an AST beside one another, e.g. (1024 - 16) // 10 + 1 = 101."""
        return (self.max_length_frames - self.patch_size) // self.frame_stride + 1

    def _check_choices(self) -> None:
        if self.backbone not in BACKBONES:
            raise ValueError(f"backbone must be one of {BACKBONES}, got {self.backbone!r}")
        if self.clip_pooling not in CLIP_POOLINGS:
            raise ValueError(f"clip_pooling must be one of {CLIP_POOLINGS}, got {self.clip_pooling!r}")
        if self.distillation_target not in DISTILLATION_TARGETS:
            raise ValueError(
                f"distillation_target must be one of {DISTILLATION_TARGETS}, got {self.distillation_target!r}"
            )
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
        if self.context_s < 0 or self.window_s <= 2 * self.context_s:
            raise ValueError(
                f"window_s must be more than twice context_s >= 0, got window_s={self.window_s}, "
                f"context_s={self.context_s}"
            )

    def _check_exit_layers(self) -> None:
        layers = self.exit_layers
        increasing = all(a < b for a, b in zip(layers, layers[1:], strict=False))
        if not layers or not increasing or layers[0] < 1 or layers[-1] > self.num_hidden_layers:
            raise ValueError(
                f"exit_layers must be increasing and between 1 and num_hidden_layers={self.num_hidden_layers}, "
                f"got {layers}"
            )

    def _check_stem_and_heads(self) -> None:
        if self.frame_stride not in (2, 4):
            raise ValueError(f"frame_stride must be 2 or 4 log-mel frames, got {self.frame_stride}")
        smallest = 4 * 2 ** (len(self.stage_channels) - 1)
        if self.num_mel_bins % smallest:
            raise ValueError(
                f"num_mel_bins must be a multiple of {smallest} for {len(self.stage_channels)} stages, "
                f"got {self.num_mel_bins}"
            )
        if not 0 <= self.num_stem_stages <= len(self.stage_channels):
            raise ValueError(
                f"num_stem_stages must be between 0 and the {len(self.stage_channels)} stages of stage_channels, "
                f"got {self.num_stem_stages}"
            )
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"hidden_size must be a multiple of 2 x num_attention_heads={self.num_attention_heads} "
                f"(rotary positions turn pairs), got {self.hidden_size}"
            )

    def _check_ast(self) -> None:
        original = "AST_GEOMETRY of configuration_easysed has the original sizes"
        smaller_side = min(self.num_mel_bins, self.max_length_frames)
        if not 1 <= self.patch_size <= smaller_side:
            raise ValueError(
                f"patch_size must be between 1 and {smaller_side}, the smaller one of num_mel_bins="
                f"{self.num_mel_bins} and max_length_frames={self.max_length_frames}, got {self.patch_size}: {original}"
            )
        for name in ("frame_stride", "frequency_stride"):
            if not 1 <= getattr(self, name) <= self.patch_size:
                raise ValueError(
                    f"{name} must be between 1 and patch_size={self.patch_size} for backbone 'ast', so that patches "
                    f"leave no gap, got {getattr(self, name)}: {original}"
                )
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size must be a multiple of num_attention_heads={self.num_attention_heads}, "
                f"got {self.hidden_size}"
            )
        if self.exit_hidden_size != self.hidden_size:
            raise ValueError(
                f"exit_hidden_size must be hidden_size={self.hidden_size} for backbone 'ast', whose deepest exit has "
                f"no projection, got {self.exit_hidden_size}"
            )
        if self.exit_layers[-1] != self.num_hidden_layers:
            raise ValueError(
                f"exit_layers must end with num_hidden_layers={self.num_hidden_layers} for backbone 'ast', whose own "
                f"classifier is the deepest exit, got {self.exit_layers}"
            )
        self._check_ast_window()

    def _check_ast_window(self) -> None:
        frame_s = self.frame_duration_s
        longest_s = self.max_length_frames // self.frame_stride * frame_s
        if self.window_s > longest_s + 1e-6:
            raise ValueError(
                f"window_s must be at most {longest_s:g} s for backbone 'ast', the output frames of {frame_s:g} s in "
                f"max_length_frames={self.max_length_frames}, got {self.window_s}"
            )


EasySEDConfig.register_for_auto_class()

__all__ = ["AST_GEOMETRY", "EasySEDConfig"]
