"""Fixtures for what is judged with a whole cluster: two nodes, hostd on both."""

from collections.abc import Iterator

import pytest

from tests.lab.cluster import Cluster, LabService, Settings
from tests.lab.lab import Lab

MYSQL = LabService("mysql", "clustnode2", "172.23.2.13")
LDAP = LabService("ldap", "clustnode1", "172.23.2.14")
CYRUS = LabService("cyrus", "clustnode2", "172.23.2.15")
SIX = LabService("six", "clustnode2", "fd00:172:23:2::13")


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Both nodes up, every service (address only, one of them IPv6) on its primary.

    ``@pytest.mark.parametrize("cluster", [Settings(...)], indirect=True)`` for other settings.
    """
    with Lab() as lab:
        yield Cluster(lab, [MYSQL, LDAP, CYRUS, SIX], getattr(request, "param", Settings())).up()
