"""What a person at a terminal sees while a command works; nothing of it is written when stderr is no terminal."""

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def status(text: str) -> Iterator[None]:
    """Shows a line while the block runs, then takes it away."""
    if not sys.stderr.isatty():
        yield
        return
    print(f"{text} ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def progress_bar(num_files: int, enabled: bool = True) -> Any:
    """A tqdm bar over files, shown after one second of work."""
    from tqdm import tqdm

    return tqdm(
        total=num_files,
        delay=1,
        leave=False,
        dynamic_ncols=True,
        file=sys.stderr,
        disable=not (enabled and sys.stderr.isatty()),
        bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed} < {remaining}",
    )


def warning_line(path: Path, warning: str) -> str:
    """A warning as it is told: with the recording it is about, or as it is where it is about the model or the goal."""
    from modeling_easysed.reasons_easysed import INPUT_WORDS

    return f"{path}: {warning}" if warning.startswith(INPUT_WORDS) else warning


@contextlib.contextmanager
def quiet_libraries(enabled: bool) -> Iterator[None]:
    """Keeps messages and progress bars of transformers, huggingface_hub and what they import off the screen inside."""
    with quiet_messages(enabled), quiet_bars(enabled):
        yield


@contextlib.contextmanager
def quiet_messages(enabled: bool) -> Iterator[None]:
    """Log messages and warnings of any library, without importing one."""
    if not enabled:
        yield
        return
    with quiet_logging(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def quiet_bars(enabled: bool) -> Iterator[None]:
    """Progress bars of transformers and huggingface_hub; imports both."""
    if not enabled:
        yield
        return
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as transformers_logging

    had_bars, had_hub_bars = transformers_logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    transformers_logging.disable_progress_bar()
    disable_progress_bars()
    try:
        yield
    finally:
        if had_bars:
            transformers_logging.enable_progress_bar()
        if had_hub_bars:
            enable_progress_bars()


@contextlib.contextmanager
def quiet_logging() -> Iterator[None]:
    """Switches all logging off inside the block, also of libraries that log while they are imported."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
