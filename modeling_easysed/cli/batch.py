"""`easysed detect ... --out FOLDER`: one file per recording and format, resumable, by any number of worker processes.

The folder's manifest has one line per recording: the content and the settings that its files were made from. What has
such a line, and its files, is not done again. Files are written whole or not at all, so a run that is killed loses no
more than the recordings in flight, and the finished folder is the same however often it was interrupted."""

import argparse
import concurrent.futures
import contextlib
import hashlib
import json
import multiprocessing
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modeling_easysed.cli.errors import CommandError, one_line
from modeling_easysed.cli.formats import SUFFIXES, is_binary, writer_of
from modeling_easysed.cli.inputs import Input, output_names
from modeling_easysed.cli.ranks import Ranks, ranks_of_process
from modeling_easysed.cli.report import PARTS, write_report
from modeling_easysed.cli.terminal import progress_bar, quiet_messages, warning_line

MANIFEST = "easysed-manifest.jsonl"
RANK_MANIFESTS = "easysed-manifest.rank*.jsonl"  # of all processes but the first, until the run has ended
PART = re.compile(r"\.[0-9a-f]{32}\.part")
HASHED_BYTES = 2**20
IN_FLIGHT = 2  # recordings handed to every worker at most


@dataclass(frozen=True)
class Task:
    """One recording: where it lies, and {format, "plot" or "report": its file}."""

    path: Path
    outputs: dict[str, Path]


@dataclass
class Totals:
    """What a run did."""

    num_done: int = 0
    num_skipped: int = 0
    audio_s: float = 0.0


