"""Shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Models here are tiny: threads cost more than they bring, and tests run side by side. Set before
# torch is imported anywhere.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real benchmark files, where there is one."""
    folder = Path(os.environ.get("POLYPREFIX_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no benchmark files in {folder}; set POLYPREFIX_TEST_DATA")
    return folder
