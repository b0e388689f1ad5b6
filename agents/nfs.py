"""An NFS mount: ``host:/path`` at a directory, whose server may die without anything hanging here.

Options and their meaning are those of nfs(5).  A mount that waits for its
server ("hard", the kernel's default) never loses a write, and keeps every
process that uses it waiting; "soft" gives up after ``retrans`` times
``timeo`` and may lose what was being written.  hostd itself waits for
neither: what asks the server is a child.
"""

import re
import socket

from hostd.api import AgentError, Field, Health, Parameters, Resource, hookimpl, probes, servers
from hostd.api.storage import mounting, mounts, places, unmounting
from hostd.api.storage.places import Wanted
from hostd.api.storage.unmounting import Leave

KERNEL = mounts.Kernel()
FSTYPES = ("nfs", "nfs4")
PORT = 2049
VERSIONS = ("3", "4", "4.0", "4.1", "4.2")
PROTOCOLS = ("tcp", "udp", "rdma", "tcp6", "udp6", "rdma6")
NUMBERS = ("timeo", "retrans", "retry", "port", "rsize", "wsize", "nconnect")


@hookimpl
def parameters() -> Parameters:
    return Parameters(
        Field("export", str, help='host:/path; an IPv6 address in brackets: "[2001:db8::1]:/srv"'),
        Field("directory", str, help="where it is mounted; it must exist"),
        Field("options", str, default="", help='options of nfs(5), as in "vers=4.2,soft,timeo=50"'),
        Field("over", bool, default=False, help="mount even over a directory that is not empty, or over a mount"),
        Field("kill", str, default="never", choices=("never", "term", "kill"), help="what a stop does to its holders"),
        Field("force", bool, default=False, help="a stop gives up requests that a dead server does not answer"),
        Field("lazy", bool, default=False, help="a stop takes it out of the tree even if it is held or hangs"),
        Field("patience", places.seconds, default=10.0, help="seconds that a monitor lets the server take to answer"),
        summary="an NFS mount",
        timeouts={"start": "60s", "stop": "60s", "monitor": "40s"},
        monitor_interval="20s",
        monitor_depth=10,  # at depth 0 a dead server is not noticed
        # no sandbox: it would change what this machine's own NFS server exports
        trial="an export and a directory that nobody uses",
        mounts="directory",
    )


@hookimpl
def start(resource: Resource) -> None:
    wanted = _wanted(resource)
    probes.refuse_if_hanging(resource, "mount")
    try:
        found = places.find(wanted, mounts.table(KERNEL))
        if found.mount is not None:
            mounting.verified(resource, wanted, KERNEL)
            return
        servers.program(("mount.nfs",), cure="apt-get install nfs-common")
        places.check_place(resource, wanted, mounts.table(KERNEL), over=resource.params["over"])
        mounting.mount(resource, wanted, KERNEL)
    except probes.Hang as hang:
        raise _with_server(resource, hang) from hang


@hookimpl
def stop(resource: Resource) -> None:
    leave = Leave(resource.params["kill"], lazy=resource.params["lazy"], force=resource.params["force"])
    try:
        unmounting.unmount(resource, _wanted(resource), leave, KERNEL)
    except probes.Hang as hang:
        worse = _with_server(resource, hang)
        raise AgentError(
            worse.reason,
            cure="bring the server back; or set force = true (unanswered writes are lost) or lazy = true",
        ) from hang


@hookimpl
def monitor(resource: Resource) -> Health:
    wanted = _wanted(resource)
    found = places.find(wanted, mounts.table(KERNEL))
    if found.mount is None:
        probes.refuse_if_hanging(resource, "mount")
        return Health.STOPPED
    mounting.complain(wanted, found)
    if resource.depth >= 10:
        limit = probes.patience(resource, resource.params["patience"])
        try:
            seen = mounting.look(resource, wanted, resource.depth, limit, slot="monitor")
        except probes.Hang as hang:
            raise _with_server(resource, hang) from hang
        if seen.full:
            resource.log.warning("%s is full: nothing can be written", wanted.directory)
            return Health.DEGRADED
    return Health.RUNNING


@hookimpl
def validate(resource: Resource) -> None:
    wanted = _wanted(resource)
    places.check_fstab(wanted.directory)
    servers.program(("mount.nfs",), cure="apt-get install nfs-common")
    places.check_directory(resource, wanted.directory, over=True)


def _wanted(resource: Resource) -> Wanted:
    export, path = resource.params["export"], places.directory_of(resource.params["directory"])
    host = _host(export)
    options = places.options_of(resource.params["options"])
    _check_options(options, host)
    if not any(option.startswith("retry=") for option in options):
        options = (*options, "retry=0")  # mount would try for two minutes; trying again is hostd's business
    same = tuple({export, export.rstrip("/")})
    return Wanted(export, path, "nfs", options, root="", sources=same, fstypes=FSTYPES)


def _host(export: str) -> str:
    """The host of ``host:/path``, without brackets.  AgentError if that is not its form."""
    parts = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+(?:%\w+)?)\]|([^\[\]:/\s]+)):/\S*", export)
    if parts:
        return parts[1] or parts[2]
    cure = 'write export = "host:/path"'
    if export.count(":") > 1:
        cure = 'put an IPv6 address in brackets: export = "[2001:db8::1]:/path"'
    raise AgentError(f'export = "{export}" is not of the form host:/path', cure=cure)


def _check_options(options: tuple[str, ...], host: str) -> None:
    """AgentError for what mount.nfs would refuse late or obscurely."""
    given = dict(option.partition("=")[::2] for option in options)
    if "soft" in given and "hard" in given:
        raise AgentError("options has both soft and hard", cure="keep hard, unless lost writes do no harm")
    if "bg" in given:
        raise AgentError("options has bg: mount would return before anything is mounted", cure="remove bg")
    version = given.get("vers") or given.get("nfsvers")
    if version is not None and version not in VERSIONS:
        raise AgentError(f"options has vers={version}, which is none of {', '.join(VERSIONS)}", cure="set vers=4.2")
    protocol = given.get("proto")
    if protocol is not None and protocol not in PROTOCOLS:
        raise AgentError(f"options has proto={protocol}, which is none of {', '.join(PROTOCOLS)}", cure="set proto=tcp")
    if protocol and ":" in host and not protocol.endswith("6"):
        raise AgentError(f"options has proto={protocol}, and {host} is an IPv6 address", cure=f"set proto={protocol}6")
    for name in NUMBERS:
        if name in given and not given[name].isdecimal():
            raise AgentError(f"options has {name}={given[name]}, which is no whole number", cure=f"set {name}=…")


def _with_server(resource: Resource, hang: probes.Hang) -> AgentError:
    """What hung, and what its server says to that."""
    host = _host(resource.params["export"])
    given = dict(option.partition("=")[::2] for option in resource.params["options"].split(","))
    port = int(given.get("port") or PORT)

    def knock() -> str:
        try:
            socket.create_connection((host, port), timeout=1).close()
        except OSError as error:
            return f"{host} accepts no connection at port {port}: {error.strerror or error}"
        return f"{host} accepts connections at port {port}"

    try:
        said = probes.ask(resource, "server", f"a connection to {host}", knock, str, min(1.5, resource.remaining / 3))
    except AgentError as error:
        said = error.reason
    return AgentError(f"{hang.reason}; {said}", cure=f"see to the NFS server {host}")
