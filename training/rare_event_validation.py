"""Both phases of learning a new class, each with models that never heard the recordings they are tested on.

Phase 1 is cross-validated over all folds and for fewer recordings than there are, at the price of a few seconds:
embeddings are computed once. Phase 2 is learned three times, each time without a group of folds, to be tested on it;
the mean of the three networks' weights has learned from everything and is the model."""

import copy
import sys
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from new_label import (
    Frozen,
    NewRows,
    TuningData,
    blended,
    fine_tune,
    fit_new_rows,
    mean_model,
    run_frozen,
    scene_weights,
    set_new_rows,
)
from rare_event_data import RareEventData
from rare_event_scenes import Scenes, SceneSet
from rare_event_scores import HeldOut, new_class_parameters, score_set
from rare_event_statistics import LearningCurve, learning_curve
from tqdm import tqdm

from modeling_easysed import EasySEDForSoundEventDetection

TUNING_GROUPS, GROUP_SEED_STEP = 3, 1000
CURVE_SHARES, NUM_DRAWS = (0.25, 0.5), 3  # of the recordings to learn from; draws of each
HELD_SETS = ("test", "background", "rehearsal")


@dataclass
class Phase:
    """What a phase of learning gives.

    Attributes:
        model: learned from everything.
        fold_models: per fold, a model that did not hear it.
        held_out: per exit, what these make of their folds.
    """

    model: EasySEDForSoundEventDetection
    fold_models: list[EasySEDForSoundEventDetection]
    held_out: list[HeldOut]


@dataclass
class Tuned:
    """Models before and after phase 2: all recordings together, and without each group of folds."""

    final: tuple[EasySEDForSoundEventDetection, EasySEDForSoundEventDetection]
    groups: list[tuple[EasySEDForSoundEventDetection, EasySEDForSoundEventDetection]]


