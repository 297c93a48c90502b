"""Where a run stands: what is saved with every checkpoint, what becomes training_log.json, what the terminal shows."""

import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm


@dataclass
class Progress:
    """Counts and records of a run, from its first step on, resumed or not.

    Attributes:
        step: optimiser steps done.
        wall_s: seconds since the first step began, without what was lost between a checkpoint and a resumed run.
        loop_s: seconds spent in these steps, waiting for data included, validation and checkpoints excluded.
        wait_s: seconds of them spent waiting for data.
        best_f1: best frame F1 of the deepest exit so far, None = not yet validated; best_step: when.
        num_worse: validations in a row since then.
        stopped_early: whether patience ran out.
        losses: one record per log entry: step, loss, every part of it, learning rate.
        validations: one record per validation: step and scores.
    """

    step: int = 0
    wall_s: float = 0.0
    loop_s: float = 0.0
    wait_s: float = 0.0
    best_f1: float | None = None
    best_step: int = 0
    num_worse: int = 0
    stopped_early: bool = False
    losses: list[dict[str, float]] = field(default_factory=list)
    validations: list[dict[str, float]] = field(default_factory=list)

    @property
    def data_wait_share(self) -> float:
        """Share of the loop's time spent waiting for data, 0 to 1."""
        return self.wait_s / self.loop_s if self.loop_s > 0 else 0.0

    def add_step(self, loop_s: float, wait_s: float) -> None:
        self.step += 1
        self.loop_s += loop_s
        self.wait_s += wait_s

    def add_validation(self, scores: dict[str, float], f1: float, patience: int | None) -> bool:
        """Notes the scores of this step; True when `f1`, the deepest exit's, is the best so far."""
        self.validations.append({"step": self.step, **scores})
        is_best = self.best_f1 is None or f1 > self.best_f1
        if is_best:
            self.best_f1, self.best_step, self.num_worse = f1, self.step, 0
        else:
            self.num_worse += 1
        self.stopped_early = patience is not None and self.num_worse >= patience
        return is_best

    def summary(self) -> dict[str, Any]:
        """What training_log.json holds of the run: records and speed, times in seconds."""
        per_step = self.loop_s / self.step if self.step else 0.0
        return {
            "steps": self.step,
            "stopped_early": self.stopped_early,
            "wall_time_s": round(self.wall_s, 3),
            "step_time_s": round(per_step, 5),
            "steps_per_second": round(1 / per_step, 4) if per_step > 0 else 0.0,
            "data_wait_share": round(self.data_wait_share, 4),
            "losses": self.losses,
            "validations": self.validations,
        }

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    def load(self, path: Path) -> None:
        for name, value in json.loads(path.read_text(encoding="utf-8")).items():
            setattr(self, name, value)


class Display:
    """What the terminal shows: a bar with loss, last F1 and time left, or plain lines where stderr is no terminal.

    Args:
        progress: of the run; the time left comes from the steps since the display was made.
        steps: of the whole run.
        log_every: steps between two plain lines.
        is_shown: False on all processes but the main one.
    """

    def __init__(self, progress: Progress, steps: int, log_every: int, is_shown: bool) -> None:
        self.progress, self.steps, self.log_every, self.is_shown = progress, steps, log_every, is_shown
        self.first_step, self.start_s = progress.step, time.monotonic()
        has_bar = is_shown and sys.stderr.isatty()
        self.bar = tqdm(total=steps, initial=progress.step, disable=not has_bar, unit="step")

    def update(self) -> None:
        """After every step."""
        self.bar.update()
        self.bar.set_postfix_str(self._figures(), refresh=False)
        step = self.progress.step
        if self.is_shown and self.bar.disable and (step % self.log_every == 0 or step == self.steps):
            left_s = (time.monotonic() - self.start_s) / (step - self.first_step) * (self.steps - step)
            self.say(f"step {step}/{self.steps}  {self._figures()}  {tqdm.format_interval(left_s)} left")

    def say(self, line: str) -> None:
        """A line above the bar."""
        if self.is_shown:
            self.bar.write(line, file=sys.stderr)
            sys.stderr.flush()

    def close(self) -> None:
        self.bar.close()

    def _figures(self) -> str:
        figures = [f"loss {self.progress.losses[-1]['loss']:.3f}"] if self.progress.losses else []
        if self.progress.validations:
            last = self.progress.validations[-1]
            deepest = [name for name in last if name.startswith("f1_")][-1]
            figures.append(f"F1 {last[deepest]:.3f}")
        return "  ".join(figures)
