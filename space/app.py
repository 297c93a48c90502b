"""The Space serves the page of `easysed app`; EASYSED_MODEL points it at other checkpoints."""

import os
from pathlib import Path

device_page = Path(__file__).parent / "device"
if device_page.is_dir():
    os.environ.setdefault("EASYSED_DEVICE_PAGE", str(device_page))
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from modeling_easysed.app.server import serve  # noqa: E402

if __name__ == "__main__":
    serve("0.0.0.0", int(os.environ.get("PORT", "7860")))
