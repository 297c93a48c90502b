"""Files that were cut off, which decoders read in silence up to where they end."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

OGG_PAGE_HEADER = 27  # bytes before the table of segments
MAX_OGG_PAGE = 65307  # bytes: header, 255 segments and as many bytes in each
STREAMED_SIZE = 0x7FFFF000  # a wav written to a pipe announces this much or more, its length being unknown
SLACK_BYTES = 64  # some writers count a header twice


def missing_end(audio: Mapping[str, Any]) -> list[str]:
    """A sentence when a wav or ogg file ends before it says it does, else nothing.

    Args:
        audio: `{"path": ..., "bytes": ...}`, one of them None.
    """
    if audio["bytes"] is not None:
        content = audio["bytes"]
        head, tail, size = content[:12], content[-MAX_OGG_PAGE:], len(content)
    else:
        with Path(audio["path"]).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(12)
            if head[:4] != b"OggS":
                tail = b""
            else:
                file.seek(max(0, size - MAX_OGG_PAGE))
                tail = file.read()
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        announced = int.from_bytes(head[4:8], "little") + 8
    elif head[:4] == b"OggS":
        announced = size - len(tail) + _end_of_last_page(tail)
    else:
        return []
    if size + SLACK_BYTES < announced < STREAMED_SIZE:
        return [f"truncated: {size} of {announced} bytes are there, copy or record it again"]
    return []


def _end_of_last_page(tail: bytes) -> int:
    """Where the last ogg page that begins in `tail` says that it ends."""
    start = tail.rfind(b"OggS")
    num_segments = tail[start + OGG_PAGE_HEADER - 1] if start + OGG_PAGE_HEADER <= len(tail) else 1
    table = tail[start + OGG_PAGE_HEADER : start + OGG_PAGE_HEADER + num_segments]
    return start + OGG_PAGE_HEADER + num_segments + sum(table)
