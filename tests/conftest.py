"""Fixtures of the lab, and what needs root to run at all."""

import os
from collections.abc import Iterator

import hypothesis
import pytest

from tests.lab.lab import Lab

# The same examples in every run, and no limit on time: a busy machine fails nothing.  `./test fuzz` looks for new ones.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What builds nodes in namespaces cannot run without root; say so instead of failing."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("lab"):
            item.add_marker(pytest.mark.skip(reason="the lab needs root"))


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Two nodes with power, cables plugged, no hostd."""
    with Lab() as built:
        yield built
