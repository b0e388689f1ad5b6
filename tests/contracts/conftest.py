"""Where the tests of agents keep their files.  Knows no agent."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.bench import folder_for_servers


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In the place of pytest's own, which a server's user cannot rely on."""
    with folder_for_servers() as folder:
        yield folder
