"""One optimiser step: its loss, its gradients, micro-batches, precision."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from learner import check_batch_size, known_counts, split
from settings import Settings, load_settings
from tiny_training import write_config, write_data
from train import Trainer, precision


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def trainer_of(tmp_path: Path, data: Path, *arguments: str, **overrides) -> Trainer:
    settings, _ = load_settings(["--config", str(write_config(tmp_path, data, **overrides)), *arguments])
    return Trainer(settings, [])


@pytest.mark.parametrize("backbone", ["cnn", "transformer"])
@pytest.mark.parametrize("distillation", [True, False])
def test_every_parameter_gets_a_gradient(data, tmp_path, backbone, distillation):
    """DDP would wait for a parameter without one: find_unused_parameters stays False."""
    model = {} if distillation else {"distillation_weight": 0.0, "hint_weight": 0.0}
    trainer = trainer_of(tmp_path, data, backbone=backbone, model=model)
    output = trainer.learner.model(**trainer.batches[0])
    torch.stack(list(output.loss_parts.values())).sum().backward()
    assert [name for name, value in trainer.learner.model.named_parameters() if value.grad is None] == []


def test_the_loss_is_the_models(data, tmp_path):
    """In one piece, on one process, a step's loss and its weights are those of the model's own loss."""
    trainer = trainer_of(tmp_path, data, model={"dropout": 0.0}, batch_size=6)
    with torch.no_grad():
        output = trainer.learner.model.train()(**trainer.batches[0])
    parts = trainer.learner.step(trainer.batches[0], 0)
    assert parts["loss"].item() == pytest.approx(output.loss.item(), rel=1e-6)
    assert {name: value.item() for name, value in output.loss_parts.items()} == pytest.approx(
        {name: value.item() for name, value in parts.items() if name != "loss"}, rel=1e-6
    )


def test_known_targets_are_counted_as_the_losses_count_them():
    labels = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, -1.0]])
    frame_labels = torch.zeros(3, 5, 2)
    frame_labels[0] = -1
    assert known_counts({"labels": labels, "frame_labels": frame_labels}).tolist() == [20, 5, 1]


class FixedNorm(torch.nn.Module):
    """Stands in for batch norm where its statistics must not depend on the micro-batch."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return 0.5 * hidden


def test_micro_batches_share_the_means_of_the_losses(data, tmp_path):
    """Without batch norm, 3 micro-batches give the batch's gradient, though they know different numbers of targets."""
    model = {"dropout": 0.0, "class_loss_weight": 0.5}
    trainer = trainer_of(tmp_path, data, model=model, batch_size=6, max_gradient_norm=1e9)
    learner, batch = trainer.learner, trainer.batches[0]
    for module in list(learner.model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                setattr(module, name, FixedNorm())
    batch["frame_labels"] = batch["frame_labels"].clamp_min(0)
    batch["frame_labels"][[0, 1, 2]] = -1  # known samples per micro-batch: 0, 1, 2
    batch["labels"] = torch.tensor([[1.0, 0], [0, 1], [1, 1], [0, 0], [0, 0], [0, 0]])  # with a class: 2, 1, 0
    gradients = []
    learner.optimizer.step = lambda: gradients.append(
        [parameter.grad.clone() for parameter in learner.model.parameters() if parameter.grad is not None]
    )
    learner.schedule.step = learner.average.update = lambda *arguments: None
    whole = learner.step(batch, 0)
    learner.settings = replace(learner.settings, gradient_accumulation=3)
    parts = learner.step(batch, 0)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert {k: v.item() for k, v in parts.items()} == pytest.approx({k: v.item() for k, v in whole.items()}, rel=1e-5)


def test_parts_of_a_batch():
    parts = split({"a": torch.arange(6), "b": torch.arange(12).view(6, 2)}, 3)
    assert [part["a"].tolist() for part in parts] == [[0, 1], [2, 3], [4, 5]]
    assert parts[2]["b"].tolist() == [[8, 9], [10, 11]]


@pytest.mark.parametrize(
    ("batch_size", "processes", "accumulation", "parts"), [(16, 3, 1, 3), (16, 2, 3, 6), (2, 4, 1, 4)]
)
def test_a_batch_that_cannot_be_split(batch_size, processes, accumulation, parts):
    settings = Settings(batch_size=batch_size, gradient_accumulation=accumulation)
    with pytest.raises(ValueError, match=f"batch_size must be a multiple of {parts} = {processes} processes x"):
        check_batch_size(settings, processes)


def test_learns_two_tones(data, tmp_path):
    """The same loop on an easy task: after some steps the loss of frames is well below that of a constant guess."""
    trainer = trainer_of(tmp_path, data, "--steps", "60", "--learning_rate", "0.01")
    losses = [trainer.learner.step(trainer.batches[1000 + step], step)["frame_3"].item() for step in range(60)]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])


def test_precision():
    has_bf16 = torch.cpu._is_avx512_bf16_supported()
    assert precision(Settings(), torch.device("cpu")) == ("bf16" if has_bf16 else "no")
    assert precision(Settings(mixed_precision="bf16"), torch.device("cpu")) == "bf16"


def test_trains_in_bf16(data, tmp_path):
    trainer = trainer_of(tmp_path, data, mixed_precision="bf16")
    parts = trainer.learner.step(trainer.batches[0], 0)
    assert trainer.accelerator.mixed_precision == "bf16" and torch.isfinite(parts["loss"])
    assert all(parameter.dtype == torch.float32 for parameter in trainer.learner.model.parameters())
