"""The story that ``./demo`` tells: two cables, one power cut, a takeover, a failback.

Decides the order of the acts and what each must show to count as done.  What
is said of services and their data comes from the client and the observer on
the LAN, who know nothing of hostd; what hostd says of itself is shown beside it.
"""

import itertools
import json
import time
from collections.abc import Callable

from tests.lab.client import Client, Seen
from tests.lab.cluster import CROSSOVER, SERIAL, Settings
from tests.lab.environment import VENV
from tests.lab.lab import Lab
from tests.lab.mission import Mission
from tests.lab.names import SHARED
from tests.lab.node import Node
from tests.lab.observer import Observer
from tests.lab.power_switch import PROGRAM, Fencing
from tests.lab.probe_process import now_ms
from tests.lab.show import BOLD, DIM, GREEN, RED, Show

PICTURE = """
          client 172.23.2.100                        gateway 172.23.2.1
                 │                                           │
   ──────────────┴───────── client LAN 172.23.2.0/24 ────────┴──────────
         │                                                 │
     clustnode1 ══════════ crossover 192.168.1.x ══════ clustnode2
       │ └ttyS0 ────────────── serial cable ───────────── ttyS0┘ │
       └──────────────────── the disk of both ───────────────────┘
"""
DOES = {
    "mysql": "MariaDB     INSERT, COMMIT  10",
    "ldap": "OpenLDAP    bind, add       10",
    "cyrus": "Cyrus IMAP  LOGIN, APPEND    4",
    "web": "Apache      GET             50",
}
"""What each service is, what the client asks of it, and how often in a second."""
THINGS = {"mysql": "rows", "ldap": "entries", "cyrus": "mails"}
"""What the client writes."""
TRY = (
    "hostd status --watch",
    "hostd why mysql; hostd log mysql",
    "kill -9 $(pidof mariadbd)                        where mysql runs",
    "mariadb -e 'SELECT COUNT(*) FROM site.visits'    there, before and after",
    "hostd move cyrus; hostd standby clustnode2",
    "kill -9 -1                                       all but the kernel dies",
)
DEADTIME_S = 2.0
REPORT_MAX_S = DEADTIME_S + 2.0  # deadtime, and what asking for the status costs on a busy machine
OUTAGE_MAX_MS = 10_000  # deadtime, the guard's questions, and MariaDB's recovery on a busy machine
DOUBLE_MAX_MS = 50
BEFORE_MS = 1_500  # of the time before the cut that is told as well: a few requests of each kind
WORTH_TELLING = {"PhaseChanged", "ClearanceTurned", "ServiceTurned", "AddressChecked", "PauseNoticed"}


