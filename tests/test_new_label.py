"""One more class: old weights stay what they are, new rows learn, all weights are held to the base."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from new_label import (
    Frozen,
    TuningData,
    fine_tune,
    fit_new_rows,
    frozen_norms,
    run_frozen,
    scene_weights,
    set_new_rows,
    tuning_loss,
    with_new_label,
)
from rare_event_scenes import SceneSet
from tiny import LABELS, tiny_model
from torch import nn
from torch.nn import functional as F

FRAMES = 40


def scene_set(num: int = 8, seed: int = 0) -> SceneSet:
    """Every second scene has the new sound in output frames 3 to 5, where the features are larger."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(num, FRAMES, 32, generator=generator)
    targets = torch.zeros(num, FRAMES // 4)
    groups = np.full(num, -1)
    for index in range(0, num, 2):
        features[index, 12:24] += 3.0
        targets[index, 3:6] = 1.0
        groups[index] = index // 2
    return SceneSet(features.half(), targets, [[] for _ in range(num)], np.arange(num) // 2 % 2, groups)


@pytest.mark.parametrize("backbone", ["cnn", "transformer"])
def test_the_old_classes_are_bit_equal_and_the_new_one_is_rare(backbone):
    base = tiny_model(backbone)
    model = with_new_label(base, "beep", seed=0)
    assert model.config.id2label == {**LABELS, 3: "beep"} and model.config.label2id["beep"] == 3
    grown = 0
    for name, value in base.state_dict().items():
        new = model.state_dict()[name]
        grown += new.shape != value.shape
        assert torch.equal(new[: len(value)] if value.ndim else new, value)
    assert grown == 2 * base.num_exits
    inputs = torch.randn(2, FRAMES, 32)
    with torch.inference_mode():
        old, new = base(inputs).exit_frame_logits, model(inputs).exit_frame_logits
    torch.testing.assert_close(new[..., :-1], old)
    assert torch.sigmoid(new[..., -1]).max() < 0.2


def test_students_have_the_new_class():
    student = with_new_label(tiny_model(), "beep", seed=0).student(1)
    assert student.config.num_labels == 4 and student.config.id2label[3] == "beep"


def test_what_belongs_to_the_base_alone_is_left_out():
    base = tiny_model()
    base.config.decoding, base.config.calibration = {"method": "boxes"}, {"labels": []}
    model = with_new_label(base, "beep", seed=0)
    assert model.config.decoding is None and model.config.calibration is None
    assert base.config.decoding == {"method": "boxes"}


def test_new_rows_are_written_to_every_exit_and_nothing_else_is():
    model = with_new_label(tiny_model(), "beep", seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights, biases = torch.full((3, 8), 2.0), torch.tensor([1.0, 2.0, 3.0])
    set_new_rows(model, weights, biases)
    for index, head in enumerate(model.exits):
        assert torch.equal(head.classifier.weight[-1], weights[index])
        assert head.classifier.bias[-1] == biases[index]
    for name, value in model.state_dict().items():
        kept = slice(0, -1) if ".classifier." in name else slice(None)
        assert torch.equal(value[kept] if value.ndim else value, before[name][kept] if value.ndim else before[name])


def test_the_frozen_base_hears_every_scene():
    base, scenes = tiny_model(), scene_set(20)
    frozen = run_frozen(base, scenes, "")
    with torch.inference_mode():
        alone = base(scenes.features[19:].float())
    torch.testing.assert_close(frozen.frame_logits[:, 19].float(), alone.exit_frame_logits[:, 0], atol=5e-3, rtol=5e-3)
    torch.testing.assert_close(frozen.logits[:, 19], alone.exit_logits[:, 0])
    assert frozen.embeddings.shape == (3, 20, FRAMES // 4, 8)


# ---- phase 1 ---------------------------------------------------------------------------------------------------------


def separable(num: int = 12):
    """Embeddings whose channel 0 is loud where the sound is, channel 1 where another one is."""
    embeddings, targets = torch.zeros(num, 10, 4), torch.zeros(num, 10)
    for index in range(num):
        embeddings[index, 2:5, index % 2] = 4.0
        targets[index, 2:5] = float(index % 2 == 0)
    return embeddings, targets


def test_rows_find_what_tells_the_sound_apart():
    embeddings, targets = separable()
    rows = fit_new_rows(embeddings, targets, torch.ones(2, 12), dropout=0.1, seed=0)
    probabilities = rows.probabilities(embeddings)
    # (scenes, frames, fits)
    assert probabilities[0, 2:5].min() > 0.9 and probabilities[1, 2:5].max() < 0.1
    assert torch.equal(rows.weight[0], rows.weight[1]), "the same weights of scenes give the same fit"


def test_a_scene_that_is_held_out_teaches_nothing():
    """The fits differ in the last two scenes; changing these changes only the fit that hears them."""
    embeddings, targets = separable()
    weights = torch.ones(2, 12)
    weights[1, 10:] = 0.0
    first = fit_new_rows(embeddings, targets, weights, dropout=0.0, seed=0)
    embeddings[10:] = 1 - embeddings[10:]
    second = fit_new_rows(embeddings, targets, weights, dropout=0.0, seed=0)
    assert torch.equal(first.weight[1], second.weight[1])
    assert not torch.equal(first.weight[0], second.weight[0])


def test_recordings_weigh_the_same_however_many_scenes_they_have():
    groups = np.array([0, 0, 0, 1, 2, -1, -1])
    allowed = np.array([True, True, True, True, True, True, False])
    weights = scene_weights(groups, {0, 1}, allowed)
    np.testing.assert_allclose(weights, [5 / 6, 5 / 6, 5 / 6, 2.5, 0, 1, 0])


# ---- phase 2 ---------------------------------------------------------------------------------------------------------


def test_the_loss_by_hand():
    model = with_new_label(tiny_model(dropout=0.0), "beep", seed=0)
    scenes = scene_set(2)
    with torch.inference_mode():
        output = model(scenes.features.float())
    batch = {
        "features": scenes.features.float(),
        "targets": scenes.targets,
        "frame_logits": output.exit_frame_logits[..., :-1] + 1.0,
        "logits": output.exit_logits[..., :-1],
    }
    parts = tuning_loss(model, batch, is_cropped=False)
    new = 0.0
    for frames, clips in zip(output.exit_frame_logits[..., -1], output.exit_logits[..., -1], strict=True):
        new += F.binary_cross_entropy_with_logits(frames, scenes.targets)
        new += 0.3 * F.binary_cross_entropy_with_logits(clips, scenes.targets.amax(1))
    assert parts["new"].item() == pytest.approx(new.item(), rel=1e-4)
    own = torch.sigmoid(output.exit_frame_logits[..., :-1].double())
    base = torch.sigmoid(output.exit_frame_logits[..., :-1].double() + 1)
    divergence = base * (base / own).log() + (1 - base) * ((1 - base) / (1 - own)).log()
    assert parts["old"].item() == pytest.approx(3 * divergence.mean((1, 2, 3)).sum().item(), rel=1e-3)


def test_batch_norm_statistics_stay_and_the_mode_comes_back():
    model = tiny_model()
    norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    before = norm.running_mean.clone()
    with frozen_norms(model):
        assert model.training and not norm.training
        model(torch.randn(2, FRAMES, 32))
    assert not model.training and torch.equal(norm.running_mean, before)


@pytest.fixture(scope="module")
def tuned():
    """Phase 2 with every second pair of scenes held out, from two runs with one seed."""
    base, scenes = tiny_model(), scene_set()
    model = with_new_label(base, "beep", seed=0)
    data = TuningData([scenes], [run_frozen(base, scenes, "")])
    held = [scenes.folds == 1]
    return model, [fine_tune(model, data, held, Accelerator(cpu=True), seed=3, steps=12) for _ in range(2)]


def test_all_weights_learn_and_the_start_is_left_alone(tuned):
    model, (first, _) = tuned
    assert not torch.equal(first.easysed.backbone.stem.conv1.conv.weight, model.easysed.backbone.stem.conv1.conv.weight)
    assert torch.equal(
        first.easysed.backbone.stem.conv1.norm.running_mean, model.easysed.backbone.stem.conv1.norm.running_mean
    )
    assert not first.training


def test_one_seed_gives_one_model(tuned):
    _, (first, second) = tuned
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_held_out_scenes_are_in_no_batch():
    scenes = scene_set()
    frozen = Frozen(torch.zeros(1, 8, 10, 1), torch.zeros(1, 8, 10, 1), torch.zeros(1, 8, 1))
    with_sound, without = TuningData([scenes], [frozen]).pools([np.arange(8) < 4])
    assert with_sound == [(0, 4), (0, 6)] and without == [(0, 5), (0, 7)]


def test_a_crop_cuts_everything_alike():
    scenes = scene_set()
    frozen = Frozen(torch.zeros(1), torch.arange(8 * 10.0).view(1, 8, 10, 1), torch.zeros(1, 8, 1))
    batch = TuningData([scenes], [frozen]).batch([(0, 2), (0, 5)], slice(3, 6), stride=4)
    assert torch.equal(batch["features"][0], scenes.features[2, 12:24].float())
    assert batch["targets"].tolist() == [[1, 1, 1], [0, 0, 0]]
    assert batch["frame_logits"][0, :, :, 0].tolist() == [[23, 24, 25], [53, 54, 55]]
