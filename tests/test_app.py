"""The app without a server: its command, its models, agreement, and pages as text."""

import importlib.util
import socket
from pathlib import Path

import pytest
import soundfile
from test_pipeline import RATE, make_audio, make_pipe
from test_plot import make_detection, make_event

from modeling_easysed.app.analysis import Analysis, RefusedError, Settings, analyse, make_settings
from modeling_easysed.app.catalogue import Entry, Exit, load_catalogue, measured_accuracy
from modeling_easysed.app.comparison import Run, agreement, comparison_page
from modeling_easysed.app.result import why
from modeling_easysed.bundled import BUNDLED_CHECKPOINTS
from modeling_easysed.cli.main import main as easysed
from modeling_easysed.detection_easysed import Event

pytest.importorskip("matplotlib")


def make_entry() -> Entry:
    exits = (Exit(1, 1000, 2_000_000, 0.5, 0.6), Exit(2, 5000, 9_000_000, None, None))
    return Entry("tiny", "CNN (tiny)", make_pipe(), exits)


# ---- the command -----------------------------------------------------------------------------------------------------


def test_a_port_in_use_is_one_line(capsys):
    pytest.importorskip("gradio")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert easysed(["app", "--port", str(port)]) == 2
        assert easysed(["app", "--host", "localhost", "--port", str(port)]) == 2
    errors = capsys.readouterr().err.splitlines()
    told = "easysed app: error: port {} of {} is in use: stop what runs there, or pass --port"
    assert errors == [told.format(port, host) for host in ("127.0.0.1", "localhost")]


def test_without_the_extra_the_line_says_how_to_install_it(capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gradio" else find(name))
    assert easysed(["app"]) == 2
    assert capsys.readouterr().err == 'easysed app: error: the app needs gradio: pip install "easysed[space]"\n'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "0"], "--port must be from 1 to 65535"),
        (["--model", "no_such"], "name is unknown"),
        (["--device-page", "no_such"], "folder no_such has no page for the device: make it with easysed export"),
    ],
)
def test_wrong_usage_is_one_line(capsys, arguments, message):
    pytest.importorskip("gradio")
    assert easysed(["app", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


# ---- models ----------------------------------------------------------------------------------------------------------


def test_accuracy_comes_from_the_cards_table(tmp_path):
    card = tmp_path / "README.md"
    card.write_text(
        "text\n\n| exit | PSDS1 | PSDS2 | event F1 (macro) | segment F1 (micro) |\n| --- | --- | --- | --- | --- |\n"
        "| 1 | 0.550 | 0.685 | 0.516 | 0.801 |\n| 2 | – | – | – | – |\n\n| 3 | 0.1 | 0.1 | 0.1 | 0.1 |\n"
    )
    assert measured_accuracy(card) == {1: (0.55, 0.516)}
    assert measured_accuracy(tmp_path / "none.md") == {}


@pytest.mark.parametrize("name", sorted(BUNDLED_CHECKPOINTS))
def test_bundled_cards_tell_the_accuracy_of_every_exit(name):
    assert len(measured_accuracy(Path(BUNDLED_CHECKPOINTS[name]) / "README.md")) >= 3


def test_the_variable_names_the_models(monkeypatch):
    monkeypatch.setenv("EASYSED_MODEL", " no_such , other")
    with pytest.raises(ValueError, match="no_such"):
        load_catalogue()


def test_sizes_say_cost_and_accuracy_or_that_it_was_not_measured():
    words = [text for text, _ in make_entry().sizes]
    assert words[1] == "exit 2, large: 0.01 M parameters, 0.01 G MACs per 10 s, accuracy not measured"
    assert words[2] == "exit 1, compact: 0.00 M parameters, 0.00 G MACs per 10 s, event F1 0.60, PSDS1 0.50"


# ---- one recording ---------------------------------------------------------------------------------------------------


def test_an_analysis_is_the_pipelines_detection_with_every_answer(tmp_path):
    path, entry = tmp_path / "a.wav", make_entry()
    soundfile.write(path, make_audio(2.0), RATE)
    settings = Settings(exit=1, passes=3, shifts=1)
    analysis = analyse(entry, path, settings)
    expected = entry.pipe(path, exit=1, passes=3, shifts=1)
    assert [e.to_dict() for e in analysis.detection.events] == [e.to_dict() for e in expected.events]
    assert analysis.detection.file == "a.wav" and len(analysis.answers) == len(expected.events)
    for answers in analysis.answers:
        assert answers.curves.shape == (3, len(answers.times)) and all(len(one) == 3 for one in answers.levels.values())


def test_errors_name_the_file_and_not_where_it_lies(tmp_path):
    path = tmp_path / "no_sound.wav"
    path.write_bytes(b"nothing" * 100)
    with pytest.raises(RefusedError, match=r"^no_sound.wav is not audio"):
        analyse(make_entry(), path, Settings())
    with pytest.raises(RefusedError, match="not there any more"):
        analyse(make_entry(), tmp_path / "gone.wav", Settings())


def test_a_goal_without_a_calibration_is_refused():
    with pytest.raises(RefusedError, match="a goal needs a calibration"):
        make_settings(make_entry(), "auto", "mc", 20, 2, "precision", 0.9)


@pytest.mark.parametrize(
    ("confidence", "words"), [(0.998, "more than 99 in 100"), (0.62, "about 62 in 100"), (0.001, "fewer than 1 in 100")]
)
def test_no_event_is_called_sure(confidence, words):
    event = make_event(1.0, 2.0, "dog_bark", "review", confidence)
    assert words in why(event, make_detection([event]))


# ---- comparison ------------------------------------------------------------------------------------------------------


def reviewed(onset: float, offset: float, label: str) -> Event:
    return make_event(onset, offset, label, "review")


def test_agreement_counts_events_of_one_label_that_overlap_by_half():
    first = [reviewed(0.0, 2.0, "rain"), reviewed(4.0, 5.0, "dog_bark")]
    second = [reviewed(0.5, 2.5, "rain"), reviewed(4.0, 5.0, "rooster"), reviewed(4.4, 6.0, "dog_bark")]
    assert agreement(first, second) == pytest.approx(2 * 1 / 5)  # rain: 1.5 of 2.5 s; bark: 0.6 of 2 s
    assert agreement(first, first) == 1.0 and agreement([], second) == 0.0 and agreement([], []) is None


def test_a_comparison_names_every_run_and_escapes_labels():
    entry, detection = make_entry(), make_detection([reviewed(1.0, 3.0, "dog_bark")])
    detection.events[0].label = "<b>"
    runs = [
        Run(entry, size, Analysis(detection, [], seconds))
        for size, seconds in zip(entry.exits, (0.1, 0.5), strict=True)
    ]
    page = comparison_page(runs)
    assert "CNN compact was fastest with 0.10 s" in page and "agree on 100 %" in page
    assert "&lt;b&gt;" in page and "<b>" not in page
