"""`easysed app`: the page of the Space, on this computer."""

import argparse
import importlib.util
import os
import sys
from typing import Any

from modeling_easysed.bundled import CheckpointError, resolve_checkpoint
from modeling_easysed.cli.errors import CommandError, one_line
from modeling_easysed.cli.terminal import quiet_libraries, status

NEEDED = ("gradio", "matplotlib", "websockets")


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Adds the command to the subparsers of `easysed`."""
    parser = commands.add_parser(
        "app",
        help="a page in the browser: upload or record, see events and how sure they are",
        description="Serves the page of the Space on this computer until Ctrl-C; nothing leaves it.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this computer alone; 0.0.0.0 = all")
    parser.add_argument("--port", type=int, default=7860, help="default: 7860")
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME|DIR|HUB_ID",
        help="may be given several times; default: those in EASYSED_MODEL (with commas), else what is bundled",
    )
    parser.add_argument(
        "--device-page",
        metavar="DIR",
        help="what `easysed export --to web` wrote; served as /device, and linked (default: EASYSED_DEVICE_PAGE)",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    if not 1 <= args.port <= 65535:
        raise CommandError(f"--port must be from 1 to 65535, got {args.port}")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise CommandError(f'the app needs {" and ".join(missing)}: pip install "easysed[space]"')
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported
    from modeling_easysed.app.server import build_app, check_port, find_device_page, serve

    try:
        check_port(args.host, args.port)  # before the models are loaded
        device_page = find_device_page(args.device_page)
        for name in args.model or ():
            resolve_checkpoint(name)
        with quiet_libraries(enabled=not args.debug), status("loading the models"):
            from modeling_easysed.app.catalogue import load_catalogue

            app = build_app(load_catalogue(args.model), device_page)
    except CheckpointError as error:
        raise CommandError(f"{error} (`easysed models` lists what is at hand)") from error
    except (OSError, ValueError) as error:
        raise CommandError(one_line(error)) from error
    print(f"easysed app: http://{args.host}:{args.port} (Ctrl-C ends it)", file=sys.stderr, flush=True)
    serve(args.host, args.port, app)
    return 0
