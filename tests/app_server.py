"""The app on a free port, in a process of its own, for tests and benchmarks."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running_app(folder: Path, start_s: float = 180.0, **environment: str) -> Iterator[tuple[str, int]]:
    """Address and process id of `easysed app`; its uploads lie in `folder`."""
    port = free_port()
    own = {**os.environ, "GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False", **environment}
    command = [sys.executable, "-m", "modeling_easysed.cli.main", "app", "--port", str(port)]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, env=own, stdout=log, stderr=log)
        try:
            wait_for(f"http://127.0.0.1:{port}/", process, start_s, log)
            yield f"http://127.0.0.1:{port}/", process.pid
        finally:
            process.terminate()
            process.wait(30)


def wait_for(address: str, process: subprocess.Popen, start_s: float = 180.0, log: IO[str] | None = None) -> None:
    """Returns when a server answers; what it wrote into `log` goes into the error where it does not."""
    until = time.monotonic() + start_s
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=10):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    if log is not None:
        log.seek(0)
    raise RuntimeError(f"the app did not start: {'' if log is None else log.read()[-2000:]}")
