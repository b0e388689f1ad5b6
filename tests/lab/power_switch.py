"""The power switch: one outlet per node, worked from inside a node by ``fence_lab``.

Decides how a program inside a node reaches the lab outside: through a folder
that both see.  ``orders`` is a pipe that the switch reads, one node's name a
line; a file of each node's name says ``on`` or ``off``.  What fencing is good
for, the tests decide.
"""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PROGRAM = Path(__file__).with_name("fence_lab")
PASSWORD = "open sesame"
BEHAVIOURS = ("obey", "refuse", "lie", "hang")


@dataclass(frozen=True)
class Fencing:
    """What conf.d says of the switch."""

    delay: str = "2s"
    timeout: str = "10s"
    drill: str = "false"
    """As TOML; by default no call disturbs the journal."""


class PowerSwitch:
    """Closed with the lab.  ``cut`` is called in a thread with the name of the node to cut."""

    def __init__(self, folder: Path, cut: Callable[[str], None]) -> None:
        self.folder, self._cut = folder, cut
        folder.mkdir()
        os.mkfifo(folder / "orders")
        (folder / "journal").touch()
        self.behave("obey")
        self._orders = os.open(folder / "orders", os.O_RDWR)  # so that it never ends
        self._thread = threading.Thread(target=self._obey, name="power switch", daemon=True)
        self._thread.start()

    def behave(self, how: str) -> None:
        """From now on."""
        assert how in BEHAVIOURS, how
        self._write("behaviour", how)

    def show(self, node: str, *, on: bool) -> None:
        """What the outlet's lamp says."""
        self._write(node, "on" if on else "off")

    @property
    def journal(self) -> list[str]:
        """One line per call of ``fence_lab``, oldest first."""
        return (self.folder / "journal").read_text().splitlines()

    def text(self, fencing: Fencing) -> str:
        """The tables of conf.d; the password is to be in the file ``/etc/hostd/switch``."""
        return (
            f'[fencing]\nmode = "required"\ndelay = "{fencing.delay}"\ndrill = {fencing.drill}\n\n'
            f'[[fencing.device]]\nagent = "{PROGRAM}"\ntimeout = "{fencing.timeout}"\n'
            f'params = {{ folder = "{self.folder}", '
            'plug = { clustnode1 = "clustnode1", clustnode2 = "clustnode2" } }\n'
            'secrets = { password = "/etc/hostd/switch" }\n'
        )

    def close(self) -> None:
        os.write(self._orders, b"end\n")
        self._thread.join(20)
        os.close(self._orders)

    def _obey(self) -> None:
        with open(self._orders, closefd=False) as orders:
            while (name := orders.readline().strip()) != "end":
                self._cut(name)

    def _write(self, name: str, text: str) -> None:
        """At once: a reader never finds half of it."""
        fresh = self.folder / f"{name}.new"
        fresh.write_text(text + "\n")
        fresh.rename(self.folder / name)
