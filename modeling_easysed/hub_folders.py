"""What lies in a repository of the Hub: a teacher or one of its students, with code, card, picture and table of clips.

A student's config keeps what was tuned and calibrated for its own exits, so that its events are those of
`pipe(audio, exit=...)` of its teacher."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modeling_easysed import SoundEventDetectionPipeline
from modeling_easysed.bundled import read_config
from modeling_easysed.calibration_easysed import calibration_id
from modeling_easysed.costs import exit_costs
from modeling_easysed.model_cards.attribution import read_attribution
from modeling_easysed.model_cards.write_card import (
    CardSource,
    local_folder,
    read_results,
    stated_license,
    write_card,
)


@dataclass
class Repository:
    """One repository to be: its id on the Hub, what it is in words, its model, and what its card says besides."""

    repo_id: str
    role: str
    pipe: SoundEventDetectionPipeline
    card: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Fills an empty folder: weights, configs, all code for `trust_remote_code`, card, picture, table of clips."""
        self.pipe.save_pretrained(folder)
        costs = exit_costs(self.pipe.model)
        write_card(CardSource(name=self.repo_id, config=read_config(folder), costs=costs, **self.card), folder)


@dataclass(frozen=True)
class CardWishes:
    """What the caller wants the cards to say; None = not known. See `modeling_easysed.hub.push`."""

    results: str | Path | None = None
    clips: str | Path | None = None
    base_model: str | None = None
    license: str | None = None
    revision: str | None = None


def plan_repositories(
    folder: str | Path,
    repo_id: str,
    exits: Sequence[int] | None,
    wishes: CardWishes,
    repo_exists: Callable[[str], bool],
) -> list[Repository]:
    """The teacher's repository, then one for every chosen student.

    Args:
        folder: checkpoint folder or bundled name.
        repo_id: the teacher's, "owner/name".
        exits: as in `push`.
        wishes: for the cards.
        repo_exists: whether an id is there already; the teacher's card names students of an earlier push as well.

    Raises:
        ValueError: a checkpoint, results, clips or exits that cannot be used.
    """
    checkpoint = local_folder(str(folder))
    teacher, config = SoundEventDetectionPipeline.from_pretrained(checkpoint, device="cpu"), read_config(checkpoint)
    students = {index: f"{repo_id}-exit{index}" for index in range(1, teacher.model.num_exits)}
    chosen = chosen_students(exits, teacher.model.num_exits)
    clips = None if wishes.clips is None else Path(wishes.clips)
    common = {
        "results": read_results(None if wishes.results is None else Path(wishes.results), config),
        "clips": read_attribution(checkpoint, clips, config.get("provenance")),
        "license": stated_license(checkpoint, config) if wishes.license is None else wishes.license,
        "revision": wishes.revision,
    }
    named = [name for index, name in students.items() if index in chosen or repo_exists(name)]
    card = {**common, "base_model": wishes.base_model, "students": named}
    return [Repository(repo_id, "teacher", teacher, card)] + [
        Repository(students[index], f"exit {index}", student_pipeline(teacher, index), {**common, "teacher": repo_id})
        for index in chosen
    ]


def chosen_students(exits: Sequence[int] | None, num_exits: int) -> list[int]:
    """Exits to upload as students, in order; None = all but the deepest.

    Raises:
        ValueError: when one of them is no student of this model.
    """
    if exits is None:
        return list(range(1, num_exits))
    wrong = [index for index in exits if not 1 <= index < num_exits]
    if wrong:
        rule = f"between 1 and {num_exits - 1}" if num_exits > 1 else "none for a model of one exit"
        raise ValueError(f"exits must be {rule} (exit {num_exits} is the teacher, and always goes), got {wrong}")
    return sorted(set(exits))


# ---- students --------------------------------------------------------------------------------------------------------


def student_pipeline(teacher: SoundEventDetectionPipeline, exit_index: int) -> SoundEventDetectionPipeline:
    """One exit as a pipeline of its own, with the decoding and calibration of the exits that it keeps."""
    model = teacher.model.student(exit_index)
    model.config.decoding = decoding_of_exits(teacher.model.config.decoding, exit_index)
    model.config.calibration = calibration_of_exits(teacher.model.config.calibration, exit_index)
    return SoundEventDetectionPipeline(model=model, feature_extractor=teacher.feature_extractor, device="cpu")


def decoding_of_exits(decoding: dict[str, Any] | None, num_exits: int) -> dict[str, Any] | None:
    """The decoding of the first `num_exits` exits; they keep their numbers."""
    if decoding is None or "exits" not in decoding:
        return decoding
    return {**decoding, "exits": _first(decoding["exits"], num_exits)}


def calibration_of_exits(calibration: dict[str, Any] | None, num_exits: int) -> dict[str, Any] | None:
    """The calibration of the first `num_exits` exits, under an id of its own and with its teacher's.

    The doubt limits say when an exit is nearly as good as the teacher's deepest. A student does not have that exit, so
    its own deepest always speaks.
    """
    if calibration is None:
        return None
    kept = {**calibration, "exits": _first(calibration["exits"], num_exits), "doubt_limits": {}}
    kept["teacher_id"] = calibration["id"]
    return {**kept, "id": calibration_id(kept)}


def _first(exits: dict[str, Any], num_exits: int) -> dict[str, Any]:
    return {key: value for key, value in exits.items() if int(key) <= num_exits}


__all__ = [
    "CardWishes",
    "Repository",
    "calibration_of_exits",
    "chosen_students",
    "decoding_of_exits",
    "plan_repositories",
    "student_pipeline",
]
