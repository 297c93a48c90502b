"""A static folder: a page that runs the exported graph in a browser, installable, without a network once loaded.

easysed.onnx, easysed.json       as for every device
words.json                       sentences and marks, so that the page says what Python says
*.js, page.css, index.html       of export/web, cli and app
ort*.js, *.wasm                  onnxruntime-web
manifest, icons, service worker  which keeps all of it, under a name made of the files' contents"""

import hashlib
import json
import shutil
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from modeling_easysed import audio_easysed, input_easysed, reasons_easysed
from modeling_easysed.app.result import BECAUSE, HINT, NO_EVENTS
from modeling_easysed.cli.report import escaped
from modeling_easysed.detection_easysed import NO_CALIBRATION
from modeling_easysed.export.description import write_description
from modeling_easysed.export.icons import SIZES, icon
from modeling_easysed.export.runtime_files import SHA256
from modeling_easysed.palette_easysed import DARK, DECISIONS, LIGHT, css_variables

WORKER = "sw.js"
RUNTIME = {name: f"{Path(name).stem}.js" if name.endswith(".mjs") else name for name in SHA256}  # what servers know
SHARED = {  # (package, its file): name on the page
    ("cli", "recording.css"): "recording.css",
    ("cli", "recording.js"): "recording_events.js",
    ("app", "page.css"): "space.css",
    ("app", "page.js"): "panels.js",
}


def write_page(folder: Path, description: dict[str, Any], runtime: Path) -> None:
    """Writes everything that stands beside the graph, which must be there.

    Args:
        folder: of the export.
        description: what easysed.json will hold; gets a key `page`, with the names of all files but itself.
        runtime: what `runtime_folder` gave.
    """
    for path in files("modeling_easysed.export").joinpath("web").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    for (package, name), target in SHARED.items():
        (folder / target).write_bytes(files(f"modeling_easysed.{package}").joinpath(name).read_bytes())
    for name, target in RUNTIME.items():
        shutil.copyfile(runtime / name, folder / target)
    for size in SIZES:
        (folder / _icon_name(size)).write_bytes(icon(size))
    _write_json(folder / "words.json", words())
    _write_json(folder / "manifest.webmanifest", manifest(description))
    (folder / "palette.css").write_text(css_variables(), encoding="utf-8")
    page = (folder / "index.html").read_text("utf-8")
    for name, text in (("MODEL", _title(description)), ("LIGHT", LIGHT.background), ("DARK", DARK.background)):
        page = page.replace(f"@@{name}@@", escaped(text))
    (folder / "index.html").write_text(page, encoding="utf-8")
    hashes = {name: hashlib.sha256((runtime / name).read_bytes()).hexdigest() for name in RUNTIME}
    description["page"] = {"files": sorted(path.name for path in folder.iterdir()), "onnxruntime-web": hashes}
    write_description(folder, description)
    _write_worker(folder)


def words() -> dict[str, Any]:
    """Sentences and marks that the page shares with Python."""
    reasons = reasons_easysed
    return {
        "reasons": {
            "limits": [[name, *limit] for name, limit in reasons.LIMITS.items()],
            "smallest_limit": reasons.SMALLEST_LIMIT,
            "sentences": reasons.SENTENCES,
            "input_words": reasons.INPUT_WORDS,
            "unfamiliar": reasons.UNFAMILIAR,
            "cut_off": reasons.CUT_OFF,
            "uncalibrated": reasons.UNCALIBRATED,
            "weak": reasons.WEAK,
            "needed": reasons.NEEDED,
            "never": reasons.NEVER_ACCEPTED,
        },
        "audio": audio_easysed.SENTENCES,
        "input": input_easysed.SENTENCES,
        "no_calibration": NO_CALIBRATION,
        "no_events": NO_EVENTS,
        "hint": HINT,
        "because": BECAUSE,
        "decisions": {"unjudged" if name is None else name: asdict(look) for name, look in DECISIONS.items()},
    }


def manifest(description: dict[str, Any]) -> dict[str, Any]:
    """The web app's manifest."""
    icons = [{"src": _icon_name(size), "sizes": f"{size}x{size}", "type": "image/png"} for size in SIZES]
    return {
        "name": "EasySED",
        "short_name": "EasySED",
        "description": f"Sound events on this device: {_title(description)}",
        "start_url": "./",
        "scope": "./",
        "display": "standalone",
        "background_color": DARK.background,
        "theme_color": DARK.background,
        "icons": [{**one, "purpose": purpose} for one in icons for purpose in ("any", "maskable")],
    }


def _title(description: dict[str, Any]) -> str:
    model = description["model"]
    return f"{model['name']}, exit {model['exit']} of {model['num_exits']}"


def _icon_name(size: int) -> str:
    return f"icon-{size}.png"


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _write_worker(folder: Path) -> None:
    """The list of what is kept, and a version that changes with any of it."""
    kept = sorted(path for path in folder.iterdir() if path.name != WORKER)
    digest = hashlib.sha256((folder / WORKER).read_bytes())
    for path in kept:
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    worker = (folder / WORKER).read_text("utf-8")
    worker = worker.replace('"@@FILES@@"', json.dumps([path.name for path in kept]))
    (folder / WORKER).write_text(worker.replace("@@VERSION@@", digest.hexdigest()[:16]), encoding="utf-8")


__all__ = ["manifest", "words", "write_page"]
