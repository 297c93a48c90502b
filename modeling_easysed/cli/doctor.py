"""`easysed doctor`: what is wrong with recordings, and what to do about it, before the model is blamed.

The warnings are those that `easysed detect` can give for the audio itself; no model is loaded."""

import argparse
import json
import sys
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modeling_easysed.cli.errors import one_line
from modeling_easysed.cli.inputs import Input, collect
from modeling_easysed.cli.terminal import progress_bar

if TYPE_CHECKING:
    from modeling_easysed.input_easysed import InputMeasures

# By the key word of a warning.
NEXT_STEPS = {
    "silent": "check that the microphone is connected and not muted, and that the right input is recorded",
    "silent when mixed": "pass one channel alone (ffmpeg -i in.wav -af 'pan=mono|c0=c0' out.wav), or swap the wires of "
    "one microphone",
    "out of range": "divide the samples by the full scale of their format, or save the file as 16-bit PCM",
    "clipped": "record again with less gain, so that the loudest sound stays below -6 dB; turning a clipped file down "
    "does not help",
    "too short": "pass a longer cut of the recording, 2 s or more",
    "damaged": "copy the file again from its source; what lies after the damage is not analysed",
    "band-limited": "record at 16000 Hz or more, without a telephone or voice codec; until then, distrust classes with "
    "high sounds (birds, hiss, glass)",
    "too quiet": "record again with more gain or closer to the source; turning the file up raises its noise as well",
    "off centre": "remove the offset (ffmpeg -i in.wav -af highpass=f=20 out.wav), and check the recorder",
    "noisy": "check cable, gain and microphone: this is what an open input or a wrong file format sounds like",
}
OTHER_NEXT_STEP = "listen to the recording there, and compare it with one that works"


@dataclass(frozen=True)
class Finding:
    """One warning and what to do about it."""

    warning: str
    next_step: str


@dataclass(frozen=True)
class Report:
    """All that is known about one recording; `is_good` where there is no finding."""

    file: str
    sampling_rate: int  # of the file, Hz
    num_channels: int
    duration: float  # seconds
    measures: "InputMeasures"  # of the mono mix at 16 kHz
    findings: list[Finding]
    is_good: bool


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Adds the command to the subparsers of `easysed`."""
    parser = commands.add_parser(
        "doctor",
        help="what is wrong with the audio before blaming the model",
        description="Measures level, clipping, noise floor, offset and bandwidth of recordings, and says what to do.",
        epilog="Exit status: 0 all could be read (warnings or not), 1 some could not, 2 nothing could be done.",
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="recordings, or folders to walk through")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="default: table")
    return parser


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    several = len(args.paths) > 1 or Path(args.paths[0]).expanduser().is_dir()
    inputs, failures = collect(args.paths)
    for failure in failures:
        _say(f"error: {failure}")
    if not inputs:
        return 2
    num_done = num_good = 0
    write = _write_json if args.format == "json" else _write_table
    for report in write(_reports(inputs, failures, getattr(args, "debug", False)), several):
        num_done += 1
        num_good += report.is_good
    if several and num_done > 0:
        _say(f"{num_good} of {num_done} recordings are good")
    if failures and num_done > 0:
        _say(f"{len(failures)} of {num_done + len(failures)} inputs failed, the others are done")
    elif len(failures) > 1:
        _say(f"all {len(failures)} inputs failed")
    if not failures:
        return 0
    return 1 if num_done > 0 else 2


def _say(message: str) -> None:
    print(f"easysed doctor: {message}", file=sys.stderr)


def examine(path: Path) -> Report:
    """Reads and measures one recording.

    Raises:
        AudioError: audio that cannot be used.
    """
    from modeling_easysed.audio_easysed import read_audio
    from modeling_easysed.input_easysed import all_warnings, key_word, measure_input

    clip = read_audio(path)
    measures = measure_input(clip.samples, clip.sampling_rate)
    findings = [Finding(one, NEXT_STEPS.get(key_word(one), OTHER_NEXT_STEP)) for one in all_warnings(clip, measures)]
    rate, channels = clip.original_sampling_rate, clip.num_channels
    return Report(str(path), rate, channels, clip.duration, measures, findings, is_good=not findings)


def _reports(inputs: list[Input], failures: list[str], debug: bool) -> Iterator[Report]:
    """Reports of the inputs that can be read; `failures` grows by one line for every other."""
    with progress_bar(len(inputs)) as bar:
        for one in inputs:
            bar.set_description_str(one.path.name, refresh=False)
            try:
                report = examine(one.path)
            except Exception as error:  # whatever is wrong with one file, the others are still done
                report = None
                bar.clear()
                if debug:
                    traceback.print_exc()
                message = one_line(error)
                failures.append(message)
                _say(f"error: {message}" if str(one.path) in message else f"error: {one.path}: {message}")
            bar.update(1)
            if report is not None:
                bar.clear()
                yield report


def _write_json(reports: Iterator[Report], several: bool) -> Iterator[Report]:
    """One object; of several recordings, an array of them. Passes the reports on."""
    num_written = 0
    if several:
        sys.stdout.write("[")
    for report in reports:
        if several:
            sys.stdout.write("\n" if num_written == 0 else ",\n")
        sys.stdout.write(json.dumps(asdict(report), indent=2, ensure_ascii=False, allow_nan=False))
        sys.stdout.flush()
        num_written += 1
        yield report
    if several or num_written > 0:
        sys.stdout.write("\n]\n" if several else "\n")


def _write_table(reports: Iterator[Report], several: bool) -> Iterator[Report]:
    """One block of lines for every recording. Passes the reports on."""
    for number, report in enumerate(reports):
        if number > 0:
            print()
        print("\n".join(table_lines(report)), flush=True)
        yield report


def table_lines(report: Report) -> list[str]:
    """Facts, measures, and "good" or every warning with its next step."""
    measures = report.measures
    channels = f"{report.num_channels} channel{'' if report.num_channels == 1 else 's'}"
    bandwidth = f"{measures.bandwidth_hz:.0f} Hz" + ("" if measures.cutoff_hz is None else " (cut off)")
    # yes or no: the share in the file's own warning was counted before mixing and resampling, the measured one after
    clipped = "yes" if any(finding.warning.startswith("clipped: ") for finding in report.findings) else "no"
    lines = [
        f"{report.file}  {report.duration:.2f} s, {report.sampling_rate} Hz, {channels}",
        f"  peak {measures.peak_db:z.1f} dB, level {measures.level_db:z.1f} dB, noise floor "
        f"{measures.noise_floor_db:z.1f} dB of full scale",
        f"  clipped {clipped}, offset {measures.dc_offset:+z.4f}, bandwidth {bandwidth}",
    ]
    for finding in report.findings:
        lines += [f"  {finding.warning}", f"    what to do: {finding.next_step}"]
    return [*lines, "  good"] if report.is_good else lines
