"""Makes screenshots of the page: result, comparison, live, error; light, dark, and on a phone's screen.

    python space/screenshots.py --out screenshots            (needs easysed[space], playwright and chromium)
    python space/screenshots.py --out space --readme         the two of the README alone

The sounds are the page's own examples, so that the pictures show nobody's recording."""

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "modeling_easysed" / "app" / "examples"
WIDE, PHONE = {"width": 1180, "height": 900}, {"width": 360, "height": 740}
LIVE_S = 15.0


def main() -> None:
    """Starts the app, opens it in Chromium, writes PNG files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--readme", action="store_true", help="only those that stand in the README")
    parser.add_argument("--port", type=int, default=7869)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "-m", "modeling_easysed.cli.main", "app", "--port", str(args.port)]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        app = subprocess.Popen(command, env={**os.environ, "GRADIO_TEMP_DIR": folder})
        try:
            address = f"http://127.0.0.1:{args.port}/"
            _wait(address)
            browser = _open_browser(driver, _microphone(Path(folder)))
            views = README_VIEWS if args.readme else ALL_VIEWS
            for name, size, scheme, show in views:
                page = browser.new_page(viewport=size, color_scheme=scheme)
                page.set_default_timeout(120_000)
                page.goto(address)
                page.locator("#detect").wait_for()
                show(page, Path(folder))
                _save(page, args.out / name, whole=not args.readme)
                page.close()
        finally:
            app.terminate()
            app.wait(30)


def _wait(address: str) -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(address, timeout=10):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise SystemExit("the app did not start")


def _microphone(folder: Path) -> Path:
    """What the fake microphone plays."""
    samples, rate = soundfile.read(EXAMPLES / "wails_over_rain.ogg")
    path = folder / "microphone.wav"
    soundfile.write(path, np.tile(samples, 2), rate)
    return path


def _open_browser(driver: Any, microphone: Path) -> Any:
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    fake += [f"--use-file-for-fake-audio-capture={microphone}", "--no-sandbox"]
    return driver.chromium.launch(executable_path=shutil.which("chromium"), args=fake)


def _save(page: Any, path: Path, whole: bool) -> None:
    content = page.screenshot(full_page=whole)
    with Image.open(io.BytesIO(content)) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


# ---- what is shown ---------------------------------------------------------------------------------------------------


def show_result(page: Any, _folder: Path) -> None:
    """A result with its second event chosen."""
    page.get_by_role("button", name="wails over rain").first.click()
    page.locator("#result tr[data-onset]").first.wait_for()
    page.locator("#result tr[data-onset] .label-cell").last.click()
    page.wait_for_timeout(1000)
    page.evaluate("document.querySelectorAll('audio').forEach((audio) => audio.pause())")
    page.mouse.move(0, 0)


def show_comparison(page: Any, _folder: Path) -> None:
    """All models on one example."""
    page.get_by_role("tab", name="Compare").click()
    page.get_by_role("button", name="helicopter, then sea").last.click()
    page.get_by_role("button", name="Play").last.wait_for()
    page.locator("#compare").click()
    page.locator("#comparison svg.timeline").wait_for()


def show_live(page: Any, _folder: Path) -> None:
    """A microphone after a while."""
    page.get_by_role("tab", name="Live").click()
    page.locator("#live-start").click()
    page.locator("#live-status", has_text="hears").wait_for()
    page.wait_for_timeout(LIVE_S * 1000)


def show_error(page: Any, folder: Path) -> None:
    """What a file that is no sound gets."""
    bad = folder / "holiday.mp3"
    bad.write_bytes(b"this is no sound" * 100)
    page.locator("input[type=file]").first.set_input_files(bad)
    page.locator("#result .refused").wait_for()


View = tuple[str, dict[str, int], str, Callable[[Any, Path], None]]
README_VIEWS: list[View] = [
    ("result.png", {"width": 1180, "height": 1120}, "light", show_result),
    ("live.png", {"width": 1180, "height": 760}, "dark", show_live),
]
ALL_VIEWS: list[View] = [
    ("result_light.png", WIDE, "light", show_result),
    ("result_dark.png", WIDE, "dark", show_result),
    ("result_phone.png", PHONE, "light", show_result),
    ("comparison_light.png", WIDE, "light", show_comparison),
    ("comparison_phone_dark.png", PHONE, "dark", show_comparison),
    ("live_light.png", WIDE, "light", show_live),
    ("live_phone_dark.png", PHONE, "dark", show_live),
    ("error_light.png", WIDE, "light", show_error),
    ("error_phone_dark.png", PHONE, "dark", show_error),
]


if __name__ == "__main__":
    main()
