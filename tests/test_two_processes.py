"""Two CPU processes learn what one learns with the same global batch: losses, weights, outputs, validation.

Dropout is 0 here: with it every process draws masks of its own, and runs agree in distribution alone. Tolerances are
1e-4; what was seen is below 1e-6, the order in which float32 numbers are added. Only where a unit's input lies within
rounding of ReLU's kink do runs part: with seed 1 that happens on a CPU with AMX, at step 5, by 2e-4."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from synced_norm import SyncedBatchNorm, synchronise_batch_norm
from tiny_training import ROOT, launch_two, run, weights_of, write_config, write_data
from torch import nn
from train import main as train_main

from modeling_easysed import EasySEDForSoundEventDetection

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def compare_logs(one: Path, two: Path) -> None:
    """Every loss part and every validation score of every step."""
    logs = [json.loads((folder / "model" / "training_log.json").read_text()) for folder in (one, two)]
    for name in ("losses", "validations"):
        assert len(logs[0][name]) == len(logs[1][name]) > 0
        for entry, other in zip(logs[0][name], logs[1][name], strict=True):
            assert entry == pytest.approx(other, rel=TOLERANCE, abs=TOLERANCE)


def num_processes_of(folder: Path) -> int:
    return json.loads((folder / "model" / "config.json").read_text())["provenance"]["num_processes"]


@pytest.fixture(scope="module")
def cnn_runs(data, tmp_path_factory) -> tuple[Path, Path, Path]:
    """Config, and output folders of one process and of two. Half of the samples have hidden frame labels: the two
    halves of a batch know different numbers of frames."""
    folder = tmp_path_factory.mktemp("cnn")
    options = {"weak_fraction": 0.5, "num_workers": 1, "validate_every": 3, "checkpoint_every": 3}
    model = {"dropout": 0.0, "class_loss_weight": 0.5}
    config = write_config(folder, data, model=model, steps=6, batch_size=8, seed=3, **options)
    one, two = folder / "one", folder / "two"
    train_main(["--config", str(config), "--output_dir", str(one)])
    done = launch_two(config, "--output_dir", str(two))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 processes on cpu, precision no, 8 soundscapes a step in 2 parts" in done.stderr
    assert done.stdout.count("model saved to") == 1
    return config, one, two


def test_same_losses_and_scores(cnn_runs):
    _, one, two = cnn_runs
    assert (num_processes_of(one), num_processes_of(two)) == (1, 2)
    compare_logs(one, two)


def test_same_weights(cnn_runs):
    _, one, two = cnn_runs
    weights, others = weights_of(one), weights_of(two)
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        torch.testing.assert_close(value, others[name], rtol=TOLERANCE, atol=TOLERANCE, msg=name)


def test_the_weights_have_moved_by_more_than_the_tolerance(cnn_runs):
    config, one, _ = cnn_runs
    start = one.parent / "start"
    train_main(["--config", str(config), "--output_dir", str(start), "--learning_rate", "1e-12"])
    weights, others = weights_of(one), weights_of(start)
    moved = [name for name, value in weights.items() if (value - others[name]).abs().max() > 10 * TOLERANCE]
    assert len(moved) > len(weights) / 2


def test_one_process_goes_on_where_two_stopped(cnn_runs, tmp_path):
    config, one, two = cnn_runs
    shutil.copytree(two / "checkpoints" / "checkpoint_3", tmp_path / "checkpoints" / "checkpoint_3")
    train_main(["--config", str(config), "--output_dir", str(tmp_path), "--resume"])
    compare_logs(one, tmp_path)
    for name, value in weights_of(one).items():
        torch.testing.assert_close(weights_of(tmp_path)[name], value, rtol=TOLERANCE, atol=TOLERANCE, msg=name)


def test_two_processes_with_micro_batches_and_another_launcher(data, tmp_path):
    """The Transformer, 2 processes x 2 micro-batches by torchrun against 1 x 2. Its exit norms' biases have no gradient
    but rounding (batch norm takes constants out), so that outputs are compared, not weights."""
    options = {"weak_fraction": 0.5, "steps": 4, "batch_size": 8, "gradient_accumulation": 2}
    config = write_config(tmp_path, data, "transformer", model={"dropout": 0.0}, **options)
    one, two = tmp_path / "one", tmp_path / "two"
    train_main(["--config", str(config), "--output_dir", str(one)])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    train = str(ROOT / "training" / "train.py")
    done = run([*launcher, train, "--config", str(config), "--output_dir", str(two)])
    assert done.returncode == 0, done.stderr[-3000:]
    assert (num_processes_of(one), num_processes_of(two)) == (1, 2)
    compare_logs(one, two)
    models = [EasySEDForSoundEventDetection.from_pretrained(folder / "model").eval() for folder in (one, two)]
    features = torch.randn(2, 100, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, second = (model(features).exit_frame_logits for model in models)
    torch.testing.assert_close(first, second, rtol=TOLERANCE, atol=TOLERANCE)


SHARDED = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import train
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

unsharded = train.build_accelerator

def build_accelerator(settings):
    accelerator = unsharded(settings)
    for state in (AcceleratorState, PartialState):
        state._shared_state["distributed_type"] = DistributedType.FSDP
    AcceleratorState._shared_state["fsdp_plugin"] = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False
    )
    assert accelerator.is_fsdp2
    return accelerator

train.build_accelerator = build_accelerator
train.main()
"""


