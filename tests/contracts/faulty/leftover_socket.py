"""Faulty: a worker that fled from the service's cgroup goes on listening."""

import sys

from hostd.api import Resource, hookimpl
from tests.contracts.sound_agent import end, living, note

BREAKS = ("leftover-sockets",)
SERVER = """
import os, socket, sys, time
door = socket.create_server(("127.0.0.1", 0))
door.set_inheritable(True)
if os.fork() == 0:
    os.setsid()
    mounts = [line.split()[4] for line in open("/proc/self/mountinfo") if " - cgroup2 " in line]
    if mounts:
        open(mounts[-1] + "/cgroup.procs", "w").write("0")
    open(sys.argv[1], "w").close()
    os.execve("/usr/bin/sleep", ["sleep", "30"], {})
time.sleep(1000000)
"""


def launch(resource: Resource) -> None:
    fled = resource.run_dir / "fled"
    note(resource).write_text(str(resource.spawn([sys.executable, "-S", "-c", SERVER, str(fled)])))
    resource.wait(fled.exists, "the worker did not begin")
    fled.unlink()


@hookimpl
def stop(resource: Resource) -> None:
    with resource.alone():
        if pid := living(resource):
            end(resource, pid)
        note(resource).unlink(missing_ok=True)
        (resource.run_dir / "fled").unlink(missing_ok=True)
