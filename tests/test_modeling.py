"""The network: shapes, exits, students, masks, losses reach where they must, devices and dtypes."""

import copy
import shutil

import pytest
import torch
from tiny import tiny_config, tiny_model

from modeling_easysed import EasySEDForSoundEventDetection, EasySEDModel
from modeling_easysed.configuration_easysed import AST_GEOMETRY

BACKBONES = ["cnn", "transformer"]


def features(batch: int, frames: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, frames, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("frames", [1, 2, 7, 40, 41])
def test_shapes(backbone, stride, frames):
    model = tiny_model(backbone, frame_stride=stride)
    output = model(features(2, frames))
    steps, exits = -(-frames // stride), model.num_exits
    assert output.logits.shape == (2, 3)
    assert output.frame_logits.shape == (2, steps, 3)
    assert output.exit_logits.shape == (exits, 2, 3)
    assert output.exit_frame_logits.shape == (exits, 2, steps, 3)
    assert output.exit_embeddings.shape == (exits, 2, steps, 8)
    assert torch.equal(output.logits, output.exit_logits[-1])
    assert torch.equal(output.frame_logits, output.exit_frame_logits[-1])
    assert model.frame_duration_s == pytest.approx(stride * 0.01)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_student_equals_its_exit(backbone):
    model = tiny_model(backbone)
    inputs = features(2, 50)
    teacher = model(inputs)
    sizes = []
    for index in range(1, model.num_exits + 1):
        student = model.student(index)
        output = student(inputs)
        torch.testing.assert_close(output.logits, teacher.exit_logits[index - 1], rtol=0, atol=0)
        torch.testing.assert_close(output.frame_logits, teacher.exit_frame_logits[index - 1], rtol=0, atol=0)
        assert student.num_exits == student.config.kept_exits == index
        assert not {p.data_ptr() for p in student.parameters()} & {p.data_ptr() for p in model.parameters()}
        sizes.append(student.num_parameters())
    assert sizes == sorted(set(sizes)) and sizes[-1] == model.num_parameters()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_one_exit_alone_equals_that_exit(backbone):
    model, inputs = tiny_model(backbone), features(2, 30)
    every = model(inputs)
    for index in range(1, model.num_exits + 1):
        alone = model(inputs, exit_index=index)
        assert alone.exit_logits.shape[0] == 1
        assert torch.equal(alone.frame_logits, every.exit_frame_logits[index - 1])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_padded_batch_equals_single_clips(backbone):
    model = tiny_model(backbone)
    lengths = [53, 21, 1, 38]
    clips = [features(1, length, seed=length) for length in lengths]
    batch, mask = torch.zeros(4, 53, 32), torch.zeros(4, 53, dtype=torch.long)
    for row, clip in enumerate(clips):
        batch[row, : clip.shape[1]], mask[row, : clip.shape[1]] = clip[0], 1
    padded = model(batch, attention_mask=mask)
    for row, clip in enumerate(clips):
        single = model(clip)
        steps = single.frame_logits.shape[1]
        torch.testing.assert_close(padded.exit_logits[:, row], single.exit_logits[:, 0], rtol=0, atol=2e-5)
        got = padded.exit_frame_logits[:, row, :steps]
        torch.testing.assert_close(got, single.exit_frame_logits[:, 0], rtol=0, atol=2e-5)


def test_padding_content_changes_nothing():
    model = tiny_model()
    clip, mask = features(1, 40), torch.cat([torch.ones(1, 25), torch.zeros(1, 15)], dim=1)
    other = clip.clone()
    other[:, 25:] = 7.0
    first, second = model(clip, attention_mask=mask), model(other, attention_mask=mask)
    torch.testing.assert_close(first.logits, second.logits, rtol=0, atol=0)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_loss_reaches_every_exit_and_not_the_teachers_target(backbone):
    model = tiny_model(backbone, dropout=0.0)
    frame_labels = torch.zeros(2, 10, 3)
    frame_labels[0, 2:5, 1] = 1
    output = model(features(2, 40), frame_labels.amax(1), frame_labels)  # labels come second and third
    output.loss.backward()
    for index, head in enumerate(model.exits):
        assert head.classifier.weight.grad.abs().sum() > 0, f"exit {index + 1} learns nothing"
    model.zero_grad()
    parts = model(features(2, 40), frame_labels=frame_labels).loss_parts
    sum(value for name, value in parts.items() if name.startswith(("soft", "hint"))).backward()
    assert model.exits[0].classifier.weight.grad.abs().sum() > 0
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in model.exits[-1].parameters())


def test_weak_and_strong_clips_share_a_batch():
    model, inputs = tiny_model(), features(2, 40)
    frame_labels, labels = torch.zeros(2, 10, 3), torch.ones(2, 3)
    frame_labels[1] = -1
    mixed = model(inputs, labels=labels, frame_labels=frame_labels).loss_parts
    strong = model(inputs[:1], frame_labels=frame_labels[:1]).loss_parts
    torch.testing.assert_close(mixed["frame_1"], strong["frame_1"])
    assert "clip_1" in mixed and "clip_1" not in strong


def test_plain_training_has_no_distillation_parts():
    model = tiny_model(distillation_weight=0.0, hint_weight=0.0)
    parts = model(features(1, 8), labels=torch.ones(1, 3)).loss_parts
    assert set(parts) == {"clip_1", "clip_2", "clip_3"}


def test_padded_frames_count_in_no_loss():
    model = tiny_model()
    inputs, mask = torch.zeros(2, 40, 32), torch.zeros(2, 40)
    inputs[0], inputs[1, :16] = features(1, 40)[0], features(1, 16, seed=2)[0]
    mask[0], mask[1, :16] = 1, 1
    frame_labels = torch.zeros(2, 10, 3)
    first = model(inputs, attention_mask=mask, frame_labels=frame_labels).loss
    frame_labels[1, 4:] = 1
    assert torch.equal(first, model(inputs, attention_mask=mask, frame_labels=frame_labels).loss)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_longer_and_shorter_input_than_in_training(backbone):
    model = tiny_model(backbone)
    assert model(features(1, 1)).frame_logits.shape == (1, 1, 3)
    assert torch.isfinite(model(features(1, 4001)).frame_logits).all()


def test_transformer_attends_by_distance():
    """Rotary positions: what lies far before a pattern does not change how its own frames see each other."""
    from modeling_easysed.backbones_easysed import rotate_positions

    states = torch.randn(1, 1, 12, 8, generator=torch.Generator().manual_seed(0))
    scores = rotate_positions(states) @ rotate_positions(states).transpose(-1, -2)
    shifted = torch.cat([torch.zeros(1, 1, 5, 8), states], dim=2)
    later = rotate_positions(shifted) @ rotate_positions(shifted).transpose(-1, -2)
    torch.testing.assert_close(later[..., 5:, 5:], scores, rtol=0, atol=1e-5)


def test_cnn_is_time_invariant_in_the_interior():
    model = tiny_model()
    inputs = features(1, 400)
    whole, cut = model(inputs).frame_logits, model(inputs[:, 120:]).frame_logits
    torch.testing.assert_close(cut[:, 20:60], whole[:, 50:90], rtol=0, atol=1e-5)


def test_gradient_checkpointing_keeps_gradients():
    model = tiny_model("transformer", dropout=0.0).train()
    inputs, labels = features(2, 24), torch.ones(2, 3)
    twin = copy.deepcopy(model)
    twin.activation_checkpointing_enable()
    assert twin.is_activation_checkpointing
    for each in (model, twin):
        each(inputs, labels=labels).loss.backward()
    for own, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_bfloat16_model_takes_float32_features(backbone):
    output = tiny_model(backbone).to(torch.bfloat16)(features(1, 20))
    assert output.frame_logits.dtype == torch.bfloat16
    assert torch.isfinite(output.logits).all()


@pytest.mark.parametrize("backbone", BACKBONES)
@torch.no_grad()
def test_torch_compile_gives_equal_logits(backbone):
    model, inputs = tiny_model(backbone), features(2, 24)
    # one graph without a break; the code generator behind it needs a C++ compiler, which a newcomer may lack
    backend = "eager" if shutil.which("g++") is None else "inductor"
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(inputs).frame_logits, model(inputs).frame_logits, rtol=0, atol=1e-5)


