"""The Audio Spectrogram Transformer as a detector, held to transformers' own model with the same weights."""

import copy
import warnings

import numpy as np
import pytest
import torch
from tiny_ast import RATE, column_logits, features, load, make_ast, make_audio, save_ast
from torch.nn import functional as F
from transformers import ASTFeatureExtractor, ASTForAudioClassification

from modeling_easysed import EasySEDFeatureExtractor, EasySEDForSoundEventDetection
from modeling_easysed.ast_easysed import columns_to_frames
from modeling_easysed.backbones_easysed import ChannelDropout
from modeling_easysed.monte_carlo_easysed import evaluating, sample_masks
from modeling_easysed.sampling_easysed import Sampling, sample_window


@pytest.fixture(scope="module")
def ast() -> ASTForAudioClassification:
    return make_ast()


@pytest.fixture(scope="module")
def folder(ast, tmp_path_factory) -> str:
    return save_ast(ast, tmp_path_factory.mktemp("ast") / "tiny-ast")


@pytest.fixture(scope="module")
def model(folder) -> EasySEDForSoundEventDetection:
    return load(folder)


# ---- the same numbers as transformers --------------------------------------------------------------------------------

GEOMETRIES = [
    {},
    {"max_length": 1024},
    {"qkv_bias": False, "layer_norm_eps": 1e-3},
    {"patch_size": 8, "time_stride": 5, "frequency_stride": 7, "num_mel_bins": 40, "max_length": 66},
]


@pytest.mark.parametrize("sizes", GEOMETRIES)
@torch.no_grad()
def test_hidden_states_and_clip_logits_are_those_of_transformers(sizes, tmp_path):
    ast = make_ast(**sizes)
    model = load(save_ast(ast, tmp_path))
    inputs = features(2, ast.config.max_length, ast.config.num_mel_bins)
    expected = ast(inputs, output_hidden_states=True)
    shallow, middle, deepest = model.easysed.backbone.tokens(inputs)
    last = ast.audio_spectrogram_transformer(inputs).last_hidden_state
    torch.testing.assert_close(deepest, last, rtol=0, atol=1e-5)
    for tokens, layer in ((shallow, 1), (middle, 2)):  # new norms are plain ones
        plain = F.layer_norm(expected.hidden_states[layer], (32,), eps=ast.config.layer_norm_eps)
        torch.testing.assert_close(tokens, plain, rtol=0, atol=1e-5)
    found = model(inputs)
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-5)
    assert last.std() > 0.1 and expected.logits.std() > 0.1
    assert (expected.logits[0] - expected.logits[1]).abs().max() > 1e-3


