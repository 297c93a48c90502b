"""The command, end to end: a tiny base, tones as the new sound, noise as background."""

import json
import shutil

import calibrate
import candidates
import finetune
import new_label
import pytest
import rare_event_calibration
import rare_event_decision
import rare_event_scenes
import torch
from checkpoint_config import set_config_value
from finetune import command_without_paths, main, parse, short_name
from rare_event_decision import Choice, Cost, judge_second
from test_calibrate import audible_model
from tiny import LABELS, tiny_model
from tiny_rare_event import write_background, write_positives, write_rehearsal, write_split

from modeling_easysed import EasySEDFeatureExtractor, EasySEDForSoundEventDetection, SoundEventDetectionPipeline

FILES = {"report.json", "report.md", "model"}


def make_small(patch: pytest.MonkeyPatch) -> None:
    """Few scenes, settings and steps: what is tested is the command, not what it finds."""
    for name, num in (("POSITIVE_SCENES", 12), ("NEGATIVE_SCENES", 5), ("TEST_SCENES", 6), ("NOISES", 1),
                      ("VARIANTS", 2), ("SYNTHETIC", 6)):  # fmt: skip
        patch.setattr(rare_event_scenes, f"NUM_{name}", num)
    patch.setattr(rare_event_scenes, "NOISE_LEVELS_DB", (-60.0, -20.0))
    patch.setattr(new_label, "ROW_STEPS", 20)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    make_small(monkeypatch)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Base, clips, background."""
    root = tmp_path_factory.mktemp("rare")
    base = root / "tiny-base" / "model"
    audible_model().save_pretrained(base)
    EasySEDFeatureExtractor(feature_size=32).save_pretrained(base)
    write_positives(root / "beeps", num=5)
    write_background(root / "field")
    write_rehearsal(root / "old", list(LABELS.values()))
    write_split(root / "scapes", "validation", ["rain"], num=4)
    write_split(root / "everything", "validation", list(LABELS.values()), num=8)
    return root


def arguments(folders, out, *more, **changes) -> list[str]:
    values = {"base": folders / "tiny-base" / "model", "positives": folders / "beeps", "background": folders / "field",
              "label": "beep", "output_dir": out, "fine_tune_steps": 3, **changes}  # fmt: skip
    return [str(word) for name, value in values.items() for word in (f"--{name}", value)] + list(more)


def weights(folder) -> dict[str, torch.Tensor]:
    return EasySEDForSoundEventDetection.from_pretrained(folder).state_dict()


# ---- phase 1 ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def phase_one(folders, tmp_path_factory):
    """Two runs of one seed, with rehearsal and labelled recordings, and without training all weights."""
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        outs = [tmp_path_factory.mktemp(f"out{number}") / "run" for number in range(2)]
        for out in outs:
            more = ("--rehearsal", str(folders / "old"), "--old_data", str(folders / "scapes"))
            assert main(arguments(folders, out, *more, fine_tune="never")) == 0
    return outs


def test_it_writes_model_and_reports(phase_one):
    out = phase_one[0]
    assert {path.name for path in out.iterdir()} == FILES
    report = json.loads((out / "report.json").read_text())
    assert report["data"]["num_clips"] == report["data"]["num_recordings"] == 5
    assert report["data"]["background_hours"] == pytest.approx(60 / 3600, abs=10 / 3600)
    assert report["recall"]["total"] == 10 and report["recall"]["recordings"] == 5
    assert report["false_alarms"]["noise"]["hours"] == pytest.approx(10 * 10 / 3600)
    assert report["false_alarms"]["old_data"]["hours"] == pytest.approx(8 / 3600)
    assert report["learning_curve"]["sizes"] == [1, 2, 4] and set(report["exits"]) == {"1", "2", "3"}


def test_the_old_rows_are_bit_equal_after_phase_one(folders, phase_one):
    base, model = weights(folders / "tiny-base" / "model"), weights(phase_one[0] / "model")
    for name, value in base.items():
        assert torch.equal(model[name][: len(value)] if value.ndim else model[name], value), name
    report = json.loads((phase_one[0] / "report.json").read_text())
    assert set(report["old_classes"]["change"]["event"].items()) == {("macro", 0.0), ("rain", 0.0)}
    assert report["old_classes"]["agreement"]["frame_f1"] == 1.0


def test_one_seed_gives_one_model(phase_one):
    first, second = (weights(out / "model") for out in phase_one)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    configs = [json.loads((out / "model" / "config.json").read_text()) for out in phase_one]
    assert configs[0] == configs[1]


def test_the_config_says_where_the_class_comes_from_and_no_path(folders, phase_one):
    text = (phase_one[0] / "model" / "config.json").read_text()
    config = json.loads(text)
    assert config["id2label"]["3"] == "beep"
    (added,) = config["provenance"]["added_classes"]
    assert (added["label"], added["base"], added["num_recordings"], added["phase"]) == ("beep", "tiny-base", 5, 1)
    assert added["base_id"].startswith("sha256:")
    assert added["command"].endswith(
        "--base tiny-base --positives beeps --background field --label beep --rehearsal old --old_data scapes "
        "--fine_tune never --fine_tune_steps 3"
    )
    assert str(folders) not in text and str(folders) not in (phase_one[0] / "report.md").read_text()


def test_every_exit_decodes_the_new_class_at_its_threshold(phase_one):
    config = json.loads((phase_one[0] / "model" / "config.json").read_text())
    report = json.loads((phase_one[0] / "report.json").read_text())
    for index in ("1", "2", "3"):
        own = config["decoding"]["exits"][index]["classes"]
        assert set(own) == {"3"} and own["3"]["threshold"] == report["exits"][index]["threshold"]


def test_the_model_detects(phase_one, folders):
    pipe = SoundEventDetectionPipeline.from_pretrained(str(phase_one[0] / "model"), device="cpu")
    detection = pipe(str(folders / "beeps" / "beep0x.wav"), passes=2, shifts=0)
    assert detection.labels == [*LABELS.values(), "beep"]
    assert pipe.model.student(1).config.id2label[3] == "beep"


def test_the_report_is_in_plain_words(phase_one):
    text = (phase_one[0] / "report.md").read_text()
    assert "found: recall" in text and "90 % interval" in text
    assert "per hour" in text and "ecordings" in text and "| rain | +0.000 | +0.000 |" in text
    assert "The model has no calibration" in text and "scapes/validation holds 4 recordings, 20 are needed" in text
    assert len(text.splitlines()) < 90


# ---- calibration -----------------------------------------------------------------------------------------------------

RANDOM_NETWORK = pytest.mark.filterwarnings("ignore:temperature clamped:UserWarning")


@pytest.fixture
def few_recordings(monkeypatch):
    """Eight recordings and any number of events will do."""
    for module in (calibrate, rare_event_calibration):
        monkeypatch.setattr(module, "MIN_RECORDINGS", 8)
        monkeypatch.setattr(module, "MIN_CLASS_EVENTS", 1)
    monkeypatch.setattr(rare_event_calibration, "NUM_SOUNDSCAPES", 10)
    monkeypatch.setattr(candidates, "PASSES", 2)


@RANDOM_NETWORK
def test_a_calibrated_base_gives_a_calibrated_model(folders, tmp_path, few_recordings):
    """Phase 1: the old classes are judged as before, and the new one is judged as well."""
    base = tmp_path / "calibrated" / "model"
    shutil.copytree(folders / "tiny-base" / "model", base)
    saved = calibrate.calibrate(str(base), str(folders / "everything"), "validation", None, None)
    set_config_value(base, "calibration", saved)
    assert main(arguments(folders, tmp_path / "run", base=base)) == 0
    after = json.loads((tmp_path / "run" / "model" / "config.json").read_text())["calibration"]
    assert after["labels"] == [*LABELS.values(), "beep"] and after["id"] != saved["id"]
    assert after["fitted_on"]["added"][0]["label"] == "beep"
    for index, own in saved["exits"].items():
        for name, setting in own["settings"].items():
            now = after["exits"][index]["settings"][name]
            assert {key: now["classes"][key] for key in setting["classes"]} == setting["classes"]
            assert now["border"] == setting["border"]
    wav = folders / "everything" / "audio" / "validation" / "0.wav"
    before = SoundEventDetectionPipeline.from_pretrained(str(base), device="cpu")(str(wav), passes=2, exit=3)
    now = SoundEventDetectionPipeline.from_pretrained(str(tmp_path / "run" / "model"), device="cpu")(
        str(wav), passes=2, exit=3
    )
    confidences = [
        {(e.label, e.onset, e.offset): e.confidence for e in one.events if e.label != "beep"} for one in (before, now)
    ]
    assert confidences[0] == pytest.approx(confidences[1]) and confidences[0]


@RANDOM_NETWORK
def test_a_model_whose_weights_all_changed_is_calibrated_anew(folders, tmp_path, few_recordings):
    more = ("--old_data", str(folders / "everything"), "--rehearsal", str(folders / "old"))
    assert main(arguments(folders, tmp_path / "run", *more, fine_tune="always")) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["calibration"]["kind"] == "refitted" and "calibrated anew" in report["calibration"]["sentence"]
    saved = json.loads((tmp_path / "run" / "model" / "config.json").read_text())["calibration"]
    assert saved["labels"][-1] == "beep" and saved["fitted_on"]["familiarity"] == "clips that were trained on"
    pipe = SoundEventDetectionPipeline.from_pretrained(str(tmp_path / "run" / "model"), device="cpu")
    detection = pipe(str(folders / "everything" / "audio" / "validation" / "0.wav"), passes=2)
    assert all(event.confidence is not None and event.decision is not None for event in detection.events)


# ---- phase 2 ---------------------------------------------------------------------------------------------------------


def test_all_weights_are_trained_where_that_is_asked(folders, tmp_path):
    assert main(arguments(folders, tmp_path / "run", fine_tune="always")) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["phase"]["number"] == 2 and "as asked (--fine_tune always)" in report["phase"]["sentence"]
    base, model = weights(folders / "tiny-base" / "model"), weights(tmp_path / "run" / "model")
    trunk = [name for name in base if name.startswith("easysed.") and name.endswith("conv.weight")]
    assert trunk and all(not torch.equal(base[name], model[name]) for name in trunk)
    statistics = [name for name in base if "running" in name]
    assert statistics and all(torch.equal(base[name], model[name]) for name in statistics)


def test_without_old_sounds_all_weights_are_left_alone(folders, tmp_path):
    assert main(arguments(folders, tmp_path / "run")) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["phase"]["number"] == 1 and "without --rehearsal or --old_data" in report["phase"]["sentence"]
    assert any(
        "Add --rehearsal or --old_data" in line for line in (tmp_path / "run" / "report.md").read_text().split("\n")
    )


def figures(event: float, segment: float) -> dict:
    return {"event": {"macro": event}, "segment": {"macro": segment}}


AGREED = {"active_frames": 1000, "frame_f1": 0.98, "mean_difference": 0.0}


def judged(sensitivity, before=None, after=None, agreement=AGREED, fine_tune="auto"):
    cost = Cost(before, after, agreement)
    second = Choice(2, None, "", before, after, agreement, {"1": 0.5, "2": sensitivity}, share=0.75)
    return judge_second(second, cost, fine_tune)


def test_phase_two_must_find_more():
    assert judged(0.5) == (False, judged(0.5)[1]) and "found no more" in judged(0.5)[1]
    is_kept, sentence = judged(0.6)
    assert is_kept and "75 % of the change was kept" in sentence and "0.50 before, 0.60 after" in sentence
    assert judged(0.4, fine_tune="always")[0]


@pytest.mark.parametrize("event, segment, is_kept", [(0.66, 0.70, True), (0.65, 0.68, False), (0.72, 0.72, True)])
def test_phase_two_must_spare_the_old_classes(event, segment, is_kept):
    """From 0.70 and 0.70; a mean loss of 0.02 is allowed."""
    kept, sentence = judged(0.9, figures(0.70, 0.70), figures(event, segment))
    assert kept == is_kept and ("costs too much" in sentence) != is_kept


@pytest.mark.parametrize("active, frame_f1", [(499, 1.0), (1000, 0.96)])
def test_without_labels_phase_two_must_agree_with_the_base(active, frame_f1):
    kept, sentence = judged(0.9, agreement={"active_frames": active, "frame_f1": frame_f1, "mean_difference": 0.0})
    assert not kept and f"{active} frames" in sentence


# ---- the command line ------------------------------------------------------------------------------------------------


def error_of(capsys, argv) -> str:
    assert main(argv) == 2
    text = capsys.readouterr().err.strip().split("\n")[-1]
    assert text.startswith("finetune.py: error: ")
    return text


def test_a_label_that_the_base_knows(folders, tmp_path, capsys):
    assert "--label rain is a class of the base already" in error_of(
        capsys, arguments(folders, tmp_path / "run", label="rain")
    )


def test_too_few_recordings(folders, tmp_path, capsys):
    few = write_positives(tmp_path / "few", num=4)
    line = error_of(capsys, arguments(folders, tmp_path / "run", positives=few))
    assert "at least 5 recordings of beep" in line and not (tmp_path / "run").exists()


def test_too_little_background(folders, tmp_path, capsys):
    short = write_background(tmp_path / "short", num=1)
    assert "at least 60 s" in error_of(capsys, arguments(folders, tmp_path / "run", background=short))


def test_a_model_is_not_overwritten(folders, phase_one, capsys):
    assert "holds a model already: choose another" in error_of(capsys, arguments(folders, phase_one[0]))


def test_no_such_base(folders, tmp_path, capsys):
    assert "no-such" in error_of(capsys, arguments(folders, tmp_path / "run", base="no-such"))


def test_a_base_that_is_not_decoded_by_boxes(folders, tmp_path, capsys):
    base = tmp_path / "base"
    model = tiny_model()
    model.config.decoding = {"method": "threshold"}
    model.save_pretrained(base)
    EasySEDFeatureExtractor(feature_size=32).save_pretrained(base)
    line = error_of(capsys, arguments(folders, tmp_path / "run", base=base))
    assert "must be decoded by 'boxes', got 'threshold'" in line


def test_old_data_without_an_old_class(folders, tmp_path, capsys):
    split = write_split(tmp_path / "other", "validation", ["car"], num=3)
    line = error_of(capsys, arguments(folders, tmp_path / "run", "--old_data", str(split)))
    assert "must hold events of ['dog_bark', 'rain', 'rooster'] in validation, got none" in line


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("gap_s", "-1", "--gap_s must be a number of 0 or more, got -1.0"),
        ("max_false_alarms_per_hour", "nan", "--max_false_alarms_per_hour must be a number of 0 or more, got nan"),
        ("max_background_hours", "0", "--max_background_hours must be a number above 0, got 0.0"),
        ("fine_tune_steps", "0", "--fine_tune_steps must be 1 or more, got 0"),
        ("seed", "-1", "--seed must be 0 or more, got -1"),
    ],
)
def test_numbers_out_of_range(folders, tmp_path, capsys, name, value, words):
    assert words in error_of(capsys, arguments(folders, tmp_path / "run", **{name: value}))


def test_more_than_one_process(folders, tmp_path, capsys, monkeypatch):
    class Two:
        num_processes = 2

        def __init__(self, **_):
            pass

    monkeypatch.setattr(finetune, "Accelerator", Two)
    assert "runs in one process, got 2" in error_of(capsys, arguments(folders, tmp_path / "run"))


def test_the_command_holds_no_paths(folders, tmp_path):
    settings = parse(arguments(folders, tmp_path / "run", seed=4))
    assert command_without_paths(settings) == (
        "accelerate launch training/finetune.py --base tiny-base --positives beeps --background field --label beep "
        "--seed 4 --fine_tune_steps 3"
    )
    assert short_name("owner/name") == "owner/name"


def test_thresholds_of_the_base_are_kept():
    """The new class is added beside the old ones, whose parameters stay as they were, at every exit."""
    before = {"method": "boxes", "classes": {"0": {"threshold": 0.7}}, "tuned_on": {"split": "validation"}}
    learning = type("L", (), {"base": tiny_model(), "parameters": [{"edge_level": 0.25}] * 3})
    settings = parse(["--base", "b", "--positives", "p", "--background", "g", "--label", "beep", "--output_dir", "o"])
    after = rare_event_decision.new_decoding(before, learning, {"2": {"threshold": 0.4}}, settings)
    assert after["exits"]["2"]["classes"] == {"0": {"threshold": 0.7}, "3": {"edge_level": 0.25, "threshold": 0.4}}
    assert after["tuned_on"]["split"] == "validation" and after["tuned_on"]["added"][0]["label"] == "beep"
    assert len(after["id"]) == 8 and "exits" not in before


def test_folds_of_the_base_are_those_that_are_rehearsed(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,label,fold\n")
    settings = parse(["--base", "b", "--positives", "p", "--background", "g", "--label", "l", "--output_dir", "o",
                      "--rehearsal", str(tmp_path)])  # fmt: skip
    config = tiny_model().config
    assert finetune.rehearsal_folds(settings, config) is None
    config.provenance = {"folds": ["1", "2"]}
    assert finetune.rehearsal_folds(settings, config) == ["1", "2"]
    settings.rehearsal_folds = ["3"]
    assert finetune.rehearsal_folds(settings, config) == ["3"]
    (tmp_path / "metadata.csv").write_text("file_name,label\n")
    settings.rehearsal_folds = None
    assert finetune.rehearsal_folds(settings, config) is None
