"""GFS2, mounted on both nodes at once, its locks kept by the kernel's DLM over Corosync.

hostd mounts and watches; membership for the locks is Corosync's and
dlm_controld's, and they fence on their own account.  Everything that would
make a mount fail late or hang is looked at before: kernel, Corosync,
dlm_controld (running, with its address in the kernel, quorate), and that the
filesystem was made for this cluster.

The lock table is read from the superblock: at byte 65536 (``GFS2_SB_ADDR`` 128
blocks of 512), big endian, magic 0x01161970 at offset 0, ``sb_lockproto`` at
96 and ``sb_locktable`` at 160, 64 bytes each (``struct gfs2_sb`` of
linux/gfs2_ondisk.h).  A withdraw, by which GFS2 takes itself out of service
after an error, is told by ``/sys/fs/gfs2/TABLE/withdraw`` (fs/gfs2/sys.c).
"""

import contextlib
import re
import struct
from pathlib import Path
from typing import NamedTuple

from hostd.api import AgentError, Field, Health, Parameters, Resource, hookimpl, probes, servers
from hostd.api.storage import mounting, mounts, places, unmounting
from hostd.api.storage.places import Wanted
from hostd.api.storage.unmounting import Leave

KERNEL = mounts.Kernel()
MAGIC = 0x01161970
SUPERBLOCK_AT = 65536
LOCK_PROTOCOL = "lock_dlm"


@hookimpl
def parameters() -> Parameters:
    return Parameters(
        Field("device", str, help="the shared disk: /dev/…, UUID=…, LABEL=…"),
        Field("directory", str, help="where it is mounted; it must exist"),
        Field("options", str, default="", help='options of gfs2(5), as in "noatime", "spectator" or "localflocks"'),
        Field("over", bool, default=False, help="mount even over a directory that is not empty, or over a mount"),
        Field("kill", str, default="never", choices=("never", "term", "kill"), help="what a stop does to its holders"),
        Field("lazy", bool, default=False, help="a stop takes it out of the tree even if it is held or hangs"),
        Field(
            "patience", places.seconds, default=10.0, help="seconds that a monitor lets the filesystem take to answer"
        ),
        summary="a GFS2 mount",
        timeouts={"start": "60s", "stop": "60s", "monitor": "40s"},
        monitor_interval="20s",
        monitor_depth=10,  # one that waits for a lock of a dead node does not answer
        # no sandbox: its locks are those of the machine's Corosync
        trial="a GFS2 that this node has not mounted, made for the cluster that Corosync runs here",
        mounts="directory",
    )


class Superblock(NamedTuple):
    protocol: str
    table: str


@hookimpl
def start(resource: Resource) -> None:
    wanted = _wanted(resource)
    probes.refuse_if_hanging(resource, "mount")
    found = places.find(wanted, mounts.table(KERNEL))
    try:
        if found.mount is not None:
            mounting.verified(resource, wanted, KERNEL)
            _complain_of_withdraw(resource)
            return
        _check_kernel(resource, load=True)
        _check_cluster(resource)
        _check_table(resource, _superblock(resource))
        places.check_place(resource, wanted, mounts.table(KERNEL), over=resource.params["over"])
        mounting.mount(resource, wanted, KERNEL)
    except probes.Hang as hang:
        raise _with_dlm(resource, hang) from hang


@hookimpl
def stop(resource: Resource) -> None:
    leave = Leave(resource.params["kill"], lazy=resource.params["lazy"])
    wanted = _wanted(resource)._replace(block="")  # others hold the disk too, and may
    try:
        unmounting.unmount(resource, wanted, leave, KERNEL)
    except probes.Hang as hang:
        raise _with_dlm(resource, hang) from hang
    _table_file(resource).unlink(missing_ok=True)


@hookimpl
def monitor(resource: Resource) -> Health:
    wanted = _wanted(resource)
    found = places.find(wanted, mounts.table(KERNEL))
    if found.mount is None:
        probes.refuse_if_hanging(resource, "mount")
        return Health.STOPPED
    _complain_of_withdraw(resource)
    mounting.complain(wanted, found)
    if resource.depth >= 10:
        limit = probes.patience(resource, resource.params["patience"])
        try:
            seen = mounting.look(resource, wanted, resource.depth, limit, slot="monitor")
        except probes.Hang as hang:
            raise _with_dlm(resource, hang) from hang
        if seen.full:
            resource.log.warning("%s is full: nothing can be written", wanted.directory)
            return Health.DEGRADED
    return Health.RUNNING


@hookimpl
def validate(resource: Resource) -> None:
    wanted = _wanted(resource)
    places.check_fstab(wanted.directory)
    _check_kernel(resource, load=False)
    servers.program(("dlm_tool",), cure="apt-get install dlm-controld")
    places.check_directory(resource, wanted.directory, over=True)
    superblock = _superblock(resource)
    if superblock.protocol != LOCK_PROTOCOL:
        _check_table(resource, superblock)