@torch.no_grad()
def test_frame_logits_are_the_classifier_on_columns_between_their_centres(tmp_path):
    """Column t is centred at 80 + 100 t ms, frame k at 100 k ms: four fifths of column k - 1, one fifth of column k."""
    ast = make_ast(max_length=1024)
    model = load(save_ast(ast, tmp_path))
    inputs = features(1, 1024)
    columns, frames = column_logits(ast, inputs)[0], model(inputs).frame_logits[0]
    assert model.frame_duration_s == pytest.approx(0.1)
    assert len(columns) == 101 and len(frames) == 103
    torch.testing.assert_close(frames[0], columns[0], rtol=0, atol=1e-5)
    for frame in range(1, 101):
        expected = 0.8 * columns[frame - 1] + 0.2 * columns[frame]
        torch.testing.assert_close(frames[frame], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(frames[101:], columns[100].expand(2, -1), rtol=0, atol=1e-5)
    assert columns.std(0).min() > 0.01


def test_columns_on_the_time_line_by_hand():
    columns = torch.tensor([[[0.0, 5.0], [10.0, 5.0], [30.0, 6.0]]])
    found = columns_to_frames(columns, 5, patch_size=16, stride=10)
    # frames at columns -0.8, 0.2, 1.2, 2.2 and 3.2
    expected = torch.tensor([[[0.0, 5.0], [2.0, 5.0], [14.0, 5.2], [30.0, 6.0], [30.0, 6.0]]])
    torch.testing.assert_close(found, expected)
    # a step of half the patch: frame k lies on column k - 1
    expected = torch.tensor([[[0.0, 5.0], [0.0, 5.0], [10.0, 5.0], [30.0, 6.0]]])
    torch.testing.assert_close(columns_to_frames(columns, 4, patch_size=16, stride=8), expected)
    assert columns_to_frames(columns, 1, patch_size=16, stride=10).shape == (1, 1, 2)


@torch.no_grad()
def test_a_shorter_input_is_filled_up_as_by_the_ast(ast, model, folder):
    samples = make_audio(0.7)
    expected = ast(**ASTFeatureExtractor.from_pretrained(folder)(samples, sampling_rate=RATE, return_tensors="pt"))
    own = EasySEDFeatureExtractor.from_ast(folder)(samples, sampling_rate=RATE)
    for inputs, mask in (
        (own.input_values, own.attention_mask),
        (own.input_values[:, :71], None),
        (own.input_values * own.attention_mask[..., None], own.attention_mask),  # whatever stands after the clip
    ):
        found = model(inputs, attention_mask=mask)
        torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-5)
        assert found.frame_logits.shape == (1, -(-inputs.shape[1] // 10), 12)
    short = model(own.input_values[:, :71])
    torch.testing.assert_close(short.frame_logits, model(own.input_values).frame_logits[:, :8], rtol=0, atol=1e-5)


def test_more_frames_than_positions_are_refused(model):
    with pytest.raises(ValueError, match="at most max_length_frames=128 frames, got 129: cut them into windows"):
        model(features(1, 129))


@torch.no_grad()
def test_a_bfloat16_checkpoint_stays_one(folder):
    model = load(folder, dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16 and load(folder).dtype == torch.float32
    assert torch.isfinite(model(features()).frame_logits).all()


# ---- exits, passes, students -----------------------------------------------------------------------------------------


def test_exits_stand_after_the_chosen_layers(folder):
    assert load(folder).config.exit_layers == [1, 2, 3]
    assert load(folder, exit_layers=[2, 3]).num_exits == 2
    with pytest.raises(ValueError, match=r"exit_layers must end with num_hidden_layers=3 .* got \[1, 2\]"):
        load(folder, exit_layers=[1, 2])


def test_what_is_new_is_said(folder):
    with pytest.warns(UserWarning, match="^untrained: exit 1, exit 2; train before you use"):
        EasySEDForSoundEventDetection.from_ast(folder)
    with pytest.warns(UserWarning, match="^untrained: the classifier of the 2 new labels; train"):
        EasySEDForSoundEventDetection.from_ast(folder, exit_layers=[3], id2label={0: "x", 1: "y"})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        EasySEDForSoundEventDetection.from_ast(folder, exit_layers=[3])


@torch.no_grad()
def test_every_student_equals_its_exit(model):
    inputs = features()
    every, sizes = model(inputs), []
    assert every.exit_embeddings.shape == (3, 2, 13, 32)
    for index in (1, 2, 3):
        student = model.student(index)
        torch.testing.assert_close(student(inputs).logits, every.exit_logits[index - 1], rtol=0, atol=0)
        torch.testing.assert_close(student(inputs).frame_logits, every.exit_frame_logits[index - 1], rtol=0, atol=0)
        alone = model(inputs, exit_index=index)
        torch.testing.assert_close(alone.frame_logits, every.exit_frame_logits[index - 1], rtol=0, atol=0)
        sizes.append(student.num_parameters())
    assert sizes == sorted(set(sizes)) and sizes[-1] == model.num_parameters()


@torch.no_grad()
def test_a_pass_is_the_asts_dense_layer_on_masked_inputs(ast, model):
    inputs = features()
    found = model.monte_carlo(inputs, passes=4, seed=3)
    assert found.frame_logits.shape == (4, 2, 13, 12) and found.logits.shape == (4, 2, 12)
    pooled = ast.classifier.layernorm(ast.audio_spectrogram_transformer(inputs).pooler_output)
    frames = model(inputs).exit_embeddings[-1]
    for index, mask in enumerate(sample_masks(4, 1, 32, model.config.dropout, seed=3)):
        torch.testing.assert_close(found.logits[index], ast.classifier.dense(pooled * mask), rtol=0, atol=1e-5)
        torch.testing.assert_close(found.frame_logits[index], ast.classifier.dense(frames * mask), rtol=0, atol=1e-5)
    assert found.logits.std(0).min() > 0


@pytest.mark.parametrize("exit_index", [1, 3])
@pytest.mark.parametrize("blocks", [0, 1])
def test_recomputing_everything_gives_the_same_passes(model, exit_index, blocks):
    config = copy.deepcopy(model.config)
    config.monte_carlo_blocks = blocks
    thinned = EasySEDForSoundEventDetection(config).eval()
    thinned.load_state_dict(model.state_dict())
    arguments = {"passes": 3, "seed": 2, "exit_index": exit_index}
    reused = thinned.monte_carlo(features(), **arguments)
    again = thinned.monte_carlo(features(), reuse_trunk=False, **arguments)
    torch.testing.assert_close(reused.frame_logits, again.frame_logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(reused.logits, again.logits, rtol=0, atol=1e-5)


@torch.no_grad()
def test_moments_are_those_of_independent_channels(model):
    """Every channel is dropped with probability p: variance p / (1 - p) x (weight x input)^2, summed over channels."""
    inputs = features()
    found = model.moments(inputs)
    terms = model(inputs).exit_embeddings[-1].unsqueeze(-2) * model.exits[-1].classifier.weight
    # (batch, frames, classes, channels)
    expected = model.config.dropout / (1 - model.config.dropout) * terms.square().sum(-1)
    torch.testing.assert_close(found.frame_variances, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.frame_logits, model(inputs).frame_logits, rtol=0, atol=1e-6)
    assert found.frame_variances.shape == (2, 13, 12)


@pytest.mark.parametrize(("method", "samples"), [("none", 1), ("mc", 6), ("exits", 3), ("moments", 7)])
def test_a_window_can_be_sampled_with_every_method(model, method, samples):
    values = features(1, 71)[0]
    with evaluating(model):
        found = sample_window(model, values.numpy(), Sampling(method, passes=6), exit_index=3)
        expected = model(values[None]).exit_frame_logits[:, 0]
    assert found.logits.shape == (samples, 8, 12) and found.embeddings.shape == (8, 32)
    np.testing.assert_allclose(found.exit_logits, expected, rtol=0, atol=1e-5)
    if method in ("none", "exits"):
        np.testing.assert_allclose(found.logits, expected[-samples:], rtol=0, atol=1e-5)
    else:
        assert found.logits.std(0).min() > 0


def test_gradient_checkpointing_keeps_gradients(model):
    own = copy.deepcopy(model).double().train()
    for module in own.modules():
        if isinstance(module, ChannelDropout):
            module.probability = 0.0
    twin = copy.deepcopy(own)
    twin.activation_checkpointing_enable()
    assert twin.is_activation_checkpointing
    for each in (own, twin):
        each(features(), labels=torch.ones(2, 12)).loss.backward()
    for first, second in zip(own.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad)


@torch.no_grad()
def test_torch_compile_finds_one_graph(model):
    compiled = torch.compile(copy.deepcopy(model), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(features()).frame_logits, model(features()).frame_logits, rtol=0, atol=1e-5)


# ---- own events ------------------------------------------------------------------------------------------------------


def test_new_labels_keep_the_trunk_and_learn(folder):
    torch.manual_seed(0)
    model = load(folder, id2label={0: "x", 1: "y"}).train()
    kept, reference = model.state_dict(), load(folder).state_dict()
    assert model.config.num_labels == 2 and model.config.label2id == {"x": 0, "y": 1}
    assert model.config.decoding is None
    for name, value in reference.items():
        if name.startswith("easysed."):
            assert torch.equal(kept[name], value), name
    inputs, frame_labels = features(), torch.zeros(2, 13, 2)
    frame_labels[0, :6, 0] = frame_labels[1, 4:, 1] = 1
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=1e-2), []
    for step in range(20):
        loss = model(inputs, frame_labels.amax(1), frame_labels).loss
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            idle = [name for name, one in model.named_parameters() if one.grad is None or not one.grad.any()]
        optimizer.step()
        losses.append(loss.item())
    assert idle == []
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("labels", [{1: "x", 2: "y"}, {0: "x", 2: "y"}])
def test_labels_are_numbered_from_0(folder, labels):
    with pytest.raises(ValueError, match="id2label must be keyed by 0 to 1, got "):
        load(folder, id2label=labels)
