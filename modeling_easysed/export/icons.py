"""The page's icons: lanes with a bar for every decision, drawn as PNG in the palette's colours."""

import struct
import zlib

import numpy as np

from modeling_easysed.palette_easysed import DARK

SIZES = (192, 512)
OVERSAMPLING = 4  # for smooth edges
BARS = (  # decision, left, right, top, bottom as shares of the middle part
    ("accept", 0.06, 0.70, 0.08, 0.30),
    ("review", 0.34, 0.94, 0.39, 0.61),
    ("reject", 0.14, 0.52, 0.70, 0.92),
)
MARGIN = 0.2  # around the middle part, so that a mask may cut a circle


def icon(size: int) -> bytes:
    """A square PNG, `size` pixels wide."""
    wide = size * OVERSAMPLING
    across = (np.arange(wide) + 0.5) / wide
    x, y = np.meshgrid(*((across - MARGIN) / (1 - 2 * MARGIN),) * 2)
    pixels = np.empty((wide, wide, 3))
    pixels[:] = _rgb(DARK.background)
    for decision, left, right, top, bottom in BARS:
        own = DARK.decisions[decision]
        outer = _inside(x, y, left, right, top, bottom)
        inner = _inside(x, y, left + 0.03, right - 0.03, top + 0.03, bottom - 0.03)
        pixels[outer] = _rgb(own.edge)
        pixels[inner] = _rgb(DARK.background if own.fill is None else own.fill)
        if decision == "review":
            pixels[inner & ((x + y) % 0.12 < 0.035)] = _rgb(own.edge)
    small = pixels.reshape(size, OVERSAMPLING, size, OVERSAMPLING, 3).mean(axis=(1, 3))
    return _png(np.round(small).astype(np.uint8))


def _inside(x: np.ndarray, y: np.ndarray, left: float, right: float, top: float, bottom: float) -> np.ndarray:
    return (left <= x) & (x < right) & (top <= y) & (y < bottom)


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour.removeprefix("#")))


def _png(pixels: np.ndarray) -> bytes:
    """A PNG of (height, width, 3) bytes. Source: the PNG specification, sections 5 and 11."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    framed = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


__all__ = ["SIZES", "icon"]
