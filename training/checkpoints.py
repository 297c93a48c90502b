"""Checkpoints that are whole or not there: written under a temporary name, renamed when they are complete."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator

PREFIX, PARTIAL_PREFIX = "checkpoint_", "partial_"


class Checkpoints:
    """A folder of checkpoint_STEP folders, of which the newest few are kept.

    Args:
        folder: made when the first one is written.
        accelerator: all processes must write together, into a folder that they share.
        num_kept: older ones are deleted.
    """

    def __init__(self, folder: Path, accelerator: Accelerator, num_kept: int = 2) -> None:
        self.folder, self.accelerator, self.num_kept = folder, accelerator, num_kept

    def complete(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob(f"{PREFIX}*"), key=step_of)

    def newest(self) -> Path | None:
        """The newest complete one, or None; says so where a half-written one is left aside."""
        for partial in sorted(self.folder.glob(f"{PARTIAL_PREFIX}*")):
            if self.accelerator.is_main_process:
                print(f"warning: {partial} is half-written and ignored: the run ended while it wrote", file=sys.stderr)
        found = self.complete()
        return found[-1] if found else None

    def write(self, step: int, fill: Callable[[Path], None]) -> None:
        """Makes checkpoint_STEP with what `fill` writes into the folder that it is called with, on every process."""
        partial, final = self.folder / f"{PARTIAL_PREFIX}{step}", self.folder / f"{PREFIX}{step}"
        is_main = self.accelerator.is_main_process
        if is_main:
            for leftover in self.folder.glob(f"{PARTIAL_PREFIX}*"):
                shutil.rmtree(leftover)
            partial.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        fill(partial)
        self.accelerator.wait_for_everyone()
        if is_main:
            partial.rename(final)
            for old in self.complete()[: -self.num_kept]:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()


def step_of(folder: Path) -> int:
    return int(folder.name.rsplit("_", 1)[1])
