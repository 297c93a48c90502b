"""The server: the page on FastAPI, with limits, and nothing of one visitor within reach of another."""

import errno
import os
import socket
from pathlib import Path

import gradio as gr
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from modeling_easysed.app.analysis import MAX_FILE_BYTES
from modeling_easysed.app.catalogue import Entry, load_catalogue
from modeling_easysed.app.live import add_live
from modeling_easysed.app.page import build_page, warm_up
from modeling_easysed.app.theme import make_theme, page_head
from modeling_easysed.bundled import DEVICE_VARIABLE

MAX_WAITING = 100


def build_app(catalogue: dict[str, Entry] | None = None, device_page: str | Path | None = None) -> FastAPI:
    """The application, models loaded.

    Args:
        catalogue: the models; None = see `load_catalogue`.
        device_page: what `easysed export --to web` wrote, to be served as /device; None = the folder that the variable
            EASYSED_DEVICE_PAGE names, if any.

    Raises:
        ValueError: a model that cannot be loaded, or a folder without a page.
    """
    device_page = find_device_page(device_page)
    catalogue = load_catalogue() if catalogue is None else catalogue
    for entry in catalogue.values():
        warm_up(entry)
    page = build_page(catalogue, device_page is not None).queue(max_size=MAX_WAITING, default_concurrency_limit=4)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    add_live(app, catalogue)  # before gradio, which answers everything else
    if device_page is not None:
        app.mount("/device", StaticFiles(directory=device_page, html=True))
    app = gr.mount_gradio_app(
        app,
        page,
        path="/",
        theme=make_theme(),
        head=page_head(),
        max_file_size=MAX_FILE_BYTES,
        allowed_paths=[],
        show_error=False,
        ssr_mode=False,
        footer_links=["api"],
    )
    # Without it a mounted page of gradio 6 takes any path of the server that a program names for an upload.
    page.has_launched = True
    return app


def find_device_page(folder: str | Path | None) -> Path | None:
    """The folder of the page for the device, or None where there is none.

    Raises:
        ValueError: it holds no such page.
    """
    wanted = os.environ.get(DEVICE_VARIABLE, "") if folder is None else str(folder)
    if not wanted:
        return None
    found = Path(wanted).expanduser()
    if not (found / "index.html").is_file() or not (found / "easysed.json").is_file():
        raise ValueError(f"folder {found} has no page for the device: make it with easysed export --to web")
    return found


def check_port(host: str, port: int) -> None:
    """Raises OSError with one line where nothing can be served there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise OSError(f"port {port} of {host} is in use: stop what runs there, or pass --port") from error
            raise OSError(f"{host}:{port} cannot be used ({error.strerror}): pass --host or --port") from error


def serve(host: str = "127.0.0.1", port: int = 7860, app: FastAPI | None = None) -> None:
    """Serves until it is stopped."""
    import uvicorn

    check_port(host, port)
    uvicorn.run(build_app() if app is None else app, host=host, port=port, log_level="warning")


__all__ = ["build_app", "check_port", "find_device_page", "serve"]
