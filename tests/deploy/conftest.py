"""Where things are, for the tests of what is deployed.

They read files and run checkers; nothing of the program is built or started, but for
promtool, which scripts/test puts on the PATH.
"""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.dont_write_bytecode = True


@pytest.fixture(scope="session")
def root():
    """The repository."""
    return ROOT