class Manifest:
    """The folder's account of what its files were made from.

    Args:
        folder: of the outputs.
        rank: of this process, which adds to a file of its own: not every shared disk appends for several at once.

    Attributes:
        entries: {file: entry}, the newest of each.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder = folder
        self.path = folder / (MANIFEST if rank == 0 else RANK_MANIFESTS.replace("*", str(rank)))
        self.entries: dict[str, dict[str, Any]] = {}
        self.read()

    def read(self) -> None:
        """The entries of all processes."""
        for path in (self.folder / MANIFEST, *sorted(self.folder.glob(RANK_MANIFESTS))):
            lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines() if path.is_file() else []
            for line in lines:
                with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that was cut off is no entry
                    entry = json.loads(line)
                    self.entries[entry["file"]] = entry

    def is_done(self, task: Task, content: str, settings: str) -> bool:
        """Whether the files of a recording stand there, made from this content under these settings."""
        entry = self.entries.get(str(task.path))
        known = entry is not None and (entry["content"], entry["settings"]) == (content, settings)
        return known and all(name in entry["outputs"] and path.is_file() for name, path in task.outputs.items())

    def add(self, entry: dict[str, Any]) -> None:
        """Adds an entry, safe on disk when this returns."""
        self.entries[entry["file"]] = entry
        with self.path.open("a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(json.dumps(entry, ensure_ascii=False, sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def tidy(self) -> None:
        """Rewrites the manifest in order of the files, one line each, with what all processes have added."""
        from modeling_easysed.formats.files import replacing

        self.read()
        lines = [json.dumps(self.entries[name], ensure_ascii=False, sort_keys=True) for name in sorted(self.entries)]
        with replacing(self.folder / MANIFEST, binary=True) as file:
            file.write("".join(line + "\n" for line in lines).encode("utf-8", errors="surrogateescape"))
        for path in self.folder.glob(RANK_MANIFESTS):
            path.unlink(missing_ok=True)


def content_id(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASHED_BYTES):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def settings_id(receipt: dict[str, Any], formats: Sequence[str], has_plots: bool) -> str:
    """What decides the content of the files beside the recording: receipt (model, version, settings) and formats."""
    described = json.dumps([receipt, sorted(formats), has_plots], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def plan(
    inputs: Sequence[Input], folder: Path, formats: Sequence[str], plots: Path | None, has_report: bool = False
) -> list[Task]:
    """Where everything goes; `plots` is a folder, or the picture of the only recording."""
    names = {one: output_names(inputs, SUFFIXES[one]) for one in formats}
    is_picture = plots is not None and plots.suffix != "" and not plots.is_dir()
    pictures = {} if plots is None else output_names(inputs, ".png")
    parts = output_names(inputs, ".html") if has_report else {}
    tasks = []
    for one in inputs:
        outputs = {form: folder / names[form][one.path] for form in formats}
        if plots is not None:
            outputs["plot"] = plots if is_picture else plots / pictures[one.path]
        if has_report:
            outputs["report"] = folder / PARTS / parts[one.path]
        tasks.append(Task(one.path, outputs))
    return tasks


def remove_parts(folder: Path) -> None:
    """What a killed run was writing."""
    for path in folder.rglob(".*.part"):
        if PART.fullmatch(path.name):
            path.unlink(missing_ok=True)


# ---- one recording, in whatever process ------------------------------------------------------------------------------


def process(pipe: Any, settings: dict[str, Any], task: Task) -> dict[str, Any]:
    """Detects and writes all files of one recording.

    Returns:
        {"duration", "num_events", "warnings"}.
    """
    from modeling_easysed.formats.files import replacing

    detection = pipe(task.path, **settings)
    for form, path in task.outputs.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path, binary=form in ("plot", "report") or is_binary(form)) as stream:
                if form == "plot":
                    detection.plot().savefig(stream, format=path.suffix[1:])
                elif form == "report":
                    from modeling_easysed.cli.report_part import write_part

                    write_part(stream, detection, task.path)
                else:
                    writer_of(form)([detection], stream, False)
        except OSError as error:
            raise OSError(f"{path} cannot be written: {error.strerror}") from error
    return {
        "duration": round(detection.duration, 6),
        "num_events": len(detection.events),
        "warnings": detection.warnings,
    }


_worker: dict[str, Any] = {}


def start_worker(args: argparse.Namespace, num_threads: int) -> None:
    """Loads the model once per process."""
    from modeling_easysed.cli.detect import load_pipeline, settings_of

    with quiet_messages(enabled=not args.debug):
        _worker.update(pipe=load_pipeline(args, num_threads), settings=settings_of(args), debug=args.debug)


def work(task: Task) -> dict[str, Any]:
    """`process` in a worker; a failure comes back as {"error": its one line}."""
    return attempt(_worker["pipe"], _worker["settings"], task, _worker["debug"])


def attempt(pipe: Any, settings: dict[str, Any], task: Task, debug: bool) -> dict[str, Any]:
    try:
        return process(pipe, settings, task)
    except Exception as error:  # whatever is wrong with one file, the others are still done
        if debug:
            traceback.print_exc()
        return {"error": one_line(error)}


def results_here(pipe: Any, settings: dict[str, Any], tasks: Iterator[Task], debug: bool) -> Iterator[tuple]:
    """(task, result) of all tasks, one after the other in this process."""
    for task in tasks:
        yield task, attempt(pipe, settings, task, debug)


def results_of_workers(args: argparse.Namespace, tasks: Iterator[Task]) -> Iterator[tuple]:
    """(task, result) of all tasks as workers finish them.

    A worker that dies takes its pool along. What was in flight is then tried once more, one at a time, so that only
    the recording that kills is a failure.
    """
    suspects: list[Task] = []
    left = iter(tasks)
    while True:
        in_flight: dict[concurrent.futures.Future, Task] = {}
        num_workers = 1 if suspects else args.workers
        source = iter(suspects) if suspects else left
        retried, suspects = bool(suspects), []
        limit = 1 if retried else args.workers * IN_FLIGHT
        with pool_of(args, num_workers) as pool:
            try:
                for task in source:
                    in_flight[submitted(pool, task)] = task
                    if len(in_flight) >= limit:
                        yield from finished(in_flight)
                while in_flight:
                    yield from finished(in_flight)
            except concurrent.futures.process.BrokenProcessPool:
                rest = list(source) if retried else []
                if retried:
                    (killer,) = in_flight.values()
                    yield killer, {"error": f"{killer.path}: the process died while it worked on it (out of memory?)"}
                    suspects = rest
                else:
                    suspects = list(in_flight.values())
                continue
        if not retried:
            return


def submitted(pool: concurrent.futures.ProcessPoolExecutor, task: Task) -> concurrent.futures.Future:
    """The task's future; a failed one where the pool is broken, so that the task is not lost."""
    try:
        return pool.submit(work, task)
    except concurrent.futures.process.BrokenProcessPool as error:
        future: concurrent.futures.Future = concurrent.futures.Future()
        future.set_exception(error)
        return future


