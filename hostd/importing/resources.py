"""One resource of haresources → an address or an agent.

Decides what stands in for each script that Heartbeat could run: hostd's own
addresses and agents where it has one, the OCF agent that Heartbeat's wrapper
called, the init script, or the site's script as it is.  Knows nothing of the
group around it.
"""

import re
import shlex
from collections.abc import Callable
from typing import Any, Final

import msgspec

from hostd.confd.values import Unfit, counted
from hostd.importing import addresses, haresources, instances, texts
from hostd.importing.fates import Ledger, Line, Verdict
from hostd.importing.haresources import Call, Surprise, Word
from hostd.importing.site import FROM_PACKAGES, STOCK, Origin, Site
from hostd.importing.writing import Inline

NATIVE: Final = {
    "mysql": ("mysql", "mysqld", "mariadb"),
    "ldap": ("ldap", "slapd", "openldap"),
    "cyrus": ("cyrus", "cyrus-imapd", "cyrus2", "cyrus21", "cyrus22", "cyrus23", "cyrus24"),
    "httpd": ("httpd", "httpd2", "http", "apache2", "apache"),
}
"""hostd's agent → init scripts whose server it runs."""
_AGENT_OF: Final = {script: agent for agent, scripts in NATIVE.items() for script in scripts}
_PARAMS: Final = {"mysql": Inline(datadir="/var/lib/mysql")}
"""What a native agent must be told, as distributions have it."""
_FROM_RESOURCE_AGENTS: Final = "the OCF agent that Heartbeat's script called (package resource-agents)"
WORD_MAX: Final = 1_000
"""Longer than any path; hostd itself has a limit of the same kind."""
_SHELL: Final = re.compile(r"[*?\[\\]")
"""Heartbeat's shell code expands or swallows these on the way to the script."""
_SURPRISES: Final = {
    Surprise.BACKSLASH: (
        "ends in a backslash that is not the end of its line: the line was cut here",
        "take the blank (or the DOS line end) after the backslash away",
    ),
    Surprise.HASH: (
        "stands in a comment on a continued line, and there Heartbeat knows no comments: it is a resource to it",
        "put the comment on a line of its own above the group",
    ),
}


class Rung(msgspec.Struct, frozen=True):
    """One resource of a service, in conf.d's terms."""

    table: Inline
    word: str
    """As haresources has it."""
    name: str = ""
    """What a service that consists of it could be called; empty: nothing that tells it from others."""
    ip: str = ""
    """If it is an address."""
    is_complete: bool = True
    """False: a parameter of it was refused."""


class Unusable(Exception):
    """A resource that is not converted: reason, and cure."""

    def __init__(self, reason: str, cure: str) -> None:
        super().__init__(reason)
        self.reason, self.cure = reason, cure


class Converted(msgspec.Struct, frozen=True):
    """A resource as conf.d has it, and what should be known of it (empty: nothing)."""

    table: Inline
    name: str = ""
    ip: str = ""
    reason: str = ""
    cure: str = ""


