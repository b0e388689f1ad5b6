"""What ``hostd import`` says: fates, order of starts, what was not looked at, files.

Decides how it reads; everything that it says comes from ``hostd.importing``.
"""

from pathlib import Path
from typing import Any, Final

from msgspec import structs

from hostd.commands.paper import WIDTH, Paper
from hostd.confd.complain import Complaint
from hostd.importing.conversion import KEY_FILE, Result
from hostd.importing.directives import Kind
from hostd.importing.fates import Fate, Verdict, by_line
from hostd.importing.services import Service

COLOURS: Final = {
    Verdict.CONVERTED: "green",
    Verdict.WARNING: "yellow",
    Verdict.NOT_NEEDED: "dim",
    Verdict.REFUSED: "red",
}
COUNTED: Final = {
    Verdict.CONVERTED: "converted",
    Verdict.WARNING: "with a warning",
    Verdict.NOT_NEEDED: "not needed",
    Verdict.REFUSED: "refused",
}
MARGIN: Final = 18
CHECKED: Final = 11
COLUMN: Final = 36


def facts(result: Result, complaints: tuple[Complaint, ...]) -> dict[str, Any]:
    """The same as JSON, schema 1."""
    return {
        "schema": 1,
        "nodes": list(result.nodes),
        "fates": [
            {
                "file": fate.line.file,
                "line": fate.line.number or None,
                "text": fate.line.text,
                "fate": fate.verdict.value,
                "thing": fate.thing,
                "became": fate.became,
                "reason": fate.reason,
                "cure": fate.cure,
            }
            for fate in result.ledger.fates
        ],
        "orders": [
            {
                "service": service.name,
                "primary": service.group.node,
                "before": service.before,
                "after": service.after,
                "missing": list(service.missing),
            }
            for service in result.services
        ],
        "files": {file.name: file.text for file in result.files},
        "complaints": [complaint.text for complaint in complaints],
    }


