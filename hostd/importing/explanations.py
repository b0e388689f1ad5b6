"""Why a directive is not needed or cannot be taken over, and what to do instead.

Words only, by name: the tables that ``directives`` looks its reasons up in,
and that docs/from-heartbeat.md must agree with.
"""

from typing import Final

_JOURNAL: Final = "hostd logs to the journal: journalctl -u hostd, and hostd log for the cluster's timeline"
_WIRE: Final = "belongs to Heartbeat's format on the wire; hostd's is small, sealed and has no such switch"
_REALTIME: Final = "hostd beats with real-time scheduling wherever the machine grants it"
_PACEMAKER: Final = "means something with Pacemaker only"

NOT_NEEDED: Final = {
    "apiauth": "who may talk to hostd is decided by the owner and mode of its socket (root)",
    "use_logd": _JOURNAL,
    "conn_logd_time": _JOURNAL,
    "logfile": _JOURNAL,
    "debugfile": _JOURNAL,
    "logfacility": _JOURNAL,
    "syslogmsgfmt": _JOURNAL,
    "log_badpack": "hostd counts rejected frames per link: hostd status --json",
    "use_apphbd": "systemd watches hostd (Type=notify)",
    "coredumps": "systemd decides about core dumps",
    "coreroot": "systemd decides about core dumps",
    "realtime": _REALTIME,
    "rtprio": _REALTIME,
    "memreserve": "hostd's heart locks its memory by itself",
    "hopfudge": "hostd's serial line joins two nodes: nothing is passed on",
    "hbgenmethod": "hostd's nodes draw a new incarnation at each start",
    "uuidfrom": "hostd's nodes are known by their names",
    "msgfmt": _WIRE,
    "compression": _WIRE,
    "compression_threshold": _WIRE,
    "traditional_compression": _WIRE,
    "max_rexmit_delay": "hostd repeats what is news with every heartbeat: nothing is asked for again",
    "normalpoll": "is a switch for debugging Heartbeat itself",
    "crm_daemon_dir": _PACEMAKER,
    "crmd_spawns_pengine": _PACEMAKER,
    "enable_config_writes": _PACEMAKER,
    "record_config_changes": _PACEMAKER,
    "record_pengine_inputs": _PACEMAKER,
}
"""Directive → why it can be left out."""

REFUSED: Final = {
    "hbaping": ("hostd has no Fibre Channel ping", "watch the disk by a service that needs it, or remove the line"),
    "quorum_server": (
        "hostd has no quorum server",
        "name the router in [tiebreaker] ping, or better add fencing",
    ),
    "rds": ("hostd has no heartbeat over RDS", 'add a link of type "udp" over the same network'),
    "tipc": ("hostd has no heartbeat over TIPC", 'add a link of type "udp" over the same network'),
    "openais": ("was taken out of Heartbeat before 3.0", "add links of the types udp and serial"),
}
"""Directive → reason and cure."""

CRM_CURE: Final = (
    "nothing is converted: write conf.d by hand after `crm configure show` or cib.xml, "
    "or, if haresources is what you want, set crm off first"
)

_FENCE_AGENTS: Final = {
    "external/ipmi": "fence_ipmilan",
    "ipmilan": "fence_ipmilan",
    "external/drac5": "fence_drac5",
    "drac3": "fence_drac",
    "external/riloe": "fence_ilo",
    "riloe": "fence_ilo",
    "ribcl": "fence_ilo",
    "apcmaster": "fence_apc",
    "apcmastersnmp": "fence_apc_snmp",
    "external/rackpdu": "fence_apc_snmp",
    "bladehpi": "fence_bladecenter",
    "ibmhmc": "fence_lpar",
    "wti_nps": "fence_wti",
    "wti_mpc": "fence_wti",
    "external/libvirt": "fence_virsh",
    "external/vcenter": "fence_vmware_soap",
    "external/sbd": "fence_sbd",
}
_NO_FENCING: Final = ("ssh", "external/ssh", "null", "suicide", "meatware")


def fencing(kind: str) -> tuple[str, str]:
    """Reason and cure for a STONITH device of this type."""
    where = 'until then [fencing] mode = "required" stands without it: a silent node needs `hostd confirm-down`'
    if kind in _NO_FENCING:
        reason = "is no device that can confirm that a node is off"
        return reason, f"add a real one as [[fencing.device]]; {where}"
    reason = "hostd drives devices by fence agents, whose parameters have other names"
    agent = _FENCE_AGENTS.get(kind)
    hint = f'agent = "{agent}"' if agent else "a fence agent for this device"
    return reason, f"add [[fencing.device]] with {hint}, its password in a file of mode 0600; {where}"


def respawned(program: str) -> tuple[str, str]:
    """Reason and cure for a helper that Heartbeat kept running; without a cure it is not needed."""
    if program in ("ipfail", "pingd"):
        return "its work, to leave a node that does not reach the ping nodes, is [tiebreaker]'s", ""
    if program == "dopd":
        reason = "hostd does not outdate DRBD's peer"
        cure = "use DRBD's own fence-peer handlers, or fencing of the node ([fencing])"
        return reason, cure
    if program == "ccm":
        return "hostd's membership is built in", ""
    reason = "hostd keeps no helpers running"
    return reason, 'make it a systemd unit with Restart=always, or a service with on = "all"'
