"""``hostd check`` on a real machine: a network namespace with one card on a LAN and one cable."""

import fcntl
import json
import os
import pty
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostd import hardware, keys
from hostd.commands.main import main
from hostd.inspection import daemon_runs

ROOT = Path(__file__).parents[2]

CONF = """
[cluster]
name = "example"
nodes = ["clustnode1", "clustnode2"]
key = "cluster.key"
[[heartbeat.link]]
type = "udp"
interface = "eth0"
address = { clustnode1 = "172.23.2.11", clustnode2 = "172.23.2.12" }
[[heartbeat.link]]
type = "udp"
interface = "eth1"
address = { clustnode1 = "192.168.1.1", clustnode2 = "192.168.1.2" }
[service.web]
address = "172.23.2.13/24"
"""

PICKY = '''
"""An agent that looks at its parameters."""
from hostd.api import AgentError, Field, Health, Parameters, hookimpl

@hookimpl
def parameters():
    return Parameters(Field("file"))

@hookimpl
def start(resource): pass

@hookimpl
def stop(resource): pass

@hookimpl
def monitor(resource): return Health.STOPPED

@hookimpl
def validate(resource):
    raise AgentError(f"{resource.params['file']} is not there", cure="make it")
'''


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def machine() -> Iterator[str]:
    """A namespace with eth0 172.23.2.11/24 and eth1 192.168.1.1/24, both with carrier."""
    if os.geteuid() != 0:
        pytest.skip("needs root for a network namespace")
    name = f"check-{secrets.token_hex(3)}"
    other = f"{name}-o"
    try:
        for each in (name, other):
            ip("netns", "add", each)
            ip("-n", each, "link", "set", "lo", "up")
        for card, address in (("eth0", "172.23.2.11/24"), ("eth1", "192.168.1.1/24")):
            ip("-n", name, "link", "add", card, "type", "veth", "peer", "name", card, "netns", other)
            ip("-n", name, "address", "add", address, "dev", card)
            for each in (name, other):
                ip("-n", each, "link", "set", card, "up")
        yield name
    finally:
        for each in (name, other):
            subprocess.run(["ip", "netns", "del", each], check=False, capture_output=True)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A conf.d that is right for the machine, with its key."""
    (tmp_path / "all.toml").write_text(CONF)
    keys.make(tmp_path / "cluster.key")
    return tmp_path


def examine(machine: str, conf: Path, *options: str) -> tuple[int, str]:
    """Exit code and output of ``hostd check`` there."""
    words = [sys.executable, "-m", "hostd.commands.main", "check", "--config", str(conf), "--node", "clustnode1"]
    done = subprocess.run(
        ["ip", "netns", "exec", machine, *words, "--runtime-dir", str(conf / "run"), *options],
        capture_output=True, text=True, cwd=ROOT, timeout=60, check=False,
    )  # fmt: skip
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def said(machine: str, conf: Path, *options: str) -> tuple[int, list[str]]:
    """Exit code, and the texts of all complaints but the warnings on fencing as a whole."""
    code, output = examine(machine, conf, "--json", *options)
    found: dict[str, Any] = json.loads(output)
    assert found["schema"] == 1
    return code, [c["text"] for c in found["complaints"] if c["key"] not in ("[fencing]", "[[fencing.device]]")]


def change(conf: Path, old: str, new: str) -> None:
    assert old in CONF
    (conf / "all.toml").write_text(CONF.replace(old, new))


def test_a_good_machine_is_good(machine: str, conf: Path) -> None:
    """Warnings alone are exit code 0, and the last line says so; no line is over 80 columns."""
    code, output = examine(machine, conf)
    assert code == 0
    assert output.splitlines()[-1] == 'Good ("example": 1 service, 2 links): 0 errors, 1 warning.'
    assert "warning  [fencing] is not configured" in output
    assert max(map(len, output.splitlines()[1:])) <= 80
    assert said(machine, conf) == (0, [])


def test_a_bad_conf_d_is_exit_code_2(machine: str, conf: Path) -> None:
    """A mistake in conf.d is told with its place, and the machine is not judged by it."""
    change(conf, 'type = "udp"\ninterface = "eth1"', 'type = "usb"\ninterface = "eth1"')
    code, texts = said(machine, conf)
    assert code == 2
    assert texts == ['all.toml:11: [[heartbeat.link]] #2 type = "usb" is not one of its values; use "serial" or "udp"']


def test_an_interface_that_is_not_there_is_an_error(machine: str, conf: Path) -> None:
    """The link's plugin says it, with the line of the link."""
    change(conf, '"eth1"', '"eth9"')
    code, texts = said(machine, conf)
    assert code == 1
    assert texts == ["all.toml:10: [[heartbeat.link]] #2 (udp2): interface eth9 does not exist; name one of this node"]


