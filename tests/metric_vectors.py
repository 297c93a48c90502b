"""Loading and comparing of the stored metric vectors, `metric_vectors/*.json` of the data folder."""

import json
from pathlib import Path
from typing import Any

import pytest

SED_VECTORS = [
    "sed_small",
    "sed_absent_classes",
    "sed_many_files",
    "sed_ties",
    "sed_variable_duration",
    "sed_easy_aligned",
    "sed_random",
]

PSDS_SCENARIOS = {
    "psds1": {"dtc": 0.7, "gtc": 0.7},
    "psds2": {"dtc": 0.1, "gtc": 0.1, "cttc": 0.3, "alpha_ct": 0.5},
}

TOLERANCE = 1e-9


def load_vectors(data_dir: Path, name: str) -> dict[str, Any]:
    return json.loads((data_dir / "metric_vectors" / f"{name}.json").read_text())


def close(expected: Any) -> Any:
    """What a value must equal: within 1e-9, and nan where the vectors hold null."""
    return pytest.approx(float("nan") if expected is None else expected, abs=TOLERANCE, rel=0, nan_ok=True)
