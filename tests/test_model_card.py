"""The model card: figures come from results and config, attribution from a table, and nothing else stands there."""

import builtins
import csv
import json
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hub_stand_in import card_errors
from huggingface_hub import ModelCard
from tiny import tiny_model

from modeling_easysed import BUNDLED_CHECKPOINTS, DEFAULT_CHECKPOINT, EasySEDFeatureExtractor
from modeling_easysed.costs import exit_costs
from modeling_easysed.model_cards.attribution import license_counts, read_attribution, write_attribution
from modeling_easysed.model_cards.measured import check_results, was_fitted_on
from modeling_easysed.model_cards.reliability_figure import draw_reliability, reliability_series, wilson_interval
from modeling_easysed.model_cards.write_card import (
    CardSource,
    cell,
    code,
    local_folder,
    main,
    read_results,
    render,
    stated_license,
    write_card,
)

ROOT = Path(__file__).parents[1]
COSTS = [{"exit": index, "parameters": 1000 * index, "macs_per_10_s": 20_000_000 * index} for index in (1, 2)]
PROVENANCE = {
    "clips": "esc10",
    "folds": ["1", "2"],
    "excluded_licenses": ["CC-Sampling+"],
    "seed": 7,
    "command": "train",
}
FITTED_ON = {"data": "scapes", "num_recordings": 150, "split": "validation", "num_events": {"rain": 30, "dog_bark": 12}}
TUNED_ON = {"data": "scapes", "split": "validation", "num_files": 140}
NOBODY = {"calibration": None, "decoding": None, "provenance": None}


def config(labels=("dog_bark", "rain"), **values) -> dict:
    calibration = {"id": "abcd", "fitted_on": FITTED_ON}
    decoding = {"id": "ef01", "tuned_on": TUNED_ON}
    sizes = {"backbone": "cnn", "frame_stride": 4, "hop_length_samples": 160, "sampling_rate": 16000}
    own = {"provenance": PROVENANCE, "calibration": calibration, "decoding": decoding}
    return {**sizes, "id2label": {str(i): label for i, label in enumerate(labels)}, **own, **values}


def scores(psds: float, f1: float, labels=("dog_bark", "rain")) -> dict:
    classes = {
        label: {"f1": f1 / (1 + i), "precision": 0.9, "recall": None if i > 0 else 0.2}
        for i, label in enumerate(labels)
    }
    return {
        "psds1": {"frames": {"psds": 0.0}, "boxes": {"psds": psds}},
        "psds2": {"frames": {"psds": psds + 0.2}, "boxes": None},
        "event_based": {"macro": {"f1": f1}, "class_wise": classes},
        "segment_based": {"micro": {"f1": f1 + 0.1}, "class_wise": classes},
        "costs": {"milliseconds_per_10_s": 100 * psds},
    }


def setting(ece: float, num: int) -> dict:
    figures = {"ece": ece, "brier": 0.11, "nll": 0.35, "aurc": 0.05}
    return {
        "num_reported": num,
        "raw": {**figures, "ece": 3 * ece},
        "temperature": figures,
        "confidence": figures,
        "onset": {"coverage": 0.9},
        "offset": {"coverage": 0.912},
        "decisions": {
            "accept": {"num": 150, "share_right": 0.97},
            "rule": ["from 0.95 on"],
            "warnings": ["few events"],
        },
        "milliseconds": 1000 * ece,
    }


def trust() -> dict:
    settings = {"auto, mc+shifts": setting(0.04, 390), "exit 1, mc+shifts": setting(0.07, 410)}
    settings["exit 1, none"] = setting(0.09, 395)
    plain = {"score": [0.9, 0.8, 0.3], "confidence": [0.8, 0.6, 0.2], "right": [1, 0, 0], "above_threshold": [1, 1, 0]}
    events = {"plain": plain, "default": {**plain, "confidence": [0.7, 0.5, 0.4]}}
    return {"calibration": "abcd", "fitted_on": FITTED_ON, "settings": settings, "events": events}


