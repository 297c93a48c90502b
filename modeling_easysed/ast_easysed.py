"""The Audio Spectrogram Transformer's trunk in its original geometry, cut into stages with exits.

    input_values (batch, frames, mels)
      -> patches of 16 x 16 cells, a step of 10 both ways, and two tokens of the whole clip
      -> pre-norm blocks             (batch, 2 + patches, hidden size)
      -> stage: norm, columns        patches of one time column averaged; the clip's two tokens averaged
      -> norm, interpolation         (batch, output frames, column | clip), on the package's time line

The last stage's two norms are those of the AST and of its classifier. The second one stands here, not in the exit head:
what comes after it is linear, so that interpolating here interpolates the logits.

Source: Gong et al. 2021, AST: Audio Spectrogram Transformer, Interspeech, section 2."""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F

from .backbones_easysed import RecomputedBlock
from .configuration_easysed import EasySEDConfig


class PatchEmbedding(nn.Module):
    """(batch, frames, mels) to tokens (batch, 2 + patches, hidden size) with learned positions.

    Patches are counted frequency first: all time columns of the lowest band, then those of the next.
    """

    def __init__(self, config: EasySEDConfig) -> None:
        super().__init__()
        stride = (config.frequency_stride, config.frame_stride)
        self.projection = nn.Conv2d(1, config.hidden_size, config.patch_size, stride)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.distillation_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        num_tokens = 2 + config.num_patch_rows * config.num_patch_columns
        self.position_embeddings = nn.Parameter(torch.zeros(1, num_tokens, config.hidden_size))

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        image = input_values.transpose(1, 2).unsqueeze(1)
        # (batch, 1, mels, frames)
        patches = self.projection(image).flatten(2).transpose(1, 2)
        # (batch, patches, hidden size)
        batch = len(patches)
        clip_tokens = [self.cls_token.expand(batch, -1, -1), self.distillation_token.expand(batch, -1, -1)]
        return torch.cat([*clip_tokens, patches], dim=1) + self.position_embeddings


class PatchAttention(nn.Module):
    """Multi-head self-attention over tokens (batch, tokens, hidden size); positions are in the tokens."""

    def __init__(self, config: EasySEDConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.qkv_bias)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        query, key, value = self.qkv(hidden).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        # each (batch, heads, tokens, head size)
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.output(attended.transpose(1, 2).flatten(2))


class PatchBlock(RecomputedBlock):
    """Pre-norm attention and MLP on (batch, tokens, hidden size), without dropout, as the AST was trained."""

    def __init__(self, config: EasySEDConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = PatchAttention(config)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp_in = nn.Linear(config.hidden_size, config.intermediate_size)
        self.mlp_out = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = hidden + self.attention(self.attention_norm(hidden))
        return hidden + self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(hidden))))


class PatchBackbone(nn.Module):
    """Blocks over patches with exits in between; every exit gets the column and the clip, side by side, per frame."""

    def __init__(self, config: EasySEDConfig) -> None:
        super().__init__()
        self.config = config
        self.exit_layers = config.exit_layers[: config.kept_exits]
        self.embedding = PatchEmbedding(config)
        self.blocks = nn.ModuleList(PatchBlock(config) for _ in range(self.exit_layers[-1]))
        self.token_norms, self.exit_norms = (
            nn.ModuleList(nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) for _ in self.exit_layers)
            for _ in range(2)
        )
        self.feature_sizes = [2 * config.hidden_size] * len(self.exit_layers)

    def forward(self, input_values: torch.Tensor, mask: torch.Tensor | None) -> Iterator[torch.Tensor]:
        num_frames = -(-input_values.shape[1] // self.config.frame_stride)
        for tokens, norm in zip(self.tokens(input_values, mask), self.exit_norms, strict=True):
            clip = norm(tokens[:, :2].mean(1, keepdim=True))
            # (batch, 1, hidden size)
            columns = tokens[:, 2:].unflatten(1, (self.config.num_patch_rows, -1)).mean(1)
            frames = columns_to_frames(norm(columns), num_frames, self.config.patch_size, self.config.frame_stride)
            # (batch, output frames, hidden size)
            yield torch.cat([frames, clip.expand_as(frames)], dim=-1)

    def tokens(self, input_values: torch.Tensor, mask: torch.Tensor | None = None) -> Iterator[torch.Tensor]:
        """Normalised tokens (batch, 2 + patches, hidden size) of every exit; the last are the AST's hidden state.

        Args:
            input_values: (batch, frames, mels).
            mask: (batch, frames), 1 = real frame; None = all are.
        """
        hidden = self.embedding(self.fill_up(input_values, mask))
        start = 0
        for norm, end in zip(self.token_norms, self.exit_layers, strict=True):
            for block in self.blocks[start:end]:
                hidden = block(hidden)
            start = end
            yield norm(hidden)

    def fill_up(self, input_values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """(batch, frames, mels) to (batch, max_length_frames, mels): after its end a clip goes on as in AST's training.

        That filling is attended to like sound: the AST has never seen an attention mask.

        Raises:
            ValueError: when there are more frames than learned positions.
        """
        missing = self.config.max_length_frames - input_values.shape[1]
        if missing < 0:
            raise ValueError(
                f"input_values must have at most max_length_frames={self.config.max_length_frames} frames, got "
                f"{input_values.shape[1]}: cut them into windows, as SoundEventDetectionPipeline does"
            )
        padding = self.config.padding_value
        if mask is not None:
            input_values = input_values.masked_fill(~mask.bool().unsqueeze(-1), padding)
        return F.pad(input_values, (0, 0, 0, missing), value=padding)


def columns_to_frames(columns: torch.Tensor, num_frames: int, patch_size: int, stride: int) -> torch.Tensor:
    """Brings columns onto the time line of output frames: linear in between, constant beyond the first and last.

    Column t covers the log-mel frames stride x t to stride x t + patch_size and is centred in their middle; output
    frame k is centred at stride x k.

    Args:
        columns: (batch, columns, features).
        num_frames: output frames.
        patch_size, stride: log-mel frames of a column, and from one column to the next.

    Returns:
        (batch, output frames, features).
    """
    last = columns.shape[1] - 1
    position = (torch.arange(num_frames, dtype=torch.float64) - patch_size / 2 / stride).clamp(0, last)
    shares = (1 - (position[:, None] - torch.arange(last + 1)).abs()).clamp_min(0)  # linear between neighbours
    # (output frames, columns)
    return shares.to(columns) @ columns


__all__ = ["PatchBackbone", "PatchEmbedding", "columns_to_frames"]
