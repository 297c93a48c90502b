"""The server: the page on FastAPI, with limits, and nothing of one visitor within reach of another."""

import errno
import socket

import gradio as gr
from fastapi import FastAPI

from modeling_easysed.app.analysis import MAX_FILE_BYTES
from modeling_easysed.app.catalogue import Entry, load_catalogue
from modeling_easysed.app.live import add_live
from modeling_easysed.app.page import build_page, warm_up
from modeling_easysed.app.theme import make_theme, page_head

MAX_WAITING = 100


def build_app(catalogue: dict[str, Entry] | None = None) -> FastAPI:
    """The application, models loaded.

    Raises:
        ValueError: a model that cannot be loaded.
    """
    catalogue = load_catalogue() if catalogue is None else catalogue
    for entry in catalogue.values():
        warm_up(entry)
    page = build_page(catalogue).queue(max_size=MAX_WAITING, default_concurrency_limit=4)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    add_live(app, catalogue)  # before gradio, which answers everything else
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


__all__ = ["build_app", "check_port", "serve"]
