"""`easysed detect`: events of files and folders.

The detections of all inputs are one generator that the output format reads: results appear as they are computed, a file
that fails is reported and the others go on."""

import argparse
import contextlib
import importlib.util
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from modeling_easysed.bundled import BUNDLED_CHECKPOINTS, DEFAULT_CHECKPOINT, CheckpointError, resolve_checkpoint
from modeling_easysed.cli.batch import main_batch
from modeling_easysed.cli.errors import CommandError, one_line
from modeling_easysed.cli.formats import FORMATS, format_of, is_binary, write_to_stdout, writer_of
from modeling_easysed.cli.inputs import Input, collect, output_names
from modeling_easysed.cli.ranks import ranks_of_process
from modeling_easysed.cli.report import check_report, write_report
from modeling_easysed.cli.terminal import progress_bar, quiet_bars, quiet_messages, status, warning_line

if TYPE_CHECKING:
    from modeling_easysed.detection_easysed import Detection

PLOT_SUFFIXES = (".png", ".pdf", ".svg", ".jpg")


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Adds the command to the subparsers of `easysed`."""
    parser = commands.add_parser(
        "detect",
        help="events of recordings: onset, offset, label, score",
        description="Detects sound events in wav, flac, ogg and mp3 files of any length, rate and number of channels.",
        epilog="Exit status: 0 all well, 1 some inputs failed (the others are done), 2 nothing could be done.",
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="recordings, or folders to walk through")
    add_model_arguments(parser)
    add_trust_arguments(parser)
    parser.add_argument(
        "--format",
        type=format_names,
        metavar="NAME[,NAME...]",
        help=f"{', '.join(FORMATS)}; several with commas, for an --out folder; default: by the end of an --out file's "
        "name (.json, .jsonl, .csv, .labels.txt = audacity, .selections.txt = raven, .rttm, .parquet), else table; "
        "parquet needs easysed[parquet]",
    )
    parser.add_argument(
        "--out",
        metavar="FILE|DIR",
        help="write here; a folder (or name/) gets one file per recording and a "
        "manifest, and what is done there already is not done again",
    )
    parser.add_argument("--plot", metavar="FILE.png|DIR", help="draw the recording; for several recordings a folder")
    parser.add_argument(
        "--report",
        metavar="FILE.html",
        help="one page for people: pictures, events and sound of all recordings, the most doubtful first",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps, ...; auto = an accelerator if there is one")
    add_runtime_argument(parser)
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes, with --out FOLDER; default: 1")
    return parser


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Which network, and how much of it."""
    bundled = ", ".join(BUNDLED_CHECKPOINTS) if BUNDLED_CHECKPOINTS else "none"
    parser.add_argument(
        "--model",
        default=DEFAULT_CHECKPOINT,
        metavar="NAME|DIR|HUB_ID",
        help=f"bundled ({bundled}), folder or Hub id; default: {DEFAULT_CHECKPOINT}",
    )
    parser.add_argument(
        "--exit",
        type=exit_number,
        default="auto",
        metavar="auto|N",
        help="exit of the network, 1 = shallowest and fastest; auto = the first that is sure enough",
    )


def add_runtime_argument(parser: argparse.ArgumentParser) -> None:
    """What runs the network."""
    parser.add_argument(
        "--runtime",
        default="auto",
        choices=("auto", "onnx", "torch"),
        help="onnx starts in a fraction of the time, with the same events; auto = onnx where it can be had",
    )


def format_names(text: str) -> tuple[str, ...]:
    """`csv` or `csv,raven`."""
    names = tuple(dict.fromkeys(text.split(",")))
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        raise argparse.ArgumentTypeError(f"must be one or more of {', '.join(FORMATS)}, got {unknown[0]!r}")
    return names


def add_trust_arguments(parser: argparse.ArgumentParser) -> None:
    trust = parser.add_argument_group("trust", "how doubt is measured, and what may be accepted without a person")
    trust.add_argument(
        "--uncertainty",
        choices=("mc", "exits", "moments", "none"),
        default="mc",
        help="Monte Carlo dropout (default), the exits as an ensemble, closed-form moments, or the plain pass",
    )
    trust.add_argument("--passes", type=int, default=20, help="of Monte Carlo dropout, default: 20")
    trust.add_argument("--shifts", type=int, default=2, help="steps of 30 ms to either side, default: 2; 0 = none")
    trust.add_argument("--seed", type=int, default=0, help="of Monte Carlo dropout, default: 0")
    trust.add_argument("--min-precision", type=float, metavar="P", help="share of accepted events that are right")
    trust.add_argument("--min-recall", type=float, metavar="R", help="share of the true events that are reported")
    trust.add_argument("--max-false-alarms-per-hour", type=float, metavar="X", help="wrong events among the accepted")


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """What every call of the pipeline gets."""
    names = ("uncertainty", "passes", "shifts", "seed", "exit")
    goals = ("min_precision", "min_recall", "max_false_alarms_per_hour")
    return {name: getattr(args, name) for name in (*names, *goals) if getattr(args, name) is not None}


