"""A checkpoint's folder on PyTorch, without transformers' models, whose import takes seconds."""

from pathlib import Path

import torch

from modeling_easysed.bundled import read_config
from modeling_easysed.configuration_easysed import EasySEDConfig
from modeling_easysed.parts_easysed import BareDetector
from modeling_easysed.runtime.choice import WEIGHTS
from modeling_easysed.runtime.detector import FolderDetector
from modeling_easysed.torch_network_easysed import TorchNetwork


class TorchDetector(FolderDetector):
    """On PyTorch.

    Args:
        folder: checkpoint of one safetensors file.
        device: "auto" = an accelerator where there is one.

    Raises:
        ValueError: anything that only `SoundEventDetectionPipeline` can load, or explain.
        RuntimeError: a device that is not there.
    """

    def __init__(self, folder: str | Path, device: str = "auto") -> None:
        if device == "auto":
            found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
            device = "cpu" if found is None else str(found)
        super().__init__(folder, TorchNetwork(load_bare(Path(folder)).to(device)))


def load_bare(folder: Path) -> BareDetector:
    """The network of a checkpoint, in evaluation mode, of the type that it is saved in.

    Raises:
        ValueError: another kind of config, or weights that are not just the network's.
    """
    from safetensors.torch import load_file

    config = EasySEDConfig.from_dict(read_config(folder))
    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"{folder} has no {WEIGHTS}")
    with torch.device("meta"):
        network = BareDetector(config)
    weights = load_file(folder / WEIGHTS)
    if weights.keys() != network.state_dict().keys():
        raise ValueError(f"{folder / WEIGHTS} does not hold just what the config describes")
    try:
        network.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{folder / WEIGHTS} does not fit its config: {error}") from error
    return network.eval()


__all__ = ["TorchDetector", "load_bare"]