def results(labels=("dog_bark", "rain"), **values) -> dict:
    own = {"command": "python evaluate.py", "data": "../data/scapes/", "split": "test", "num_files": 3}
    exits = {"1": scores(0.11, 0.42, labels), "2": scores(0.31, 0.54, labels)}
    return {**own, "classes": list(labels), "provenance": PROVENANCE, "exits": exits, **values}


def card(**values) -> str:
    return render(CardSource(**{"name": "me/x", "config": config(), "costs": COSTS, **values}))


def rows(text: str, first: str) -> list[list[str]]:
    """Cells of the table whose header begins with `first`."""
    lines = text.split(f"| {first} |", 1)[1].splitlines()[2:]
    table = lines[: next((i for i, line in enumerate(lines) if not line), None)]
    return [[one.strip() for one in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]


# ---- what was measured -----------------------------------------------------------------------------------------------


def test_a_teachers_card_has_every_exit():
    text = card(results=results(trust=trust()), license="apache-2.0", figure="reliability.png", students=["me/x-exit1"])
    assert rows(text, "exit | PSDS1")[0:2] == [
        ["1", "0.110", "0.310", "0.420", "0.520"],
        ["2", "0.310", "0.510", "0.540", "0.640"],
    ]
    assert rows(text, "class") == [
        ["dog_bark", "0.540", "0.900", "0.200", "0.540"],
        ["rain", "0.270", "0.900", "-", "0.270"],
    ]
    assert rows(text, "exit | parameters") == [
        ["1", "1,000", "20", "11", "90", "70"],
        ["2", "2,000", "40", "31", "not measured", "not measured"],
    ]
    assert "150 recordings of\n`validation` with 42 events" in text and 'setting "auto, mc+shifts"' in text
    assert rows(text, "probability") == [
        ["raw score", "0.120", "0.110", "0.350", "0.050"],
        ["temperature scaling alone", "0.040", "0.110", "0.350", "0.050"],
        ["confidence", "0.040", "0.110", "0.350", "0.050"],
    ]
    assert (
        "hold 90 % of the true onsets and 91 % of the\ntrue offsets. Of 390 reported events, 150 are accepted" in text
    )
    assert "of which 97 % are right" in text and "- from 0.95 on\n- few events\n" in text
    assert "(reliability.png)" in text and "[me/x-exit1](https://huggingface.co/me/x-exit1)" in text
    assert "`python evaluate.py`" in text and "Seed 7: `train`" in text and "140 recordings of `validation`" in text
    assert not any(word in text for word in ("Not measured", "Not calibrated", "not tuned", "flatter", "{{", "{%"))


def test_a_students_card_has_its_own_exit_alone():
    own = config(calibration={"id": "5678", "teacher_id": "abcd", "fitted_on": FITTED_ON})
    text = card(name="me/x-exit1", config=own, costs=COSTS[:1], results=results(trust=trust()), teacher="me/x")
    assert [row[0] for row in rows(text, "exit | PSDS1")] == ["1"] and rows(text, "class")[0][1] == "0.420"
    assert [row[0] for row in rows(text, "exit | parameters")] == ["1"]
    assert 'setting "exit 1, mc+shifts"' in text and "Of 410 reported events" in text
    assert "Calibration `5678` (for its exits, out of its teacher's `abcd`)" in text
    assert "teacher [me/x](https://huggingface.co/me/x)" in text and "0.540" not in text and "reliability" not in text
    data = ModelCard(text).data
    assert data.base_model == "me/x" and {one.metric_value for one in data.eval_results} == {0.42, 0.52, 0.11, 0.31}


def test_front_matter_is_what_the_hub_reads():
    text = card(results=results(), license="apache-2.0", base_model="me/base")
    data = ModelCard(text).data
    assert card_errors(text) == []
    assert (data.license, data.library_name, data.pipeline_tag) == (
        "apache-2.0",
        "transformers",
        "audio-classification",
    )
    assert data.datasets == ["esc10"] and data.base_model == "me/base" and "sound-event-detection" in data.tags
    assert data.model_name == "me/x"
    found = {one.metric_name: (one.metric_type, one.metric_value, one.dataset_name) for one in data.eval_results}
    assert found["Event-based F1 (macro, 200 ms collars)"] == ("f1", 0.54, "scapes")
    assert found["PSDS2"] == ("psds", 0.51, "scapes") and len(found) == 4
    assert data.eval_results[0].dataset_split == "test"


def test_what_was_not_measured_is_said():
    text = card(config=config(**NOBODY))
    for sentence in (
        "Not measured. `training/evaluate.py",
        "Nothing was measured: nobody knows yet how good it is.",
        "Milliseconds were not measured.",
        "Not calibrated: `confidence`",
        "Its decoding was not tuned",
        "What it was trained on is not recorded.",
        "Seed and command are not recorded",
        "No licence was stated",
        "Authors and licences of the training clips were not given",
    ):
        assert sentence in text
    assert [row[3:] for row in rows(text, "exit | parameters")] == [["not measured"] * 3] * 2
    data = ModelCard(text).data
    assert data.eval_results is None and data.license is None and data.datasets is None and card_errors(text) == []


def test_a_calibration_without_its_report_is_no_proof():
    text = card(results=results())
    assert "How well it holds on other recordings was not measured" in text and "ECE" not in text


def test_one_exit_measured_of_two():
    text = card(results=results(exits={"1": scores(0.11, 0.42)}))
    assert "Exit 2 was not measured." in text and [row[0] for row in rows(text, "exit | PSDS1")] == ["1"]
    assert ModelCard(text).data.eval_results is None


def test_a_class_without_events_has_no_figure():
    never = results()
    never["exits"]["2"]["event_based"]["macro"]["f1"] = None  # evaluate.py writes null for NaN
    text = card(results=never)
    assert rows(text, "exit | PSDS1")[1] == ["2", "0.310", "0.510", "-", "0.640"]
    assert len(ModelCard(text).data.eval_results) == 3


def test_figures_of_the_recordings_that_were_fitted_on_are_called_so():
    fitted = results(split="validation")
    assert (
        was_fitted_on(fitted, config()) and not was_fitted_on(results(), config()) and not was_fitted_on(None, config())
    )
    assert "fitted on these same recordings: the figures flatter it" in card(results=fitted)


@pytest.mark.parametrize(
    ("backbone", "words"), [("transformer", "\nAn AST-style Transformer"), ("ast", "\nAn Audio Spectrogram")]
)
def test_other_backbones(backbone, words):
    assert words in card(config=config(backbone=backbone), results=results())


def test_labels_may_hold_commas_pipes_and_backticks():
    labels = ("Male speech, man speaking", "a|b", "`tick`", "<b>*x*</b>", "two\nlines")
    text = card(config=config(labels), results=results(labels), costs=COSTS)
    assert "Classes: `Male speech, man speaking`, `a|b`, `` `tick` ``, `<b>*x*</b>`, `two lines`." in text
    table = rows(text, "class")
    assert [len(row) for row in table] == [5] * 5
    assert [row[0] for row in table] == [
        "Male speech, man speaking",
        "a\\|b",
        "\\`tick\\`",
        "\\<b\\>\\*x\\*\\</b\\>",
        "two lines",
    ]
    assert card_errors(text) == []


def test_text_is_escaped():
    assert cell("a | b\n`c`") == "a \\| b \\`c\\`" and code("x``y") == "``` x``y ```" and code("x") == "`x`"


def test_examples_load_the_tag_and_bundled_names_need_no_hub():
    assert 'from_pretrained("me/x", revision="v1")' in card(revision="v1")
    assert 'model="me/x", revision="v1", trust_remote_code=True' in card(revision="v1")
    bundled = card(name="easysed-cnn")
    assert 'from_pretrained("easysed-cnn")' in bundled and "trust_remote_code" not in bundled


# ---- results of another model ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"classes": ["cat"]}, r"their classes is another \(results: \['cat'\], model: \['dog_bark', 'rain'\]\)"),
        ({"provenance": {"seed": 8}}, "their provenance is another"),
        ({"decoding": {"id": "0000"}}, r"their decoding is another \(results: 0000, model: ef01\)"),
        ({"trust": {"calibration": "0000"}}, r"their calibration is another \(results: 0000, model: abcd\)"),
        ({"exits": {}}, "results must be what training/evaluate.py --out wrote, they lack exits"),
    ],
)
def test_results_must_be_of_the_model(values, message):
    with pytest.raises(ValueError, match=message):
        check_results(results(**values), config())
    check_results(results(trust=trust()), config())


