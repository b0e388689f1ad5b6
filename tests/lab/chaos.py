"""Chaos on real processes: rounds of faults from seeds, judged by a client and an observer.

    python -m tests.lab.chaos --minutes 10            rounds of seeds 0, 1, 2, …
    python -m tests.lab.chaos --seed 17 --rounds 1    this round again

Decides how a round goes (both nodes well, faults, repair, well again) and what
is judged: an address with two owners, rows of MariaDB that were acknowledged
and are gone, servers of one service on two nodes, a cluster that does not
recover.  A seed decides everything that is drawn; what the machine's
scheduling adds is not repeated.

Five rounds share a lab: with fencing and MariaDB on a shared disk, or without
fencing and with Apache.  A round that finds harm ends its lab.
"""

import argparse
import contextlib
import ctypes
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

from hostd.config import Directories
from hostd.registry import Registry
from tests.lab import chaos_clock
from tests.lab.chaos_faults import SERVERS, Hand, Strike, alive, comm, draw
from tests.lab.client import Ask, Client
from tests.lab.cluster import Cluster, LabService, Settings, apache
from tests.lab.lab import Lab
from tests.lab.limits import promised
from tests.lab.mission import GFS, PASSWORD, Mission
from tests.lab.names import MYSQL_ADDRESS, SHARED
from tests.lab.network import checked
from tests.lab.observer import Double
from tests.lab.power_switch import Fencing
from tests.lab.probe_process import now_ms
from tests.lab.watching import Watch

ROUNDS_PER_LAB: Final = 5
FAULTS_OVER_S: Final = 10.0
CALM_S: Final = 1.0
TWO_OWNERS_MAX_MS: Final = 50
"""PROTOCOL.md section 4, invariant 1."""

HEAL_GRACE_MS: Final = 1_500
"""Two owners after a time in which no ARP passed (without fencing only): until the next gratuitous ARP, a
second, and three keepalives; 300 ms if a link works."""

AWAY_GRACE_MS: Final = 12_000
"""Likewise if a node's hostd was killed or stopped meanwhile: its lease ends it, after 5 s, and a restart."""

STATE_MB: Final = 8
"""The file system of /var/lib/hostd, small enough to be filled at once."""

LOOK_S: Final = 0.25
"""How often the processes of both nodes are looked through."""

WELL_WITHIN_S: Final = 60.0
"""On a quiet machine (``promised``): initdead twice, a lease, a shot, and MariaDB's recovery."""

LOOKS_WELL: Final = 2
"""So many looks in a row have to find nothing missing."""

ASK_AFTER_S: Final = (3.0, 15.0, 30.0)
"""When the operator looks after the cluster, after the repair."""

AWAY: Final = frozenset({"kill", "stop", "freeze", "wrong-key", "power-cycle"})
"""Faults after which a node's hostd may not be there to drop an address."""

CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x00020000, 0x4000, 0x40000


class Harm(NamedTuple):
    what: str
    evidence: str = ""


class Site:
    """A lab with a cluster in it, and who watches."""

    def __init__(self, lab: Lab, *, fencing: bool) -> None:
        self.lab, self.fencing = lab, fencing
        six = LabService("six", "clustnode2", "fd00:172:23:2::13")
        if fencing:
            self.cluster: Cluster = Bank(lab, [six])
        else:
            plain = LabService("plain", "clustnode1", "172.23.2.15")
            self.cluster = Cluster(lab, [apache(lab, "web", "clustnode2", "172.23.2.16"), plain, six])
        self.cluster.up()
        self.watch = Watch(self.cluster)
        self.teller: Client | None = self.cluster.ask() if isinstance(self.cluster, Bank) else None

    def servers(self) -> dict[str, list[str]]:
        """Per node that has power: the servers that run there."""
        return {
            node.name: sorted({name for pid in alive(node) if (name := comm(pid)) in SERVERS})
            for node in self.lab.nodes
        }


class Bank(Mission):
    """MariaDB with its data on the disk that both nodes share, and addresses."""

    def __init__(self, lab: Lab, more: list[LabService]) -> None:
        self.disk = lab.folder / "disk"
        self.disk.mkdir()
        self.disk.chmod(0o755)
        self._agents = Registry.load(Directories(), system=lab.folder / "no-agents")
        settings = Settings(fencing=Fencing(delay="1s", timeout="3s"))
        Cluster.__init__(self, lab, [self._mysql(), *more], settings)
        for node in lab.nodes:
            (node.config / "conf.d" / "gfs.toml").write_text(GFS.format(disk=self.disk, shared=SHARED))

    def ask(self) -> Client:
        """A client that writes a row every 100 ms."""
        login = {"user": "client", "password": PASSWORD}
        return self.lab.ask(Ask("mysql", MYSQL_ADDRESS, protocol="mysql", port=3306, **login))


