"""From candidates to the events that are reported: confidence, decision and reasons under one setting and goal."""

from collections.abc import Sequence
from typing import Any

from .calibration_easysed import Calibration, Judgement
from .decisions_easysed import Rule
from .decoding_easysed import class_parameters
from .detection_easysed import JUDGED_FIELDS, NO_CALIBRATION, Event
from .evidence_easysed import Evidence
from .reasons_easysed import reasons_for


class Judge:
    """Judges candidates of one exit under one method of uncertainty.

    Args:
        config: of the model, see `EasySEDConfig`.
        decoding: of the exit; its thresholds are the model's own.
        exit_index: whose calibration gives the floor (the deepest for "auto").
        calibration: of the checkpoint, or None.
        setting: see `setting_name`.
        rule: what is accepted and what is shown; None without a calibration.

    Attributes:
        floor: candidates must score higher; one for all, or (classes,).
        warnings: sentences on the setting.
        sentences: on the goal, the thresholds and what is guaranteed.
    """

    def __init__(
        self,
        config: Any,
        decoding: dict[str, Any] | None,
        exit_index: int,
        calibration: Calibration | None,
        setting: str,
        rule: Rule | None,
    ) -> None:
        self.labels = [config.id2label[number] for number in range(config.num_labels)]
        self.thresholds = class_parameters(decoding, config.num_labels)["threshold"]
        self.calibration, self.setting, self.rule = calibration, setting, rule
        self.floor = self.thresholds if calibration is None else calibration.floor(exit_index, setting)
        self.warnings = [NO_CALIBRATION] if rule is None else rule.warnings
        self.sentences = [] if rule is None else rule.sentences

    def events(self, found: Sequence[Evidence], warnings: Sequence[str], duration: float) -> list[Event]:
        """Events to report: accepted, for review, and rejected where the model's own threshold would report them.

        Args:
            found: candidates above the floor.
            warnings: of the recording, see `all_warnings`.
            duration: seconds of the recording; infinite where it goes on.
        """
        if self.calibration is None:
            return [make_event(one, self.labels) for one in found]
        events = []
        for one, judgement in zip(found, self.calibration.judge(found, self.setting, duration), strict=True):
            index = one.box.class_index
            decision = self.rule.decide(judgement.confidence, index, judgement.is_unfamiliar)
            if decision == "reject" and one.box.score <= self.thresholds[index]:
                continue
            limits = self.calibration.check(one.exit_index, self.setting)["reason_limits"]
            reasons = reasons_for(one, judgement, decision, limits, warnings, duration, self.rule.accept[index])
            events.append(make_event(one, self.labels, judgement, decision, reasons))
        return events


def make_event(
    one: Evidence,
    labels: Sequence[str],
    judgement: Judgement | None = None,
    decision: str | None = None,
    reasons: list[str] | None = None,
) -> Event:
    """The event of one candidate; without a judgement its score and uncertainty alone."""
    onset, offset, index, score = one.box
    uncertainty = {"total": one.total, "aleatoric": one.aleatoric, "epistemic": one.epistemic}
    judged = {} if judgement is None else {name: getattr(judgement, name) for name in JUDGED_FIELDS}
    return Event(
        onset,
        offset,
        labels[index],
        score,
        uncertainty=uncertainty,
        decision=decision,
        reasons=reasons,
        exit=one.exit_index,
        **judged,
    )


__all__ = ["Judge", "make_event"]
