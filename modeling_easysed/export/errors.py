"""What an export says when it fails, and what the libraries below it do not say."""

import contextlib
import importlib.util
import os
import warnings
from collections.abc import Iterator, Sequence

from modeling_easysed.cli.terminal import quiet_logging


class ExportError(ValueError):
    """A model that cannot be exported, or an export that does not equal its model; the message is one line."""


def check_installed(modules: Sequence[str], extra: str) -> None:
    """Raises ExportError where a module is missing, without importing any."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f'{", ".join(missing)} not installed: pip install "easysed[{extra}]"')


@contextlib.contextmanager
def quiet_exporters() -> Iterator[None]:
    """Keeps what exporters say about missing packages and their own future off the screen inside the block."""
    with quiet_logging(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def quiet_native_code() -> Iterator[None]:
    """Keeps off the screen what libraries in C++ write to the process's stderr, past Python, inside the block."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


__all__ = ["ExportError", "check_installed", "quiet_exporters", "quiet_native_code"]
