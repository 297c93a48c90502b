"""A folder of 300 recordings, twelve of them odd, killed ten times at random moments: the same bytes in the end."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from test_cli_batch import PLAIN, content_of
from test_pipeline import RATE, make_audio, make_pipe

from modeling_easysed import read_events
from modeling_easysed.cli.batch import MANIFEST

NUM_GOOD, NUM_KILLS, SEED = 288, 10, 0

# Everything is imported once; then each run is a fork of this process, killed when its manifest has grown to so many
# lines and a random while has passed. The last one is left alone.
RUNS = """
import os, random, signal, sys, time
from pathlib import Path
import modeling_easysed.cli.main as cli
import modeling_easysed.pipeline_easysed
moments, manifest, arguments = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
for moment in [*moments.split(","), "never"]:
    process = os.fork()
    if process == 0:
        os._exit(cli.main(arguments))
    if moment == "never":
        _, status = os.waitpid(process, 0)
        sys.exit(os.waitstatus_to_exitcode(status))
    lines, pause = moment.split("+")
    while not manifest.is_file() or manifest.read_bytes().count(b"\\n") < int(lines):
        if os.waitpid(process, os.WNOHANG)[0] != 0:
            sys.exit("it ended before it was killed")
        time.sleep(0.001)
    time.sleep(float(pause))
    os.kill(process, signal.SIGKILL)
    print("killed", os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    make_pipe().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def audio(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("audio")
    samples = make_audio(30.0, 5)
    for number in range(NUM_GOOD):
        below = folder / f"{number // 50:02d}"
        below.mkdir(exist_ok=True)
        begin = number * RATE // 10
        soundfile.write(below / f"{number:03d}.wav", samples[begin : begin + RATE // 2], RATE)
    return folder


@pytest.fixture(scope="module")
def odd(audio) -> dict[str, str]:
    """{name: what the error says of it}; twelve odd files, and the empty text of those that can be heard."""
    good = (audio / "00" / "000.wav").read_bytes()
    noise = np.random.default_rng(0).normal(0, 0.1, 192000)
    for name, content in {
        "empty.wav": b"",
        "text.wav": b"this is no sound at all, but text",
        "no_channels.wav": good[:22] + b"\x00\x00" + good[24:],
        "truncated.wav": good[: len(good) // 2],
        "really_wav.mp3": good,
    }.items():
        (audio / name).write_bytes(content)
    soundfile.write(audio / "nan.wav", np.full(RATE, np.nan, np.float32), RATE, subtype="FLOAT")
    soundfile.write(audio / "one_sample.wav", np.zeros(1), RATE)
    soundfile.write(audio / "eight.wav", noise[: 8 * RATE].reshape(RATE, 8), RATE)
    soundfile.write(audio / "fast.wav", noise, 192000)
    deep = audio / "/".join(f"level{number}" for number in range(30))
    deep.mkdir(parents=True)
    shutil.copy(audio / "00" / "001.wav", deep / "deep.wav")
    shutil.copy(audio / "00" / "002.wav", audio / "Käuzchen 鳥 🦉.wav")
    locked = audio / "locked.wav"
    if os.geteuid() == 0:  # the superuser may read everything, but nobody can follow a link to nothing
        locked.symlink_to(audio / "nothing.wav")
    else:
        shutil.copy(audio / "00" / "003.wav", locked)
        locked.chmod(0)
    heard = ("truncated.wav", "really_wav.mp3", "one_sample.wav", "eight.wav", "fast.wav", "deep.wav")
    reasons = {"empty.wav": "empty", "text.wav": "is not audio", "no_channels.wav": "is not audio", "nan.wav": "NaN"}
    return {**reasons, "locked.wav": "cannot be read", **dict.fromkeys((*heard, "Käuzchen 鳥 🦉.wav"), "")}


def runs(model: str, audio: Path, out: Path, moments: list[str]) -> subprocess.CompletedProcess:
    arguments = ["detect", str(audio), "--model", model, "--out", f"{out}/", "--format", "csv,json", *PLAIN]
    script = RUNS if moments else RUNS.replace('[*moments.split(","), "never"]', '["never"]')
    command = [sys.executable, "-c", script, ",".join(moments), str(out / MANIFEST), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_killed_ten_times_and_resumed_gives_the_same_bytes(model, audio, odd, tmp_path):
    assert len(odd) == 12
    whole = runs(model, audio, tmp_path / "whole", [])
    assert whole.returncode == 1, whole.stderr
    bad = {name: reason for name, reason in odd.items() if reason}
    assert f"{NUM_GOOD + 12 - len(bad)} recordings" in whole.stderr and f"{len(bad)} failed:" in whole.stderr
    summary = whole.stderr[whole.stderr.index(" failed:") :].splitlines()
    for name, reason in bad.items():
        assert any(name in line and reason in line for line in summary), name
    assert not any(name in line for line in summary for name in odd if name not in bad)
    assert {Path(path).stem for path in content_of(tmp_path / "whole") if path.endswith(".json")} == {
        *(f"{number:03d}" for number in range(NUM_GOOD)),
        *(Path(name).stem for name in odd if name not in bad),
    }
    assert read_events(next((tmp_path / "whole").rglob("deep.json")))[0].duration == 0.5

    generator = random.Random(SEED)
    lines = sorted(generator.sample(range(1, NUM_GOOD - 8), NUM_KILLS))
    moments = [f"{number}+{generator.uniform(0.0, 0.03):.4f}" for number in lines]
    resumed = runs(model, audio, tmp_path / "killed", moments)
    assert resumed.returncode == 1 and resumed.stdout.count("killed -9") == NUM_KILLS, resumed.stderr[-2000:]
    assert content_of(tmp_path / "killed") == content_of(tmp_path / "whole")
