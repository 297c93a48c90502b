"""The ExecuTorch export: a program for XNNPACK that equals PyTorch for any length and passes that it has room for."""

import json

import numpy as np
import pytest
import torch
from tiny_export import HALF, HOP, RATE, deviations, noise, real_clips, tiny_checkpoint

from modeling_easysed import BUNDLED_CHECKPOINTS, EasySEDFeatureExtractor, EasySEDForSoundEventDetection
from modeling_easysed.cli.main import main
from modeling_easysed.draws_easysed import seed_masks
from modeling_easysed.export.check import TOLERANCE, deviation, executorch_run, whole_hops
from modeling_easysed.export.errors import ExportError
from modeling_easysed.export.graph import OUTPUTS
from modeling_easysed.export.write import export_checkpoint
from modeling_easysed.monte_carlo_easysed import evaluating
from modeling_easysed.pipeline_easysed import SoundEventDetectionPipeline

pytest.importorskip("executorch", reason='executorch is not installed: pip install "easysed[executorch]"')
EXITS = [("easysed-cnn", 1), ("easysed-cnn", 2), ("easysed-cnn", 3), ("easysed-cnn", 4)]
EXITS += [("easysed-transformer", 1), ("easysed-transformer", 2), ("easysed-transformer", 3)]


@pytest.fixture(scope="module", params=["cnn", "transformer"])
def exported(request, tmp_path_factory):
    """Pipeline, run of its deepest exit, and the description."""
    root = tmp_path_factory.mktemp("export")
    folder = tiny_checkpoint(root / "tiny", request.param)
    out = export_checkpoint(folder, "executorch", None, root / "out")
    pipe = SoundEventDetectionPipeline.from_pretrained(folder, device="cpu")
    return pipe, executorch_run(out.folder / "easysed.pte"), out.description


def masks_of(description, passes: int, seed: int) -> np.ndarray:
    own = description["masks"]
    return seed_masks(passes, own["sites"], own["width"], own["probability"], seed)


@pytest.mark.parametrize(("num_samples", "passes"), [(2 * RATE, 32), (20011, 1), (1440, 4)])
def test_any_length_and_passes_equal_monte_carlo(exported, num_samples, passes):
    pipe, run, description = exported
    samples = noise(num_samples)
    values = pipe.feature_extractor(samples, sampling_rate=RATE).input_values
    expected = pipe.model.monte_carlo(values, passes=passes, seed=5)
    outputs = dict(zip(OUTPUTS, run(*whole_hops(samples, HOP, HALF), masks_of(description, passes, 5)), strict=True))
    assert deviation(outputs["frame_logits"], expected.frame_logits) < TOLERANCE
    assert deviation(outputs["logits"], expected.logits) < TOLERANCE


def test_plain_pass_and_masks(exported):
    pipe, run, description = exported
    samples = noise(20000)
    inputs = whole_hops(samples, HOP, HALF)
    values = pipe.feature_extractor(samples, sampling_rate=RATE).input_values
    with evaluating(pipe.model):
        plain = pipe.model(values)
    first, second, ones = (
        dict(zip(OUTPUTS, run(*inputs, masks), strict=True))
        for masks in (*(masks_of(description, 3, seed) for seed in (0, 1)), np.ones_like(masks_of(description, 1, 0)))
    )
    assert np.abs(first["frame_logits"] - second["frame_logits"]).max() > 0.01
    assert deviation(ones["frame_logits"], plain.frame_logits[None]) < TOLERANCE
    assert deviation(first["exit_frame_logits"], plain.exit_frame_logits) < TOLERANCE
    torch.testing.assert_close(torch.from_numpy(ones["embeddings"]), plain.exit_embeddings[-1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.from_numpy(ones["log_mel"]), values, atol=1e-3, rtol=0)


def test_limits_are_described(exported):
    entry = exported[2]["files"]["easysed.pte"]
    assert entry["target"] == "executorch"
    limits = {"batch": 1, "samples": "a multiple of 160", "max_samples": 32000, "max_passes": 32}
    assert entry["limits"] == limits


def test_a_head_that_samples_blocks_says_so(tmp_path):
    folder = tiny_checkpoint(tmp_path / "tiny", "cnn, block sampled")
    with pytest.raises(ExportError, match="monte_carlo_blocks must be 0 for ExecuTorch, got 1"):
        export_checkpoint(folder, "executorch", 1, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_command(tmp_path, capfd):
    folder = tiny_checkpoint(tmp_path / "tiny", "cnn")
    capfd.readouterr()  # transformers' progress bar
    assert main(["export", folder, "--to", "executorch", "--exit", "1", "--out", str(tmp_path / "out")]) == 0
    out, err = capfd.readouterr()
    assert str(tmp_path / "out" / "easysed.pte") in out and err == ""
    assert json.loads((tmp_path / "out" / "easysed.json").read_text())["model"]["exit"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "exit_index"), EXITS)
def test_every_exit_on_real_clips(data_dir, tmp_path, name, exit_index):
    folder = export_checkpoint(name, "executorch", exit_index, tmp_path / "out").folder
    model = EasySEDForSoundEventDetection.from_pretrained(BUNDLED_CHECKPOINTS[name]).student(exit_index)
    extractor = EasySEDFeatureExtractor.from_pretrained(BUNDLED_CHECKPOINTS[name])
    masks = seed_masks(20, 1, model.config.exit_hidden_size, model.config.dropout, 3)
    run = executorch_run(folder / "easysed.pte")
    worst = deviations(run, model, extractor, masks, real_clips(data_dir, 20))
    print(name, exit_index, worst)
    assert worst["mean"] < TOLERANCE and worst["exact"] < TOLERANCE, worst
