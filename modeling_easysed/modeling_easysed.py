"""EasySED's model, top-down: what it returns, the trunk, the detector with its exits.

    input_values (batch, frames, mels)
      -> stem                       (batch, channels, frames / 2, mels / 2), then / 4
      -> stage 1 .. stage N         CNN: residual blocks, then dilated temporal blocks; Transformer: pre-norm blocks
                                    (the AST has patches in place of the stem)
      -> exit 1 .. exit N           (batch, output frames, classes) and (batch, classes); exit N is the teacher

The stages stand in backbones_easysed.py and ast_easysed.py, the exits in exits_easysed.py; parts_easysed.py puts them
together. Every stage hands (batch, output frames, features) to its exit. All output frames lie on one time line: frame
k is centred at k x `frame_duration_s`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .ast_checkpoint_easysed import (
    easysed_config,
    easysed_weights,
    load_ast,
    load_ast_features,
    warn_of_untrained,
)
from .ast_easysed import PatchEmbedding
from .backbones_easysed import Stem
from .configuration_easysed import EasySEDConfig
from .draws_easysed import check_closed_form
from .exits_easysed import INITIAL_CLASS_LOGIT, FrameClassifier
from .losses_easysed import distillation_losses, part_weights, supervised_losses, total_loss
from .monte_carlo_easysed import MomentsOutput, MonteCarloOutput, evaluating, sample_masks
from .parts_easysed import build_backbone, build_exits


@dataclass
class EasySEDModelOutput(ModelOutput):
    """What the trunk returns.

    Attributes:
        last_hidden_state: (batch, output frames, features) of the deepest stage.
        hidden_states: one such tensor per stage, shallowest first.
        attention_mask: (batch, output frames), 1 = real frame, or None.
    """

    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attention_mask: torch.Tensor | None = None


@dataclass
class SoundEventDetectionOutput(ModelOutput):
    """What detection returns; all logits, no probabilities.

    Attributes:
        loss: scalar, with labels only.
        logits: (batch, classes) of the deepest exit computed.
        frame_logits: (batch, output frames, classes) of that exit.
        exit_logits: (exits, batch, classes).
        exit_frame_logits: (exits, batch, output frames, classes).
        exit_embeddings: (exits, batch, output frames, exit_hidden_size).
        loss_parts: every term of the loss before weighting, by name.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    frame_logits: torch.Tensor | None = None
    exit_logits: torch.Tensor | None = None
    exit_frame_logits: torch.Tensor | None = None
    exit_embeddings: torch.Tensor | None = None
    loss_parts: dict[str, torch.Tensor] | None = None


# ---- models ----------------------------------------------------------------------------------------------------------


class EasySEDPreTrainedModel(PreTrainedModel):
    """Weights, loading and saving common to the trunk and the detector."""

    config_class = EasySEDConfig
    base_model_prefix = "easysed"
    main_input_name = "input_values"
    input_modalities = ("audio",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["TransformerBlock", "ResidualBlock", "PatchBlock"]

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> "EasySEDPreTrainedModel":
        """As in transformers, but only safetensors is ever read, never a pickle."""
        return super().from_pretrained(*args, **{"use_safetensors": True, **kwargs})

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, FrameClassifier):
            init.normal_(module.weight, std=0.02)
            init.constant_(module.bias, INITIAL_CLASS_LOGIT)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
        elif isinstance(module, Stem):
            init.zeros_(module.frequency_bias)
        elif isinstance(module, PatchEmbedding):
            for tokens in (module.cls_token, module.distillation_token, module.position_embeddings):
                init.normal_(tokens, std=0.02)


class EasySEDModel(EasySEDPreTrainedModel):
    """The trunk: a backbone whose stages share one output time line."""

    def __init__(self, config: EasySEDConfig) -> None:
        super().__init__(config)
        self.backbone = build_backbone(config)
        self.post_init()

    def stages(self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None) -> Iterator[torch.Tensor]:
        """Hidden states (batch, output frames, features), one stage after the other: nothing is computed ahead."""
        return self.backbone(input_values.to(self.dtype), attention_mask)

    def forward(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None, num_stages: int | None = None
    ) -> EasySEDModelOutput:
        """Runs the stages.

        Args:
            input_values: (batch, frames, mels).
            attention_mask: (batch, frames), 1 = real frame; None = all are.
            num_stages: stop after so many stages; None = all.

        Returns:
            Hidden states (batch, ceil(frames / frame_stride), features) per stage.

        Raises:
            ValueError: when `input_values` does not have the shape above.
        """
        if input_values.ndim != 3 or input_values.shape[-1] != self.config.num_mel_bins:
            raise ValueError(
                f"input_values must have shape (batch, frames, mels={self.config.num_mel_bins}), "
                f"got {tuple(input_values.shape)}: make them with EasySEDFeatureExtractor"
            )
        if attention_mask is not None and attention_mask.shape != input_values.shape[:2]:
            raise ValueError(
                f"attention_mask must have shape {tuple(input_values.shape[:2])}, got {tuple(attention_mask.shape)}"
            )
        hidden_states = tuple(islice(self.stages(input_values, attention_mask), num_stages))
        output_mask = None if attention_mask is None else attention_mask[:, :: self.config.frame_stride]
        return EasySEDModelOutput(hidden_states[-1], hidden_states, output_mask)


