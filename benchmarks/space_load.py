"""The app under load: twenty users at once, two hundred bad uploads, and what memory does meanwhile.

    python benchmarks/space_load.py --clips ../shared/data/esc10/audio --scenes ../shared/data/soundscapes/audio/test \
        --out benchmarks/results/space_load.json

With --scenes (10 s each) a browser measures first how long a single visitor waits from the upload to the result.

Every user sends other clips and compares what comes back with what the pipeline gives, so that a mixed-up result would
be seen. Bad uploads are real clips with damaged headers, cut short, of the wrong kind, empty, and too large."""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from gradio_client import Client, handle_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from app_server import running_app  # noqa: E402

MODEL = "easysed-cnn"
TOO_LARGE_BYTES = 51_000_000


def main() -> None:
    """Runs both parts and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, required=True, metavar="DIR")
    parser.add_argument("--scenes", type=Path, metavar="DIR")
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3, help="recordings of every user")
    parser.add_argument("--bad", type=int, default=200)
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    args = parser.parse_args()
    clips = sorted(path for path in args.clips.iterdir() if path.suffix in (".ogg", ".wav", ".flac"))
    with tempfile.TemporaryDirectory() as folder:
        uploads = Path(folder) / "uploads"
        with running_app(uploads, EASYSED_MODEL=MODEL) as (address, process):
            alone = {} if args.scenes is None else single_visitor(address, sorted(args.scenes.glob("*"))[:6])
            memory = [memory_mb(process)]
            result = {
                "cpus": os.cpu_count(),
                **alone,
                **many_users(address, clips, args.users, args.rounds, process, memory),
            }
            result |= bad_uploads(address, clips[0], Path(folder), args.bad)
            memory.append(memory_mb(process))
        result |= {"memory_mb": memory, "files_left_after_stop": sum(path.is_file() for path in uploads.rglob("*"))}
    text = json.dumps(result, indent=1)
    print(text)
    if args.out is not None:
        args.out.write_text(text + "\n", encoding="utf-8")


def single_visitor(address: str, scenes: list[Path]) -> dict[str, dict[str, float]]:
    """Seconds from an upload to the shown result, 20 passes x 5 shifts: the first after the start, and the others."""
    from playwright.sync_api import sync_playwright

    waits = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for scene in scenes:
            page = browser.new_page()
            page.goto(address)
            page.locator("#detect").wait_for()
            started = time.perf_counter()
            page.locator("input[type=file]").first.set_input_files(scene)
            page.locator("#result .verdict").wait_for()
            waits.append(time.perf_counter() - started)
            page.close()
        browser.close()
    return {
        "upload_to_result_s": {"first": round(waits[0], 2), "median_of_others": round(float(np.median(waits[1:])), 2)}
    }


def memory_mb(process: int) -> int:
    """Resident memory."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) // 1000


def many_users(
    address: str, clips: list[Path], num_users: int, rounds: int, process: int, memory: list[int]
) -> dict[str, object]:
    """Every user sends one clip after the other; all at once."""
    from modeling_easysed import SoundEventDetectionPipeline

    pipe = SoundEventDetectionPipeline.from_pretrained(MODEL)
    expected = {path.name: pipe(path).to_dict()["events"] for path in clips[: num_users * rounds]}
    waits, wrong, lost = [], [], []

    def use(job: tuple[Client, Path]) -> None:
        client, path = job
        started = time.perf_counter()
        try:
            found = client.predict(handle_file(path), MODEL, api_name="/detect")
        except Exception as error:  # counted, whatever it was
            lost.append(f"{path.name}: {error}")
            return
        waits.append(time.perf_counter() - started)
        if found["file"] != path.name or found["events"] != expected[path.name]:
            wrong.append(path.name)

    clients = [Client(address, verbose=False) for _ in range(num_users)]
    with ThreadPoolExecutor(num_users) as users:
        for number in range(rounds):
            paths = clips[number * num_users : (number + 1) * num_users]
            list(users.map(use, zip(clients, paths, strict=True)))
            memory.append(memory_mb(process))
    return {
        "users": num_users,
        "recordings": num_users * rounds,
        "lost": lost,
        "wrong": wrong,
        "wait_s": {"median": round(float(np.median(waits)), 2), "longest": round(max(waits), 2)},
    }


def bad_uploads(address: str, clip: Path, folder: Path, number: int) -> dict[str, object]:
    """One line for each, and a good clip is heard after all of them."""
    random, client = np.random.default_rng(0), Client(address, verbose=False)
    friendly, heard, unfriendly = 0, 0, []
    for index in range(number):
        path = folder / f"bad_{index}{('.wav', '.mp3', '.ogg', '.flac', '.txt')[index % 5]}"
        path.write_bytes(_bad(random, clip, index))
        try:
            client.predict(handle_file(path), MODEL, "1", "none", 1, 0, api_name="/detect")
            heard += 1  # a few bytes of a long file may be wrong without harm
        except Exception as error:
            text = str(error)
            is_friendly = "\n" not in text and "Traceback" not in text and "uploads" not in text and len(text) < 300
            friendly += is_friendly
            unfriendly += [] if is_friendly else [text]
        path.unlink()
    last = client.predict(handle_file(clip), MODEL, api_name="/detect")
    return {
        "bad_uploads": number,
        "friendly_lines": friendly,
        "heard_in_spite": heard,
        "unfriendly": unfriendly,
        "lives": last["file"] == clip.name,
    }


def _bad(random: np.random.Generator, clip: Path, index: int) -> bytes:
    """Fuzzed, cut, noise, empty or huge."""
    content = bytearray(clip.read_bytes())
    if index == 0:
        return bytes(TOO_LARGE_BYTES)
    if index % 4 == 0:
        return random.bytes(int(random.integers(0, 5000)))
    if index % 4 == 1:
        return bytes(content[: int(random.integers(0, 600))])
    for place in random.integers(0, 200 if index % 4 == 2 else len(content), 30):
        content[place] = int(random.integers(0, 256))
    return bytes(content)


if __name__ == "__main__":
    main()
