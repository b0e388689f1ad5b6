"""Faulty: start returns before the port is open, and monitor looks at the process only."""

import sys

BREAKS = ("start-usable",)
SERVER = """
import socket, time
time.sleep(0.25)
door = socket.create_server(("127.0.0.1", 0))
time.sleep(1000000)
"""
COMMAND = [sys.executable, "-S", "-c", SERVER]
