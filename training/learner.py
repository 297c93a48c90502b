"""Model, optimiser, schedule and averaged weights of a run, and its one verb: an optimiser step.

Under Accelerate the model may be on one device, copied to several processes (DDP) or sharded (FSDP). Nothing here asks
which: what leaves the model, leaves it through `averaged_model`."""

import copy
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from averaged_weights import AveragedWeights
from settings import Settings
from soft_targets import SOFT, taught_losses, taught_weights
from synced_norm import synchronise_batch_norm
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present
from transformers import get_cosine_schedule_with_warmup

from modeling_easysed import EasySEDConfig, EasySEDForSoundEventDetection
from modeling_easysed.losses_easysed import part_weights, total_loss

SUPERVISED = ("frame", "clip", "class")  # kinds of loss parts that are means over what is known


class Learner:
    """Learns from the batches of all processes as one process would from the whole batch.

    With dropout 0, losses and weights are those of one process up to rounding: micro-batch m has the same samples on
    any number of processes, batch norm has its statistics over all of them, and every loss is a mean over the known
    targets of the global batch, however they are spread. (A bias that batch norm takes out again has no gradient but
    rounding, which AdamW blows up: there weights differ, and outputs do not.) Dropout draws other masks on every
    process: with it runs agree in distribution alone. Another `gradient_accumulation` is another run: batch norm has
    statistics per micro-batch.

    Args:
        settings: of the run; `batch_size` counts all processes and micro-batches.
        config: of the model.
        accelerator: with as many processes as were launched.

    Attributes:
        part_weights: what each part of the loss counts for; known from the first step on.

    Raises:
        ValueError: when the batch cannot be split evenly.
    """

    def __init__(self, settings: Settings, config: EasySEDConfig, accelerator: Accelerator) -> None:
        check_batch_size(settings, accelerator.num_processes)
        self.settings, self.config, self.accelerator = settings, config, accelerator
        set_seed(settings.seed)
        model = EasySEDForSoundEventDetection(config)
        self.plain = copy.deepcopy(model).eval().requires_grad_(False).to(accelerator.device)
        if accelerator.num_processes > 1:
            model = synchronise_batch_norm(model, accelerator.device)
        answer_fsdp(model)
        groups = parameter_groups(model, settings.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
        schedule = get_cosine_schedule_with_warmup(optimizer, settings.warmup_steps, settings.steps)
        self.model, self.optimizer, self.schedule = accelerator.prepare(model, optimizer, schedule)
        self.average = AveragedWeights(accelerator.unwrap_model(self.model), settings.ema_decay)
        self.part_weights: dict[str, float] = {}
        accelerator.register_save_state_pre_hook(drop_prefixes)
        accelerator.register_load_state_pre_hook(self._load_unwrapped)
        set_seed(settings.seed + accelerator.process_index)  # of dropout: other masks on every process

    def step(self, batch: dict[str, torch.Tensor], number: int) -> dict[str, torch.Tensor]:
        """Optimiser step `number`, counted from 0, on this process's share of the batch.

        Args:
            batch: input_values (samples, frames, mels), frame_labels (samples, output frames, classes) and labels
                (samples, classes), as the model takes them; with teachers, soft_frame_labels and soft_labels too.
            number: the averaged weights forget faster in the first steps.

        Returns:
            "loss" and every part of it, scalars on the device; their means over processes are those of the batch.
        """
        self.model.train()
        batch = {name: value.to(self.accelerator.device, non_blocking=True) for name, value in batch.items()}
        micro_batches = split(batch, self.settings.gradient_accumulation)
        shares = self._shares(micro_batches)
        total: dict[str, torch.Tensor] = {}
        for index, micro_batch in enumerate(micro_batches):
            is_last = index == len(micro_batches) - 1
            with nullcontext() if is_last else self.accelerator.no_sync(self.model):
                parts = self._backward(micro_batch, shares[index])
            total = {name: value + total.get(name, 0.0) for name, value in parts.items()}
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.max_gradient_norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        self.average.update(self.accelerator.unwrap_model(self.model), number)
        return total

    def _backward(self, micro_batch: dict[str, torch.Tensor], shares: dict[str, torch.Tensor]) -> dict:
        with self.accelerator.autocast():
            output = self.model(**{name: value for name, value in micro_batch.items() if name not in SOFT})
            parts = output.loss_parts
            if all(name in micro_batch for name in SOFT):
                exits = (output.exit_logits.float(), output.exit_frame_logits.float())
                targets = (micro_batch["soft_labels"], micro_batch["soft_frame_labels"])
                parts = {**parts, **taught_losses(*exits, targets, self.config.distillation_temperature)}
        equal_share = 1 / self.settings.gradient_accumulation
        parts = {name: value * shares.get(_kind(name), equal_share) for name, value in parts.items()}
        if not self.part_weights:
            self.part_weights = self._weights(list(parts))
        loss = total_loss(parts, self.part_weights)
        self.accelerator.backward(loss)
        return {"loss": loss.detach(), **{name: value.detach() for name, value in parts.items()}}

    def _weights(self, names: list[str]) -> dict[str, float]:
        taught = [name for name in names if name.startswith("taught_")]
        own = part_weights(set(names) - set(taught), **self.config.loss_weights)
        return {**own, **taught_weights(taught, self.config, self.settings.teacher_weight)}

    def _shares(self, micro_batches: list[dict[str, torch.Tensor]]) -> list[dict[str, torch.Tensor]]:
        """What each micro-batch's mean over known targets counts for: its share of all that are known in the batch.

        Times the number of processes, because gradients are averaged over these.
        """
        counts = torch.stack([known_counts(one) for one in micro_batches])
        # (micro-batches, kinds)
        known = self.accelerator.reduce(counts.sum(0), "sum").clamp_min(1)
        shares = counts / known * self.accelerator.num_processes
        return [dict(zip(SUPERVISED, row, strict=True)) for row in shares]

    def averaged_model(self) -> EasySEDForSoundEventDetection:
        """The averaged weights in a plain model in evaluation mode, on the main process; all processes must call it.

        Always the same object: it changes with the next call.
        """
        with self.average.swapped_in(self.accelerator.unwrap_model(self.model)):
            weights = self.accelerator.get_state_dict(self.model)
            if self.accelerator.is_main_process:
                self.plain.load_state_dict(weights)
        return self.plain

    def _load_unwrapped(self, models: list[torch.nn.Module], folder: str) -> None:
        models[:] = [self.accelerator.unwrap_model(model) for model in models]


def drop_prefixes(models: list[torch.nn.Module], weights: list[dict], folder: str) -> None:
    """Checkpoints name weights as one process does, so that any number of processes may go on from them."""
    for state in weights:
        consume_prefix_in_state_dict_if_present(state, "module.")


def check_batch_size(settings: Settings, num_processes: int) -> None:
    """
    Raises:
        ValueError: when the batch cannot be split evenly over processes and micro-batches.
    """
    num_parts = num_processes * settings.gradient_accumulation
    if settings.batch_size % num_parts:
        raise ValueError(
            f"batch_size must be a multiple of {num_parts} = {num_processes} processes x gradient_accumulation="
            f"{settings.gradient_accumulation}, got {settings.batch_size}"
        )


def known_counts(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """How many targets the losses of each supervised kind are means over: (kinds,), in the order of SUPERVISED.

    Frames and clips count every known target; classes count clips that have one.
    """
    is_known = batch["labels"] >= 0
    has_class = is_known.all(-1) & (batch["labels"].sum(-1) > 0)
    return torch.stack([(batch["frame_labels"] >= 0).sum(), is_known.sum(), has_class.sum()]).float()


def answer_fsdp(model: EasySEDForSoundEventDetection) -> None:
    """What FSDP asks a model of transformers: the classes to shard by, and its table of embeddings.

    All of the classes must occur, and audio has no such table: without these answers FSDP raises errors.
    """
    classes = {type(module).__name__ for module in model.modules()}
    model._no_split_modules = [name for name in model._no_split_modules if name in classes]
    model.get_input_embeddings = lambda: None


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict]:
    """Weight decay for matrices and kernels, none for biases and norms."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def split(batch: dict[str, torch.Tensor], num_parts: int) -> list[dict[str, torch.Tensor]]:
    """Equal parts of a batch, in order."""
    chunks = {name: value.chunk(num_parts) for name, value in batch.items()}
    return [{name: parts[index] for name, parts in chunks.items()} for index in range(num_parts)]


def _kind(name: str) -> str:
    return name.rsplit("_", 1)[0]
