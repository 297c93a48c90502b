"""Makes screenshots of the page of `easysed export --to web` on a phone's screen and a wide one, light and dark.

    python space/device_screenshots.py --out screenshots      (needs easysed[export], playwright, chromium, npm)
    python space/device_screenshots.py --out space --readme   the one of the README alone

The sounds are the Space's own examples, so that the pictures show nobody's recording."""

import argparse
import functools
import http.server
import tempfile
import threading
from pathlib import Path
from typing import Any

from screenshots import EXAMPLES, PHONE, WIDE, _microphone, _open_browser, _save

from modeling_easysed.export.write import export_checkpoint

LIVE_MS = 15_000


def main() -> None:
    """Exports the compact student, opens it in Chromium, writes PNG files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--readme", action="store_true", help="only the one that stands in the README")
    parser.add_argument("--runtime", help="folder with onnxruntime-web's files (default: fetched with npm)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        folder = export_checkpoint("easysed-cnn", "web", 1, Path(name) / "page", args.runtime).folder
        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
        )
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = _open_browser(driver, _microphone(Path(name)))
        for file, size, scheme, show in README_VIEWS if args.readme else ALL_VIEWS:
            page = browser.new_page(viewport=size, color_scheme=scheme, device_scale_factor=2 if size == PHONE else 1)
            page.goto(f"http://127.0.0.1:{server.server_port}/")
            page.locator("#status", has_text="Ready.").wait_for(timeout=120_000)
            show(page)
            _save(page, args.out / file, whole=not args.readme)
            page.close()
        browser.close()
        server.shutdown()


def show_start(page: Any) -> None:
    """The page before anything was heard."""
    page.locator("#offline", has_text="works without a network").wait_for()


def show_result(page: Any) -> None:
    """A recording with its last event chosen."""
    page.locator("#file").set_input_files(EXAMPLES / "wails_over_rain.ogg")
    page.locator("tr[data-onset] .label-cell").last.click(timeout=120_000)
    page.wait_for_timeout(1000)
    page.evaluate("document.querySelectorAll('audio').forEach((audio) => audio.pause())")
    page.mouse.move(0, 0)


def show_live(page: Any) -> None:
    """The microphone after a while."""
    page.locator("#listen").click()
    page.wait_for_timeout(LIVE_MS)


README_VIEWS = [("device.png", PHONE, "dark", show_live)]
ALL_VIEWS = [
    ("device_start.png", PHONE, "light", show_start),
    ("device_result_light.png", PHONE, "light", show_result),
    ("device_result_dark.png", PHONE, "dark", show_result),
    ("device_result_wide.png", WIDE, "light", show_result),
    ("device_live_light.png", PHONE, "light", show_live),
    ("device_live_dark.png", PHONE, "dark", show_live),
]


if __name__ == "__main__":
    main()
