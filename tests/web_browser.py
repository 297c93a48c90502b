"""Chromium with a folder to show: tests of the page on a device, and of its modules without a page."""

import base64
import contextlib
import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modeling_easysed.export
from modeling_easysed.export.errors import ExportError
from modeling_easysed.export.runtime_files import runtime_folder

WEB = Path(modeling_easysed.export.__file__).parent / "web"


@contextlib.contextmanager
def chromium(microphone: Path | None = None) -> Iterator[Any]:
    """A browser, whose microphone plays a file."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs chromium: apt-get install chromium")
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    fake += [] if microphone is None else [f"--use-file-for-fake-audio-capture={microphone}"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", *fake])
        yield browser
        browser.close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Address of a folder on this machine."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def page_of_modules() -> Iterator[Any]:
    """Where the modules can be imported: they need no page, a text of the same origin will do."""
    with chromium() as browser, serving(WEB) as address:
        opened = browser.new_page()
        opened.goto(f"{address}sw.js")
        yield opened


def runtime_or_skip() -> Path:
    """onnxruntime-web's files; where they cannot be had the tests are skipped, or fail with EASYSED_REQUIRE_DATA=1."""
    try:
        return runtime_folder()
    except ExportError as error:
        if os.environ.get("EASYSED_REQUIRE_DATA") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))


def packed(array: Any) -> dict[str, str]:
    """An array as `call` hands it over: a flat Float64Array, or Float32Array where it is float32."""
    array = np.ascontiguousarray(array)
    kind = "float32" if array.dtype == np.float32 else "float64"
    return {"kind": kind, "packed": base64.b64encode(array.astype(kind).tobytes()).decode("ascii")}


CALL = """async ([names, given]) => {
  const { unpack } = await import("./numbers.js");
  const kinds = { float32: Float32Array, float64: Float64Array };
  const open = (value) => value?.packed !== undefined ? unpack(value.packed, kinds[value.kind])
    : Array.isArray(value) ? value.map(open)
    : value !== null && typeof value === "object"
      ? Object.fromEntries(Object.entries(value).map(([name, one]) => [name, open(one)])) : value;
  const plain = (value) => ArrayBuffer.isView(value) ? Array.from(value)
    : Array.isArray(value) ? value.map(plain)
    : value !== null && typeof value === "object"
      ? Object.fromEntries(Object.entries(value).map(([name, one]) => [name, plain(one)])) : value;
  const loaded = await Promise.all(names.map((name) => import(`./${name}.js`)));
  return plain(await (FUNCTION)(Object.assign({}, ...loaded), open(given)));
}"""


def call(page: Any, modules: str, function: str, **given: Any) -> Any:
    """What `function`, JavaScript of (exports of the modules, given), returns; typed arrays come back as lists."""
    return page.evaluate(CALL.replace("FUNCTION", function), [modules.split(), given])