class Resources:
    """Converts the resources of one node's site.  ``agents``: those that hostd has here."""

    def __init__(self, site: Site, agents: frozenset[str], ledger: Ledger, *, keep_scripts: bool = False) -> None:
        self._site, self._agents, self._ledger = site, agents, ledger
        self._keep_scripts = keep_scripts
        self.used: set[str] = set()
        """Scripts that haresources names, and whole words of OCF instances."""

    def rung(self, word: Word, line: Line) -> Rung | None:
        """The resource, or None if it is refused; its fate is told."""
        shown = texts.shown(word.text)
        refused_before = self._ledger.count(Verdict.REFUSED)
        try:
            text = _clean(word)
            converted = self._convert(haresources.call(text), text)
        except Unusable as unusable:
            self._ledger.refused(line, shown, unusable.reason, unusable.cure)
            return None
        except Unfit as unfit:
            self._ledger.refused(line, shown, unfit.rule, unfit.cure)
            return None
        became = _became(converted.table)
        reason = "; ".join(part for part in (_surprised(word), converted.reason) if part)
        if reason:
            self._ledger.warned(line, shown, became, reason, converted.cure)
        else:
            self._ledger.converted(line, shown, became)
        is_complete = self._ledger.count(Verdict.REFUSED) == refused_before
        return Rung(converted.table, text, converted.name, converted.ip, is_complete)

    def _convert(self, call: Call, word: str) -> Converted:
        self.used.add(call.script)
        origin = self._site.origin(call.script)
        if call.script == "OCF" and origin is Origin.STOCK:
            self.used.add(word)
            return self._instance(call)
        if origin is Origin.STOCK and call.script in _STOCK:
            return _STOCK[call.script](call)
        if origin is Origin.STOCK:
            raise Unusable("drives hardware of its time, or is no resource at all", "leave it out")
        if call.script in FROM_PACKAGES and origin in (Origin.OWN, Origin.UNKNOWN, Origin.NOWHERE):
            return self._packaged(call, origin)
        if call.arguments or origin is Origin.OWN:
            return self._script(call, origin)
        return self._init_script(call, origin)

    def _instance(self, call: Call) -> Converted:
        """``OCF::type::instance``: the parameters are in a file of their own."""
        if len(call.arguments) != 2:
            raise Unusable("is not OCF::TYPE::INSTANCE", "write the type and the name of its parameter file")
        kind, name = call.arguments
        content = self._site.instance(kind, name)
        if content is None:
            raise Unusable(f"has no parameter file conf/OCF/{kind}/{name}", "copy it into the directory")
        file = f"conf/OCF/{kind}/{name}"
        params = instances.parameters(content, file, self._ledger)
        provider = self._site.provider(kind)
        reason = "" if provider else "whose provider could not be looked up here: heartbeat is assumed"
        return Converted(_agent(f"ocf:{provider or 'heartbeat'}:{kind}", **params), name, reason=reason)

    def _packaged(self, call: Call, origin: Origin) -> Converted:
        package = FROM_PACKAGES[call.script]
        reason = "" if origin is Origin.OWN else f"its script is not in resource.d here (Debian: {package})"
        if call.script.startswith("drbd"):
            # hostd promotes nothing by itself; the script makes its node primary, as it did under Heartbeat
            reason = "; ".join(filter(None, (reason, "DRBD must not be started promoted by anybody else")))
        name = call.arguments[0] if call.script == "ldirectord" and call.arguments else call.script
        return Converted(_agent(_reference(call)), name.partition(".")[0], reason=reason)

    def _script(self, call: Call, origin: Origin) -> Converted:
        """A script of the resource.d contract: the site's own, or an init script with arguments."""
        if origin is Origin.NOWHERE:
            raise Unusable(*_nowhere(call.script))
        reason = "a script of this site's own; hostd asks its status every 10 s, Heartbeat did only before a start"
        cure = 'see that status prints "running" or "not running"; if it has none: params = { status = "none" }'
        if origin is Origin.UNKNOWN:
            reason = "its script is not in this directory and could not be looked at"
        elif origin is not Origin.OWN:
            reason = "an init script that is called with arguments before the action"
        return Converted(_agent(_reference(call)), call.script, reason=reason, cure=cure)

    def _init_script(self, call: Call, origin: Origin) -> Converted:
        """A name without arguments and without a script in resource.d: a system service."""
        name, native = call.script, _AGENT_OF.get(call.script)
        reference = f"systemd:{name}.service" if origin is Origin.UNIT else f"lsb:{name}"
        if origin is Origin.UNKNOWN and not self._site.has_scripts:
            reference = _reference(call)  # looks in resource.d and then in init.d, as Heartbeat did
        if native is not None and native in self._agents and not self._keep_scripts:
            known = " with the distribution's data directory" if native in _PARAMS else ""
            reason = f"hostd's own agent{known}, in the place of the init script: it looks deeper"
            cure = f'set its params (hostd-agent show {native}), or keep the script: agent = "{reference}"'
            return Converted(_agent(native, **_PARAMS.get(native, Inline())), name, reason=reason, cure=cure)
        if origin is Origin.NOWHERE:
            raise Unusable(*_nowhere(name))
        cure = f"the system must not start it: systemctl disable {name}"
        reason = {
            Origin.UNIT: "there is no init script any more, and a systemd unit of its name",
            Origin.UNKNOWN: "the directory is a copy, and there is no such script in it to be looked at",
        }.get(origin, "")
        if origin is Origin.INIT and self._site.has_unit(name):
            reason, cure = "there is a systemd unit of its name too", f'better agent = "systemd:{name}.service"'
        return Converted(_agent(reference), name, reason=reason, cure=cure if reason else "")