def test_trunk_alone():
    trunk = EasySEDModel(tiny_config()).eval()
    output = trunk(features(1, 20))
    assert len(output.hidden_states) == 3
    assert output.last_hidden_state.shape == (1, 5, 8)


def test_default_sizes():
    from modeling_easysed import EasySEDConfig

    model = EasySEDForSoundEventDetection(EasySEDConfig(id2label={i: str(i) for i in range(10)}))
    teacher = sum(p.numel() for p in model.easysed.parameters()) + sum(p.numel() for p in model.exits[-1].parameters())
    assert 0.8e6 < teacher < 1.2e6
    assert model.student(1).num_parameters() < 0.2e6


@pytest.mark.parametrize(
    "sizes",
    [
        {"stage_channels": [64, 256, 512], "temporal_channels": 1024},
        {
            "backbone": "transformer",
            "hidden_size": 512,
            "num_hidden_layers": 12,
            "exit_layers": [6, 12],
            "intermediate_size": 2048,
        },
        {"backbone": "ast", **AST_GEOMETRY},
    ],
)
def test_scales_to_tens_of_millions_by_config(sizes):
    from modeling_easysed import EasySEDConfig

    with torch.device("meta"):
        model = EasySEDForSoundEventDetection(EasySEDConfig(**sizes))
    assert model.num_parameters() > 15e6


