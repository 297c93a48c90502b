"""One command in several processes, started by `accelerate launch` or `torchrun`: each takes its share of a list.

The processes only wait for each other and tell what they did, over gloo on the CPU, whatever the network uses."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from modeling_easysed.cli.errors import CommandError

Item = TypeVar("Item")
PATIENCE = timedelta(days=30)  # shares end at different times, and nobody is lost: the launcher ends all with one


@dataclass(frozen=True)
class Ranks:
    """This process among its peers.

    Attributes:
        index: of this process, from 0.
        count: of all processes.
        local_index: of this process on its machine.
    """

    index: int = 0
    count: int = 1
    local_index: int = 0

    @property
    def is_first(self) -> bool:
        return self.index == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """This process's items: every `count`-th, so that shares are alike where neighbours are."""
        return list(items[self.index :: self.count])

    def wait(self) -> None:
        """Returns when all processes have come here."""
        if self.count > 1:
            _state().wait_for_everyone()

    def gather(self, item: Item) -> list[Item]:
        """The items of all processes, in their order, in each of them."""
        if self.count == 1:
            return [item]
        from accelerate.utils import gather_object

        _state()
        return gather_object([item])

    def device(self, asked: str) -> str:
        """`auto` is this process's own accelerator where there are several; a device asked for is left as it is."""
        if self.count == 1 or asked != "auto":
            return asked
        import torch

        count = torch.cuda.device_count()
        return f"cuda:{self.local_index % count}" if count > 0 else asked


def ranks_of_process() -> Ranks:
    """What the launcher's environment says; a process of its own is the only one.

    Raises:
        CommandError: several processes, but no accelerate.
    """
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count == 1:
        return Ranks()
    try:
        import accelerate  # noqa: F401
    except ImportError as error:
        raise CommandError('several processes need accelerate: pip install "easysed[train]"') from error
    return Ranks(int(os.environ["RANK"]), count, int(os.environ.get("LOCAL_RANK", 0)))


def _state() -> Any:
    from accelerate import PartialState

    return PartialState(cpu=True, timeout=PATIENCE)
