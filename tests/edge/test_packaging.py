"""The Debian package: what is in it, how it comes and goes, and what systemd is told.

It is built once, and installed into this machine's own system seen through an
overlay, in namespaces of its own: nothing of it is left.  A fresh machine
is in ``tests/machines``.
"""

import ast
import contextlib
import gzip
import importlib.machinery
import importlib.util
import os
import re
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest

from hostd.api import ConfigError
from hostd.commands import completion
from hostd.confd.cluster import Announcements
from hostd.config import Directories
from hostd.hookspecs import AgentSpec
from hostd.registry import Registry
from tests.edge.systemd_lab import booted

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"
MADE_ANEW = (
    "var/lib/dpkg",
    "var/log",
    "var/cache",
    "etc/.pwd.lock",
    "etc/group",
    "etc/gshadow",
    "tmp",
    "dev",
    "proc",
    "run",
)
"""What dpkg and groupadd write whatever is installed, and what a boot makes anew."""

OVERLAY = """
set -eu
mount -t tmpfs none {place}
mkdir {place}/upper {place}/work {place}/root
mount -t overlay overlay -o lowerdir=/,upperdir={place}/upper,workdir={place}/work {place}/root
mount -t proc proc {place}/root/proc
mount -t tmpfs none {place}/root/run
mkdir -p {place}/root/tmp
cp {package} {place}/root/tmp/hostd.deb
inside() {{ env -i PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin chroot {place}/root "$@"; }}
"""

FAKE_SYSTEMD = """
mkdir -p {place}/root/run/systemd/system {place}/root/usr/local/sbin
for name in systemctl deb-systemd-invoke; do
    cat >{place}/root/usr/local/sbin/$name <<'END'
#!/bin/sh
echo "$(basename $0) $*" >>/run/asked
[ "$*" != "is-active --quiet hostd.service" ] || [ -e /run/active ]
END
    chmod +x {place}/root/usr/local/sbin/$name
done
asked() {{
    echo "$1: $(grep -E 'start|stop|enable|disable' {place}/root/run/asked | tr '\\n' ';')"
    : >{place}/root/run/asked
}}
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built as its README says."""
    out = tmp_path_factory.mktemp("deb")
    built = subprocess.run(
        [sys.executable, PACKAGING / "build-deb", out], capture_output=True, text=True, timeout=240, check=False
    )
    assert built.returncode == 0, built.stderr + built.stdout
    return Path(built.stdout.splitlines()[-1])