def exit_number(text: str) -> str | int:
    if text == "auto":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be 'auto' or a number from 1, got {text!r}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    several = len(args.paths) > 1 or Path(args.paths[0]).expanduser().is_dir()
    _choose_format(args)
    _check_outputs(args, several)
    ranks = ranks_of_process()
    args.device = ranks.device(args.device)
    inputs, failures = collect(args.paths)
    for failure in failures if ranks.is_first else []:
        _say(f"error: {failure}")
    if not inputs:
        return 2
    with quiet_messages(enabled=not args.debug):
        pipe = load_pipeline(args)
        if isinstance(args.format, tuple):
            return main_batch(args, pipe, settings_of(args), inputs, failures)
        with contextlib.ExitStack() as stack:
            parts = None if args.report is None else Path(stack.enter_context(tempfile.TemporaryDirectory()))
            job = _Job(args, pipe, inputs, failures, parts)
            _write(args, job, several)
            if parts is not None:
                receipt = pipe.receipt_of(**settings_of(args))
                write_report(Path(args.report).expanduser(), sorted(parts.iterdir()), receipt, failures)
    if failures and job.num_done > 0:
        _say(f"{len(failures)} of {job.num_done + len(failures)} inputs failed, the others are done")
    elif len(failures) > 1:
        _say(f"all {len(failures)} inputs failed")
    if not failures:
        return 0
    return 1 if job.num_done > 0 else 2


def _choose_format(args: argparse.Namespace) -> None:
    """The names of all formats for an --out folder, else the name of the one format."""
    if args.workers < 1:
        raise CommandError(f"--workers must be at least 1, got {args.workers}")
    if args.out is not None and _is_folder(args.out):
        args.format = args.format or ("table",)
        return
    if ranks_of_process().count > 1:
        raise CommandError("several processes share a list only with an output folder: --out FOLDER/")
    if args.workers > 1:
        raise CommandError("--workers needs an output folder: --out FOLDER/")
    if args.format is not None and len(args.format) > 1:
        raise CommandError("several formats need an output folder: --out FOLDER/")
    args.format = format_of(None if args.format is None else args.format[0], args.out)


def _say(message: str) -> None:
    print(f"easysed detect: {message}", file=sys.stderr)


def _is_folder(name: str) -> bool:
    return name.endswith(("/", os.sep)) or Path(name).expanduser().is_dir()


