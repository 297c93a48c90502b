"""`easysed cluster SRC --out DST`: detection on a Ray cluster, or on all processors of this machine, by Ray Data.

Actors load the model once and take recordings one at a time from a disk that all machines see or from a store; this
process writes what they find, part by part (see `parts`). A worker that dies is started again and its recordings are
done by another; a recording that kills every worker is a failure, and the others are still done."""

import argparse
import contextlib
import importlib.util
import json
import logging
import os
import socket
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modeling_easysed.cli.batch import Totals, content_id, settings_id, summary
from modeling_easysed.cli.detect import (
    add_model_arguments,
    add_runtime_argument,
    add_trust_arguments,
    load_pipeline,
    settings_of,
)
from modeling_easysed.cli.errors import CommandError, one_line
from modeling_easysed.cli.parts import Parts
from modeling_easysed.cli.sources import Source, list_sources, local_copy
from modeling_easysed.cli.terminal import progress_bar, quiet_messages, warning_line

PART_RECORDINGS, PART_SECONDS = 1000, 30.0  # a part is written after so many recordings or so much time
MAX_BLOCKS = 20_000  # more tasks than this burden Ray's own book-keeping; a task then has several recordings
ATTEMPTS = 3  # at a recording whose worker dies
CONNECT_SECONDS = 10.0
OBJECT_STORE_BYTES = 256 * 2**20  # of a local Ray: only names and events travel, no audio
DIED = f"the process died {ATTEMPTS} times while it worked on it (out of memory?)"


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Adds the command to the subparsers of `easysed`."""
    parser = commands.add_parser(
        "cluster",
        help="events of more recordings than one machine can take: Ray, any store, Parquet",
        description="Detects on a Ray cluster (or on all of this machine) and writes a Parquet data set. Run again, it "
        "does what is new or changed.",
        epilog="Exit status: 0 all well, 1 some inputs failed (the others are done), 2 nothing could be done.",
    )
    parser.add_argument(
        "paths", nargs="+", metavar="SRC", help="recordings, folders or URLs (s3://, gs://, hf://, ...)"
    )
    parser.add_argument("--out", required=True, metavar="DST", help="folder or URL of the data set")
    add_model_arguments(parser)
    add_trust_arguments(parser)
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, ...; auto = a GPU for every actor where there are any"
    )
    add_runtime_argument(parser)
    parser.add_argument(
        "--workers", type=int, metavar="N", help="actors; default: one for every GPU, else for every CPU"
    )
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="of a running Ray cluster, or auto; default: a local Ray"
    )
    return parser


# ---- in the workers --------------------------------------------------------------------------------------------------


class Attempts:
    """Counts, outside of the workers that die, how often each recording was begun."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def begin(self, name: str) -> int:
        """How many times it was begun, this one included."""
        self.counts[name] += 1
        return self.counts[name]

    def end(self, name: str) -> None:
        del self.counts[name]


class Detector:
    """One worker: the model is loaded with the first recording that needs it.

    Args:
        options: of the command, as a dict.
        num_threads: of torch.
        attempts: handle of the `Attempts` actor. Ray does a recording again for ever while its workers die.
    """

    def __init__(self, options: dict[str, Any], num_threads: int, attempts: Any) -> None:
        self.args, self.num_threads, self.pipe = argparse.Namespace(**options), num_threads, None
        self.attempts = attempts

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """{"task": JSON with name, content, known} to {"result": JSON with name, content, and detection or error}.

        JSON in ASCII, because a name that is no valid text cannot be a text of Arrow. `known` is the content that is
        done already; the same content is not done again.
        """
        import ray

        task = json.loads(row["task"])
        key = row["task"]
        if ray.get(self.attempts.begin.remote(key)) > ATTEMPTS:
            return {"result": json.dumps({"name": task["name"], "error": DIED})}
        try:
            result = self._detect(**task)
        except Exception as error:  # whatever is wrong with one recording, the others are still done
            if self.args.debug:
                traceback.print_exc()
            result = {"error": one_line(error)}
        self.attempts.end.remote(key)
        return {"result": json.dumps({"name": task["name"], **result})}

    def _detect(self, name: str, content: str | None, known: str | None) -> dict[str, Any]:
        with local_copy(name) as path:
            if content is None:
                content = content_id(path)
            if content == known:
                return {"content": content}
            try:
                detection = self._pipe()(path, **settings_of(self.args))
            except (ValueError, OSError) as error:
                raise ValueError(str(error).replace(str(path), name)) from error
        detection.file = name
        return {"content": content, "detection": detection.to_dict()}

    def _pipe(self) -> Any:
        if self.pipe is None:
            import torch

            torch.set_num_threads(self.num_threads)
            with quiet_messages(enabled=not self.args.debug):
                self.pipe = load_pipeline(self.args)
        return self.pipe


