"""Network time of both backbones, every student, against CNN14's shape; random weights, one run, one thread.

    python benchmarks/network_speed.py [--seconds 10] [--repeats 20]

Networks take turns within every repeat, so that a busy machine slows all of them alike; medians are printed. A student
runs alone (`exit_index`), as on a phone: nothing deeper and no other exit is computed."""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from modeling_easysed import EasySEDConfig, EasySEDForSoundEventDetection

CNN14_CHANNELS = (1, 64, 128, 256, 512, 1024, 2048)


class Cnn14Shape(nn.Module):
    """The convolutions of CNN14: six pairs of 3x3 with batch norm and ReLU, 2x2 pooling between the pairs.

    Source: Kong et al. 2020, PANNs, table 1.
    """

    def __init__(self) -> None:
        super().__init__()
        pairs = zip(CNN14_CHANNELS, CNN14_CHANNELS[1:], strict=False)
        self.pairs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(narrow, wide, 3, padding=1, bias=False),
                nn.BatchNorm2d(wide),
                nn.ReLU(),
                nn.Conv2d(wide, wide, 3, padding=1, bias=False),
                nn.BatchNorm2d(wide),
                nn.ReLU(),
            )
            for narrow, wide in pairs
        )

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        hidden = input_values.unsqueeze(1)
        for index, pair in enumerate(self.pairs):
            hidden = pair(F.avg_pool2d(hidden, 2) if index > 0 else hidden)
        return hidden


def networks(num_classes: int) -> dict[str, tuple[nn.Module, int]]:
    """Name to (network, parameters) for CNN14's shape and every exit of both backbones."""
    cnn14 = Cnn14Shape().eval()
    found: dict[str, tuple[nn.Module, int]] = {"CNN14 shape": (cnn14, count(cnn14))}
    for backbone in ("cnn", "transformer"):
        config = EasySEDConfig(backbone=backbone, id2label={i: str(i) for i in range(num_classes)})
        teacher = EasySEDForSoundEventDetection(config).eval()
        for index in range(1, teacher.num_exits + 1):
            model = teacher if index == teacher.num_exits else teacher.student(index)
            name = f"{backbone} {'teacher' if model is teacher else f'student {index}'}"
            found[name] = (model, count(model.easysed) + count(model.exits[-1]))
    return found


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def runner(model: nn.Module, input_values: torch.Tensor) -> Callable[[], object]:
    if isinstance(model, EasySEDForSoundEventDetection):
        return lambda: model(input_values, exit_index=model.num_exits)
    return lambda: model(input_values)


@torch.inference_mode()
def measure(found: dict[str, tuple[nn.Module, int]], input_values: torch.Tensor, repeats: int) -> dict[str, float]:
    """Median milliseconds of each network."""
    runs = {name: runner(model, input_values) for name, (model, _) in found.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 2):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if repeat >= 2:  # the first two warm caches up
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--classes", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = networks(arguments.classes)
    input_values = torch.randn(1, int(arguments.seconds * 100) + 1, 64)
    milliseconds = measure(found, input_values, arguments.repeats)
    reference = milliseconds["CNN14 shape"]
    print(f"| network | parameters | ms for {arguments.seconds:g} s, 1 thread | times faster than CNN14's shape |")
    print("| --- | --- | --- | --- |")
    for name, (_, parameters) in found.items():
        print(f"| {name} | {parameters:,} | {milliseconds[name]:.1f} | {reference / milliseconds[name]:.0f} |")


if __name__ == "__main__":
    main()