# -- what is wanted ----------------------------------------------------------------------


def _wanted(resource: Resource) -> Wanted:
    given, directory = resource.params["device"], places.directory_of(resource.params["directory"])
    options = places.options_of(resource.params["options"])
    for option in options:
        if option.startswith(("lockproto=", "locktable=")):
            raise AgentError(
                f"options has {option}: mounted so on two nodes, their locks would not meet",
                cure="remove it; tunegfs2 -o changes what the filesystem itself says",
            )
    if "spectator" in options and "ro" not in options:
        options = (*options, "ro")  # a spectator has no journal and cannot write
    device = places.device_of(resource, given)
    number = ""
    with contextlib.suppress(OSError):  # gone; found by its name in mountinfo, if it is mounted
        number = mounts.number_of(device) if device else ""
    sources = tuple({given, device} - {""})
    block = device if number else ""
    return Wanted(given, directory, "gfs2", options, number, "/", sources, ("gfs2",), block)


def _superblock(resource: Resource) -> Superblock:
    """What the filesystem says of its locks.  AgentError if it is no GFS2, or cannot be read."""
    given = resource.params["device"]
    device = places.device_of(resource, given)
    if not device:
        raise AgentError(f"there is no device with {given}", cure="is the disk connected? see lsblk and blkid")

    def read() -> bytes:
        with open(device, "rb", buffering=0) as disk:
            disk.seek(SUPERBLOCK_AT)
            return disk.read(4096)

    try:
        limit = probes.patience(resource, 20)
        data = probes.ask(resource, "superblock", f"a read of {device}", read, bytes, limit)
    except OSError as error:
        cure = "is the disk connected? see lsblk, and dmesg"
        raise AgentError(f"{device} cannot be read: {error.strerror}", cure=cure) from error
    if len(data) < 224 or struct.unpack_from(">I", data)[0] != MAGIC:
        cure = f"is it the right disk? mkfs.gfs2 -p lock_dlm -t CLUSTER:NAME -j 2 {device} makes one, and destroys"
        raise AgentError(f"there is no GFS2 on {device}", cure=cure)
    texts = (data[at : at + 64].partition(b"\0")[0].decode(errors="replace") for at in (96, 160))
    return Superblock(*texts)


# -- does all that it needs run? -----------------------------------------------------------


def _check_kernel(resource: Resource, *, load: bool) -> None:
    """AgentError unless the kernel has GFS2 and DLM, or modules for them, which it is told to ``load``."""

    def lacking() -> list[str]:
        types = (KERNEL.proc / "filesystems").read_text().split()
        has_dlm = any((KERNEL.sys / place).exists() for place in ("module/dlm", "kernel/config/dlm", "kernel/dlm"))
        return [] + ([] if "gfs2" in types else ["gfs2"]) + ([] if has_dlm else ["dlm"])

    if lacking():
        modprobe = servers.program(("modprobe",), cure="apt-get install kmod")
        argv = [modprobe, *([] if load else ["-n"]), "-a", *lacking()]
        done = probes.run(resource, "modprobe", argv, probes.patience(resource, 20))
        if done.returncode != 0 or (load and lacking()):
            said = done.stderr.strip().splitlines()
            raise AgentError(
                f"this kernel has no {' and no '.join(lacking())}{f': {said[0]}' if said else ''}",
                cure="install a kernel with both (linux-image-amd64 has them)",
            )


def _check_cluster(resource: Resource) -> None:
    """AgentError unless Corosync and dlm_controld are ready for a mount."""
    running = _commands()
    if "corosync" not in running:
        raise AgentError("Corosync does not run here", cure="systemctl start corosync, then dlm; GFS2 needs both")
    if "dlm_controld" not in running:
        raise AgentError("dlm_controld does not run here", cure="systemctl start dlm")
    comms = KERNEL.sys / "kernel/config/dlm/cluster/comms"

    def has_address() -> bool:
        # dlm_controld answers before that, and a mount then fails with ENOTCONN
        return any(mounts.text(local) == "1" for local in comms.glob("*/local"))

    until = resource.remaining - min(10.0, resource.remaining / 3)
    resource.wait(lambda: has_address() or resource.remaining <= until, "the wait did not end", pause=0.1)
    if not has_address():
        raise AgentError(
            f"dlm_controld has given the kernel no address of this node (no 1 in {comms}/*/local)",
            cure="see journalctl -u dlm; does Corosync know this node's address?",
        )
    tool = servers.program(("dlm_tool",), cure="apt-get install dlm-controld")
    status = probes.run(resource, "dlm-status", [tool, "status"], probes.patience(resource, 10))
    quorate = re.search(r"\bquorate (\d)", status.stdout)
    if status.returncode != 0 or quorate is None:
        said = " ".join((status.stderr or status.stdout).split())
        raise AgentError(f"dlm_controld does not answer: {said or 'no status'}", cure="see journalctl -u dlm")
    if quorate[1] != "1":
        raise AgentError(
            "Corosync has no quorum here, and the DLM grants no locks without it",
            cure="start Corosync on the other node, or set two_node: 1; see corosync-quorumtool -s",
        )