def test_results_must_be_json(tmp_path):
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ValueError, match="results.json is not readable JSON .*pass what training/evaluate.py"):
        read_results(tmp_path / "results.json", config())
    with pytest.raises(ValueError, match="nowhere.json is not readable JSON .*No such file"):
        read_results(tmp_path / "nowhere.json", config())


# ---- attribution and licence -----------------------------------------------------------------------------------------


@pytest.fixture
def clips(tmp_path) -> Path:
    lines = ["file_name,label,fold,author,license,source_url"]
    lines += ["audio/a.ogg,rain,1,Ann,CC0,http://a", "audio/b.ogg,rain,2,Bob,CC-Sampling+,http://b"]
    lines += ["audio/c.ogg,rain,3,Cy,CC-BY,http://c", "audio/d.ogg,dog_bark,2,D|i,CC-BY,http://d"]
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    return tmp_path


def test_clips_are_those_of_the_training_folds(clips, tmp_path):
    found = read_attribution(tmp_path, clips, PROVENANCE)
    assert [row["file"] for row in found] == ["a.ogg", "d.ogg"] and license_counts(found) == [("CC0", 1), ("CC-BY", 1)]
    text = card(clips=found)
    assert (
        rows(text, "clip")[1] == ["d.ogg", "D\\|i", "CC-BY", "http://d"]
        and "The 2 training clips: 1 CC0, 1 CC-BY" in text
    )


