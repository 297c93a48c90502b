"""Live listening without a browser: what is told at once, and what is final."""

import pytest
import soundfile

pytest.importorskip("gradio", reason="needs gradio: pip install 'easysed[space]'")

from modeling_easysed.app.analysis import make_settings
from modeling_easysed.app.catalogue import load_catalogue
from modeling_easysed.app.live import LiveSession

SCENE = "test_0010.ogg"  # two sea waves of two and a half seconds
BLOCK_S = 0.2


@pytest.fixture(scope="module")
def told(data_dir):
    """(seconds heard, what was told) after every block, and what was told at the end."""
    samples, rate = soundfile.read(data_dir / "soundscapes" / "audio" / "test" / SCENE, dtype="float32")
    entry = load_catalogue()["easysed-cnn"]
    session = LiveSession(entry, make_settings(entry, "1", "mc", 8, 0, "default", None), rate)
    step = round(BLOCK_S * rate)
    news = [session.hear(samples[start : start + step]) for start in range(0, len(samples), step)]
    return [*news, session.close()]


def test_an_event_shows_within_a_second_and_is_told_once(told):
    final = [event for news in told for event in news["events"] if event["label"] == "sea_waves"]
    assert len(final) == 2
    for event in final:
        shown = [
            news["time"]
            for news in told
            for one in news.get("soon", [])
            if one["label"] == event["label"] and abs(one["onset"] - event["onset"]) < 0.5
        ]
        assert shown and shown[0] <= event["onset"] + 1.0


def test_what_is_final_is_not_soon_any_more(told):
    final = []
    for news in told:
        final += news["events"]
        for one in news.get("soon", []):
            assert not any(
                event["label"] == one["label"] and event["onset"] < one["offset"] and one["onset"] < event["offset"]
                for event in final
            )
            assert 0 <= one["onset"] < one["offset"] <= news["time"] + 0.05
    assert "soon" not in told[-1]