def _clean(word: Word) -> str:
    """The word without a DOS line end.  Raises Unusable for what no script could be meant by."""
    for surprise, (reason, cure) in _SURPRISES.items():
        if surprise in word.surprises:
            raise Unusable(reason, cure)
    text = word.text.removesuffix("\r")
    if len(text) > WORD_MAX:
        raise Unusable(f"has {len(text)} characters", f"use at most {WORD_MAX}")
    if not texts.is_plain(text):
        raise Unusable("has bytes or control characters that are no text", "write the line anew, in plain text")
    if _SHELL.search(text) or text.startswith("-"):
        raise Unusable("has characters that Heartbeat's shell code expands or swallows", "rename it without * ? [ \\ -")
    name = text.partition("::")[0]
    if not name:
        raise Unusable("names no script", "write NAME or NAME::ARGUMENT")
    if "," in name or (haresources.is_like_an_address(text) and not _is_address(text)):
        raise Unusable("looks like an address to Heartbeat and is none", "separate resources by blanks, not by commas")
    if "::" in text and haresources.is_like_an_address(text.partition("::")[0]):
        raise Unusable("gives an address arguments, which Heartbeat takes for the address", f"write {name} alone")
    if ":" in name and not haresources.is_like_an_address(name):
        raise Unusable("has a single colon in its name: Heartbeat loses it among the arguments", "rename the script")
    if name.startswith(".") or ("/" in name and not haresources.is_like_an_address(name)):
        raise Unusable("is a path; Heartbeat looks names up in resource.d and init.d", "use the name of a script there")
    return text


def _is_address(text: str) -> bool:
    """At least what stands before the first slash has the characters of one."""
    return re.fullmatch(r"[0-9.]+(/.*)?", text) is not None or "::" in text


def _surprised(word: Word) -> str:
    told = {
        Surprise.GLUED: "two lines were joined here without a blank between them",
        Surprise.CARRIAGE_RETURN: "the line ends as on DOS, and Heartbeat took that for a part of the name",
        Surprise.CUT: "a # in the middle of a word ends it, for Heartbeat too",
    }
    return "; ".join(text for surprise, text in told.items() if surprise in word.surprises)


def _nowhere(name: str) -> tuple[str, str]:
    reason = f"there is neither resource.d/{name} nor init.d/{name}: Heartbeat could not start it either"
    return reason, "correct the name, or install what brings it"


def _reference(call: Call) -> str:
    return "script:" + shlex.join((call.script, *call.arguments))


def _agent(reference: str, **params: Any) -> Inline:
    given = Inline((name, value) for name, value in params.items() if value not in ("", None))
    return Inline(agent=reference, params=given) if given else Inline(agent=reference)


def _became(table: Inline) -> str:
    if "address" in table:
        return f'address = "{table["address"]}"'
    params = ", ".join(f'{name} = "{value}"' for name, value in table.get("params", {}).items())
    return f'agent = "{table["agent"]}"' + (f", {params}" if params else "")


# -- what Heartbeat brought ---------------------------------------------------------------


def _address(call: Call) -> Converted:
    if call.script == "IPv6addr" and len(call.arguments) > 1:
        cure = "write it in full: IPv6addr::fd00:0:0:0:0:0:0:1/64"
        raise Unusable("has :: in its address, where Heartbeat divides arguments", cure)
    if len(call.arguments) != 1:
        raise Unusable("must have one argument, the address", f"write {call.script}::10.0.0.1/24/eth0")
    address = addresses.parse(call.arguments[0], is_v6=call.script == "IPv6addr")
    name = f"address-{re.sub(r'[^0-9a-f]+', '-', address.ip)}".strip("-")
    return Converted(Inline(address=address.text), name, address.ip, "; ".join(address.notes))


