"""Faulty: it runs a command while it is loaded."""

import subprocess

BREAKS = ("import-harmless",)
VERSION = subprocess.run(["sleep", "0"], check=False).returncode
