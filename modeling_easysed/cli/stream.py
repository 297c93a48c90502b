"""`easysed stream`: events while the sound goes on, one JSON line each, as they end.

easysed stream                                                       the microphone, until Ctrl-C
ffmpeg -i rtsp://camera -f s16le -ac 1 -ar 16000 - | easysed stream --source stdin"""

import argparse
import json
import queue
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from modeling_easysed.bundled import DEFAULT_CHECKPOINT
from modeling_easysed.cli.detect import (
    add_runtime_argument,
    add_trust_arguments,
    exit_number,
    load_pipeline,
    settings_of,
)
from modeling_easysed.cli.errors import CommandError, one_line
from modeling_easysed.cli.terminal import quiet_messages

if TYPE_CHECKING:
    import numpy as np

    from modeling_easysed.stream_easysed import EventStream

ENCODINGS = {"s16": "<i2", "s32": "<i4", "f32": "<f4"}
READ_BYTES = 2**16
BLOCK_S = 0.1  # of the microphone
SOUNDING_EVERY_S = 0.5


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Adds the command to the subparsers of `easysed`."""
    parser = commands.add_parser(
        "stream",
        help="events of a microphone or of raw PCM, while the sound goes on",
        description="Prints one JSON line for every event, once, as soon as it is over. Times count from the start.",
        epilog="Exit status: 0 all well (Ctrl-C ends the microphone), 2 nothing could be done.",
    )
    parser.add_argument("--source", choices=("mic", "stdin"), default="mic", help="default: mic")
    parser.add_argument(
        "--sampling-rate", type=int, metavar="HZ", help="default: the microphone's own, 16000 for stdin"
    )
    parser.add_argument("--channels", type=int, default=1, metavar="N", help="they are averaged; default: 1")
    parser.add_argument("--encoding", choices=tuple(ENCODINGS), default="s16", help="of stdin, default: s16")
    parser.add_argument("--microphone", metavar="NAME|NUMBER", help="which input, as sounddevice names it")
    parser.add_argument("--duration", type=float, metavar="S", help="stop after so many seconds")
    parser.add_argument(
        "--sounding", action="store_true", help='also print {"sounding": [...]} lines of what is not over'
    )
    parser.add_argument("--model", default=DEFAULT_CHECKPOINT, metavar="NAME|DIR|HUB_ID", help="as for detect")
    parser.add_argument(
        "--exit", type=exit_number, default=None, metavar="auto|N", help="exit of the network; default: the deepest"
    )
    parser.add_argument("--window", type=float, metavar="S", help="seconds heard at once; longer: cheaper and later")
    add_trust_arguments(parser)
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps, ...; auto = an accelerator if there is one")
    add_runtime_argument(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    if args.channels < 1:
        raise CommandError(f"--channels must be at least 1, got {args.channels}")
    if args.duration is not None and not args.duration > 0:
        raise CommandError(f"--duration must be more than 0 seconds, got {args.duration}")
    with quiet_messages(enabled=not args.debug):
        rate, blocks = _standard_input(args) if args.source == "stdin" else _microphone(args)
        pipe = load_pipeline(args)
        from modeling_easysed.stream_easysed import EventStream

        try:
            stream = EventStream(pipe, rate, window_s=args.window, **settings_of(args))
        except ValueError as error:
            raise CommandError(one_line(error)) from error
        for warning in stream.warnings:
            _say(f"warning: {warning}")
        _say(f"listening at {rate} Hz; an event is told at most {stream.latency_s:.1f} s after it has faded away")
        _follow(args, stream, blocks)
    return 0


def _say(message: str) -> None:
    print(f"easysed stream: {message}", file=sys.stderr, flush=True)


def _follow(args: argparse.Namespace, stream: "EventStream", blocks: Iterator["np.ndarray"]) -> None:
    """Prints events until the blocks end, the duration is over or Ctrl-C is pressed."""
    last_update, last_sounding = 0.0, []
    try:
        for block in blocks:
            if args.duration is not None:
                block = block[
                    : round(args.duration * stream.sampling_rate) - round(stream.duration * stream.sampling_rate)
                ]
            for event in stream.push(block):
                _print(event.to_dict())
            if args.sounding and stream.duration >= last_update + SOUNDING_EVERY_S:
                last_update, sounding = stream.duration, [event.to_dict() for event in stream.sounding()]
                if sounding != last_sounding:
                    _print({"sounding": sounding})
                last_sounding = sounding
            if args.duration is not None and stream.duration >= args.duration - 0.5 / stream.sampling_rate:
                break
    except KeyboardInterrupt:
        pass  # how a microphone is switched off
    for event in stream.close():
        _print(event.to_dict())


def _print(values: dict[str, Any]) -> None:
    print(json.dumps(values, ensure_ascii=False, allow_nan=False), flush=True)


def _standard_input(args: argparse.Namespace) -> tuple[int, Iterator["np.ndarray"]]:
    if sys.stdin is None or sys.stdin.isatty():
        raise CommandError("--source stdin needs raw PCM on standard input: ffmpeg -i in.wav -f s16le - | easysed ...")
    read = sys.stdin.buffer.read1
    return args.sampling_rate or 16000, pcm_blocks(read, args.encoding, args.channels)


def pcm_blocks(read: Callable[[int], bytes], encoding: str, channels: int) -> Iterator["np.ndarray"]:
    """Raw little-endian PCM as blocks (samples, channels); a last incomplete sample is left out.

    Args:
        read: gives at most so many bytes, none at the end.
        encoding: of `ENCODINGS`.
        channels: interleaved.
    """
    import numpy as np

    dtype, rest = np.dtype(ENCODINGS[encoding]), b""
    size = dtype.itemsize * channels
    while content := read(READ_BYTES):
        content = rest + content
        whole = len(content) // size * size
        rest = content[whole:]
        if whole > 0:
            yield np.frombuffer(content[:whole], dtype).reshape(-1, channels)


def _microphone(args: argparse.Namespace) -> tuple[int, Iterator["np.ndarray"]]:
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: the module is there, PortAudio is not
        raise CommandError(
            f"the microphone needs sounddevice and PortAudio ({one_line(error)}): pip install 'easysed[stream]', or "
            "pass --source stdin"
        ) from error
    name = int(args.microphone) if args.microphone is not None and args.microphone.isdecimal() else args.microphone
    try:
        rate = args.sampling_rate or int(sounddevice.query_devices(name, "input")["default_samplerate"])
        sounddevice.check_input_settings(device=name, channels=args.channels, samplerate=rate)
    except (ValueError, sounddevice.PortAudioError) as error:
        raise CommandError(f"no microphone can be opened ({one_line(error)}): see python -m sounddevice") from error
    return rate, microphone_blocks(sounddevice, name, args.channels, rate)


def microphone_blocks(sounddevice: Any, name: str | int | None, channels: int, rate: int) -> Iterator["np.ndarray"]:
    """Blocks (samples, channels) as they are recorded; what was lost while the computer was busy is said."""
    blocks: queue.Queue = queue.Queue()

    def keep(block: "np.ndarray", _frames: int, _time: Any, status: Any) -> None:
        blocks.put((block.copy(), bool(status.input_overflow)))

    size = round(BLOCK_S * rate)
    with sounddevice.InputStream(rate, size, name, channels, "float32", callback=keep):
        while True:
            block, is_lossy = blocks.get()
            if is_lossy:
                _say("warning: some sound was lost, the computer is too slow or too busy")
            yield block