def _filesystem(call: Call) -> Converted:
    if not 2 <= len(call.arguments) <= 4:
        raise Unusable("must have a device and a directory, perhaps a type and options", "correct its arguments")
    device, directory, fstype, options = (*call.arguments, "", "")[:4]
    if match := re.fullmatch(r"-([UL])(.+)", device):
        device = f"{'UUID' if match[1] == 'U' else 'LABEL'}={match[2]}"
    name = f"disk-{directory.strip('/').replace('/', '-')}"
    if fstype in ("nfs", "nfs4") or (not fstype and re.match(r"[^/]+:/", device)):
        return Converted(_agent("nfs", export=device, directory=directory, options=options), name)
    if fstype in ("gfs", "gfs2"):
        reason = "a cluster's filesystem that Heartbeat mounted on one node at a time"
        cure = 'better a service of its own with on = "all", and requires = ["…"] in those that use it'
        table = _agent("gfs", device=device, directory=directory, options=options)
        return Converted(table, name, reason=reason, cure=cure)
    if fstype in ("ocfs2", "cifs", "smbfs"):
        table = _agent("ocf:heartbeat:Filesystem", device=device, directory=directory, fstype=fstype, options=options)
        return Converted(table, name, reason=_FROM_RESOURCE_AGENTS)
    table = _agent("filesystem", device=device, directory=directory, fstype=fstype, options=options)
    reason = "" if device.startswith("/dev/drbd") else "nothing but the other node's stop keeps it from two mounts"
    cure = "add [fencing], or a service with agent scsi_reservation for this disk" if reason else ""
    return Converted(table, name, reason=reason, cure=cure)


def _apache(call: Call) -> Converted:
    if len(call.arguments) > 1:
        raise Unusable("must have one argument, its configuration", "write apache::/etc/apache2/apache2.conf")
    return Converted(_agent("httpd", config="".join(call.arguments)), "apache")


def _ocf(kind: str, names: str, *, least: int, name: bool = False, reason: str = "") -> Callable[[Call], Converted]:
    """A wrapper of an OCF agent, which is called without the wrapper: its arguments are these parameters."""
    fields = names.split()

    def convert(call: Call) -> Converted:
        if not least <= len(call.arguments) <= len(fields):
            wanted = "::".join([call.script, *(field.upper() for field in fields)])
            raise Unusable(f"has {counted(len(call.arguments), 'argument')}", f"write {wanted}")
        given = dict(zip(fields, call.arguments, strict=False))
        why = "; ".join(filter(None, (_FROM_RESOURCE_AGENTS, reason)))
        return Converted(_agent(f"ocf:heartbeat:{kind}", **given), call.script if name else "", reason=why)

    return convert


_STOCK: Final[dict[str, Callable[[Call], Converted]]] = {
    "IPaddr": _address,
    "IPaddr2": _address,
    "IPv6addr": _address,
    "Filesystem": _filesystem,
    "apache": _apache,
    "IPsrcaddr": _ocf("IPsrcaddr", "ipaddress", least=1),
    "LVM": _ocf("LVM", "volgrpname", least=1, reason="today's agent is LVM-activate, with parameters of its own"),
    "Raid1": _ocf("Raid1", "raidconf raiddev", least=2, reason="today's agent is mdraid"),
    "Delay": _ocf("Delay", "startdelay stopdelay", least=0),
    "LinuxSCSI": _ocf("LinuxSCSI", "scsi", least=1),
    "MailTo": _ocf("MailTo", "email subject", least=1, reason="it mails at each start and stop on this node"),
    "portblock": _ocf("portblock", "protocol portno action", least=3),
    "db2": _ocf("db2", "instance", least=1, name=True),
    "ids": _ocf("ids", "informixdir informixserver onconfig", least=0, name=True),
    "WAS": _ocf("WAS", "config", least=0, name=True),
    "WAS6": _ocf("WAS6", "profile", least=0, name=True),
    "Xinetd": _ocf("Xinetd", "service", least=1, name=True),
    "WinPopup": _ocf("WinPopup", "hostfile", least=1),
    "AudibleAlarm": _ocf("AudibleAlarm", "nodelist", least=0),
}
"""By the parameters that the wrapper in resource.d sets."""
assert _STOCK.keys() <= STOCK
