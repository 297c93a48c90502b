"""Where tests find data that lives beside the repository, and what they must not leave behind."""

import os
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """Accelerate keeps its precision for the life of a process: no test inherits another's."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The data folder: EASYSED_DATA, or ../shared/data from the repository root.

    Without it the tests that need it are skipped; with EASYSED_REQUIRE_DATA=1 they fail.
    """
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("EASYSED_DATA", default))
    if not folder.is_dir():
        message = f"data folder {folder} not found; set EASYSED_DATA to the folder that holds metric_vectors/"
        if os.environ.get("EASYSED_REQUIRE_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return folder
