"""Faulty: parameters asks the service's program, which may not be installed."""

import subprocess

from hostd.api import Field, Parameters, hookimpl
from tests.contracts.sound_agent import LIMITS

BREAKS = ("parameters",)


@hookimpl
def parameters() -> Parameters:
    said = subprocess.run(["sleep", "--version"], capture_output=True, text=True, check=True).stdout
    return Parameters(
        Field("version", str, default=said.split()[3], help="of the program"),
        summary="one sleeping process",
        timeouts=LIMITS,
    )