def test_sharded_over_two_processes(cnn_runs, tmp_path):
    """FSDP 2 as Accelerate does it, and resumed. Accelerate shards on GPUs alone unless its state is told otherwise."""
    config, one, _ = cnn_runs
    script = tmp_path / "sharded.py"
    script.write_text(SHARDED)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    command = [*launcher, str(ROOT / "training"), "--config", str(config), "--output_dir", str(tmp_path / "run")]
    for arguments in ([], ["--resume"]):
        done = run([*command, *arguments])
        assert done.returncode == 0, done.stderr[-3000:]
        compare_logs(one, tmp_path / "run")
        for name, value in weights_of(one).items():
            sharded = weights_of(tmp_path / "run")[name]
            torch.testing.assert_close(sharded, value, rtol=TOLERANCE, atol=TOLERANCE, msg=name)
        shutil.rmtree(tmp_path / "run" / "checkpoints" / "checkpoint_6")


# ---- batch norm ------------------------------------------------------------------------------------------------------


def norm_and_input(seed: int, shape: tuple[int, ...]) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A batch norm that is not trivial, its input and the gradient of its output; means far from 0 cost digits."""
    generator = torch.Generator().manual_seed(seed)
    norm = (nn.BatchNorm1d if len(shape) == 3 else nn.BatchNorm2d)(shape[1])
    norm.weight.data.uniform_(0.5, 2.0, generator=generator)
    norm.bias.data.uniform_(-1.0, 1.0, generator=generator)
    hidden = torch.randn(shape, generator=generator) + 100.0
    return norm, hidden, torch.randn(shape, generator=generator)


def normalise_half(rank: int, folder: str) -> None:
    """One of two processes: normalises its half of the batch and writes what came of it."""
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    for shape in ((6, 3, 5), (4, 3, 5, 2)):
        norm, hidden, gradient = norm_and_input(len(shape), shape)
        synced = synchronise_batch_norm(nn.Sequential(norm), torch.device("cpu")).train()
        assert isinstance(synced[0], SyncedBatchNorm)
        hidden = hidden.chunk(2)[rank].clone().requires_grad_()
        output = synced(hidden)
        output.backward(gradient.chunk(2)[rank])
        gradients = (hidden.grad, synced[0].weight.grad, synced[0].bias.grad)
        torch.save((output.detach(), gradients, synced.state_dict()), f"{folder}/{len(shape)}_{rank}.pt")
    torch.distributed.destroy_process_group()


def test_halves_are_normalised_like_the_whole(tmp_path):
    """Against torch's own batch norm on the whole batch: output, gradients, running statistics, names."""
    torch.multiprocessing.spawn(normalise_half, (str(tmp_path),), nprocs=2)
    for shape in ((6, 3, 5), (4, 3, 5, 2)):
        norm, hidden, gradient = norm_and_input(len(shape), shape)
        whole = nn.Sequential(norm).train()
        hidden.requires_grad_()
        output = whole(hidden)
        output.backward(gradient)
        halves = [torch.load(tmp_path / f"{len(shape)}_{rank}.pt") for rank in range(2)]
        close = {"rtol": 1e-4, "atol": 1e-4}
        torch.testing.assert_close(torch.cat([half[0] for half in halves]), output, **close)
        torch.testing.assert_close(torch.cat([half[1][0] for half in halves]), hidden.grad, **close)
        for index, parameter in ((1, norm.weight), (2, norm.bias)):
            torch.testing.assert_close(halves[0][1][index] + halves[1][1][index], parameter.grad, **close)
        for half in halves:
            assert half[2].keys() == whole.state_dict().keys()
            for name, value in whole.state_dict().items():
                torch.testing.assert_close(half[2][name], value, **close)


def test_alone_and_in_evaluation_it_is_torchs_batch_norm():
    norm, hidden, _ = norm_and_input(0, (6, 3, 5))
    synced = SyncedBatchNorm(3)
    synced.load_state_dict(norm.state_dict())
    assert torch.equal(synced(hidden), norm(hidden))
    assert torch.equal(synced.eval()(hidden), norm.eval()(hidden))
    assert torch.equal(synced.running_var, norm.running_var)


def test_parameters_and_buffers_stay_the_same_objects():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).eval()
    before = dict(model.named_parameters()) | dict(model.named_buffers())
    model = synchronise_batch_norm(model, torch.device("cpu"))
    after = dict(model.named_parameters()) | dict(model.named_buffers())
    assert list(before) == list(after) and all(before[name] is after[name] for name in before)
    assert not model[1].training


def test_batch_norm_needs_channels():
    with pytest.raises(ValueError, match=r"hidden must have shape \(batch, channels, ...\), got \(3,\)"):
        SyncedBatchNorm(3)(torch.zeros(3))
