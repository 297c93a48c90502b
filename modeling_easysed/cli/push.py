"""`easysed push`: a teacher and its students to the Hub, each in a repository of its own with its code and card."""

import argparse
import sys
from pathlib import Path
from typing import Any

from modeling_easysed.cli.errors import CommandError
from modeling_easysed.cli.terminal import quiet_libraries

EXIT_PARTIAL = 1


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Adds the command to the subparsers of `easysed`."""
    parser = commands.add_parser(
        "push",
        help="teacher and students to the Hugging Face Hub, with their cards",
        description="Uploads a checkpoint to REPO_ID and its students to REPO_ID-exit1, REPO_ID-exit2, ... The same "
        "command again resumes an upload that failed: what lies there already is not sent again. --space publishes the "
        "page of `easysed app` as well, or alone.",
        usage="easysed push MODEL REPO_ID [options]\n       easysed push [MODEL REPO_ID] --space ID [options]",
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", help="checkpoint folder or bundled name")
    parser.add_argument("repo_id", metavar="REPO_ID", nargs="?", help="owner/name, or name for the owner of the token")
    parser.add_argument(
        "--space",
        metavar="ID",
        help="publishes a Space there that shows REPO_ID, or what is bundled where none is given",
    )
    parser.add_argument(
        "--device-page", metavar="DIR", help="with --space: what `easysed export --to web` wrote, for the Space to link"
    )
    parser.add_argument(
        "--exits",
        type=exit_list,
        metavar="1,2",
        help="students to push, or 'none' (default: all exits but the deepest)",
    )
    parser.add_argument("--private", action="store_true", help="new repositories are private")
    parser.add_argument("--tag", metavar="v1", help="marks what was pushed, for from_pretrained(..., revision=...)")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="what training/evaluate.py --out wrote, for the cards"
    )
    parser.add_argument(
        "--clips", type=Path, metavar="DIR", help="training clips with metadata.csv, where MODEL has no attribution.csv"
    )
    parser.add_argument("--base_model", "--base-model", metavar="ID", help="Hub id that MODEL was fine-tuned from")
    parser.add_argument("--license", metavar="ID", help="of the weights (default: as MODEL's config or card states it)")
    return parser


def exit_list(text: str) -> list[int]:
    """ "1,2" to [1, 2], "none" to []."""
    if text == "none":
        return []
    numbers = text.split(",")
    if not all(number.strip().isdecimal() for number in numbers):
        raise argparse.ArgumentTypeError(f"must be numbers like 1,2 or 'none', got {text!r}")
    return [int(number) for number in numbers]


def run(args: argparse.Namespace) -> int:
    """Prints one URL per repository that is done; 1 where some are not."""
    if (args.model is None) != (args.repo_id is None) or (args.model is None and args.space is None):
        raise CommandError("MODEL and REPO_ID must both be given, or --space alone: see easysed push --help")
    from modeling_easysed.hub import PartialPushError

    try:
        with quiet_libraries(not args.debug):
            urls = push_all(args)
    except PartialPushError as error:
        print("\n".join(error.urls))
        for name, reason in error.reasons.items():
            print(f"easysed push: {name} is not done: {reason}", file=sys.stderr)
        print("easysed push: the same command again sends what is missing", file=sys.stderr)
        return EXIT_PARTIAL
    except ValueError as error:
        raise CommandError(str(error)) from error
    print("\n".join(urls))
    return 0


def push_all(args: argparse.Namespace) -> list[str]:
    """The checkpoint, then the Space; their URLs."""
    from modeling_easysed.hub import push

    urls = []
    if args.model is not None:
        urls = push(
            args.model,
            args.repo_id,
            args.exits,
            results=args.results,
            clips=args.clips,
            base_model=args.base_model,
            license=args.license,
            private=args.private,
            tag=args.tag,
            progress=announce,
        )
    if args.space is not None:
        from modeling_easysed.hub_space import push_space

        announce(f"{args.space} (Space)")
        shown = ["/".join(urls[0].split("/")[-2:])] if urls else []
        urls.append(push_space(args.space, shown, device_page=args.device_page, private=args.private))
    return urls


def announce(line: str) -> None:
    """What is being pushed, for a person who waits."""
    if sys.stderr.isatty():
        print(f"pushing {line}", file=sys.stderr)
