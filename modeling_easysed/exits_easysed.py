"""Exit heads: what one stage knows about every output frame, to an embedding and to frame and clip logits.

    ExitHead    projection, temporal blocks, classifier; clip logits are pooled from frame logits
    TokenHead   an AST's own classifier; its clip logits come from a token of the clip

Both have dropout in front of the classifier. `prepare` is what all Monte Carlo passes share, `finish` what each draws
anew."""

import torch
from torch import nn

from .backbones_easysed import ChannelDropout, FrameProjection, TemporalBlock
from .configuration_easysed import EasySEDConfig

INITIAL_CLASS_LOGIT = -3.0  # sigmoid = 0.05: events are rare, so training need not first learn that


def pool_clip(frame_logits: torch.Tensor, mask: torch.Tensor | None, pooling: str) -> torch.Tensor:
    """Frame logits (batch, frames, classes) to clip logits (batch, classes).

    "linear_softmax" weighs every frame's probability by itself, sum p^2 / sum p: short events are not drowned as by the
    mean, and more than one frame gets a gradient, unlike the maximum. Source: Wang, Li & Metze 2019, ICASSP.
    """
    probabilities = torch.sigmoid(frame_logits.float())
    weights = torch.ones_like(probabilities) if pooling == "mean" else probabilities
    if mask is not None:
        weights = weights * mask.unsqueeze(-1)
    clip = (probabilities * weights).sum(1) / weights.sum(1).clamp_min(1e-7)
    return torch.logit(clip, eps=1e-6).to(frame_logits.dtype)