class Story:
    """The acts, told to a Show.  Each returns normally; failures are counted by the Show."""

    def __init__(self, show: Show, lab: Lab) -> None:
        self.show, self.lab = show, lab
        with show.doing("the first data of four servers, on a disk that both nodes can mount"):
            self.cluster = Mission(lab, Settings(timers={"initdead": "10s"}, fencing=Fencing()))
        self.services = list(self.cluster.services.values())
        self.client: Client = self.cluster.ask()
        self.observer: Observer = lab.observe(*(service.address for service in self.services))

    def tell(self) -> None:
        """The whole story; an act that fails ends it, since the next ones stand on it."""
        acts: list[Callable[[], bool]] = [self.start, self.serial, self.crossover, self.power_cut, self.failback]
        for act in acts:
            if not act():
                self.show.line()
                self.show.text(self.cluster.picture())
                return
            self.show.pause()

    # -- acts ----------------------------------------------------------------------

    def start(self) -> bool:
        show = self.show
        show.part("two nodes, a client, four services, each with its own primary")
        show.line(PICTURE.strip("\n"))
        show.line()
        show.text(show.paint("primary    address     service  is          the client asks, times a second", DIM))
        for service in self.services:
            show.text(f"{service.primary} {service.address} {service.name:<7}  {DOES[service.name]}")
        show.text(f"both                   gfs      bind mount  of the disk of both, at {SHARED}")
        show.line()
        show.text("The power of each node hangs on a switch that the other may work: fencing.")
        show.line()
        show.pause()
        self.cluster.start()
        taken = show.watch("hostd starts on both nodes", self._all_on_primaries, within_s=30, picture=self._lamps)
        if not show.verdict(taken is not None, "every service answers on its primary", seconds(taken)):
            return False
        paired = show.watch("both see each other", lambda: self._says_pair(self.lab.node1), within_s=20)
        show.verdict(paired is not None, "the two nodes see each other online")
        show.line()
        show.look(lambda: self._status(self.lab.node1), for_s=show.pause_s)
        return paired is not None

    def serial(self) -> bool:
        self.show.part("the serial cable is unplugged: nothing may move")
        return self._cable(SERIAL, self.lab.serial.unplug, self.lab.serial.plug)

    def crossover(self) -> bool:
        self.show.part("the crossover cable is unplugged: nothing may move")
        return self._cable(CROSSOVER, self.lab.pull_crossover, self.lab.plug_crossover)

    def power_cut(self) -> bool:
        show = self.show
        show.part("the plug of clustnode2 is pulled, while the client keeps asking")
        since_ms, wall = now_ms(), time.time()
        self.lab.power_off(self.lab.node2)
        taken = show.watch(
            "clustnode1 takes over", lambda: self._all_on(self.lab.node1), within_s=30, picture=self._lamps
        )
        within_s = (now_ms() - since_ms) / 1000 if taken is not None else None
        self.client.settle()
        seen = self.client.see_all(since_ms - BEFORE_MS)
        show.timeline(self._timeline(since_ms, wall, seen))
        show.line()
        ok = show.verdict(taken is not None, "clustnode1 serves all four addresses", seconds(within_s))
        ok &= self._outages(seen, self.lab.node1.name)
        ok &= self._nothing_lost("all written before the cut is there", since_ms)
        ok &= self._no_doubles(since_ms)
        show.line()
        show.look(lambda: self._status(self.lab.node1), for_s=show.pause_s)
        return ok

    def failback(self) -> bool:
        show = self.show
        show.part("clustnode2 gets its power back")
        since_ms = now_ms()
        self.lab.power_on(self.lab.node2)
        self.cluster.start(self.lab.node2)
        taken = show.watch(
            "clustnode2 boots, joins, and takes its services back",
            self._all_on_primaries,
            within_s=40,
            picture=self._lamps,
        )
        self.client.settle()
        ok = show.verdict(taken is not None, "every service is back on its primary", seconds(taken))
        ok &= self._outages(self.client.see_all(since_ms), "")
        ok &= self._nothing_lost("all that was ever written is there", now_ms())
        ok &= self._no_doubles(since_ms)
        show.line()
        show.look(lambda: self._status(self.lab.node2), for_s=show.pause_s)
        return ok

    # -- parts of acts -----------------------------------------------------------------

    def _cable(self, link: str, pull: Callable[[], None], plug: Callable[[], None]) -> bool:
        show, node = self.show, self.lab.node1
        since_ms = now_ms()
        pull()
        reported = show.watch(
            f"clustnode1 notices that {link} is silent",
            lambda: self.cluster.link(node, link).get("receive") == "down",
            within_s=15,
            picture=self._lamps,
        )
        ok = show.verdict(
            reported is not None and reported < REPORT_MAX_S, f"{link}: down, reported", seconds(reported)
        )
        time.sleep(max(show.pause_s, 1))  # time for something to go wrong
        ok &= self._nothing_moved(since_ms)
        plug()
        healed = show.watch(
            f"{link} is plugged in again",
            lambda: self.cluster.link(node, link).get("receive") == "up",
            within_s=15,
            picture=self._lamps,
        )
        return show.verdict(healed is not None, f"{link}: plugged in again, up", seconds(healed)) and ok

    def _nothing_moved(self, since_ms: float) -> bool:
        self.client.settle()
        seen = self.client.see_all(since_ms)
        lost = {name: sum(outage.lost for outage in s.outages) for name, s in seen.items() if s.outages}
        asked = sum(s.sent for s in seen.values())
        where = {name: {server for server, _, _ in s.servers} for name, s in seen.items()}
        stayed = all(where[s.name] == {s.primary} for s in self.services)
        whose = "".join(f", {name}" for name in lost)
        figure = f"{asked} asked, {sum(lost.values())} lost{whose}"
        return self.show.verdict(stayed and not lost, "nothing moved, the client noticed nothing", figure)

    def _outages(self, seen: dict[str, Seen], now_on: str) -> bool:
        """The table of what the client saw."""
        rows = []
        for service in self.services:
            s = seen[service.name]
            route = [name for name, _ in itertools.groupby(server for server, _, _ in s.servers)]
            lost = sum(outage.lost for outage in s.outages)
            outage = f"{s.outage_ms:.0f} ms" if s.outages else "none"
            rows.append(
                [service.name, service.address, " → ".join(route), f"{lost} of {s.sent}", self.show.paint(outage, BOLD)]
            )
        self.show.line()
        self.show.table(["service", "address", "answered by", "lost", "outage"], rows)
        self.show.line()
        worst = max(s.outage_ms for s in seen.values())
        over = all(outage.over for s in seen.values() for outage in s.outages)
        moved = not now_on or all(s.server == now_on for s in seen.values())
        return self.show.verdict(
            over and moved and worst < OUTAGE_MAX_MS, "longest outage that the client saw", f"{worst:.0f} ms"
        )

    def _nothing_lost(self, claim: str, until_ms: float) -> bool:
        """Of all that a server had acknowledged, by reading it back."""
        kept = self.client.kept(until_ms)
        found = [
            f"{k.acknowledged if k.is_all else f'{k.found} of {k.acknowledged}'} {THINGS[name]}"
            for name, k in kept.items()
        ]
        is_all = all(k.is_all and k.acknowledged for k in kept.values())
        return self.show.verdict(is_all, claim, ", ".join(found))

    def _no_doubles(self, since_ms: float) -> bool:
        doubles = self.observer.doubles(since_ms)
        worst = max((double.duration_ms for double in doubles), default=0.0)
        claim = "nobody on the LAN ever saw an address with two owners"
        return self.show.verdict(worst < DOUBLE_MAX_MS, claim, f"{worst:.0f} ms" if doubles else "")

    def _timeline(self, since_ms: float, wall: float, seen: dict[str, Seen]) -> list[tuple[float, str, str]]:
        """From three witnesses: the client, the observer on the LAN and clustnode1 itself."""
        moments = [(0.0, "power", "clustnode2 is dead: no process, no carrier, no ARP")]
        for service in self.services:
            for outage in seen[service.name].outages:
                moments.append((outage.from_ms - since_ms, "client", f"last answer of {service.name}"))
                if outage.over:
                    server = next((w for w, first, last in seen[service.name].servers if last >= outage.to_ms), "")
                    moments.append((outage.to_ms - since_ms, "client", f"{service.name} answers again: {server}"))
            claims = self.observer.claims(service.address, since_ms)
            if claims and claims[0][1] != service.primary:  # who keeps an address repeats it now and then
                moments.append((claims[0][0] - since_ms, "LAN", f"{claims[0][1]} announces {service.address}"))
        moments += self._told_by_hostd(self.lab.node1, wall)
        last = max((m[0] for m in moments if m[1] == "client"), default=0.0)
        return sorted(moment for moment in moments if moment[0] <= last + 300)

    def _told_by_hostd(self, node: Node, wall: float) -> list[tuple[float, str, str]]:
        """What ``hostd log`` tells of the time since ``wall``: (milliseconds, who, text)."""
        log = node.hostd("log", "--json", "-n", "200", check=False).stdout.splitlines()
        entries = [json.loads(line) for line in log]
        return [
            ((entry["at"] - wall) * 1000, entry["node"], entry["text"].replace(str(PROGRAM), PROGRAM.name))
            for entry in entries
            if entry["at"] >= wall and entry["event"] in WORTH_TELLING
        ]

    # -- looks ------------------------------------------------------------------------

    def _all_on_primaries(self) -> bool:
        seen = self.client.see_all(now_ms() - 3000)
        return all(seen[s.name].is_answered and seen[s.name].server == s.primary for s in self.services)

    def _all_on(self, node: Node) -> bool:
        return all(s.is_answered and s.server == node.name for s in self.client.see_all(now_ms() - 3000).values())

    def _says_pair(self, node: Node) -> bool:
        return self.cluster.is_pair(node)

    def _status(self, node: Node) -> str:
        said = node.hostd("status", check=False)
        title = self.show.paint(f"{node.name}# hostd status", DIM)
        return f"  {title}\n" + "\n".join(f"  {line}".rstrip() for line in said.stdout.splitlines())

    def _lamps(self) -> str:
        """One line per service: who answers the client right now."""
        lines = []
        for name, s in self.client.see_all(now_ms() - 2000).items():
            on = s.is_answered
            lamp = self.show.paint("●", GREEN if on else RED)
            lines.append(f"      {lamp} {name:<8}{s.server if on else 'no answer'}")
        return "\n".join(lines)


def how_to_enter(lab: Lab) -> str:
    """For ``--keep``: the command that opens a shell on each node, and what may be tried there."""
    lines = ["A shell on each node:"]
    for node in lab.nodes:
        if node.is_on:
            script = lab.folder / f"enter-{node.name}"
            environment = f"PATH={VENV / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin PS1='{node.name}# '"
            script.write_text(
                f"#!/bin/sh\nexec nsenter --target={node.pid} --all --wd=/ env {environment} bash --norc\n"
            )
            script.chmod(0o755)
            lines.append(f"    {script}")
    lines += ["", "There, for instance:", *(f"    {command}" for command in TRY)]
    return "\n".join(lines)


def seconds(taken: float | None) -> str:
    return f"{taken:.1f} s" if taken is not None else "never"