def test_an_address_of_another_machine_is_an_error(machine: str, conf: Path) -> None:
    """A link cannot be bound to an address that this node does not have."""
    change(conf, '"192.168.1.1"', '"192.168.1.7"')
    code, texts = said(machine, conf)
    assert code == 1
    assert texts == [
        "all.toml:13: [[heartbeat.link]] #2 address = 192.168.1.7 is not an address of this node; "
        "give it to eth1, or correct it"
    ]


def test_a_port_that_is_taken_is_an_error_that_names_the_holder(machine: str, conf: Path) -> None:
    """Somebody else on port 694 is told by name; the exit code is 1."""
    program = "import socket as s; a = s.socket(2, 2); a.bind(('', 694)); print(1, flush=True); input()"
    with subprocess.Popen(
        ["ip", "netns", "exec", machine, sys.executable, "-c", program],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        holder.stdout.readline()
        code, texts = said(machine, conf)
        holder.communicate(b"\n")
    assert code == 1
    assert [f"694 is in use by {Path(sys.executable).resolve().name[:6]}" in text for text in texts] == [True, True]
    assert f"(process {holder.pid})" in texts[0]


def test_the_nodes_own_address_is_no_service_address(machine: str, conf: Path) -> None:
    """A service cannot take an address that a link is bound to, on either node."""
    change(conf, "172.23.2.13/24", "172.23.2.12/24")
    code, texts = said(machine, conf)
    assert code == 1
    assert texts == [
        "all.toml:15: [service.web] address = 172.23.2.12 is also the node's own address on link udp1; "
        "give the service an address of its own, which no node has"
    ]


def test_a_service_address_without_an_interface_is_an_error(machine: str, conf: Path) -> None:
    """An address of a subnet that no interface is on cannot be served."""
    change(conf, "172.23.2.13/24", "10.9.8.7/24")
    code, texts = said(machine, conf)
    assert code == 1
    assert "cannot be carried: no interface of this node is connected to its subnet" in texts[0]


def test_a_service_address_that_is_there_already_is_a_warning(machine: str, conf: Path) -> None:
    """An address that a boot script adds would be on both nodes."""
    ip("-n", machine, "address", "add", "172.23.2.13/32", "dev", "eth0")
    try:
        code, texts = said(machine, conf)
    finally:
        ip("-n", machine, "address", "del", "172.23.2.13/32", "dev", "eth0")
    assert code == 0
    assert "172.23.2.13/24 is on this node already, and hostd does not run here" in texts[0]


@pytest.mark.parametrize(
    ("mode", "words"), [(0o644, "has mode 0644; nobody but its owner"), (None, "the cluster key is missing; make it")]
)
def test_an_unfit_key_is_an_error(machine: str, conf: Path, mode: int | None, words: str) -> None:
    """A key that others can read or that is missing stops the start; check says it before."""
    key = conf / "cluster.key"
    if mode is None:
        key.unlink()
    else:
        key.chmod(mode)
    code, texts = said(machine, conf)
    assert code == 1
    assert f"all.toml:5: [cluster] key = {key} {words}" in texts[0]


def test_a_deadtime_below_the_floor_is_a_warning_with_the_figure(machine: str, conf: Path) -> None:
    """500 ms with real-time scheduling, 2 s without: whichever this machine grants."""
    timers = '[heartbeat]\nkeepalive = "20ms"\nwarntime = "60ms"\ndeadtime = "100ms"\n'
    first_link = '[[heartbeat.link]]\ntype = "udp"\ninterface = "eth0"'
    change(conf, first_link, timers + first_link)
    code, texts = said(machine, conf)
    assert code == 0
    assert len(texts) == 1
    assert "[heartbeat] deadtime = 100ms is below" in texts[0]
    assert ("500ms, the floor with the real-time" in texts[0]) != ("2s, the floor without real-time" in texts[0])


def test_an_agents_validate_is_asked(machine: str, conf: Path, tmp_path: Path) -> None:
    """What an agent says of its parameters on this machine is told with its cure."""
    folder = tmp_path / "agents"
    folder.mkdir(mode=0o755)
    (folder / "picky.py").write_text(PICKY)
    address = 'address = "172.23.2.13/24"'
    change(conf, address, address + '\nagent = "picky"\nparams = { file = "/x" }')
    code, texts = said(machine, conf, "--agents", str(folder))
    assert code == 1
    assert texts == ["all.toml:17: [service.web] params (picky) does not fit this machine: /x is not there; make it"]


def test_a_secret_in_a_conf_d_that_others_may_read_is_a_warning(machine: str, conf: Path, tmp_path: Path) -> None:
    """It is not shown; once the file is root's alone, there is nothing to say."""
    folder = tmp_path / "agents"
    folder.mkdir(mode=0o755)
    (folder / "picky.py").write_text(PICKY.replace('Field("file")', 'Field("file", secret=True)').replace(
        'raise AgentError(f"{resource.params[\'file\']} is not there", cure="make it")', "pass"
    ))  # fmt: skip
    address = 'address = "172.23.2.13/24"'
    change(conf, address, address + '\nagent = "picky"\nparams = { file = "s3cret" }')
    file = conf / "all.toml"
    rule = f"[service.web] params.file (picky) is a secret, and others may read {file}; chmod 600 {file}"
    assert said(machine, conf, "--agents", str(folder)) == (0, [f"all.toml:17: {rule}"])
    file.chmod(0o600)
    assert said(machine, conf, "--agents", str(folder)) == (0, [])


def test_a_broken_agent_that_nobody_uses_is_a_warning(machine: str, conf: Path, tmp_path: Path) -> None:
    """One broken file stops nothing, and is named."""
    folder = tmp_path / "agents"
    folder.mkdir(mode=0o755)
    (folder / "torn.py").write_text("def (")
    code, texts = said(machine, conf, "--agents", str(folder))
    assert code == 0
    assert len(texts) == 1
    assert f"{folder}/torn.py is broken: " in texts[0]


def test_missing_fence_agents_and_open_secrets_are_errors(machine: str, conf: Path, tmp_path: Path) -> None:
    """A device that cannot work is found before it is needed."""
    (tmp_path / "pw").write_text("x")
    (tmp_path / "pw").chmod(0o644)
    device = '[fencing]\n[[fencing.device]]\nagent = "fence_nothing"\nsecrets = { password = "pw" }\n[service.web]'
    change(conf, "[service.web]", device)
    code, texts = said(machine, conf)
    assert code == 1
    missing, open_to_all, same = (text.partition("#1 ")[2] for text in texts)
    assert missing == "fence_nothing is no program here; install it (Debian: fence-agents), or name it by its path"
    assert open_to_all == f"{tmp_path}/pw may be read by others (mode 0644); chmod 600 {tmp_path}/pw"
    assert "is told the same for clustnode1 and clustnode2" in same


def test_a_serial_link_on_a_tty_that_is_there_is_fine(machine: str, conf: Path) -> None:
    """A pty is as good as a serial port here; one that is missing is told."""
    ours, theirs = pty.openpty()
    try:
        start, end = CONF.index('type = "udp"\ninterface = "eth1"'), CONF.index("[service.web]")
        change(conf, CONF[start:end], f'type = "serial"\ndevice = "{os.ttyname(theirs)}"\n')
        assert said(machine, conf) == (0, [])
    finally:
        os.close(ours)
        os.close(theirs)
    code, texts = said(machine, conf)
    assert code == 1
    assert "[[heartbeat.link]] #2 (serial1): device" in texts[0]


# -- hardware, by a sysfs of our own making ----------------------------------------


def card(sysfs: Path, kind: str, name: str, path: str) -> None:
    device = sysfs / "devices" / path
    device.mkdir(parents=True, exist_ok=True)
    entry = sysfs / "class" / kind / name
    entry.mkdir(parents=True)
    (entry / "device").symlink_to(device)


def test_two_ports_of_one_card_are_one_part(tmp_path: Path) -> None:
    """Functions of one PCI slot share it; another slot does not."""
    card(tmp_path, "net", "eth0", "pci0000:00/0000:03:00.0")
    card(tmp_path, "net", "eth1", "pci0000:00/0000:03:00.1")
    card(tmp_path, "net", "eth2", "pci0000:00/0000:04:00.0")
    parts = [set(hardware.parts_of_interface(name, tmp_path)) for name in ("eth0", "eth1", "eth2")]
    assert parts[0] & parts[1] == {"PCI card 0000:03:00"}
    assert not parts[0] & parts[2]


def test_a_vlan_is_the_card_below_it(tmp_path: Path) -> None:
    """A VLAN and its card are one medium; so are two VLANs of one bond."""
    card(tmp_path, "net", "eth0", "pci0000:00/0000:03:00.0")
    vlan = tmp_path / "class" / "net" / "eth0.7"
    vlan.mkdir()
    (vlan / "lower_eth0").symlink_to(tmp_path / "class" / "net" / "eth0")
    assert hardware.parts_of_interface("eth0.7", tmp_path) == hardware.parts_of_interface("eth0", tmp_path)


def test_two_usb_adapters_on_one_controller_share_it(tmp_path: Path) -> None:
    """A USB serial port and a USB network card hang on the controller's PCI function."""
    card(tmp_path, "tty", "ttyUSB0", "pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0/ttyUSB0")
    card(tmp_path, "net", "eth5", "pci0000:00/0000:00:14.0/usb1/1-3/1-3:1.0")
    assert hardware.parts_of_tty("/dev/ttyUSB0", tmp_path)[1] == "PCI card 0000:00:14"
    assert hardware.parts_of_interface("eth5", tmp_path)[1] == "PCI card 0000:00:14"


def test_the_kernels_console_is_known(tmp_path: Path) -> None:
    """A serial console is named by the kernel itself."""
    folder = tmp_path / "class" / "tty" / "console"
    folder.mkdir(parents=True)
    (folder / "active").write_text("tty0 ttyS0\n")
    assert hardware.is_kernel_console("/dev/ttyS0", tmp_path)
    assert not hardware.is_kernel_console("/dev/ttyS1", tmp_path)


def test_two_links_on_one_interface_are_a_warning(machine: str, conf: Path) -> None:
    """Two links over one card are one medium."""
    same = 'interface = "eth0"\naddress = { clustnode1 = "172.23.2.11", clustnode2 = "172.23.2.12" }\nport = 695'
    start, end = CONF.index('interface = "eth1"'), CONF.index("[service.web]")
    change(conf, CONF[start:end], same + "\n")
    code, texts = said(machine, conf)
    assert code == 0
    assert "(udp2) shares interface eth0 with udp1" in texts[0]


# -- keygen ------------------------------------------------------------------------


def make_key(file: Path) -> int:
    return main(["keygen", str(file)])


def test_keygen_makes_a_key_that_can_be_read_and_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Mode 0600, fit for use, and the line that copies it."""
    file = tmp_path / "cluster.key"
    assert make_key(file) == 0
    assert len(keys.read(file)) == 1
    assert file.stat().st_mode & 0o777 == 0o600
    assert f"scp -p {file}" in capsys.readouterr().out


def test_keygen_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A key that is there stays, and the exit code is 2."""
    file = tmp_path / "cluster.key"
    make_key(file)
    before = file.read_bytes()
    assert make_key(file) == 2
    assert file.read_bytes() == before
    assert "is not overwritten" in capsys.readouterr().err


def test_check_reads_a_running_daemons_lock(tmp_path: Path) -> None:
    """What hostd itself holds is no complaint: check knows that it runs."""
    assert not daemon_runs(tmp_path)
    with open(tmp_path / "lock", "w") as lock:
        assert not daemon_runs(tmp_path)
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert daemon_runs(tmp_path)