# ---- in the process that drives --------------------------------------------------------------------------------------


@contextlib.contextmanager
def running_ray(args: argparse.Namespace) -> Iterator[Any]:
    """Ray as it runs already, connected or started here; what was started here is shut down after the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.data import DataContext

    level = logging.INFO if args.debug else logging.CRITICAL
    address = args.address if args.address is not None else os.environ.get("RAY_ADDRESS")
    local = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES} if address is None else {}
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(level)
    with contextlib.ExitStack() as stack:
        if not args.debug:
            stack.enter_context(own_messages_only())
        if not ray.is_initialized():
            try:
                check_address(address)
                ray.init(address=address, logging_level=level, log_to_driver=args.debug, **local)
            except (OSError, RuntimeError, ValueError) as error:
                raise CommandError(f"--address {address}: {one_line(error)}") from error
            stack.callback(ray.shutdown)
        DataContext.get_current().enable_progress_bars = False
        yield ray


def check_address(address: str | None) -> None:
    """Finds in seconds that nobody listens there; Ray itself tries for minutes.

    Raises:
        OSError: nobody does.
    """
    host, _, port = ("" if address is None else address.removeprefix("ray://")).rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()


@contextlib.contextmanager
def own_messages_only() -> Iterator[None]:
    """Keeps what Ray's processes write, on stdout and past Python on descriptor 2, off the screen."""
    with contextlib.ExitStack() as stack:
        silence = stack.enter_context(open(os.devnull, "w"))
        stack.enter_context(contextlib.redirect_stdout(silence))
        sys.stderr.flush()
        screen = os.dup(2)
        stack.callback(os.close, screen)
        try:
            is_descriptor_2 = sys.stderr.fileno() == 2
        except (OSError, AttributeError):  # replaced by something without a descriptor
            is_descriptor_2 = False
        if is_descriptor_2:
            own = stack.enter_context(open(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace"))
            stack.enter_context(contextlib.redirect_stderr(own))
        os.dup2(silence.fileno(), 2)
        stack.callback(os.dup2, screen, 2)
        yield


@dataclass(frozen=True)
class Crew:
    """How many actors, and what each of them gets."""

    size: int
    num_cpus: int
    num_gpus: int


def crew_of(ray: Any, args: argparse.Namespace) -> Crew:
    """One actor for each GPU, else for each CPU, unless `--workers` says how many.

    Raises:
        CommandError: more actors than processors: they would never all start.
    """
    there = ray.cluster_resources()
    cpus, gpus = int(there.get("CPU", 1)), int(there.get("GPU", 0))
    uses_gpus = args.device.startswith("cuda") or (args.device == "auto" and gpus > 0)
    limit = gpus if uses_gpus else cpus
    size = limit if args.workers is None else args.workers
    if not 1 <= size <= limit:
        kind = "GPUs" if uses_gpus else "CPUs"
        raise CommandError(f"--workers {size}: Ray has {limit} {kind}, so from 1 to {limit} actors can run")
    return Crew(size, max(1, cpus // size), int(uses_gpus))


@dataclass
class Job:
    """What is to be done, and how far it is."""

    args: argparse.Namespace
    parts: Parts
    settings_key: str
    totals: Totals = field(default_factory=Totals)
    failures: list[str] = field(default_factory=list)
    said: set[str] = field(default_factory=set)
    bar: Any = None

    def drive(self, results: Iterator[dict[str, Any]]) -> None:
        """Takes what the workers answer, and writes a part of it now and then."""
        detections, entries, since = [], [], time.monotonic()
        for result in results:
            self.bar.update(1)
            if "error" in result:
                self._fail(result["name"], result["error"])
            elif "detection" not in result:
                self.totals.num_skipped += 1
            else:
                detections.append(self._account(result))
                entries.append(self._entry(result))
            is_due = len(entries) >= PART_RECORDINGS or time.monotonic() - since >= PART_SECONDS
            if entries and is_due:
                self.parts.add(detections, entries)
                detections, entries, since = [], [], time.monotonic()
        if entries:
            self.parts.add(detections, entries)
        self.parts.tidy()

    def _account(self, result: dict[str, Any]) -> Any:
        from modeling_easysed.formats.text import detection_of_dict

        detection = detection_of_dict(result["detection"], result["name"])
        self.totals.num_done += 1
        self.totals.audio_s += detection.duration
        for warning in detection.warnings:
            text = warning_line(Path(result["name"]), warning)
            if text not in self.said:
                self.said.add(text)
                self.bar.clear()
                say(f"warning: {text}")
        return detection

    def _entry(self, result: dict[str, Any]) -> dict[str, Any]:
        found = result["detection"]
        counted = {"duration": found["duration"], "num_events": len(found["events"]), "warnings": found["warnings"]}
        return {"file": result["name"], "content": result["content"], "settings": self.settings_key, **counted}

    def _fail(self, name: str, message: str) -> None:
        line = message if name in message else f"{name}: {message}"
        self.failures.append(line)
        self.bar.clear()
        say(f"error: {line}")


def results_of(ray: Any, crew: Crew, args: argparse.Namespace, tasks: Sequence[dict[str, Any]]) -> Iterator[dict]:
    """What the workers answer, as it comes."""
    options = {name: value for name, value in vars(args).items() if name != "run"}
    attempts = ray.remote(num_cpus=0, max_restarts=-1)(Attempts).remote()
    items = [{"task": json.dumps(task)} for task in tasks]
    data = ray.data.from_items(items, override_num_blocks=min(len(items), MAX_BLOCKS)).map(
        Detector,
        fn_constructor_kwargs={"options": options, "num_threads": crew.num_cpus, "attempts": attempts},
        compute=ray.data.ActorPoolStrategy(size=crew.size),
        num_cpus=crew.num_cpus,
        num_gpus=crew.num_gpus,
    )
    for row in data.iter_rows():
        yield json.loads(row["result"])


def tasks_of(sources: Sequence[Source], parts: Parts, settings_key: str) -> tuple[list[dict[str, Any]], int]:
    """Tasks for the actors, and how many recordings are known to be done from their store's listing alone."""
    tasks, num_done = [], 0
    for one in sources:
        if one.version is not None and parts.is_done(one.name, one.version, settings_key):
            num_done += 1
            continue
        entry = parts.entries.get(one.name)
        known = entry["content"] if entry is not None and entry["settings"] == settings_key else None
        tasks.append({"name": one.name, "content": one.version, "known": known})
    return tasks, num_done


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    for module, extra in (("ray", "cluster"), ("pyarrow", "cluster"), ("fsspec", "cluster")):
        if importlib.util.find_spec(module) is None:
            raise CommandError(f'cluster needs {module}: pip install "easysed[{extra}]"')
    if args.workers is not None and args.workers < 1:
        raise CommandError(f"--workers must be at least 1, got {args.workers}")
    begin = time.monotonic()
    sources, listing_failures = list_sources(args.paths)
    for failure in listing_failures:
        say(f"error: {failure}")
    if not sources:
        return 2
    parts = Parts(args.out)
    with quiet_messages(enabled=not args.debug):
        receipt = load_pipeline(args).receipt_of(**settings_of(args))
    job = Job(args, parts, settings_id(receipt, ["parquet"], False))
    job.failures += listing_failures
    tasks, job.totals.num_skipped = tasks_of(sources, parts, job.settings_key)
    if tasks:
        with running_ray(args) as ray, progress_bar(len(tasks)) as job.bar:
            job.drive(results_of(ray, crew_of(ray, args), args, tasks))
    for line in summary(job.totals, job.failures, time.monotonic() - begin):
        say(line)
    if not job.failures:
        return 0
    return 1 if job.totals.num_done + job.totals.num_skipped > 0 else 2


def say(message: str) -> None:
    print(f"easysed cluster: {message}", file=sys.stderr)
