"""What a repository holds: students that decide as their exit does, their configs, and which exits may be chosen."""

import json

import numpy as np
import pytest

from modeling_easysed import DEFAULT_CHECKPOINT, SoundEventDetectionPipeline
from modeling_easysed.calibration_easysed import calibration_id
from modeling_easysed.hub_folders import (
    CardWishes,
    calibration_of_exits,
    chosen_students,
    decoding_of_exits,
    plan_repositories,
    student_pipeline,
)


@pytest.fixture(scope="module")
def teacher() -> SoundEventDetectionPipeline:
    return SoundEventDetectionPipeline.from_pretrained(DEFAULT_CHECKPOINT, device="cpu")


@pytest.mark.parametrize("exit_index", [1, 3])
@pytest.mark.parametrize("setting", [{}, {"uncertainty": "exits", "shifts": 0, "min_precision": 0.8}])
def test_a_student_reports_what_its_exit_reports(teacher, tmp_path, data_dir, exit_index, setting):
    recording = str(data_dir / "soundscapes" / "audio" / "test" / "test_0010.ogg")
    student_pipeline(teacher, exit_index).save_pretrained(tmp_path)
    student = SoundEventDetectionPipeline.from_pretrained(tmp_path, device="cpu")
    found, expected = student(recording, **setting), teacher(recording, exit=exit_index, **setting)
    assert found.to_dict()["events"] == expected.to_dict()["events"] and len(found.events) >= 2
    assert found.decision_rule == expected.decision_rule and found.warnings == expected.warnings
    np.testing.assert_array_equal(found.uncertainty, expected.uncertainty)


def test_a_students_deepest_exit_speaks_even_where_a_shallower_one_is_sure(teacher):
    """The teacher's limits would stop at exit 1 in a recording where nothing sounds."""
    quiet = {"array": 1e-4 * np.random.default_rng(0).standard_normal(48_000), "sampling_rate": 16_000}
    assert teacher(quiet).probabilities.max() != teacher(quiet, exit=4).probabilities.max()
    found, expected = student_pipeline(teacher, 3)(quiet), teacher(quiet, exit=3)
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)


def test_a_students_config_holds_its_own_exits_alone(teacher):
    before = json.dumps(teacher.model.config.calibration, sort_keys=True)
    config = student_pipeline(teacher, 2).model.config
    assert list(config.decoding["exits"]) == ["1", "2"] and list(config.calibration["exits"]) == ["1", "2"]
    assert config.decoding["id"] == teacher.model.config.decoding["id"]
    assert config.calibration["teacher_id"] == teacher.model.config.calibration["id"]
    assert config.calibration["id"] == calibration_id(config.calibration) != config.calibration["teacher_id"]
    assert config.calibration["doubt_limits"] == {}
    assert json.dumps(teacher.model.config.calibration, sort_keys=True) == before


def test_nothing_tuned_and_nothing_calibrated_stays_so():
    assert decoding_of_exits(None, 1) is None and calibration_of_exits(None, 1) is None
    one_for_all = {"method": "threshold", "default": {"threshold": 0.4}}
    assert decoding_of_exits(one_for_all, 1) == one_for_all


def test_exits_are_chosen():
    assert (
        chosen_students(None, 4) == [1, 2, 3]
        and chosen_students([], 4) == []
        and chosen_students([3, 1, 3], 4) == [1, 3]
    )
    assert chosen_students(None, 1) == []
    with pytest.raises(ValueError, match=r"exits must be between 1 and 3 \(exit 4 is the teacher.*got \[0, 4\]"):
        chosen_students([0, 1, 4], 4)
    with pytest.raises(ValueError, match=r"none for a model of one exit.*got \[1\]"):
        chosen_students([1], 1)


def test_a_plan_names_students_of_an_earlier_push():
    plan = plan_repositories(
        DEFAULT_CHECKPOINT, "me/x", [2], CardWishes(revision="v3"), lambda name: name == "me/x-exit1"
    )
    assert [(one.repo_id, one.role) for one in plan] == [("me/x", "teacher"), ("me/x-exit2", "exit 2")]
    assert plan[0].card["students"] == ["me/x-exit1", "me/x-exit2"] and plan[1].card["teacher"] == "me/x"
    assert plan[0].card["license"] == "apache-2.0" and plan[1].card["revision"] == "v3"


def test_a_hub_id_is_no_folder_to_push():
    with pytest.raises(ValueError, match="must be a local folder or a bundled name, got me/there: download it first"):
        plan_repositories("me/there", "me/x", None, CardWishes(), lambda name: False)
