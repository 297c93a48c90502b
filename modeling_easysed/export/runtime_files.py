"""The three files of onnxruntime-web that a page needs: given in a folder, or fetched once with the user's npm.

They are another project's code, so they lie in a cache and never in this repository."""

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from modeling_easysed.export.errors import ExportError

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
SHA256 = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
NPM_TIMEOUT_S = 600


def runtime_folder(given: str | Path | None = None) -> Path:
    """A folder that holds the files.

    Args:
        given: the user's own folder; None = the cache, filled with `npm pack` where it is empty.

    Raises:
        ExportError: a file is missing in the user's folder; npm is missing, fails, or brings other files.
    """
    if given is not None:
        folder = Path(given).expanduser()
        missing = [name for name in SHA256 if not (folder / name).is_file()]
        if missing:
            raise ExportError(
                f"--runtime {folder} lacks {', '.join(missing)}: name the folder dist of the npm package {PACKAGE}"
            )
        return folder
    folder = cache_folder() / f"{PACKAGE}-{VERSION}"
    if not _is_whole(folder):
        _fetch(folder)
    return folder


def cache_folder() -> Path:
    """`EASYSED_CACHE`, else easysed in the user's folder for caches."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "easysed"
    return Path(os.environ.get("EASYSED_CACHE", default)).expanduser()


def _is_whole(folder: Path) -> bool:
    try:
        return all(_sha256(folder / name) == expected for name, expected in SHA256.items())
    except OSError:
        return False


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _fetch(folder: Path) -> None:
    """Fills the cache, whole or not at all."""
    what = f"{PACKAGE}@{VERSION}"
    otherwise = f"or pass --runtime with a folder that holds {', '.join(SHA256)}"
    npm = shutil.which("npm")
    if npm is None:
        raise ExportError(f"--to web needs {what} and npm is not installed: install it, {otherwise}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        command = [npm, "pack", what, "--silent", "--pack-destination", name]
        try:
            done = subprocess.run(command, cwd=name, capture_output=True, text=True, timeout=NPM_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise ExportError(f"npm pack {what} took longer than {NPM_TIMEOUT_S} s: try again, {otherwise}") from None
        archive = next(Path(name).glob("*.tgz"), None)
        if done.returncode != 0 or archive is None:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            said = lines[0].strip() if lines else f"exit status {done.returncode}"
            raise ExportError(f"npm pack {what} failed ({said}): check npm and the network, {otherwise}")
        fresh = Path(name) / "fresh"
        _unpack(archive, fresh)
        if not _is_whole(fresh):
            raise ExportError(f"npm pack {what} brought other files than expected: check npm's registry, {otherwise}")
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)


def _unpack(archive: Path, folder: Path) -> None:
    folder.mkdir()
    with tarfile.open(archive) as package:
        for name in SHA256:
            try:
                content = package.extractfile(f"package/dist/{name}")
            except KeyError:
                continue  # told by whoever checks the folder
            (folder / name).write_bytes(content.read())


__all__ = ["PACKAGE", "SHA256", "VERSION", "cache_folder", "runtime_folder"]