class FrameClassifier(nn.Linear):
    """Linear layer with an initialisation of its own: see `EasySEDPreTrainedModel._init_weights`."""

    def masked(self, hidden: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """Logits (passes, batch, frames, classes) of all passes: a mask on the input is a mask on the weights.

        Args:
            hidden: (batch, hidden size, frames).
            keep: (passes, hidden size).
        """
        weights = self.weight * keep[:, None, :]
        # (passes, classes, hidden size)
        return torch.einsum("pkc,bct->pbtk", weights, hidden) + self.bias

    def variances(self, hidden: torch.Tensor, probability: float) -> torch.Tensor:
        """Variance of the logits over all masks, (batch, frames, classes), in closed form; `hidden` as above.

        A logit sums channels that are dropped independently, each with variance p / (1 - p) x (weight x value)^2.
        Source: Wang & Manning 2013, Fast Dropout Training, ICML, section 2.
        """
        ratio = probability / (1.0 - probability)
        return ratio * (hidden.square().transpose(1, 2) @ self.weight.square().t())


class ExitHead(nn.Module):
    """Features of one stage to an embedding per frame and to frame and clip logits.

    The projection is the bottleneck of "Be Your Own Teacher": it brings every stage to one embedding size. Its temporal
    blocks give a shallow exit the context that its stage lacks. Dropout stands in front of the last of them and of the
    classifier. Source: Zhang et al. 2019, Be Your Own Teacher, section 3.
    """

    def __init__(self, config: EasySEDConfig, in_features: int) -> None:
        super().__init__()
        self.clip_pooling = config.clip_pooling
        width, num_blocks = config.exit_hidden_size, len(config.exit_dilations)
        self.num_prepared = num_blocks - config.monte_carlo_blocks
        self.num_sites = config.monte_carlo_blocks + 1
        rates = [config.dropout * (i >= num_blocks - config.exit_dropout_blocks) for i in range(num_blocks)]
        self.projection = FrameProjection(in_features, width)
        self.blocks = nn.ModuleList(
            TemporalBlock(width, dilation, rate) for dilation, rate in zip(config.exit_dilations, rates, strict=True)
        )
        self.dropout = ChannelDropout(config.dropout)
        self.classifier = FrameClassifier(width, config.num_labels)

    def forward(
        self, hidden: torch.Tensor, mask: torch.Tensor | None, keep: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Clip logits (batch, classes), frame logits (batch, frames, classes), embeddings (batch, frames, hidden size).

        `keep`: (batch, sites, hidden size) factors of a Monte Carlo pass; None = as the mode says.
        """
        return self.finish(self.prepare(hidden, mask), mask, keep)

    def prepare(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """(batch, frames, features) to (batch, hidden size, frames), up to the first site that passes draw."""
        hidden = self.projection(hidden)
        for block in self.blocks[: self.num_prepared]:
            hidden = block(hidden, mask)
        return hidden

    def finish(
        self, hidden: torch.Tensor, mask: torch.Tensor | None, keep: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As `forward`, from what `prepare` gives."""
        sites = [None] * self.num_sites if keep is None else keep.unbind(1)
        for block, site in zip(self.blocks[self.num_prepared :], sites, strict=False):
            hidden = block(hidden, mask, site)
        frame_logits = self.classifier(self.dropout(hidden, sites[-1]).transpose(1, 2))
        embedding = hidden.transpose(1, 2).contiguous()
        # (batch, frames, exit hidden size)
        return pool_clip(frame_logits, mask, self.clip_pooling), frame_logits, embedding

    def finish_passes(
        self, prepared: torch.Tensor, mask: torch.Tensor | None, keep: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All passes at once: clip logits (passes, batch, classes) and frame logits (passes, batch, frames, classes).

        Where the classifier is the only site, one matrix product serves all passes.

        Args:
            prepared: (batch, hidden size, frames) from `prepare`.
            mask: (batch, frames) or None.
            keep: (passes, sites, hidden size).
        """
        passes, batch = keep.shape[0], prepared.shape[0]  # len() would fix them in an exported graph
        many = None if mask is None else mask.repeat(passes, 1)
        if self.num_sites == 1:
            frame_logits = self.classifier.masked(prepared, keep[:, 0])
            logits = pool_clip(frame_logits.flatten(0, 1), many, self.clip_pooling)
            return logits.unflatten(0, (passes, batch)), frame_logits
        per_clip = keep[:, None].expand(-1, batch, -1, -1).flatten(0, 1)
        # (passes x batch, sites, hidden size)
        logits, frame_logits, _ = self.finish(prepared.repeat(passes, 1, 1), many, per_clip)
        return logits.unflatten(0, (passes, batch)), frame_logits.unflatten(0, (passes, batch))

    def variances(self, prepared: torch.Tensor) -> torch.Tensor:
        """Variance of the frame logits over all masks, (batch, frames, classes), in closed form."""
        return self.classifier.variances(prepared, self.dropout.probability)


class TokenHead(nn.Module):
    """The AST's linear classifier as an exit: the same weights read the clip's token and every frame.

    Its one dropout site is its input, where the AST has none: it makes Monte Carlo passes, and a plain pass is the AST.
    The layer norm in front of it is the last one of the trunk. Where `ExitHead` has frames alone, `prepared` here is
    (batch, hidden size, 1 + frames), the clip's token first.
    """

    num_sites = 1

    def __init__(self, config: EasySEDConfig) -> None:
        super().__init__()
        self.dropout = ChannelDropout(config.dropout)
        self.classifier = FrameClassifier(config.hidden_size, config.num_labels)

    def forward(
        self, hidden: torch.Tensor, mask: torch.Tensor | None, keep: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As `ExitHead.forward`, from (batch, frames, frame features | clip features)."""
        return self.finish(self.prepare(hidden, mask), mask, keep)

    def prepare(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """(batch, frames, 2 x hidden size) to (batch, hidden size, 1 + frames)."""
        frames, clip = hidden.chunk(2, dim=-1)
        return torch.cat([clip[:, :1], frames], dim=1).transpose(1, 2)

    def finish(
        self, hidden: torch.Tensor, mask: torch.Tensor | None, keep: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As `forward`, from what `prepare` gives; of `keep` (batch, sites, hidden size) the last site counts."""
        dropped = self.dropout(hidden, None if keep is None else keep[:, -1])
        logits = self.classifier(dropped.transpose(1, 2))
        # (batch, 1 + frames, classes)
        return logits[:, 0], logits[:, 1:], hidden[:, :, 1:].transpose(1, 2).contiguous()

    def finish_passes(
        self, prepared: torch.Tensor, mask: torch.Tensor | None, keep: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `ExitHead.finish_passes`."""
        logits = self.classifier.masked(prepared, keep[:, -1])
        # (passes, batch, 1 + frames, classes)
        return logits[:, :, 0], logits[:, :, 1:]

    def variances(self, prepared: torch.Tensor) -> torch.Tensor:
        """As `ExitHead.variances`."""
        return self.classifier.variances(prepared[:, :, 1:], self.dropout.probability)


__all__ = ["INITIAL_CLASS_LOGIT", "ExitHead", "FrameClassifier", "TokenHead", "pool_clip"]
