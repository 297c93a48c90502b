"""Which recordings `easysed cluster` works on: local paths and folders, and whatever fsspec reaches.

A source has a name that any machine of the cluster understands: a path on a disk that all of them see, or a URL."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from modeling_easysed.cli.errors import CommandError, one_line
from modeling_easysed.cli.inputs import AUDIO_SUFFIXES, CONTAINER_SUFFIXES, collect

HASH_KEYS = ("ETag", "etag", "md5Hash", "content_md5", "checksum", "blob_id", "sha256")  # of stores' listings
TIME_KEYS = ("LastModified", "last_modified", "updated", "mtime", "created")


@dataclass(frozen=True)
class Source:
    """One recording.

    Attributes:
        name: path or URL, as it stands in the results.
        version: what its store says of the content without a download; None = only the content itself tells.
    """

    name: str
    version: str | None = None


def is_url(name: str) -> bool:
    return "://" in name and not name.startswith(("file://", "local://"))


def local_path(name: str) -> str:
    """The path of a local name, `file:///a` included."""
    return name.split("://", 1)[1] if "://" in name else name


def filesystem_of(name: str) -> tuple[Any, str]:
    """fsspec's filesystem of a path or URL, and the path in it.

    Raises:
        CommandError: fsspec is not installed, the protocol is unknown or its package is missing.
    """
    try:
        import fsspec

        return fsspec.core.url_to_fs(name)
    except (ImportError, ValueError) as error:
        raise CommandError(f"{name}: {one_line(error)}") from error


def list_sources(names: Sequence[str]) -> tuple[list[Source], list[str]]:
    """Recordings below the paths and URLs, each once, and one line for every one that gave none."""
    sources: dict[str, Source] = {}
    failures: list[str] = []
    for name in names:
        if is_url(name):
            found, problems = _list_url(name)
        else:
            inputs, problems = collect([local_path(name)])
            found = [Source(str(one.path)) for one in inputs]
        for one in found:
            sources.setdefault(one.name, one)
        failures += problems
    return list(sources.values()), failures


def _list_url(url: str) -> tuple[list[Source], list[str]]:
    """Audio files below a URL, sorted; a URL of a file is taken whatever its suffix."""
    filesystem, root = filesystem_of(url)
    try:
        infos = filesystem.find(root, detail=True)
    except Exception as error:  # every store has errors of its own: no such bucket, no permission, no network
        return [], [f"{url}: {one_line(error)}"]
    sources = []
    for path in sorted(infos):
        relative = PurePosixPath(path[len(root) :] if path.startswith(root) else path)
        is_hidden = any(part.startswith(".") for part in relative.parts)
        is_audio = relative.suffix.lower() in AUDIO_SUFFIXES | CONTAINER_SUFFIXES and not is_hidden
        if path.rstrip("/") == root.rstrip("/") or is_audio:
            sources.append(Source(filesystem.unstrip_protocol(path), version_of(infos[path])))
    if not sources:
        return [], [f"{url}: no audio files there, or it does not exist"]
    return sources, []


def version_of(info: dict[str, Any]) -> str | None:
    """What a store's listing says of a file's content: its hash, else its size and time, else nothing."""
    for key in HASH_KEYS:
        if info.get(key) is not None:
            return f"{key}:{str(info[key]).strip(chr(34))}"
    times = [str(info[key]) for key in TIME_KEYS if info.get(key) is not None]
    return f"size:{info.get('size')} time:{times[0]}" if times else None


@contextlib.contextmanager
def local_copy(name: str) -> Iterator[Path]:
    """A local file with the recording: itself, or a copy that is gone after the block."""
    if not is_url(name):
        yield Path(local_path(name))
        return
    filesystem, path = filesystem_of(name)
    folder = tempfile.mkdtemp(prefix="easysed-")
    try:
        copy = Path(folder) / PurePosixPath(path).name
        filesystem.get_file(path, str(copy))
        yield copy
    finally:
        shutil.rmtree(folder, ignore_errors=True)
