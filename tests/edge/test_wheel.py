"""The package as others install it: agents and plugins come along and are found."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.timeout(180)
def test_the_wheel_brings_its_agents_and_plugins(tmp_path: Path) -> None:
    """Installed away from the checkout, every bundled extension is found in the package."""
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    subprocess.run([*pip, "wheel", str(ROOT), "--no-deps", "-w", str(wheels)], check=True, cwd=tmp_path)
    (wheel,) = wheels.glob("hostd-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True, cwd=tmp_path)
    listed = subprocess.run(
        [sys.executable, "-m", "hostd.commands.agent_main", "list"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for folder in ("agents", "plugins"):
        for file in sorted((ROOT / folder).glob("*.py")):
            assert str(site / "hostd" / "_bundled" / folder / file.name) in listed