def _check_outputs(args: argparse.Namespace, several: bool) -> None:
    """Finds what would fail after hours of work before any work is done."""
    for option, name in (("--out", args.out), ("--plot", args.plot)):
        if name is not None and not _is_folder(name) and not Path(name).expanduser().absolute().parent.is_dir():
            raise CommandError(f"{option} {name}: its folder does not exist, create it first")
    _check_format(args, several)
    if args.report is not None:
        check_report(args.report)
    if args.plot is None:
        return
    if several and not _is_folder(args.plot):
        raise CommandError(f"--plot {args.plot}: several recordings need a folder, e.g. --plot pictures/")
    if not _is_folder(args.plot) and Path(args.plot).suffix.lower() not in PLOT_SUFFIXES:
        raise CommandError(f"--plot {args.plot}: the name must end in one of {', '.join(PLOT_SUFFIXES)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise CommandError("--plot needs matplotlib: pip install 'easysed[plot]'")


def _check_format(args: argparse.Namespace, several: bool) -> None:
    """Formats that not every place can take."""
    chosen = args.format if isinstance(args.format, tuple) else (args.format,)
    if chosen == ("audacity",) and several and not isinstance(args.format, tuple):
        raise CommandError(
            "--format audacity: a label track holds one recording; for several, or a folder, write one track each: "
            "--out labels/"
        )
    if "parquet" in chosen and importlib.util.find_spec("pyarrow") is None:
        raise CommandError('--format parquet needs pyarrow: pip install "easysed[parquet]"')
    if is_binary(chosen[0]) and args.out is None and sys.stdout.isatty():
        raise CommandError(
            f"--format {chosen[0]} is binary, not for a terminal: --out events.{chosen[0]}, or redirect the output"
        )


def load_pipeline(args: argparse.Namespace, num_threads: int | None = None) -> Any:
    """The detector, on onnxruntime where nothing needs PyTorch; a broken checkpoint is found before either is imported.

    Args:
        args: model, device, runtime and the settings of the calls to come.
        num_threads: that it may use; None = as many as its runtime likes.
    """
    try:
        folder = resolve_checkpoint(args.model)
        with status(f"loading {args.model}"):
            pipe = _load(folder, args, num_threads)
    except CheckpointError as error:
        raise CommandError(f"{error} (`easysed models` lists what is at hand)") from error
    except ValueError as error:
        raise CommandError(one_line(error)) from error
    except (RuntimeError, AssertionError) as error:  # what torch raises for a device that is not there
        raise CommandError(f"--device {args.device}: {one_line(error)}; try --device cpu") from error
    if isinstance(args.exit, int) and args.exit > pipe.model.num_exits:
        raise CommandError(f"--exit must be auto or 1 to {pipe.model.num_exits} for {args.model}, got {args.exit}")
    try:
        pipe.check_settings(**settings_of(args))
    except ValueError as error:
        raise CommandError(one_line(error)) from error
    return pipe


def _load(folder: str, args: argparse.Namespace, num_threads: int | None) -> Any:
    from modeling_easysed.runtime.choice import runs_on_onnx

    if args.runtime != "torch" and runs_on_onnx(folder, args.device):
        from modeling_easysed.runtime.detector import OnnxDetector

        return OnnxDetector(folder, num_threads)
    if args.runtime == "onnx":
        raise ValueError(
            f"--runtime onnx needs onnxruntime (pip install 'easysed[onnx]'), a checkpoint with graphs (python -m "
            f"modeling_easysed.export.graphs {args.model}) and --device cpu"
        )
    with quiet_bars(enabled=not args.debug):
        if num_threads is not None:
            import torch

            torch.set_num_threads(num_threads)
        if Path(folder).is_dir():
            from modeling_easysed.runtime.torch_detector import TorchDetector

            # what is no checkpoint of that kind, or is broken, is loaded or explained below
            with contextlib.suppress(ValueError, OSError, KeyError):
                return TorchDetector(folder, args.device)
        from modeling_easysed import SoundEventDetectionPipeline

        device = None if args.device == "auto" else args.device
        return SoundEventDetectionPipeline.from_pretrained(args.model, device=device)


class _Job:
    """All inputs, one after the other; `failures` grows by one line for every input that could not be done.

    `parts` is the folder for those of a report, or None.
    """

    def __init__(
        self, args: argparse.Namespace, pipe: Any, inputs: list[Input], failures: list[str], parts: Path | None
    ) -> None:
        self.args, self.pipe, self.inputs, self.failures, self.parts = args, pipe, inputs, failures, parts
        self.num_done = 0
        self.said: set[str] = set()

    def detections(self) -> Iterator["Detection"]:
        """Detections of the inputs that could be done; all else goes to stderr."""
        with progress_bar(len(self.inputs)) as bar:
            for number, one in enumerate(self.inputs):
                bar.set_description_str(one.path.name, refresh=False)
                detection = self._detect(one, number, bar)
                bar.clear()
                if detection is None:
                    continue
                for warning in detection.warnings:
                    self._warn(warning_line(one.path, warning))
                self.num_done += 1
                yield detection

    def _detect(self, one: Input, number: int, bar: Any) -> "Detection | None":
        def progress(done: int, total: int) -> None:
            bar.update(number + done / total - bar.n)

        try:
            detection = self.pipe(one.path, **settings_of(self.args), progress=progress)
            self._plot(one, detection)
            if self.parts is not None:
                self._write_part(self.parts / f"{number:09d}.html", one, detection)
            return detection
        except Exception as error:  # whatever is wrong with one file, the others are still done
            if self.args.debug:
                traceback.print_exc()
            bar.clear()
            message = one_line(error)
            message = message if str(one.path) in message else f"{one.path}: {message}"
            self.failures.append(message)
            bar.update(number + 1 - bar.n)
            _say(f"error: {message}")
            return None

    def _plot(self, one: Input, detection: "Detection") -> None:
        if self.args.plot is None:
            return
        path = Path(self.args.plot).expanduser()
        if _is_folder(self.args.plot):
            path = path / output_names(self.inputs, ".png")[one.path]
            path.parent.mkdir(parents=True, exist_ok=True)
        detection.plot(path)

    @staticmethod
    def _write_part(path: Path, one: Input, detection: "Detection") -> None:
        from modeling_easysed.cli.report_part import write_part
        from modeling_easysed.formats.files import replacing

        with replacing(path, binary=True) as stream:
            write_part(stream, detection, one.path)

    def _warn(self, warning: str) -> None:
        """A warning that is the same for all files is said once."""
        if warning not in self.said:
            self.said.add(warning)
            _say(f"warning: {warning}")


def _write(args: argparse.Namespace, job: _Job, several: bool) -> None:
    """Drives the job through the chosen format, to stdout or one file."""
    if args.out is None:
        write_to_stdout(job.detections(), args.format, several)
    else:
        with _open(Path(args.out).expanduser(), args.format, in_place=not is_binary(args.format)) as stream:
            writer_of(args.format)(job.detections(), stream, several)


@contextlib.contextmanager
def _open(path: Path, format_name: str, in_place: bool) -> Iterator[IO[Any]]:
    """The stream of an --out file.

    In place, what is done stays when a long run is interrupted; otherwise the file is whole or not touched.
    """
    from modeling_easysed.formats.files import replacing

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            if in_place:
                stream = stack.enter_context(path.open("w", encoding="utf-8", newline="", errors="backslashreplace"))
            else:
                stream = stack.enter_context(replacing(path, binary=is_binary(format_name)))
            yield stream
    except OSError as error:
        raise CommandError(f"--out {path} cannot be written: {error.strerror}") from error
