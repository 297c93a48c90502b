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
            _wait(f"http://127.0.0.1:{port}/", process, log, time.monotonic() + start_s)
            yield f"http://127.0.0.1:{port}/", process.pid
        finally:
            process.terminate()
            process.wait(30)


def _wait(address: str, process: subprocess.Popen, log: object, until: float) -> None:
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=10):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    log.seek(0)
    raise RuntimeError(f"the app did not start: {log.read()[-2000:]}")
