"""What a service has on the machine: sockets, mounts, files.

Looks and compares; decides neither whether something may be there nor whose
fault it is.
"""

import os
import socket
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil


def listening(pids: Iterable[int]) -> frozenset[str]:
    """The sockets that these processes listen on, as ``tcp 127.0.0.1:80`` or ``unix /run/x``."""
    found: set[str] = set()
    for pid in pids:
        try:
            connections = psutil.Process(pid).net_connections("all")
        except psutil.Error:
            continue
        found |= {name for connection in connections if (name := _name(connection))}
    return frozenset(found)


def still_listening(names: Iterable[str]) -> frozenset[str]:
    """Which of these sockets anybody on this machine still has."""
    everywhere = {name for connection in psutil.net_connections("all") if (name := _name(connection))}
    return frozenset(names) & everywhere


def _name(connection: Any) -> str:
    """ "" for a socket that nobody can connect to."""
    if connection.family == socket.AF_UNIX:
        return f"unix {connection.laddr}" if connection.laddr else ""
    if connection.status == psutil.CONN_LISTEN:
        return f"tcp {connection.laddr.ip}:{connection.laddr.port}"
    is_server = connection.type == socket.SOCK_DGRAM and connection.laddr and not connection.raddr
    return f"udp {connection.laddr.ip}:{connection.laddr.port}" if is_server else ""


def files(folder: Path) -> dict[str, str]:
    """Everything below a folder: relative name → what it is (file, folder, socket, pipe, link)."""
    found: dict[str, str] = {}
    for where, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(where, name)
            try:
                found[str(path.relative_to(folder))] = _kind(path.lstat().st_mode)
            except FileNotFoundError:
                continue  # it went meanwhile
    return found


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "folder", stat.S_IFSOCK: "socket", stat.S_IFIFO: "pipe", stat.S_IFLNK: "link"}
    return kinds.get(stat.S_IFMT(mode), "file")


def mounts() -> dict[str, str]:
    """Every mount that this process sees: number and place → what is mounted."""
    found = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        found[f"{fields[0]} {fields[4]}"] = f"{right.split()[1]} at {fields[4]}"
    return found