@pytest.mark.parametrize("shape", [(20, 32), (1, 20, 31), (1, 2, 20, 32)])
def test_wrong_input_shape(shape):
    with pytest.raises(ValueError, match=r"input_values must have shape \(batch, frames, mels=32\)"):
        tiny_model()(torch.zeros(shape))


def test_wrong_mask_shape():
    with pytest.raises(ValueError, match="attention_mask must have shape"):
        tiny_model()(torch.zeros(1, 20, 32), attention_mask=torch.ones(1, 5))


@pytest.mark.parametrize("index", [0, 4, -1])
def test_unknown_exit(index):
    model = tiny_model()
    with pytest.raises(ValueError, match="exit_index must be between 1 and 3"):
        model.student(index)
    with pytest.raises(ValueError, match="exit_index must be between 1 and 3"):
        model(torch.zeros(1, 8, 32), exit_index=index)


def test_residual_stages_in_the_transformers_stem():
    plain, hybrid = tiny_model("transformer"), tiny_model("transformer", num_stem_stages=2)
    features = torch.randn(2, 21, 32)
    assert hybrid(features).exit_frame_logits.shape == plain(features).exit_frame_logits.shape
    assert len(hybrid.easysed.backbone.stem_stages) == 2
    assert hybrid.easysed.backbone.patch_projection.in_features == 6 * 4  # 32 mels / 4, halved once, by 6 channels
    student = hybrid.student(1)
    assert torch.equal(student(features).frame_logits, hybrid(features).exit_frame_logits[0])


def test_stem_stages_see_no_padding():
    model = tiny_model("transformer", num_stem_stages=2)
    clip = torch.randn(1, 24, 32)
    padded = torch.cat([clip, torch.randn(1, 16, 32)], dim=1)
    mask = torch.tensor([[1] * 24 + [0] * 16])
    alone, inside = model(clip).frame_logits, model(padded, attention_mask=mask).frame_logits
    assert torch.allclose(alone, inside[:, : alone.shape[1]], atol=1e-5)


def test_class_loss_reaches_every_exit_and_not_the_teachers_target():
    model = tiny_model(class_loss_weight=1.0, frame_loss_weight=0.0, clip_loss_weight=0.0, hint_weight=0.0).train()
    output = model(torch.randn(2, 20, 32), labels=torch.tensor([[1.0, 0, 0], [0, 1.0, 1.0]]))
    assert {"class_1", "class_3", "soft_class_1", "soft_class_2"} <= output.loss_parts.keys()
    for head in model.exits:
        (gradient,) = torch.autograd.grad(output.loss, [head.classifier.weight], retain_graph=True)
        assert gradient.abs().sum() > 0
    heads = [model.exits[0].classifier.weight, model.exits[-1].classifier.weight]
    student, teacher = torch.autograd.grad(output.loss_parts["soft_class_1"], heads)
    assert student.abs().sum() > 0 and teacher.abs().sum() == 0