class Learning:
    """Phases 1 and 2 on one set of scenes.

    Args:
        base: frozen, in evaluation mode; its decoding is what the new class's parameters come from.
        extended: the same with the new class last.
        data: what the scenes were mixed of.
        scenes: all of them.
        seed: of rows, batches and dropout.
    """

    def __init__(
        self,
        base: EasySEDForSoundEventDetection,
        extended: EasySEDForSoundEventDetection,
        data: RareEventData,
        scenes: Scenes,
        seed: int,
    ) -> None:
        self.base, self.extended, self.data, self.scenes, self.seed = base, extended, data, scenes, seed
        self.sets: dict[str, SceneSet] = {"learn": scenes.learn, "test": scenes.test, "background": scenes.background}
        if scenes.rehearsal is not None:
            self.sets["rehearsal"] = scenes.rehearsal
        self.frozen: dict[str, Frozen] = {name: run_frozen(base, own, name) for name, own in self.sets.items()}
        num_old = base.config.num_labels
        self.parameters = [
            new_class_parameters(base.config.decoding, index, num_old) for index in range(1, base.num_exits + 1)
        ]
        self.all_folds = list(range(data.num_folds))
        self.tuning_groups = [part.tolist() for part in np.array_split(self.all_folds, TUNING_GROUPS) if len(part) > 0]
        # what is held out, one fit each: nothing, every fold, every group of folds
        self.held = [[], *([fold] for fold in self.all_folds), *self.tuning_groups]
        self.rows: list[NewRows] = []  # per exit

    # ---- phase 1 -----------------------------------------------------------------------------------------------------

    def phase_one(self) -> Phase:
        """New rows alone."""
        weights = np.stack([self._weights(held, self._groups_without(held)) for held in self.held])
        num_exits = self.base.num_exits
        self.rows = [
            self._fit(index, weights)
            for index in tqdm(range(num_exits), "new rows", leave=False, disable=not sys.stderr.isatty())
        ]
        fold_models = [self._with_rows(1 + fold) for fold in self.all_folds]
        held_out = []
        for index in range(num_exits):
            probabilities = {
                name: self._of_own_fold(name, index, self.rows[index], [[1 + fold] for fold in self.all_folds])
                for name in HELD_SETS
                if name in self.sets
            }
            held_out += self._held_out(probabilities, index)
        return Phase(self._with_rows(0), fold_models, held_out)

    def _groups_without(self, held: list[int]) -> list[int]:
        """Recordings of the new sound, by number, outside of some folds."""
        own = self.sets["test"]
        return np.unique(own.groups[~np.isin(own.folds, held)]).tolist()

    def _weights(self, held: list[int], chosen: list[int]) -> np.ndarray:
        """(scenes,) of what is learned from, see `scene_weights`: learning scenes, then background."""
        sets = (self.sets["learn"], self.sets["background"])
        groups = np.concatenate([one.groups for one in sets])
        allowed = ~np.isin(np.concatenate([one.folds for one in sets]), held)
        return scene_weights(groups, set(chosen), allowed)

    def _fit(self, index: int, weights: np.ndarray) -> NewRows:
        embeddings = torch.cat([self.frozen[name].embeddings[index] for name in ("learn", "background")])
        targets = torch.cat([self.sets[name].targets for name in ("learn", "background")])
        dropout = self.base.config.dropout
        return fit_new_rows(embeddings, targets, torch.from_numpy(weights).float(), dropout, self.seed)

    def _with_rows(self, number: int) -> EasySEDForSoundEventDetection:
        """The extended model with the rows of one fit at every exit."""
        model = copy.deepcopy(self.extended)
        set_new_rows(
            model,
            torch.stack([rows.weight[number] for rows in self.rows]),
            torch.stack([r.bias[number] for r in self.rows]),
        )
        return model

    def _of_own_fold(self, name: str, index: int, rows: NewRows, fits: list[list[int]]) -> np.ndarray:
        """(scenes, output frames, columns): what the fits of a scene's fold, `fits[fold]`, say of it."""
        scenes, embeddings = self.sets[name], self.frozen[name].embeddings[index]
        found = np.zeros((*embeddings.shape[:2], len(fits[0])), dtype=np.float32)
        for fold in self.all_folds:
            own = np.flatnonzero(scenes.folds == fold)
            found[own] = rows.probabilities(embeddings[own])[..., fits[fold]].numpy()
        return found

    def _held_out(self, probabilities: dict[str, np.ndarray], index: int) -> list[HeldOut]:
        """One per column of probabilities {set: (scenes, output frames, columns)}."""
        scored = {
            name: score_set(
                self.sets[name], own, self.data.num_folds, self.parameters[index], self.base.frame_duration_s
            )
            for name, own in probabilities.items()
        }
        columns = []
        for number, (scores, groups, folds, wrong) in enumerate(scored["test"]):
            old = scored["rehearsal"][number][3] if "rehearsal" in scored else None
            columns.append(HeldOut(scores, groups, folds, wrong, scored["background"][number][3], old))
        return columns

    # ---- fewer recordings --------------------------------------------------------------------------------------------

    def curve(self) -> LearningCurve:
        """Recall of phase 1 with a quarter, half and all of the recordings to learn from, at the deepest exit.

        Mean over 1 to 30 false alarms per hour: at one rate alone it jumps with single false alarms.
        """
        rng = np.random.default_rng([self.seed, 8])
        weights, sizes = [], []
        for fold in self.all_folds:
            pool = self._groups_without([fold])
            shares = [share for share in CURVE_SHARES for _ in range(NUM_DRAWS)] + [1.0]
            numbers = [max(1, round(share * len(pool))) for share in shares]
            sizes.append(numbers)
            weights += [self._weights([fold], rng.permutation(pool)[:number].tolist()) for number in numbers]
        deepest = self.base.num_exits - 1
        rows = self._fit(deepest, np.stack(weights))
        num = len(sizes[0])
        fits = [list(range(fold * num, (fold + 1) * num)) for fold in self.all_folds]
        held = self._held_out(
            {name: self._of_own_fold(name, deepest, rows, fits) for name in ("test", "background")}, deepest
        )
        recall = np.stack([one.group_sensitivity for one in held])
        mean_sizes = np.round(np.mean(sizes, axis=0)).astype(int)
        different = sorted(set(mean_sizes.tolist()))
        table = np.stack([recall[mean_sizes == size].mean(0) for size in different])
        return learning_curve(different, table, self.seed)

    # ---- phase 2 -----------------------------------------------------------------------------------------------------

    def tune(self, accelerator: Accelerator, steps: int) -> Tuned:
        """All weights, from where phase 1 ended, without each group of folds; together, the mean of what they became.

        There are three groups, so two networks heard each recording. The mean of their weights finds about as much as
        one of them, changes less of the old classes (benchmarks/results.md), and spares a fourth run.
        Source: Wortsman et al. 2022, Model Soups, ICML.
        """
        names = ("learn", "background")
        data = TuningData([self.sets[name] for name in names], [self.frozen[name] for name in names])
        groups = []
        for number, folds in enumerate(self.tuning_groups):
            start = self._with_rows(1 + len(self.all_folds) + number)
            is_held = [np.isin(one.folds, folds) for one in data.scenes]
            name = f"fine-tuning {number + 1}/{len(self.tuning_groups)}"
            seed = self.seed + GROUP_SEED_STEP * number
            groups.append((start, fine_tune(start, data, is_held, accelerator, seed, steps, name)))
        return Tuned((self._with_rows(0), mean_model([tuned for _, tuned in groups])), groups)

    def phase_two(self, tuned: Tuned, share: float) -> Phase:
        """What `tune` gave, blended with where it began."""
        fold_models: list[EasySEDForSoundEventDetection] = [self.extended] * self.data.num_folds
        for pair, folds in zip(tuned.groups, self.tuning_groups, strict=True):
            model = blended(*pair, share)
            for fold in folds:
                fold_models[fold] = model
        probabilities = {name: self._network(name, fold_models) for name in HELD_SETS if name in self.sets}
        held_out = []
        for index in range(self.base.num_exits):
            own = {name: values[index, ..., None] for name, values in probabilities.items()}
            held_out += self._held_out(own, index)
        return Phase(blended(*tuned.final, share), fold_models, held_out)

    def _network(self, name: str, fold_models: list[EasySEDForSoundEventDetection]) -> np.ndarray:
        """(exits, scenes, output frames): what the model of a scene's fold says of the new class."""
        scenes = self.sets[name]
        found = np.zeros((self.base.num_exits, *scenes.targets.shape), dtype=np.float32)
        for fold, model in enumerate(fold_models):
            own = np.flatnonzero(scenes.folds == fold)
            found[:, own] = new_class_probabilities(model, scenes.features[own])
        return found


@torch.inference_mode()
def new_class_probabilities(
    model: EasySEDForSoundEventDetection, features: torch.Tensor, batch_size: int = 16
) -> np.ndarray:
    """(exits, scenes, output frames) of the last class, from features (scenes, frames, mels)."""
    parts = [
        torch.sigmoid(model(own.to(model.device).float()).exit_frame_logits[..., -1].float()).cpu()
        for own in features.split(batch_size)
    ]
    return torch.cat(parts, dim=1).numpy()


__all__ = ["HELD_SETS", "Learning", "Phase", "Tuned", "new_class_probabilities"]