class EasySEDForSoundEventDetection(EasySEDPreTrainedModel):
    """The trunk with an exit after every stage; the deepest exit is the teacher, any other a student."""

    def __init__(self, config: EasySEDConfig) -> None:
        super().__init__(config)
        self.easysed = EasySEDModel(config)
        self.exits = build_exits(config, self.easysed.backbone.feature_sizes)
        self.post_init()

    @classmethod
    def from_ast(
        cls,
        name_or_path: str | Path,
        exit_layers: Sequence[int] | None = None,
        id2label: dict[int, str] | None = None,
        dtype: str | torch.dtype = "auto",
        **hub_kwargs: Any,
    ) -> "EasySEDForSoundEventDetection":
        """An Audio Spectrogram Transformer of transformers as a detector: the same clip logits, and frame logits too.

        Its classifier is the deepest exit and reads columns of patches as well as the clip; a warning names what has
        not been trained. Its features are those of `EasySEDFeatureExtractor.from_ast`.

        Args:
            name_or_path: folder or Hub id of an `ASTForAudioClassification`, in safetensors, for example
                "MIT/ast-finetuned-audioset-10-10-0.4593".
            exit_layers: 1-based blocks after which there is an exit, ending with the last block; None = after each
                quarter of the blocks.
            id2label: new labels {0: name, ...}, with a new linear layer to train; None = the AST's own.
            dtype: of the network; "auto" = as saved.
            **hub_kwargs: of transformers' `from_pretrained`: `revision`, `token`, `cache_dir`, `local_files_only`.

        Raises:
            ValueError: another kind of model, missing weights, labels or a geometry that break a rule.
            OSError: no such checkpoint, or none in safetensors.
        """
        keeps_classifier = id2label is None
        ast = load_ast(name_or_path, keeps_classifier, dtype, **hub_kwargs)
        config = easysed_config(ast.config, load_ast_features(name_or_path, **hub_kwargs), exit_layers, id2label)
        config.name_or_path = str(name_or_path)
        model = cls(config).to(ast.dtype)
        weights = easysed_weights(ast.state_dict(), config, keeps_classifier)
        unexpected = model.load_state_dict(weights, strict=False).unexpected_keys
        assert not unexpected, unexpected
        warn_of_untrained(config, has_new_labels=not keeps_classifier)
        return model.eval()

    @property
    def num_exits(self) -> int:
        return len(self.exits)

    @property
    def frame_duration_s(self) -> float:
        """Seconds of one output frame; frame k is centred at k x frame_duration_s."""
        return self.config.frame_duration_s

    def forward(
        self,
        input_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        frame_labels: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        exit_index: int | None = None,
        dropout_masks: torch.Tensor | None = None,
    ) -> SoundEventDetectionOutput:
        """Frame and clip logits at every exit, and the loss when there are labels.

        Args:
            input_values: (batch, frames, mels) from EasySEDFeatureExtractor.
            labels: (batch, classes) in [0, 1], negative = unknown (clip has only frame labels).
            frame_labels: (batch, output frames, classes) in [0, 1], negative = unknown.
            attention_mask: (batch, frames), 1 = real frame; None = all are.
            exit_index: compute this exit alone (1 = shallowest) and nothing deeper; None = all exits.
            dropout_masks: (batch, sites, exit_hidden_size) factors of the heads' dropout, as from `sample_masks`;
                None = random in training, no dropout in evaluation.

        Returns:
            SoundEventDetectionOutput; with `exit_index`, its leading exit dimension is 1.
        """
        self._check_exit(exit_index)
        trunk = self.easysed(input_values, attention_mask, num_stages=exit_index)
        chosen = range(self.num_exits) if exit_index is None else [exit_index - 1]
        mask = trunk.attention_mask
        heads = [self.exits[index](trunk.hidden_states[index], mask, dropout_masks) for index in chosen]
        logits, frame_logits, embeddings = (torch.stack(part) for part in zip(*heads, strict=True))
        output = SoundEventDetectionOutput(None, logits[-1], frame_logits[-1], logits, frame_logits, embeddings)
        if labels is not None or frame_labels is not None:
            output.loss, output.loss_parts = self._loss(output, labels, frame_labels, mask)
        return output

    def monte_carlo(
        self,
        input_values: torch.Tensor,
        passes: int = 20,
        seed: int = 0,
        reuse_trunk: bool = True,
        attention_mask: torch.Tensor | None = None,
        exit_index: int | None = None,
    ) -> MonteCarloOutput:
        """Logits of `passes` thinned networks: dropout in the exit head stays on, everything else is as in evaluation.

        Args:
            input_values: (batch, frames, mels).
            passes: number of masks; every clip of the batch gets the same ones.
            seed: of the masks. The same seed gives the same logits, in whatever batch.
            reuse_trunk: compute what no mask touches once; False recomputes everything for every pass, to compare.
            attention_mask: (batch, frames), 1 = real frame; None = all are.
            exit_index: 1 = shallowest; None = the deepest.

        Raises:
            ValueError: when `passes`, `seed` or `exit_index` is out of range.
        """
        self._check_exit(exit_index)
        index = self.num_exits if exit_index is None else exit_index
        head = self.exits[index - 1]
        masks = sample_masks(passes, head.num_sites, self.config.exit_hidden_size, self.config.dropout, seed)
        masks = masks.to(device=self.device, dtype=self.dtype)
        with evaluating(self):
            if reuse_trunk:
                trunk = self.easysed(input_values, attention_mask, num_stages=index)
                prepared = head.prepare(trunk.hidden_states[-1], trunk.attention_mask)
                logits, frame_logits = head.finish_passes(prepared, trunk.attention_mask, masks)
            else:
                batch = len(input_values)
                outputs = [
                    self(input_values, None, None, attention_mask, index, mask.expand(batch, -1, -1)) for mask in masks
                ]
                logits = torch.stack([output.logits for output in outputs])
                frame_logits = torch.stack([output.frame_logits for output in outputs])
        return MonteCarloOutput(logits, frame_logits)

    def moments(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        exit_index: int | None = None,
    ) -> MomentsOutput:
        """Mean and variance of the frame logits over all dropout masks, without sampling any.

        Args:
            input_values: (batch, frames, mels).
            attention_mask: (batch, frames), 1 = real frame; None = all are.
            exit_index: 1 = shallowest; None = the deepest.

        Raises:
            ValueError: when `exit_index` is out of range, or the config samples more than the classifier's dropout.
        """
        self._check_exit(exit_index)
        check_closed_form(self.config.monte_carlo_blocks)
        index = self.num_exits if exit_index is None else exit_index
        head = self.exits[index - 1]
        with evaluating(self):
            trunk = self.easysed(input_values, attention_mask, num_stages=index)
            prepared = head.prepare(trunk.hidden_states[-1], trunk.attention_mask)
            return MomentsOutput(head.finish(prepared, trunk.attention_mask)[1], head.variances(prepared))

    def student(self, exit_index: int) -> "EasySEDForSoundEventDetection":
        """A model of its own without the layers below exit `exit_index` (1 = shallowest); equal outputs, own weights.

        Raises:
            ValueError: when there is no such exit.
        """
        self._check_exit(exit_index)
        config = EasySEDConfig.from_dict({**self.config.to_dict(), "num_exits": exit_index})
        student = type(self)(config).to(device=self.device, dtype=self.dtype)
        own = student.state_dict().keys()
        student.load_state_dict({name: value for name, value in self.state_dict().items() if name in own})
        return student.train(self.training)

    def _check_exit(self, exit_index: int | None) -> None:
        if exit_index is not None and not 1 <= exit_index <= self.num_exits:
            raise ValueError(f"exit_index must be between 1 and {self.num_exits}, got {exit_index}")

    def _loss(
        self,
        output: SoundEventDetectionOutput,
        labels: torch.Tensor | None,
        frame_labels: torch.Tensor | None,
        mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        config = self.config
        if frame_labels is not None and mask is not None:
            frame_labels = frame_labels.masked_fill(~mask.bool().unsqueeze(-1), -1)
        exits = (output.exit_logits.float(), output.exit_frame_logits.float())
        with_classes = config.class_loss_weight > 0
        parts = supervised_losses(*exits, labels, frame_labels, with_classes)
        if config.distillation_weight > 0 or config.hint_weight > 0:
            embeddings = output.exit_embeddings.float()
            from_ensemble = config.distillation_target == "ensemble"
            temperature = config.distillation_temperature
            parts |= distillation_losses(*exits, embeddings, temperature, mask, with_classes, from_ensemble)
        return total_loss(parts, part_weights(parts, **config.loss_weights)), parts


EasySEDModel.register_for_auto_class("AutoModel")
EasySEDForSoundEventDetection.register_for_auto_class("AutoModelForAudioClassification")

__all__ = ["EasySEDForSoundEventDetection", "EasySEDModel", "EasySEDPreTrainedModel"]