def in_overlay(place: Path, package: Path, script: str) -> str:
    """What the script prints, run in a copy of this system that is thrown away."""
    whole = (OVERLAY + script).format(place=place, package=package)
    apart = ["unshare", "--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
    done = subprocess.run([*apart, "sh", "-c", whole], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


# -- what is in it ---------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_it_holds_what_an_operator_expects_where_he_expects_it(package: Path) -> None:
    """Programs, unit, documents, completion and the empty folders, all root's, none writable by others."""
    listed = subprocess.run(["dpkg-deb", "-c", package], capture_output=True, text=True, check=True).stdout
    modes = {}
    for line in listed.splitlines():
        mode, owner, _, _, _, name = line.split(maxsplit=5)
        assert owner == "root/root" and (mode[0] == "l" or mode[8] != "w") and "s" not in mode, line
        modes[name.partition(" -> ")[0].removeprefix(".").rstrip("/")] = mode
    for folder in ("conf.d", "agents", "plugins"):
        assert modes[f"/etc/hostd/{folder}"] == "drwxr-xr-x"
    for program in ("/usr/lib/hostd/bin/hostd", "/usr/lib/hostd/bin/hostd-agent", "/usr/lib/hostd/systemd-stop"):
        assert modes[program] == "-rwxr-xr-x"
    assert {
        "/usr/sbin/hostd",
        "/usr/bin/hostd-agent",
        "/lib/systemd/system/hostd.service",
        "/usr/lib/sysusers.d/hostd.conf",
        "/usr/lib/tmpfiles.d/hostd.conf",
        "/usr/share/bash-completion/completions/hostd",
        "/usr/share/bash-completion/completions/hostd-agent",
        "/usr/share/zsh/vendor-completions/_hostd",
        "/usr/share/zsh/vendor-completions/_hostd-agent",
        "/usr/share/man/man8/hostd.8.gz",
        "/usr/share/man/man8/hostd-agent.8.gz",
        "/usr/share/man/man5/hostd.conf.5.gz",
        "/usr/share/man/man7/hostd-agents.7.gz",
        "/usr/share/doc/hostd/examples/conf.d/00-cluster.toml",
        "/usr/share/doc/hostd/copyright",
    } <= modes.keys()
    site = "/usr/lib/hostd/lib/python3.11/site-packages"
    agents = {path.name for path in (ROOT / "agents").glob("*.py")}
    assert agents <= {Path(name).name for name in modes if name.startswith(f"{site}/hostd/_bundled/agents/")}
    assert not any(name.startswith(f"{site}/pip") for name in modes)


def test_it_says_what_it_needs_of_debian(package: Path) -> None:
    """Debian 12's Python, whose byte code it carries, and nothing that Debian 12 has not."""
    needs = subprocess.run(["dpkg-deb", "-f", package, "Depends"], capture_output=True, text=True, check=True).stdout
    assert needs.strip() == "python3 (>= 3.11), python3 (<< 3.12), libc6 (>= 2.34)"


def test_its_libraries_are_those_that_the_tests_ran_with() -> None:
    """Whoever updates a library in the environment of the tests is told to pin it, by ``build-deb --pin``."""
    build = loaded("build-deb")
    assert build.pins() == (PACKAGING / "dependencies.txt").read_text()


# -- how it comes and goes ---------------------------------------------------------------


@pytest.mark.timeout(300)
def test_it_works_where_it_is_installed_and_leaves_nothing(package: Path, tmp_path: Path) -> None:
    """Installed, tried, removed, purged: of all files only the package manager's own books have changed."""
    told = in_overlay(
        tmp_path,
        package,
        """
        inside dpkg -i /tmp/hostd.deb >/dev/null 2>&1
        inside hostd --version
        inside hostd --help | grep -c standby
        inside hostd-agent list | grep -A1 '^  httpd '
        inside hostd check || echo "check says $?"
        mkdir {place}/root/etc/hostd/conf.d/x && rmdir {place}/root/etc/hostd/conf.d/x
        cp /{place}/root/usr/share/doc/hostd/examples/conf.d/00-cluster.toml {place}/root/etc/hostd/conf.d/
        inside hostd keygen >/dev/null
        inside hostd check --node clustnode1 >/dev/null || echo "check of the example says $?"
        inside sh -c 'PYTHONPATH=/nowhere:/tmp exec /usr/lib/hostd/bin/python3 -I -c \
            "import sys, pluggy, hostd; print(pluggy.__file__, hostd.__file__, sys.prefix)"'
        inside systemd-analyze verify /lib/systemd/system/hostd.service 2>&1 | grep hostd || echo "unit verified"
        inside dpkg --verify hostd
        inside getent group hostd | cut -d: -f1
        inside dpkg -r hostd >/dev/null 2>&1
        inside ls /etc/hostd/cluster.key /etc/hostd/conf.d /etc/default/hostd
        inside ls /usr/lib/hostd /usr/sbin/hostd 2>/dev/null || echo "removed"
        inside dpkg -P hostd >/dev/null 2>&1
        inside getent group hostd || echo "group is gone"
        inside ls -d /etc/hostd /usr/lib/hostd /var/lib/hostd /run/hostd 2>/dev/null || echo "all is gone"
        cd {place}/upper && find . ! -type d ! -type c | sed 's,^./,left: ,'  # c: what an overlay calls removed
        """,
    )
    lines = told.splitlines()
    version = next(
        line.split('"')[1] for line in (ROOT / "pyproject.toml").read_text().splitlines() if "version =" in line
    )
    assert f"hostd {version}" in lines
    assert "check says 2" in lines and "check of the example says 2" not in lines
    site = "/usr/lib/hostd/lib/python3.11/site-packages"
    assert f"{site}/pluggy/__init__.py {site}/hostd/__init__.py /usr/lib/hostd" in lines
    assert f"{site}/hostd/_bundled/agents/httpd.py" in told
    assert {
        "unit verified",
        "hostd",
        "/etc/hostd/cluster.key",
        "00-cluster.toml",
        "removed",
        "group is gone",
        "all is gone",
    } <= set(lines)
    left = [line.removeprefix("left: ") for line in lines if line.startswith("left: ")]
    assert [name for name in left if not name.startswith(MADE_ANEW)] == []


@pytest.mark.timeout(300)
def test_it_starts_nothing_upgrades_by_a_restart_and_is_stopped_before_it_goes(package: Path, tmp_path: Path) -> None:
    """A restart is a detach (the unit's ExecStop): an upgrade stops no service."""
    told = in_overlay(
        tmp_path,
        package,
        FAKE_SYSTEMD
        + """
        inside dpkg -i /tmp/hostd.deb >/dev/null 2>&1; asked installed
        inside dpkg -i /tmp/hostd.deb >/dev/null 2>&1; asked upgraded-and-not-running
        touch {place}/root/run/active
        inside dpkg -i /tmp/hostd.deb >/dev/null 2>&1; asked upgraded
        inside dpkg -r hostd >/dev/null 2>&1 || echo "cannot be removed while it cannot be stopped"; asked removing
        rm {place}/root/run/active
        inside dpkg -r hostd >/dev/null 2>&1; asked removed
        """,
    )
    assert told.splitlines() == [
        "installed: ",
        "upgraded-and-not-running: ",
        "upgraded: deb-systemd-invoke restart hostd.service;",
        "cannot be removed while it cannot be stopped",
        "removing: deb-systemd-invoke stop hostd.service;",
        "removed: deb-systemd-invoke stop hostd.service;systemctl --quiet disable hostd.service;",
    ]


LIFE = """
hostname sdnode
ip netns add lan
ip link add eth0 type veth peer name eth1 netns lan
ip link set eth0 up; ip -n lan link set eth1 up
ip addr add 10.9.0.11/24 dev eth0; ip -n lan addr add 10.9.0.1/24 dev eth1

state() { echo "$1: $(systemctl is-active hostd) main=$(systemctl show -p MainPID --value hostd)" \
    "service=$(pgrep -x sleep -d,) address=$(ip -o address show dev eth0 | grep -c 10.9.0.20)"; }
within_20s() { i=0; while [ $i -lt 100 ] && ! "$@"; do sleep 0.2; i=$((i+1)); done; }
runs() { hostd status 2>/dev/null | grep -q '^web *running'; }
is_another() { [ "$(systemctl show -p MainPID --value hostd)" != "$1" ]; }

dpkg -i /mnt/hostd.deb
state installed
cp /mnt/cluster.toml /etc/hostd/conf.d/
hostd keygen >/dev/null
systemctl start hostd || { systemctl status --no-pager hostd; exit 1; }
within_20s runs
state started
systemctl reload hostd; echo "reload: $?"
state reloaded
systemctl restart hostd; within_20s runs
state restarted
main=$(systemctl show -p MainPID --value hostd); kill -KILL $main; within_20s is_another $main; within_20s runs
state killed
dpkg -i /mnt/hostd.deb; within_20s runs
state upgraded
echo 'x = 1' >>/etc/hostd/conf.d/cluster.toml
systemctl reload hostd; echo "reload of a mistake: $?"
systemctl restart hostd
state restarted-with-a-mistake
sed -i '/x = 1/d' /etc/hostd/conf.d/cluster.toml
systemctl start hostd; within_20s runs
state started-again
hostd leave; sleep 1
state left
systemctl start hostd; within_20s runs
systemctl stop hostd
state stopped
systemctl start hostd; within_20s runs
dpkg -r hostd
state removed
"""

CLUSTER = """
[cluster]
name = "t"
nodes = ["sdnode", "other"]
[heartbeat]
deadtime = "1s"
initdead = "2s"
[tiebreaker]
ping = ["10.9.0.1"]
[[heartbeat.link]]
type = "udp"
interface = "eth0"
address = { sdnode = "10.9.0.11", other = "10.9.0.12" }
[service.web]
address = "10.9.0.20/24"
agent = "dummy"
params = { process = true }
"""


@pytest.mark.timeout(300)
def test_under_a_real_systemd_services_outlive_the_daemon_and_end_with_the_node(package: Path, tmp_path: Path) -> None:
    """Restart, crash and upgrade touch neither process nor address; a stop, a leave, a removal, and a
    restart into a mistake end both in good order."""
    (tmp_path / "cluster.toml").write_text(CLUSTER)
    told = booted(tmp_path, LIFE, {"hostd.deb": package, "cluster.toml": tmp_path / "cluster.toml"}, timeout_s=120)
    found = dict(re.findall(r"^([a-z-]+): (\w+ main=.*)$", told, re.MULTILINE))
    states = {
        name: re.fullmatch(r"(\w+) main=(\d+) service=([\d,]*) address=(\d)", state) for name, state in found.items()
    }
    assert all(states.values()) and len(states) == 11, told
    assert "\nreload: 0\n" in told and "\nreload of a mistake: 1\n" in told
    ended = ("0", "", "0")
    assert {name: match.groups() for name, match in states.items() if match and match[2] == "0"} == {
        "installed": ("inactive", *ended),
        "restarted-with-a-mistake": ("failed", *ended),
        "left": ("inactive", *ended),
        "stopped": ("inactive", *ended),
        "removed": ("inactive", *ended),
    }, told
    alive = {name: match.groups() for name, match in states.items() if match and match[2] != "0"}
    assert set(alive) == {"started", "reloaded", "restarted", "killed", "upgraded", "started-again"}, told
    assert all(state == "active" and service and address == "1" for state, _, service, address in alive.values()), told
    assert len({main for _, main, _, _ in alive.values()}) == 5, "each time but the reload another daemon"
    same = {alive[name][2] for name in ("started", "reloaded", "restarted", "killed", "upgraded")}
    assert len(same) == 1 and alive["started-again"][2] not in same, told


# -- what systemd is told ------------------------------------------------------------------


def fakes(folder: Path, job: str, *, check: int = 0, order: int = 0) -> dict[str, str]:
    """An environment where systemd has this job, and hostd writes down what it is asked."""
    systemctl, hostd = folder / "systemctl", folder / "hostd"
    systemctl.write_text(f"#!/bin/sh\n{f'echo 77 hostd.service {job} running' if job else 'exit 1'}\n")
    hostd.write_text(f'#!/bin/sh\necho "$@" >>{folder}/asked\n[ "$1" != check ] || exit {check}\nexit {order}\n')
    for program in (systemctl, hostd):
        program.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize(
    ("job", "check", "asked"),
    [
        ("restart", 0, "check detach"),
        ("try-restart", 1, "check detach"),
        ("restart", 2, "check leave"),
        ("stop", 0, "leave"),
        ("", 0, "leave"),
    ],
)
def test_a_restart_detaches_and_everything_else_leaves(tmp_path: Path, job: str, check: int, asked: str) -> None:
    """Unless the next daemon would refuse conf.d; and what systemd cannot say counts as a stop."""
    environment = fakes(tmp_path, job, check=check)
    with subprocess.Popen(["true"]) as daemon:
        pass  # it has ended by the time that the order was carried out
    script = [PACKAGING / "systemd-stop"]
    subprocess.run(script, env={**environment, "MAINPID": str(daemon.pid)}, check=True, timeout=30)
    assert (tmp_path / "asked").read_text().split() == asked.split()


def test_a_daemon_that_ended_by_itself_is_asked_nothing(tmp_path: Path) -> None:
    """After ``hostd leave`` or ``hostd detach`` systemd calls ExecStop all the same."""
    subprocess.run([PACKAGING / "systemd-stop"], env=fakes(tmp_path, "stop"), check=True, timeout=30)
    assert not (tmp_path / "asked").exists()


def test_a_daemon_that_cannot_be_asked_to_detach_is_told_twice_to_end(tmp_path: Path) -> None:
    """One SIGTERM would stop the services, two end it and leave them (``hostd run --help``)."""
    code = "import signal; n = [signal.sigwait([signal.SIGTERM]) for _ in range(2)]; print(len(n))"
    code = f"import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); print(flush=True); {code}"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None and daemon.stdout.readline() == "\n"
        environment = {**fakes(tmp_path, "restart", order=3), "MAINPID": str(daemon.pid)}
        subprocess.run([PACKAGING / "systemd-stop"], env=environment, check=True, timeout=30)
        assert daemon.communicate(timeout=30)[0] == "2\n"


@pytest.mark.parametrize(
    ("job", "left"), [("stop", ["10.9.0.2"]), ("restart", ["10.9.0.1", "10.9.0.2"]), ("", ["10.9.0.1", "10.9.0.2"])]
)
def test_only_a_stop_takes_off_the_addresses_that_hostd_left(tmp_path: Path, job: str, left: list[str]) -> None:
    """Those with its tag; after a crash or a restart the next daemon adopts them."""
    script = textwrap.dedent(
        """
        import subprocess, sys
        from pyroute2 import IPRoute
        with IPRoute() as kernel:
            kernel.link("set", index=1, state="up")
            kernel.addr("add", index=1, address="10.9.0.1", prefixlen=32, proto=66)
            kernel.addr("add", index=1, address="10.9.0.2", prefixlen=32)
        subprocess.run([sys.executable, sys.argv[1]], stderr=sys.stdout, check=True)
        subprocess.run(["ip", "-brief", "address", "show", "dev", "lo"], check=True)
        """
    )
    [good] = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "cluster.toml").write_text(good.replace("172.23.2.16/24", "10.9.0.1/24"))
    environment = {**fakes(tmp_path, job), "HOSTD_CONFIG": str(tmp_path), "HOSTD_NODE": "clustnode1"}
    argv = ["unshare", "--net", sys.executable, "-c", script, str(PACKAGING / "systemd-stopped")]
    told = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout
    assert re.findall(r"10\.9\.0\.\d(?=/32)", told) == left, told
    assert ("10.9.0.1 was left on lo without web: taken off" in told) == (job == "stop")


def test_an_address_whose_service_still_runs_stays(tmp_path: Path) -> None:
    """It keeps the other node from starting a second one."""
    stopped = loaded("systemd-stopped")
    folder = tmp_path / "hostd-n-1" / "service-web" / "resource-httpd"
    folder.mkdir(parents=True)
    (folder / "cgroup.procs").write_text("4711\n")
    assert stopped.processes_of("web", [tmp_path / "hostd-n-1"]) == ["4711"]
    assert stopped.processes_of("mail", [tmp_path / "hostd-n-1"]) == []


def test_the_unit_keeps_services_alive() -> None:
    """What a restart, a crash and a lack of memory must not do to them stands in the unit."""
    unit = (PACKAGING / "hostd.service").read_text()
    for line in ("KillMode=process", "OOMPolicy=continue", "Restart=on-failure", "Delegate=yes", "Type=notify"):
        assert f"\n{line}\n" in unit
    for word in ("PrivateTmp", "ProtectSystem", "ProtectHome", "ReadOnlyPaths", "PrivateMounts", "PrivateDevices"):
        assert f"\n{word}=" not in unit, "a mount namespace would hide what agents mount"


# -- man pages and completion ----------------------------------------------------------------


def loaded(script: str) -> types.ModuleType:
    loader = importlib.machinery.SourceFileLoader(script.replace("-", "_"), str(PACKAGING / script))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


def man_page(name: str) -> str:
    return str(loaded("manpage.py").page(PACKAGING / "man" / f"{name}.in"))


def read(page: str) -> str:
    """As a reader sees it, on lines that are never broken."""
    argv = ["groff", "-man", "-Tutf8", "-rLL=2000n", "-P-c"]
    shown = subprocess.run(argv, input=page, capture_output=True, text=True, check=True).stdout
    return re.sub(r".\x08", "", shown).replace("−", "-").replace("‐", "-")


@pytest.mark.parametrize("name", ["hostd.8", "hostd-agent.8", "hostd.conf.5", "hostd-agents.7"])
def test_a_man_page_is_right_for_groff(name: str) -> None:
    """No warning of any kind, and no placeholder left."""
    page = man_page(name)
    argv = ["groff", "-man", "-Tutf8", "-ww", "-z"]
    done = subprocess.run(argv, input=page, capture_output=True, text=True, check=True)
    assert done.stderr == "" and not re.search(r"^@|@version@", page, re.MULTILINE)


@pytest.mark.parametrize(("program", "page"), [("hostd", "hostd.8"), ("hostd-agent", "hostd-agent.8")])
def test_every_command_and_option_is_in_the_manual(program: str, page: str) -> None:
    """Each with its section, in which each of its own options stands."""
    sections = read(man_page(page)).split(f"\n   {program} ")
    shown = {section.split(maxsplit=1)[0]: section for section in sections[1:]}
    shared = {word for option in completion.common() for word in option.words}
    assert shared and all(word in sections[-1] for word in shared)
    for command in completion.commands(program):
        for word in (word for option in command.options for word in option.words):
            assert word in shared | {"-h", "--help"} or word in shown[command.name], (command.name, word)


def keys_of_conf_d() -> set[str]:
    """Every key that a reader of conf.d takes by name."""
    keys = {field.removesuffix("_ms") for field in Announcements.__struct_fields__}
    for path in (ROOT / "hostd" / "config.py", *sorted((ROOT / "hostd" / "confd").glob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                first = node.args[0]
                if node.func.attr in ("take", "need", "table", "tables", "raw") and isinstance(first, ast.Constant):
                    keys.add(str(first.value))
    for parameters in Registry.load(Directories()).link_types().values():
        keys |= {field.name for field in parameters.fields}
    return keys


def test_every_key_of_conf_d_is_in_the_manual() -> None:
    """As a heading of its own, or as part of one."""
    page = read(man_page("hostd.conf.5"))
    headings = set(re.findall(r"[a-z_]+", " ".join(line for line in page.splitlines() if re.match(r" {0,7}\S", line))))
    keys = keys_of_conf_d()
    assert len(keys) > 40
    assert keys - headings - set(re.findall(r"\{? ?([a-z]+) =", page)) == set()


def test_every_agent_its_parameters_and_every_hook_are_in_the_manual(tmp_path: Path) -> None:
    """Of those that come along."""
    page = read(man_page("hostd-agents.7"))
    registry = Registry.load(Directories(), system=tmp_path)
    for name, agent in registry.agents.items():
        assert f"\n   {name}\n" in page
        with contextlib.suppress(ConfigError):  # one that stands for many, and needs to be told which
            for field in agent.parameters(name).fields:
                assert re.search(rf"^       {field.name} \(", page, re.MULTILINE), (name, field.name)
    for hook in (name for name in vars(AgentSpec) if not name.startswith("_")):
        assert re.search(rf"^       {hook}\(", page, re.MULTILINE), hook


def completed(program: str, *words: str) -> list[str]:
    """What bash offers for the last word."""
    script = f"""
        {completion.bash(program)}
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        $(complete -p {program} | sed 's/.*-F \\([^ ]*\\).*/\\1/'); printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    environment = {
        **os.environ,
        "HOSTD_CONFIG": str(ROOT / "conf.d"),
        "PATH": f"{Path(sys.executable).parent}:/usr/bin",
    }
    argv = ["bash", "--norc", "-c", script, "bash", program, *words]
    return subprocess.run(argv, env=environment, cwd="/", capture_output=True, text=True, check=True).stdout.split()


def test_bash_completes_commands_options_and_names() -> None:
    """Services and nodes come from conf.d, agents from hostd-agent itself."""
    assert completed("hostd", "st") == ["status", "standby", "stop", "start"]
    assert completed("hostd", "move", "m") == ["mysql"]
    assert completed("hostd", "move", "mysql", "") == ["clustnode1", "clustnode2"]
    assert completed("hostd", "--node", "x", "lea") == ["leave"]
    assert "--watch" in completed("hostd", "status", "--")
    assert completed("hostd", "maintenance", "o") == ["on", "off"]
    assert completed("hostd", "check", "--config", "/et") == ["/etc"]
    assert completed("hostd-agent", "run", "ldap", "st") == ["start", "stop"]
    assert "httpd" in completed("hostd-agent", "show", "ht")
    assert completed("hostd-agent", "run", "ldap", "monitor", "--depth", "") == ["0", "10", "20"]


@pytest.mark.parametrize("program", ["hostd", "hostd-agent"])
def test_zsh_understands_its_file(program: str) -> None:
    """Its syntax, and that every command is in it."""
    text = completion.zsh(program)
    subprocess.run(["zsh", "-n"], input=text, text=True, check=True)
    assert text.startswith(f"#compdef {program}\n")
    assert all(f"        {command.name}) _arguments" in text for command in completion.commands(program))


def test_the_packaged_documents_are_those_of_this_code(package: Path, tmp_path: Path) -> None:
    """Made by the packaged code itself."""
    subprocess.run(["dpkg-deb", "-x", package, tmp_path], check=True)
    for page, section in (("hostd.8", 8), ("hostd.conf.5", 5)):
        packaged = gzip.decompress((tmp_path / f"usr/share/man/man{section}/{page}.gz").read_bytes()).decode()
        assert packaged == man_page(page)
    assert (tmp_path / "usr/share/bash-completion/completions/hostd").read_text() == completion.bash("hostd")


def test_the_manual_is_packaged_and_its_links_hold(package: Path, tmp_path: Path) -> None:
    """At three in the morning the nodes may reach nothing but themselves."""
    subprocess.run(["dpkg-deb", "-x", package, tmp_path], check=True)
    folder = tmp_path / "usr/share/doc/hostd"
    assert {path.name for path in folder.glob("docs/*.md")} == {path.name for path in (ROOT / "docs").glob("*.md")}
    for page in (folder / "README.md", *folder.glob("docs/*.md")):
        for link in re.findall(r"\]\(([^)#:]+)[#)]", page.read_text()):
            assert (page.parent / link).is_file(), f"{page.name} leads to {link}"
