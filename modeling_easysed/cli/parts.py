"""The output of `easysed cluster`: a Parquet data set that grows part by part, and the manifest of every part.

    DST/events/part-00001-3f2a90c1.parquet      one row per event
    DST/manifest/part-00001-3f2a90c1.jsonl      one line per recording: content and settings its rows were made from

DST is a folder or any fsspec URL. A part is written whole before its manifest, and only what a manifest names counts,
so a run that is killed loses no more than the recordings since the last part, and no reader meets half a file."""

import io
import json
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from modeling_easysed.cli.errors import CommandError, one_line
from modeling_easysed.cli.sources import filesystem_of

if TYPE_CHECKING:
    from modeling_easysed.detection_easysed import Detection

EVENTS, MANIFEST = "events", "manifest"


class Parts:
    """The data set and its manifests.

    Args:
        destination: folder or URL; it is created.

    Attributes:
        entries: {recording: entry}, of the newest part that names it.

    Raises:
        CommandError: when it cannot be read or written.
    """

    def __init__(self, destination: str) -> None:
        self.name = destination
        self.filesystem, self.root = filesystem_of(destination)
        self.root = self.root.rstrip("/")
        try:
            for folder in (EVENTS, MANIFEST):
                self.filesystem.makedirs(f"{self.root}/{folder}", exist_ok=True)
            self._names: dict[str, list[str]] = {}  # {part: recordings that its manifest names}
            self.entries: dict[str, dict[str, Any]] = {}
            self._read_manifests()
            self.tidy()
        except OSError as error:
            raise CommandError(f"--out {destination} cannot be used: {one_line(error)}") from error

    def is_done(self, name: str, content: str, settings: str) -> bool:
        """Whether the rows of a recording stand there, made from this content under these settings."""
        entry = self.entries.get(name)
        return entry is not None and (entry["content"], entry["settings"]) == (content, settings)

    def add(self, detections: "Sequence[Detection]", entries: Sequence[dict[str, Any]]) -> None:
        """Adds one part, safe in the store when this returns; recordings without events leave no row."""
        number = 1 + max((int(part.split("-")[1]) for part in self._names), default=0)
        part = f"part-{number:05d}-{uuid.uuid4().hex[:8]}"
        self._write_rows(part, detections)
        self._write_manifest(part, entries)
        self._names[part] = [entry["file"] for entry in entries]
        for entry in entries:
            self.entries[entry["file"]] = {**entry, "part": part}

    def tidy(self) -> None:
        """Takes out what a newer part has replaced, and parts whose manifest was never written."""
        for part in self._listed(EVENTS, ".parquet"):
            if part not in self._names:
                self.filesystem.rm_file(self._path(EVENTS, part))
        for part, names in list(self._names.items()):
            current = {name for name in names if self.entries[name]["part"] == part}
            if len(current) < len(names):
                self._keep_only(part, current)

    def _keep_only(self, part: str, names: set[str]) -> None:
        """Rows first: were this cut off in between, the newer part would still be the one that counts."""
        if not names:
            self.filesystem.rm_file(self._path(EVENTS, part))
            self.filesystem.rm_file(self._path(MANIFEST, part))
            del self._names[part]
            return
        from modeling_easysed.formats.parquet import read_parquet

        rows = read_parquet(io.BytesIO(self.filesystem.cat_file(self._path(EVENTS, part))), part)
        kept = {as_text(name) for name in names}
        self._write_rows(part, [one for one in rows if one.file in kept])
        self._write_manifest(part, [self.entries[name] for name in self._names[part] if name in names])
        self._names[part] = [name for name in self._names[part] if name in names]

    def _read_manifests(self) -> None:
        for part in self._listed(MANIFEST, ".jsonl"):
            text = self.filesystem.cat_file(self._path(MANIFEST, part)).decode("utf-8", errors="surrogateescape")
            entries = [json.loads(line) for line in text.splitlines()]
            self._names[part] = [entry["file"] for entry in entries]
            for entry in entries:
                self.entries[entry["file"]] = {**entry, "part": part}

    def _listed(self, folder: str, suffix: str) -> list[str]:
        """Names of the parts in a folder, oldest first."""
        paths = self.filesystem.ls(f"{self.root}/{folder}", detail=False)
        names = [path.rsplit("/", 1)[-1] for path in paths]
        parts = [name.removesuffix(suffix) for name in names if name.startswith("part-") and name.endswith(suffix)]
        return sorted(parts, key=lambda part: (int(part.split("-")[1]), part))

    def _path(self, folder: str, part: str) -> str:
        return f"{self.root}/{folder}/{part}{'.parquet' if folder == EVENTS else '.jsonl'}"

    def _write_rows(self, part: str, detections: "Sequence[Detection]") -> None:
        from modeling_easysed.formats.parquet import write_parquet

        content = io.BytesIO()
        write_parquet(sorted(detections, key=lambda one: one.file), content, True)
        self._write(self._path(EVENTS, part), content.getvalue())

    def _write_manifest(self, part: str, entries: Sequence[dict[str, Any]]) -> None:
        told = [{key: entry[key] for key in sorted(entry) if key != "part"} for entry in entries]
        lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in sorted(told, key=lambda one: one["file"])]
        self._write(self._path(MANIFEST, part), "".join(lines).encode("utf-8", errors="surrogateescape"))

    def _write(self, path: str, content: bytes) -> None:
        """Whole or not at all: stores upload in one piece, disks rename."""
        if "file" not in self.filesystem.protocol:
            self.filesystem.pipe_file(path, content)
            return
        folder, name = path.rsplit("/", 1)
        temporary = f"{folder}/.{name}.part"
        self.filesystem.pipe_file(temporary, content)
        self.filesystem.mv(temporary, path)


def as_text(name: str) -> str:
    """A name that is no valid text, as Parquet holds it."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