class Report:
    """One report, on ``paper``.  ``is_local``: this machine is the node whose directory was read."""

    def __init__(
        self,
        directory: Path,
        result: Result,
        complaints: tuple[Complaint, ...],
        *,
        is_local: bool,
        paper: Paper | None = None,
    ) -> None:
        self._directory, self._result, self._complaints = directory, result, complaints
        self._is_local = is_local
        self._paper = paper or Paper()

    def everything(self, written: Path | None, *, with_files: bool) -> None:
        """In the order in which a person reads it; the verdict last."""
        self.fates()
        self.orders()
        self.not_looked_at()
        self.check()
        if with_files and written is None:
            self.files()
        self.verdict(written, with_files=with_files)

    def _heading(self, text: str) -> None:
        self._paper.line()
        self._paper.line(self._paper.colour(text, "bold"))

    def fates(self) -> None:
        """Each line, and below it what became of it."""
        paper, file = self._paper, ""
        paper.line(paper.colour(f"{self._directory}: the fate of each line", "bold"))
        for line, fates in by_line(self._result.ledger.fates):
            if line.file != file or not line.number:
                file = line.file
                paper.line()
                paper.line(paper.colour(file, "bold"))
            if line.number:
                paper.wrapped(f"{line.number:>4}  ", line.text or "…", indent=6)
            for fate in fates:
                paper.wrapped(f"      {fate.verdict.value}", _told(fate), indent=MARGIN, colour=COLOURS[fate.verdict])

    def orders(self) -> None:
        """Heartbeat's order of starts beside hostd's."""
        if not self._result.services:
            return
        self._heading("Order of starts (stops are in reverse)")
        for service in self._result.services:
            self._paper.line()
            self._paper.line(f"  {service.name}, primary {service.group.node}")
            self._paper.line(f"     {'Heartbeat':<{COLUMN}} hostd")
            for number, (before, after) in enumerate(_beside(service), 1):
                self._paper.line(f"  {number:>2} {_cut(before):<{COLUMN}} {_cut(after)}".rstrip())

    def not_looked_at(self) -> None:
        """What only the nodes themselves can tell."""
        if not self._result.nodes:
            return
        self._heading("Not looked at")
        here, paper = self._result.here, self._paper
        devices = _devices(self._result)
        missing = [name for name, path in devices if self._is_local and not path.exists()]
        if missing:
            paper.wrapped("  - ", f"not there on this machine: {', '.join(missing)}", indent=4, colour="yellow")
        if devices:
            whose = f"on {'the other node' if self._is_local else 'both nodes'}"
            names = ", ".join(dict.fromkeys(name for name, _path in devices))
            paper.wrapped("  - ", f"{whose}: whether there is {names}, and whether a cable is in it", indent=4)
        if not self._is_local:
            text = f"this machine is no node of the cluster ({', '.join(self._result.nodes)})"
            text = f"the directory is {here}'s, and this machine is not {here}" if here else text
            paper.wrapped("  - ", f"{text}: run hostd check on both", indent=4)
        text = "scripts, disks and data of the services: hostd check asks each agent on each node"
        paper.wrapped("  - ", text, indent=4)
        text = "whether the system starts them by itself: it must not (systemctl disable --now …)"
        paper.wrapped("  - ", text, indent=4)

    def check(self) -> None:
        """What ``hostd check`` says of the files, less what it says of the machine."""
        if not self._complaints:
            return
        self._heading("What hostd check says of the result")
        for complaint in sorted(self._complaints, key=lambda complaint: complaint.is_warning):
            word, colour = ("warning", "yellow") if complaint.is_warning else ("error", "red")
            if complaint.sets_aside:
                word, colour = "here", "yellow"  # the agent's files may be on the nodes and not on this machine
            self._paper.wrapped(f"  {word}", complaint.text, indent=CHECKED, colour=colour)

    def files(self) -> None:
        """Their texts."""
        for file in self._result.files:
            self._heading(f"──── {file.name} " + "─" * (WIDTH - 6 - len(file.name)))
            self._paper.line(file.text.rstrip("\n"))

    def verdict(self, written: Path | None, *, with_files: bool) -> None:
        """One paragraph that says it all, and what comes next."""
        ledger = self._result.ledger
        counts = ", ".join(f"{ledger.count(word)} {name}" for word, name in COUNTED.items())
        self._paper.line()
        self._say(f"{counts}.", "bold")
        if not self._result.files:
            self._say("Nothing could be built: see what is refused.", "red")
        elif written is not None:
            refused = " What was refused is missing in them." if ledger.count(Verdict.REFUSED) else ""
            files = f"{len(self._result.files)} files and a new key are in {written}.{refused}"
            self._say(f"{files} Read them; copy them to the other node; check on both:", "")
            self._paper.line(f"  scp -pr {written} OTHERNODE:{written.absolute().parent}/")
            self._paper.line(f"  hostd check --config {written}")
        elif with_files:
            self._say(f"With -o OUT they are written, with a new {KEY_FILE}.", "")

    def _say(self, text: str, colour: str) -> None:
        self._paper.wrapped("", text, indent=0, colour=colour)


def _told(fate: Fate) -> str:
    """Without the directive's name where the line above begins with it."""
    is_plain = fate.thing == fate.line.text.partition(" ")[0] and (fate.became or fate.reason)
    return structs.replace(fate, thing="").text if is_plain else fate.text


def _beside(service: Service) -> list[tuple[str, str]]:
    """Each resource of the group, and what starts at its place."""
    after = {rung.word: text for rung, text in zip(service.rungs, service.after, strict=True)}
    return [(word, after.pop(word.removesuffix("\r"), "–")) for word in service.before]


def _cut(text: str) -> str:
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown if len(shown) <= COLUMN else f"{shown[: COLUMN - 1]}…"


def _devices(result: Result) -> list[tuple[str, Path]]:
    """Ttys and interfaces that the media name."""
    found = []
    for medium in result.media:
        if medium.kind is Kind.SERIAL:
            found.append((medium.settings["device"], Path(medium.settings["device"])))
        else:
            interface = medium.settings["interface"]
            found.append((interface, Path("/sys/class/net", interface)))
    return found