class Round:
    """One seed on one site."""

    def __init__(self, site: Site, seed: int) -> None:
        self.site, self.seed = site, seed
        self.hand = Hand(site.cluster, seed)
        self.schedule = draw(seed, tuple(site.cluster.services), FAULTS_OVER_S)
        self.began_ms = now_ms()
        self.deaf_ms: list[tuple[float, float]] = []
        """When ARP did not pass between the nodes, from and to."""
        self.repaired_ms = self.well_after_s = 0.0
        self.rows = 0
        self.missing = ""

    def play(self) -> list[Harm]:
        """The faults, the repair, the wait, and what was wrong."""
        faults_end_s = max(FAULTS_OVER_S, *(strike.at_s for strike in self.schedule)) + CALM_S
        waiting, harms = list(self.schedule), []
        began = look_at = time.monotonic()
        while (passed_s := time.monotonic() - began) < faults_end_s:
            self.hand.tick()
            while waiting and waiting[0].at_s <= passed_s:
                self._strike(waiting.pop(0))
            if time.monotonic() >= look_at:
                harms += self._look_for_two_servers()
                look_at = time.monotonic() + LOOK_S
            time.sleep(0.02)
        self.hand.repair()
        self._note_deafness()
        self.repaired_ms = now_ms()
        harms += self._recover()
        harms += self._judge_addresses()
        harms += self._judge_rows()
        return harms[:3]

    def _strike(self, strike: Strike) -> None:
        self.hand.strike(strike)
        self._note_deafness()

    def _note_deafness(self) -> None:
        now = now_ms()
        is_open = bool(self.deaf_ms) and self.deaf_ms[-1][1] == float("inf")
        if not self.hand.arp_passes and not is_open:
            self.deaf_ms.append((now, float("inf")))
        elif self.hand.arp_passes and is_open:
            self.deaf_ms[-1] = (self.deaf_ms[-1][0], now)

    def _look_for_two_servers(self) -> list[Harm]:
        """With fencing: a server of the shared data on one node at a time."""
        if not self.site.fencing:
            return []
        active = {node: names for node, names in self.site.servers().items() if names}
        if len(active) < 2:
            return []
        again = {node: names for node, names in self.site.servers().items() if names}
        if len(again) < 2:  # one was just ending as the other was looked at
            return []
        return [Harm(f"servers of one service on both nodes: {again}", self.site.cluster.picture())]

    def _recover(self) -> list[Harm]:
        began, limit_s = time.monotonic(), promised(WELL_WITHIN_S)
        ask_at_s = [*ASK_AFTER_S]
        calm = 0
        while (passed_s := time.monotonic() - began) < limit_s:
            if ask_at_s and passed_s >= ask_at_s[0]:
                ask_at_s.pop(0)
                self.hand.ask_for_all()
            self.missing = self._what_is_missing()
            calm = 0 if self.missing else calm + 1
            if calm >= LOOKS_WELL:
                self.well_after_s = time.monotonic() - began
                return []
            time.sleep(0.5)
        return [Harm(f"not well {limit_s:.0f} s after the repair: {self.missing}", self.site.cluster.picture())]

    def _what_is_missing(self) -> str:
        """What keeps the cluster from being well; empty if it is."""
        cluster, watch = self.site.cluster, self.site.watch
        if (seen := watch.owners()) != cluster.primaries:
            return f"the LAN sees {seen}"
        if not watch.is_answered():
            return "an address is not answered"
        for node in self.site.lab.nodes:
            status = cluster.status(node)
            states = [entry["state"] for entry in status.get("nodes", {}).values()]
            if states != ["online", "online"]:
                return f"{node.name} says of the nodes: {states}"
            services = status.get("services", {})
            said = {name: (services[name]["state"], services[name]["node"]) for name in cluster.primaries}
            if said != {name: ("running", primary) for name, primary in cluster.primaries.items()}:
                return f"{node.name} says of the services: {said}"
        return ""

    def _judge_addresses(self) -> list[Harm]:
        away = {strike.verb for strike in self.schedule} & AWAY
        verdict = Verdict(self.site, self.began_ms, self.deaf_ms, is_anyone_away=bool(away))
        return verdict.of_addresses(repaired_ms=self.repaired_ms)

    def _judge_rows(self) -> list[Harm]:
        if self.site.teller is None:
            return []
        kept = self.site.teller.kept(now_ms())["mysql"]
        if kept.is_all:
            self.rows = kept.acknowledged
            return []
        return [
            Harm(f"{kept.acknowledged} rows were acknowledged, {kept.found} are there", self.site.cluster.picture())
        ]


