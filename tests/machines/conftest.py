"""Fixtures of the emulated machines: the image once per session, a pair once per module."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machines import image as images
from tests.machines.cluster import Cluster, Settings
from tests.machines.image import Image
from tests.machines.pair import Pair
from tests.machines.undisturbed import Undisturbed

HERE = Path(__file__).parent
TIMEOUT_S = 1800
"""For one test with the fixtures that it is the first to need: emulation beside other work is slow."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is run by ``./test machines`` only, and has time."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.machines)
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="machines are built as root"))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A failure at once: the end may be an hour away."""
    if report.failed:
        print(f"\n{report.longreprtext}", flush=True)


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """What the machines are made of; nobody else on this host runs machines meanwhile."""
    with images.alone():
        yield images.image()


@pytest.fixture(scope="module")
def pair(image: Image) -> Iterator[Pair]:
    """Both machines up, hostd installed and not configured; power is on at the start of the module only."""
    with Pair(image) as made:
        made.restore()
        yield made


@pytest.fixture(scope="module")
def cluster(pair: Pair, request: pytest.FixtureRequest) -> Cluster:
    """hostd started on both, every service on its primary.  A module's ``SETTINGS`` say with which conf.d."""
    made = Cluster(pair, getattr(request.module, "SETTINGS", Settings()))
    made.configure()
    made.start()
    return made


@pytest.fixture
def undisturbed(cluster: Cluster) -> Iterator[Undisturbed]:
    """Checked at the end of the test, when all is on its primary."""
    watch = Undisturbed(cluster)
    yield watch
    cluster.wait_for(cluster.primaries)
    watch.assert_holds()