def pool_of(args: argparse.Namespace, num_workers: int) -> concurrent.futures.ProcessPoolExecutor:
    num_threads = max(1, (os.cpu_count() or 1) // num_workers)
    context = multiprocessing.get_context("spawn")
    return concurrent.futures.ProcessPoolExecutor(num_workers, context, start_worker, (args, num_threads))


def finished(in_flight: dict[concurrent.futures.Future, Task]) -> Iterator[tuple]:
    """Waits for the next tasks to finish and takes them out; a dead worker's stays in."""
    done, _ = concurrent.futures.wait(in_flight, return_when=concurrent.futures.FIRST_COMPLETED)
    broken = None
    for future in done:
        try:
            result = future.result()
        except concurrent.futures.process.BrokenProcessPool as error:
            broken = error
            continue
        yield in_flight.pop(future), result
    if broken is not None:
        raise broken


# ---- the run ---------------------------------------------------------------------------------------------------------


class Run:
    """One run over a folder: what is not done is done, accounted for and told.

    Args:
        args: of the command, with `out`, `plot`, `report`, `format`, `workers` and `debug`.
        inputs: recordings.
        settings: of the pipeline; settings_key: see `settings_id`.
        say: tells a person one line.
        ranks: this process among its peers; it does its share.

    Raises:
        CommandError: when the folder cannot be written to.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        inputs: Sequence[Input],
        settings: dict[str, Any],
        settings_key: str,
        say: Callable[[str], None],
        ranks: Ranks,
    ) -> None:
        self.args, self.settings, self.settings_key, self.say, self.ranks = args, settings, settings_key, say, ranks
        self.folder = Path(args.out).expanduser()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if ranks.is_first:
                remove_parts(self.folder)
            ranks.wait()
            self.manifest = Manifest(self.folder, ranks.index)
            self.manifest.path.open("a", encoding="utf-8").close()
        except OSError as error:
            raise CommandError(f"--out {args.out} cannot be written: {error.strerror}") from error
        plots = None if args.plot is None else Path(args.plot).expanduser()
        tasks = plan(inputs, self.folder, args.format, plots, args.report is not None)
        self.tasks = ranks.share(tasks)
        self.totals, self.failures = Totals(), []
        self.failed: set[Path] = set()
        self.contents: dict[Path, str] = {}
        self.said: set[str] = set()

    def drive(self, pipe: Any) -> None:
        """Does everything; `pipe` works here where there is one worker."""
        begin = time.perf_counter()
        with progress_bar(len(self.tasks), enabled=self.ranks.is_first) as self.bar:
            if self.args.workers == 1:
                results = results_here(pipe, self.settings, self._todo(), self.args.debug)
            else:
                results = results_of_workers(self.args, self._todo())
            for task, result in results:
                self.bar.update(1)
                if "error" in result:
                    self._fail(task, result["error"])
                    continue
                self._account(task, result)
                minutes = (time.perf_counter() - begin) / 60
                speed = f"{self.totals.audio_s / 3600 / minutes:.2f} h of audio a minute"
                self.bar.set_description_str(speed, refresh=False)
        self.ranks.wait()
        if self.ranks.is_first:
            self.manifest.tidy()

    def _todo(self) -> Iterator[Task]:
        """What is not done yet."""
        for task in self.tasks:
            try:
                self.contents[task.path] = content_id(task.path)
            except OSError as error:
                self._fail(task, f"{task.path} cannot be read: {error.strerror}")
                self.bar.update(1)
                continue
            if self.manifest.is_done(task, self.contents[task.path], self.settings_key):
                self.totals.num_skipped += 1
                self.bar.update(1)
                continue
            yield task

    def _account(self, task: Task, result: dict[str, Any]) -> None:
        for warning in result["warnings"]:
            self._warn(task, warning)
        outputs = {form: os.path.relpath(path, self.folder) for form, path in task.outputs.items()}
        made_from = {"content": self.contents[task.path], "settings": self.settings_key}
        self.manifest.add({"file": str(task.path), **made_from, **result, "outputs": outputs})
        self.totals.num_done += 1
        self.totals.audio_s += result["duration"]

    def _fail(self, task: Task, message: str) -> None:
        line = message if str(task.path) in message else f"{task.path}: {message}"
        self.failures.append(line)
        self.failed.add(task.path)
        self.bar.clear()
        self.say(f"error: {line}")

    def _warn(self, task: Task, warning: str) -> None:
        """What is the same for all recordings is said once."""
        text = warning_line(task.path, warning)
        is_general = text == warning
        if text not in self.said and (self.ranks.is_first or not is_general):
            self.said.add(text)
            self.bar.clear()
            self.say(f"warning: {text}")


def summary(totals: Totals, failures: list[str], seconds: float) -> list[str]:
    """What a person reads at the end, failures last."""
    already = f", {totals.num_skipped} were done already" if totals.num_skipped > 0 else ""
    lines = [f"{totals.num_done} recordings ({totals.audio_s / 3600:.2f} h) done in {seconds:.0f} s{already}"]
    if failures:
        lines += [f"{len(failures)} failed:", *(f"  {line}" for line in failures)]
    return lines


def main_batch(
    args: argparse.Namespace, pipe: Any, settings: dict[str, Any], inputs: list[Input], failures: list[str]
) -> int:
    """Runs, says the summary; returns the exit status."""

    def say(message: str) -> None:
        print(f"easysed detect: {message}", file=sys.stderr)

    begin, ranks = time.perf_counter(), ranks_of_process()
    settings_key = settings_id(pipe.receipt_of(**settings), args.format, args.plot is not None)
    run = Run(args, inputs, settings, settings_key, say, ranks)
    run.drive(pipe)
    of_all = ranks.gather((run.totals, run.failures))
    totals = Totals(
        num_done=sum(one.num_done for one, _ in of_all),
        num_skipped=sum(one.num_skipped for one, _ in of_all),
        audio_s=sum(one.audio_s for one, _ in of_all),
    )
    everything = failures + [line for _, lines in of_all for line in lines]
    if args.report is not None:
        own = [task.outputs["report"] for task in run.tasks if task.path not in run.failed]
        parts = [part for share in ranks.gather(own) for part in share]
        if ranks.is_first:
            write_report(Path(args.report).expanduser(), parts, pipe.receipt_of(**settings), everything)
    if len(inputs) + len(failures) > 1 and ranks.is_first:
        for line in summary(totals, everything, time.perf_counter() - begin):
            say(line)
    if not everything:
        return 0
    return 1 if totals.num_done + totals.num_skipped > 0 else 2