def test_the_table_beside_the_checkpoint_comes_first(clips, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    written = [{"file": "own.wav", "author": "", "license": "", "source_url": "http://own"}]
    write_attribution(written, model / "attribution.csv")
    found = read_attribution(model, clips, PROVENANCE)
    assert found == written and read_attribution(tmp_path, None, PROVENANCE) == []
    assert rows(card(clips=found), "clip") == [["own.wav", "not known", "not known", "http://own"]]
    assert "1 not known" in card(clips=found)


def test_attribution_that_cannot_be_read(clips, tmp_path):
    with pytest.raises(
        ValueError, match="--clips needs the folds .* got None: write .*attribution.csv with the columns"
    ):
        read_attribution(tmp_path, clips, None)
    with pytest.raises(ValueError, match=r"metadata.csv has no clip of the folds \['9'\]: pass the training clips"):
        read_attribution(tmp_path, clips, {"folds": ["9"]})
    with pytest.raises(ValueError, match="nowhere/metadata.csv cannot be read .*pass the folder with metadata.csv"):
        read_attribution(tmp_path, tmp_path / "nowhere", PROVENANCE)
    (tmp_path / "attribution.csv").write_text("file,license\n")
    with pytest.raises(ValueError, match="must have the columns .*, it lacks author, source_url"):
        read_attribution(tmp_path, None, None)


def test_the_licence_is_stated_by_provenance_or_card(tmp_path):
    assert stated_license(tmp_path, config()) is None
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# x\n")
    assert stated_license(tmp_path, config()) == "mit"
    assert stated_license(tmp_path, config(provenance={"license": "cc-by-4.0"})) == "cc-by-4.0"
    (tmp_path / "README.md").write_text("# no front matter\n")
    assert stated_license(tmp_path, config()) is None


# ---- the figure ------------------------------------------------------------------------------------------------------


def test_the_figure_shows_the_reported_events(tmp_path):
    series = reliability_series(results(trust=trust()))
    np.testing.assert_array_equal(series["raw score"][0], [0.9, 0.8])  # 0.3 is below its threshold
    np.testing.assert_array_equal(series["confidence"][0], [0.7, 0.5, 0.4])
    assert draw_reliability(results(trust=trust()), tmp_path / "a.png")
    assert draw_reliability(results(trust=trust()), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert not draw_reliability(results(), tmp_path / "c.png") and not draw_reliability(None, tmp_path / "c.png")
    assert not (tmp_path / "c.png").exists()


def test_wilson_interval_equals_a_worked_example():
    low, high = wilson_interval(np.array([0.5]), np.array([10.0]))  # centre 1/2, reach z / 2 / sqrt(n + z^2)
    reach = 1.6448536 / 2 / np.sqrt(10 + 1.6448536**2)
    np.testing.assert_allclose([low[0], high[0]], [0.5 - reach, 0.5 + reach], rtol=1e-6)


def test_a_card_needs_no_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setattr("modeling_easysed.model_cards.reliability_figure.find_spec", lambda name: None)
    original = builtins.__import__

    def blocked(name, *arguments, **keywords):
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", blocked)
    write_card(CardSource("me/x", config(), COSTS, results=results(trust=trust())), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert "ECE" in (tmp_path / "README.md").read_text() and ".png" not in (tmp_path / "README.md").read_text()


# ---- the command and the package -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["cnn", "transformer"])
def test_the_command_writes_card_picture_and_table(clips, tmp_path, capsys, backbone):
    folder, model = tmp_path / "easysed-tiny", tiny_model(backbone)
    model.config.provenance = PROVENANCE
    model.save_pretrained(folder)
    EasySEDFeatureExtractor(feature_size=32).save_pretrained(folder)
    labels = ("dog_bark", "rain", "rooster")
    (tmp_path / "results.json").write_text(
        json.dumps(results(labels, exits={str(model.num_exits): scores(0.3, 0.5, labels)}))
    )
    arguments = ["--model", str(folder), "--results", str(tmp_path / "results.json"), "--clips", str(clips)]
    assert main(arguments) == 0 and "wrote" in capsys.readouterr().out
    text = (folder / "README.md").read_text()
    assert text.startswith("---\n") and "# easysed-tiny" in text and "Not calibrated" in text
    counted = [[f"{one['parameters']:,}"] for one in exit_costs(model)]
    assert [row[1:2] for row in rows(text, "exit | parameters")] == counted
    assert [row[0] for row in rows(text, "class")] == list(labels)
    with (folder / "attribution.csv").open(newline="") as file:
        assert [row["author"] for row in csv.DictReader(file)] == ["Ann", "D|i"]
    assert main(["--model", str(folder)]) == 0  # the table that lies there now is read again
    assert "d.ogg" in (folder / "README.md").read_text() and "Not measured." in (folder / "README.md").read_text()


def test_the_command_refuses_what_is_no_folder(capsys):
    assert main(["--model", "me/there"]) == 2
    assert (
        "write_card.py: error: the model must be a local folder or a bundled name, got me/there"
        in capsys.readouterr().err
    )
    with pytest.raises(ValueError, match="got me/there: download it first"):
        local_folder("me/there")


def test_the_bundled_checkpoint_renders_from_its_published_results():
    own = json.loads(Path(BUNDLED_CHECKPOINTS[DEFAULT_CHECKPOINT], "config.json").read_text())
    published = read_results(ROOT / "benchmarks" / "results" / f"{DEFAULT_CHECKPOINT}.json", own)
    costs = [{**COSTS[0], "exit": index} for index in (1, 2, 3, 4)]
    text = render(CardSource(DEFAULT_CHECKPOINT, own, costs, results=published))
    assert len(rows(text, "class")) == 10 and len(rows(text, "exit | PSDS1")) == 4 and "Piczak" in text
    best = published["exits"]["4"]["event_based"]["macro"]["f1"]
    assert f"{best:.3f}" in text and ModelCard(text).data.eval_results[0].metric_value == round(best, 4)


def test_every_package_is_in_the_wheel():
    """pyproject names packages one by one, since model_cards and space lie outside of modeling_easysed."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = [path.parent.relative_to(ROOT) for path in (ROOT / "modeling_easysed").rglob("__init__.py")]
    expected = {".".join(folder.parts) for folder in folders} | {
        "modeling_easysed.model_cards",
        "modeling_easysed.space",
    }
    assert set(setuptools["packages"]) == expected
    assert "modeling_easysed.model_cards" in sys.modules