class Verdict:
    """Is an address that was seen with two owners harm?  ``deaf_ms``: when no ARP passed between the nodes."""

    def __init__(self, site: Any, began_ms: float, deaf_ms: list[tuple[float, float]], *, is_anyone_away: bool) -> None:
        self.site, self.began_ms, self.deaf_ms = site, began_ms, deaf_ms
        self.grace_ms = AWAY_GRACE_MS if is_anyone_away else HEAL_GRACE_MS

    def of_addresses(self, *, repaired_ms: float) -> list[Harm]:
        """At most one, with all that was seen as its evidence."""
        limit_ms = promised(TWO_OWNERS_MAX_MS)
        doubles = [
            double for double in self.site.watch.observer.doubles(self.began_ms) if double.duration_ms > limit_ms
        ]
        harmful = [double for double in doubles if not self._is_excused(double)]
        evidence = "\n".join(map(str, harmful))
        return [Harm(self._told(double, repaired_ms), evidence) for double in harmful[:1]]

    def _told(self, double: Double, repaired_ms: float) -> str:
        began_s, repaired_s = ((ms - self.began_ms) / 1000 for ms in (double.from_ms, repaired_ms))
        when = f"from {began_s:.2f} s of the round (repaired at {repaired_s:.2f} s)"
        return f"{double.address} had two owners for {double.duration_ms:.0f} ms, {when}"

    def _is_excused(self, double: Double) -> bool:
        """Without fencing two nodes between which no ARP passes cannot but both own it; then for a grace."""
        if self.site.fencing:
            return False
        end_ms = double.from_ms + double.duration_ms
        return any(
            began_ms <= double.from_ms <= ended_ms + self.grace_ms and end_ms <= ended_ms + self.grace_ms
            for began_ms, ended_ms in self.deaf_ms
        )


class Runner:
    """Rounds until time or number is up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.harmed: list[int] = []
        self.played = 0

    def run(self, seed: int, *, minutes: float, rounds: int) -> int:
        """From this seed on; the exit code."""
        until = time.monotonic() + minutes * 60
        while (rounds and self.played < rounds) or (not rounds and time.monotonic() < until):
            seed = self._one_lab(seed, until, rounds)
        print(
            f"{self.played} rounds, {len(self.harmed)} with harm{': seeds ' if self.harmed else ''}"
            + ", ".join(map(str, self.harmed)),
            flush=True,
        )
        return 1 if self.harmed else 0

    def _one_lab(self, seed: int, until: float, rounds: int) -> int:
        fencing = seed // ROUNDS_PER_LAB % 2 == 0
        with Lab() as lab:
            for node in lab.nodes:
                chaos_clock.give(node)
            self._small_disks(lab)
            site = Site(lab, fencing=fencing)
            while True:
                is_harmed = self._one_round(site, seed)
                seed += 1
                ended = self.played >= rounds if rounds else time.monotonic() >= until
                if is_harmed or ended or seed % ROUNDS_PER_LAB == 0:
                    return seed

    def _one_round(self, site: Site, seed: int) -> bool:
        self.played += 1
        this = Round(site, seed)
        print(f"round {seed}, {'fencing and MariaDB' if site.fencing else 'no fencing, Apache'}", flush=True)
        for strike in this.schedule:
            print(f"  {strike}", flush=True)
        try:
            harms = this.play()
        except (RuntimeError, AssertionError) as error:
            harms = [Harm(f"the round could not be played: {error!r}", site.cluster.picture())]
        if not harms:
            rows = f", {this.rows} rows acknowledged and kept" if site.fencing else ""
            print(f"  well {this.well_after_s:.1f} s after the repair{rows}", flush=True)
            return False
        self.harmed.append(seed)
        for harm in harms:
            print(f"  HARM {harm.what}", flush=True)
        evidence = self.folder / f"round-{seed}.txt"
        logs = [f"── log of {node.name} ──\n{node.log.read_text(errors='replace')}" for node in site.lab.nodes]
        schedule = "\n".join(map(str, this.schedule))
        evidence.write_text("\n".join([schedule, *(f"{h.what}\n{h.evidence}" for h in harms), *logs]))
        print(f"  evidence: {evidence}\n  again: python -m tests.lab.chaos --seed {seed} --rounds 1", flush=True)
        return True

    def _small_disks(self, lab: Lab) -> None:
        """Before hostd is started; seen by this process and the nodes that it boots from here on."""
        for node in lab.nodes:
            lab.power_off(node)
            mount_small(node.folder / "state")
        lab.power_on()


def mount_small(folder: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={STATE_MB}m,mode=755".encode()
    checked(libc.mount(b"state", str(folder).encode(), b"tmpfs", ctypes.c_ulong(0), options), f"mount on {folder}")


def own_mounts() -> None:
    """What is mounted from here on ends with this process, whatever ends it."""
    libc = ctypes.CDLL(None, use_errno=True)
    checked(libc.unshare(CLONE_NEWNS), "unshare(CLONE_NEWNS)")
    checked(libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None), "private mounts")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="of the first round (default 0)")
    parser.add_argument("--minutes", type=float, default=2.0, help="for so long (default 2)")
    parser.add_argument("--rounds", type=int, default=0, help="so many, instead of --minutes")
    parser.add_argument("--evidence", type=Path, help="folder for what harmed rounds leave (default: a new one)")
    options = parser.parse_args(argv)
    if os.geteuid() != 0:
        print("this needs root, for namespaces", file=sys.stderr)
        return 2
    own_mounts()
    folder = options.evidence or Path(tempfile.mkdtemp(prefix="hostd-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    code = Runner(folder).run(options.seed, minutes=options.minutes, rounds=options.rounds)
    with contextlib.suppress(OSError):
        folder.rmdir()  # nothing to tell
    return code


if __name__ == "__main__":
    sys.exit(main())
