"""The models of the page: loaded once, shared by all, with what each exit costs and how well it was measured to do."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from modeling_easysed.bundled import BUNDLED_CHECKPOINTS, MODEL_VARIABLE, resolve_checkpoint
from modeling_easysed.costs import exit_costs
from modeling_easysed.pipeline_easysed import SoundEventDetectionPipeline

ARCHITECTURES = {"cnn": "CNN", "transformer": "Transformer", "ast": "Audio Spectrogram Transformer"}
ACCURACY_HEAD = "| exit | PSDS1 | PSDS2 | event F1 (macro) | segment F1 (micro) |"


@dataclass(frozen=True)
class Exit:
    """One size of a model.

    Attributes:
        number: 1 = shallowest.
        parameters, macs_per_10_s: of the student that ends there, see costs.
        psds1, event_f1: in [0, 1], as the checkpoint's card says; None = not measured.
    """

    number: int
    parameters: int
    macs_per_10_s: int
    psds1: float | None
    event_f1: float | None

    def words(self, num_exits: int) -> str:
        """For people: name, cost, accuracy."""
        name = {1: "compact", num_exits: "large"}.get(self.number, "medium") if num_exits > 1 else "the only one"
        cost = f"{self.parameters / 1e6:.2f} M parameters, {self.macs_per_10_s / 1e9:.2f} G MACs per 10 s"
        if self.event_f1 is None:
            return f"exit {self.number}, {name}: {cost}, accuracy not measured"
        return f"exit {self.number}, {name}: {cost}, event F1 {self.event_f1:.2f}, PSDS1 {self.psds1:.2f}"


@dataclass(frozen=True)
class Entry:
    """One model: `name` as it was asked for, `title` for people, its exits from the shallowest."""

    name: str
    title: str
    pipe: SoundEventDetectionPipeline
    exits: tuple[Exit, ...]

    @property
    def sizes(self) -> list[tuple[str, str]]:
        """(words, value) of every choice of size, the automatic one first."""
        auto = ("automatic: the first exit that is sure enough, window by window", "auto")
        return [auto, *((one.words(len(self.exits)), str(one.number)) for one in reversed(self.exits))]


def load_catalogue(names: list[str] | None = None) -> dict[str, Entry]:
    """{name: model}, in the order of the page.

    Args:
        names: bundled names, folders or Hub ids; None = those in the variable EASYSED_MODEL, separated by commas, else
            what is bundled.

    Raises:
        ValueError: a model that cannot be loaded, or none at all.
    """
    if names is None:
        asked = os.environ.get(MODEL_VARIABLE, "")
        names = [one.strip() for one in asked.split(",") if one.strip()] or list(BUNDLED_CHECKPOINTS)
    if not names:
        raise ValueError(f"no checkpoint is bundled: set {MODEL_VARIABLE} to a folder or a Hub id")
    return {name: _load(name) for name in dict.fromkeys(names)}


def _load(name: str) -> Entry:
    pipe = SoundEventDetectionPipeline.from_pretrained(name)
    pipe.model.eval()
    folder = Path(resolve_checkpoint(name))
    measured = measured_accuracy(folder / "README.md")
    exits = tuple(
        Exit(one["exit"], one["parameters"], one["macs_per_10_s"], *measured.get(one["exit"], (None, None)))
        for one in exit_costs(pipe.model)
    )
    kind = pipe.model.config.backbone
    shown = folder.name if folder.is_dir() else name
    return Entry(name, f"{ARCHITECTURES.get(kind, kind)} ({shown})", pipe, exits)


def measured_accuracy(card: Path) -> dict[int, tuple[float, float]]:
    """{exit: (PSDS1, event F1)} from the table of a model card; empty where there is none."""
    if not card.is_file():
        return {}
    _, _, after = card.read_text(encoding="utf-8", errors="replace").partition(ACCURACY_HEAD)
    rows = re.match(r"\s*\|[ \-|]+\|\n((?:\|.*\|\n?)*)", after)
    found = {}
    for line in rows[1].splitlines() if rows else ():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        try:
            found[int(cells[0])] = float(cells[1]), float(cells[3])
        except (ValueError, IndexError):
            continue  # a cell without a number: not measured
    return found


__all__ = ["Entry", "Exit", "load_catalogue", "measured_accuracy"]
