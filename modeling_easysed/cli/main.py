"""`easysed`: parses the command line, runs one command and turns every failure into one line and an exit status.

0 = all well, 1 = some inputs failed and all others are done, 2 = wrong usage or nothing could be done."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from modeling_easysed import __version__
from modeling_easysed.cli import app, cluster, detect, doctor, export, models, push, stream
from modeling_easysed.cli.errors import CommandError, one_line

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # the shell's number for Ctrl-C


class _Parser(argparse.ArgumentParser):
    """argparse with errors of one line that say where help is."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of `easysed` with all its commands."""
    parser = _Parser(prog="easysed", description="Sound event detection: what sounded, from when to when.")
    parser.add_argument("--version", action="version", version=f"easysed {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for command in (detect, stream, cluster, doctor, models, export, push, app):
        added = command.add_parser(commands)
        added.set_defaults(run=command.run)
        added.add_argument("--debug", action="store_true", help="show tracebacks and the libraries' own messages")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: arguments after the program's name; None = those of the process.

    Returns:
        The exit status: 0, 1 or 2; 130 after Ctrl-C.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's products are small: threads of theirs only wait
    _survive_odd_file_names()
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as stop:  # argparse has said what was wrong, or has shown help
        return 0 if stop.code is None else int(stop.code)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("easysed: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader, for example `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        hint = "" if isinstance(error, CommandError) else " (unexpected; --debug shows where)"
        print(f"easysed {args.command}: error: {one_line(error)}{hint}", file=sys.stderr)
        return EXIT_USAGE


def _survive_odd_file_names() -> None:
    """A name that is no valid text is printed escaped: it must not end the run of all other files."""
    for output in (sys.stdout, sys.stderr):
        if hasattr(output, "reconfigure"):
            output.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
