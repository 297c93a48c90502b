"""`easysed export`: one exit of a checkpoint as a file for phones, browsers and servers without PyTorch."""

import argparse
from typing import Any

from modeling_easysed.cli.errors import CommandError
from modeling_easysed.cli.terminal import quiet_libraries, status

TARGETS = {  # name: what must be installed, and the extra that brings it
    "onnx": (("onnx", "onnxruntime", "onnxscript"), "export"),
    "executorch": (("executorch",), "executorch"),
    "web": (("onnx", "onnxruntime", "onnxscript"), "export"),
}


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Adds the command to the subparsers of `easysed`."""
    parser = commands.add_parser(
        "export",
        help="one exit for phones and browsers, without PyTorch",
        description="Writes the network of one exit with its front end, and easysed.json with labels, thresholds, "
        "calibration, decisions and the recipe of the dropout masks. The written file is compared with the model "
        "before the command says that it is done.",
    )
    parser.add_argument("model", metavar="MODEL", help="bundled name, checkpoint folder or Hub id")
    parser.add_argument("--to", required=True, choices=sorted(TARGETS), help="kind of file")
    parser.add_argument("--exit", type=int, metavar="N", help="1 = smallest and fastest (default: the deepest)")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="a new folder, or one with an earlier export, which is replaced"
    )
    parser.add_argument(
        "--runtime",
        metavar="DIR",
        help="of --to web: a folder with the files of onnxruntime-web (default: fetched once with npm into a cache)",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Prints a table of what was written and measured."""
    from modeling_easysed.export.errors import check_installed

    try:
        check_installed(*TARGETS[args.to])
        with status(f"exporting {args.model}"), quiet_libraries(not args.debug):
            from modeling_easysed.export.write import export_checkpoint

            exported = export_checkpoint(args.model, args.to, args.exit, args.out, args.runtime)
    except ValueError as error:  # an ExportError, or a checkpoint that cannot be used
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"--out {args.out} cannot be written: {error.strerror or error}") from error
    print("\n".join(table_lines(exported.folder, exported.description)))
    return 0


def table_lines(folder: Any, description: dict[str, Any]) -> list[str]:
    """An aligned table: file, size, parameters, largest deviation from the model, time of a clip."""
    model = description["model"]
    rows = [("file", "size", "parameters", "max deviation", "ms per 10 s")]
    for name, entry in description["files"].items():
        deviation = max(entry["max_deviation"], entry["max_deviation_plain"])
        size, parameters = f"{entry['bytes'] / 1e6:.2f} MB", f"{model['parameters'] / 1e6:.2f} M"
        rows.append((str(folder / name), size, parameters, f"{deviation:.1e}", f"{entry['ms_per_10_s']:.1f}"))
    rows.append((str(folder / "easysed.json"), f"{(folder / 'easysed.json').stat().st_size / 1e6:.2f} MB", "", "", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    passes = description["masks"]["passes"]
    about = f"exit {model['exit']} of {model['num_exits']} of {model['name']}; {passes} passes in one call"
    return [*lines, f"{about}; deviation: of frame probabilities from PyTorch, on silence, noise and synthetic sounds"]
