"""Old classes before and after: hand-made figures, and agreement counted by hand."""

import numpy as np
import pytest
import torch
from new_label import run_frozen, with_new_label
from rare_event_old_classes import LabelledSplit, agreement, changes, mean_loss
from test_new_label import scene_set
from tiny import tiny_model
from tiny_rare_event import write_split

from modeling_easysed import EasySEDFeatureExtractor


def figures(event: dict, segment: dict) -> dict:
    return {kind: {"macro": sum(own.values()) / len(own), "class_wise": own} for kind, own in
            (("event", event), ("segment", segment))}  # fmt: skip


BEFORE = figures({"rain": 0.6, "dog_bark": 0.4}, {"rain": 0.8, "dog_bark": 0.8})
AFTER = figures({"rain": 0.5, "dog_bark": 0.46}, {"rain": 0.8, "dog_bark": 0.82})


def test_the_loss_is_the_mean_of_both_kinds():
    assert mean_loss(BEFORE, AFTER) == pytest.approx((0.02 - 0.01) / 2)
    assert mean_loss(AFTER, BEFORE) == pytest.approx(-0.005)


def test_changes_per_class():
    change = changes(BEFORE, AFTER)
    assert change["event"] == pytest.approx({"macro": -0.02, "rain": -0.1, "dog_bark": 0.06})
    assert change["segment"] == pytest.approx({"macro": 0.01, "rain": 0.0, "dog_bark": 0.02})


def test_a_model_agrees_with_its_base():
    base, scenes = tiny_model(), scene_set()
    for head in base.exits:
        head.classifier.bias.data += 3.0
    frozen = run_frozen(base, scenes, "")
    found = agreement(with_new_label(base, "beep", 0), [scenes], [frozen])
    assert found["frame_f1"] == pytest.approx(1.0, abs=0.01) and found["mean_difference"] < 1e-3
    assert found["active_frames"] == int((frozen.frame_logits[-1] > 0).sum()) > 0


def test_agreement_by_hand():
    """The base hears class 0 in all 80 frames; the model hears class 0 and class 1: F1 is 2 x 80 / (80 + 160)."""
    base, scenes = tiny_model(), scene_set()
    model = with_new_label(base, "beep", 0)
    for one, biases in ((base, [9.0, -9.0, -9.0]), (model, [9.0, 9.0, -9.0, 9.0])):
        head = one.exits[-1].classifier
        head.weight.data.zero_()
        head.bias.data = torch.tensor(biases)
    found = agreement(model, [scenes], [run_frozen(base, scenes, "")])
    assert found["active_frames"] == 80 and found["frame_f1"] == pytest.approx(2 / 3)
    assert found["mean_difference"] == pytest.approx(1 / 3, abs=1e-3)


def test_where_neither_hears_anything_they_agree():
    base, scenes = tiny_model(), scene_set()
    frozen = run_frozen(base, scenes, "")
    frozen.frame_logits = torch.full_like(frozen.frame_logits, -9.0)
    model = with_new_label(base, "beep", 0)
    for head in model.exits:
        head.classifier.weight.data.zero_()
        head.classifier.bias.data.fill_(-9.0)
    assert agreement(model, [scenes], [frozen])["frame_f1"] == 1.0


def test_classes_that_do_not_occur_are_in_no_mean(tmp_path):
    """Rain sounds all the time and the model always says so; beep is labelled as well, but is no old class."""
    folder = write_split(tmp_path / "data", "dev", ["rain", "beep"], num=3)
    split = LabelledSplit(folder, "dev", ["dog_bark", "rain", "rooster"])
    assert split.occurring == ["rain"] and split.files_with("beep") == {"0.wav", "1.wav"}
    model = tiny_model()
    for head in model.exits:
        head.classifier.weight.data.zero_()
        head.classifier.bias.data = torch.tensor([9.0, 9.0, -9.0])
    found = split.figures(model, EasySEDFeatureExtractor(feature_size=32))
    # 2 right events and one in the third file, which is silent: precision 2 / 3
    assert found["event"] == {"macro": pytest.approx(0.8), "class_wise": {"rain": pytest.approx(0.8)}}
    assert set(found["exits"]) == {"1", "2", "3"}
    assert np.isclose(found["exits"]["3"]["segment"], 0.8)


def test_labels_can_be_chosen(tmp_path):
    folder = write_split(tmp_path / "data", "dev", ["rain", "beep"], num=2)
    split = LabelledSplit(folder, "dev", ["rain"])
    assert split.references_of(["beep"]) == {"0.wav": [[0.0, 2.0, "beep"]], "1.wav": []}
