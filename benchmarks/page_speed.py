"""Time and size of the page on a device: 10 s of sound, 20 passes, in Chromium on one thread of WebAssembly.

    python benchmarks/page_speed.py [--model easysed-cnn] [--exit 1] [--repeats 20]

Needs easysed[export], playwright, chromium, and npm or --runtime. Printed are the median and the fastest of the
repeats: the network once (all passes in one call), the same with the five time shifts of the default setting, and all
that the page does with a recording. Its size is that of its files, gzipped one by one."""

import argparse
import functools
import gzip
import http.server
import shutil
import statistics
import tempfile
import threading
from pathlib import Path
from typing import Any

from modeling_easysed.export.write import export_checkpoint

MEASURE = """async ({ repeats }) => {
  const names = ["network", "detector", "recording", "audio", "resampling"];
  const loaded = await Promise.all(names.map((name) => import(`./${name}.js`)));
  const { loadNetwork, Detector, sampleRecording } = Object.assign({}, ...loaded);
  const json = async (name) => (await fetch(name)).json();
  const begin = performance.now();
  const description = await json("easysed.json");
  const run = await loadNetwork(description);
  const detector = new Detector(description, await json("words.json"), run);
  const load = performance.now() - begin;
  const sound = (rate) => Float32Array.from({ length: 10 * rate }, (_, at) =>
    0.2 * Math.sin((6000 * at) / rate) * (at % rate < rate / 2) + 0.02 * (Math.random() - 0.5));
  const [samples, recorded] = [sound(16000), sound(44100)];
  const edges = new Float32Array(2 * description.audio.edge_samples);
  const tasks = {
    "network, 20 passes": () => run(samples.slice(), edges, detector.masks),
    "network, 20 passes, shifts": () => sampleRecording(run, description, detector.masks, samples),
    "recording at 44.1 kHz to events": () => detector.detect([recorded], 44100, "sound"),
  };
  const times = Object.fromEntries(Object.keys(tasks).map((name) => [name, []]));
  for (let repeat = -2; repeat < repeats; repeat++) {
    for (const [name, task] of Object.entries(tasks)) {
      const start = performance.now();
      await task();
      if (repeat >= 0) times[name].push(performance.now() - start);
    }
  }
  return { load, times };
}"""


def main() -> None:
    """Exports, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="easysed-cnn")
    parser.add_argument("--exit", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--runtime", help="folder with onnxruntime-web's files (default: fetched with npm)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = export_checkpoint(args.model, "web", args.exit, Path(name) / "page", args.runtime).folder
        size = sum(len(gzip.compress(path.read_bytes(), 9)) for path in folder.iterdir())
        print(f"{args.model}, exit {args.exit}: {size / 1e6:.2f} MB gzipped")
        measured = measure(folder, args.repeats)
    print(f"{'load':<36}{measured['load']:8.0f} ms")
    for task, times in measured["times"].items():
        print(f"{task:<36}{statistics.median(times):8.0f} ms (fastest {min(times):.0f})")


def measure(folder: Path, repeats: int) -> dict[str, Any]:
    """Milliseconds: of loading, and of every task as often as it was repeated."""
    from playwright.sync_api import sync_playwright

    handler = functools.partial(_Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, sync_playwright() as driver:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/sw.js")  # the modules alone
        measured = page.evaluate(MEASURE, {"repeats": repeats})
        browser.close()
        server.shutdown()
    return measured


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


if __name__ == "__main__":
    main()