def _check_table(resource: Resource, superblock: Superblock) -> None:
    """AgentError unless the filesystem was made for DLM, and for this very cluster."""
    device = resource.params["device"]
    if superblock.protocol != LOCK_PROTOCOL:
        raise AgentError(
            f"{device} was made for one node only ({superblock.protocol or 'no lock protocol'}): "
            "mounted on two it is destroyed",
            cure=f"unmount it everywhere, then tunegfs2 -o lockproto=lock_dlm,locktable=CLUSTER:NAME {device}",
        )
    _table_file(resource).write_text(superblock.table)
    cluster, colon, name = superblock.table.partition(":")
    if not colon or not cluster or not name:
        raise AgentError(f'the lock table of {device} is "{superblock.table}", not CLUSTER:NAME', cure="see tunegfs2")
    here = _cluster_name(resource)
    if here != cluster:
        raise AgentError(
            f'{device} was made for the cluster "{cluster}", and Corosync\'s is "{here}"',
            cure=f"set cluster_name: {cluster} in corosync.conf, or unmount everywhere and "
            f"tunegfs2 -o locktable={here}:{name} {device}",
        )


def _cluster_name(resource: Resource) -> str:
    """As dlm_controld took it from Corosync, which is what the kernel compares; else from Corosync itself."""
    name = mounts.text(KERNEL.sys / "kernel/config/dlm/cluster/cluster_name")
    if name:
        return name
    tool = servers.program(("corosync-cmapctl",), cure="apt-get install corosync")
    argv = [tool, "-g", "totem.cluster_name"]
    said = probes.run(resource, "cmap", argv, probes.patience(resource, 10)).stdout
    return said.partition(" = ")[2].strip()


# -- what goes wrong -------------------------------------------------------------------------


def _complain_of_withdraw(resource: Resource) -> None:
    """AgentError if GFS2 has taken itself out of service."""
    table = mounts.text(_table_file(resource))
    places = sorted((KERNEL.sys / "fs/gfs2").glob("*/withdraw"))
    for place in places:
        # without a record of ours (hostd was installed anew) any withdraw counts, if it is the only GFS2
        is_ours = place.parent.name == table.replace("/", "_") if table else len(places) == 1
        if is_ours and mounts.text(place) not in ("", "0"):
            said = _kernel_says(resource, place.parent.name)
            raise AgentError(
                f"GFS2 has withdrawn from {place.parent.name} after an error{said}",
                cure="stop what uses it, unmount it (or reboot this node), fsck.gfs2 with all nodes unmounted",
            )


def _kernel_says(resource: Resource, table: str) -> str:
    try:
        dmesg = servers.program(("dmesg",), cure="apt-get install util-linux")
        log = probes.run(resource, "dmesg", [dmesg, "--notime"], probes.patience(resource, 3)).stdout
    except AgentError:
        return ""  # the withdraw itself is what matters
    lines = [line for line in log.splitlines() if f"fsid={table}" in line]
    return f"; the kernel says: {' | '.join(lines[-3:])}" if lines else ""


def _with_dlm(resource: Resource, hang: probes.Hang) -> AgentError:
    """What hung, and what the DLM waits for."""
    try:
        tool = servers.program(("dlm_tool",), cure="")
        said = probes.run(resource, "dlm-ls", [tool, "ls"], min(1.0, resource.remaining / 3)).stdout
    except AgentError:
        said = ""
    waits = sorted(set(re.findall(r"^new status\s+wait (.+)$", said, re.MULTILINE)))
    if "fencing" in waits:
        return AgentError(
            f"{hang.reason}; the DLM waits for a node to be fenced",
            cure="see dlm_tool status; once that node is off for sure: dlm_tool fence_ack NODEID",
        )
    waits_for = f"; the DLM waits for {', '.join(waits)}" if waits else ""
    return AgentError(hang.reason + waits_for, cure=hang.cure or "see dmesg and dlm_tool ls")


def _table_file(resource: Resource) -> Path:
    """Where start keeps the lock table: a monitor must not ask the disk for it."""
    return resource.run_dir / "locktable"


def _commands() -> set[str]:
    return {mounts.text(entry / "comm") for entry in KERNEL.proc.iterdir() if entry.name.isdigit()}
