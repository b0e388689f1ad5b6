"""What a monitor costs: ours, forked from the host, beside the shell agent of resource-agents.

    python benchmarks/monitor_cost.py [ROUNDS [AGENT …]]      (root; private instances in a throw-away directory)

Both look at the same running instance, in turns, so that what else the machine
does hits both; the figures are medians.  Counted is CPU time, user and system,
of everything that the monitor ran: the whole tree of children.  What its caller
pays on top (fork, cgroup, answer) is counted apart, on both sides.  The aim is a
fifth of the shell agent's, or less.  Agents and servers that are not installed
are left out, with a word.

A fork costs by what is loaded, so all of hostd is loaded here, as it is in the
host: its heap and not the work makes up most of what the cheapest monitor costs.

Both ask the same, and as little as they can be set to ask: one request of httpd,
one search of slapd at one of its URLs, a pid of mysql or (level 10) a query.
"""

import contextlib
import gc
import grp
import os
import pwd
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hostd import daemon, heart, host
from hostd.api import AgentError, Health
from hostd.jobs import Verb
from tests.contracts.bench import Bench

SHELL = Path("/usr/lib/ocf/resource.d/heartbeat")
ROUNDS = 30
AIM = 0.2
LOADED = (host, daemon, heart)
"""As in the process that forks monitors; they are not used here."""

Params = dict[str, Any]


class Pair(NamedTuple):
    """One of ours and its counterpart, each at a depth."""

    agent: str
    depth: int
    shell: str
    level: int
    params_for_shell: Callable[[Params], Params]


def of_httpd(params: Params) -> Params:
    server = shutil.which("apache2") or shutil.which("httpd") or ""
    request = {"statusurl": params["url"], "testregex": "sandbox"}
    return {"configfile": params["config"], "httpd": server, "envfiles": "", **request}


def of_mysql(params: Params) -> Params:
    config = Path(params["datadir"]).parent / "empty.cnf"
    config.touch()
    files = {"datadir": params["datadir"], "socket": params["socket"], "pid": f"{params['socket']}.pid"}
    account = pwd.getpwnam(params["user"])
    owner = {"user": account.pw_name, "group": grp.getgrgid(account.pw_gid).gr_name}
    server = {**owner, "binary": shutil.which("mariadbd") or "", "client_binary": shutil.which("mysql") or ""}
    return {**files, **server, "config": config, "test_table": "mysql.db", "test_user": "root", "test_passwd": ""}


def of_ldap(params: Params) -> Params:
    folder = Path(params["config"]).parent
    urls = {"services": params["urls"][0], "watch_suffix": params["base"]}
    return {"config": params["config"], "pid_file": f"{folder}/run/slapd.pid", "user": "openldap", **urls}


def of_filesystem(params: Params) -> Params:
    mount = {"device": params["device"], "directory": params["directory"]}
    return mount | (
        {"fstype": "none", "options": "bind"} if params["fstype"] == "bind" else {"fstype": params["fstype"]}
    )


PAIRS = (
    Pair("dummy", 0, "Dummy", 0, lambda _: {}),
    Pair("httpd", 10, "apache", 0, of_httpd),
    Pair("mysql", 0, "mysql", 0, of_mysql),
    Pair("mysql", 10, "mysql", 10, of_mysql),
    Pair("ldap", 10, "slapd", 0, of_ldap),
    Pair("filesystem", 0, "Filesystem", 0, of_filesystem),
)


def cpu_ms(who: int) -> float:
    used = resource.getrusage(who)
    return (used.ru_utime + used.ru_stime) * 1000


class Cost(NamedTuple):
    """Of one monitor, in milliseconds."""

    tree: float
    """CPU time of its children."""
    caller: float
    """CPU time of whoever ran it."""
    wall: float


def measured(act: Callable[[], None]) -> Cost:
    began, tree, caller = time.perf_counter(), cpu_ms(resource.RUSAGE_CHILDREN), cpu_ms(resource.RUSAGE_SELF)
    act()
    wall = (time.perf_counter() - began) * 1000
    return Cost(cpu_ms(resource.RUSAGE_CHILDREN) - tree, cpu_ms(resource.RUSAGE_SELF) - caller, wall)


def shell_act(pair: Pair, action: str, params: Params, scratch: Path) -> None:
    """Run the shell agent as a cluster manager would; it must succeed."""
    env = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "OCF_ROOT": "/usr/lib/ocf",
        "OCF_RESOURCE_INSTANCE": "bench",
        "OCF_RESOURCE_TYPE": pair.shell,
        "OCF_RESOURCE_PROVIDER": "heartbeat",
        "OCF_CHECK_LEVEL": str(pair.level),
        "OCF_RESKEY_CRM_meta_interval": "10000",
        "OCF_RESKEY_CRM_meta_timeout": "20000",
        "HA_RSCTMP": str(scratch),
        **{f"OCF_RESKEY_{name}": str(value) for name, value in params.items()},
    }
    done = subprocess.run([SHELL / pair.shell, action], env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AgentError(f"{pair.shell} {action} gives {done.returncode}: {done.stderr.strip()[-300:]}")


@contextlib.contextmanager
def running(agent: str, folder: Path) -> Iterator[tuple[Bench, Params]]:
    """A private instance of the service, started and at the end stopped by our agent."""
    sandbox = folder / "sandbox"
    sandbox.mkdir(mode=0o755)
    bench = Bench(folder, agent, {})
    bench.params = bench.params | (bench.registry.agent(agent).sandbox(sandbox) or {})
    if agent == "ldap":
        bench.params["ask"] = bench.params["urls"][:1]
    try:
        started = bench.run(Verb.START, timeout_ms=60_000)
        if not started.ok:
            raise AgentError(f"start: {started.reason}")
        yield bench, bench.params
    finally:
        bench.run(Verb.STOP, timeout_ms=60_000)
        bench.close()


def compare(pair: Pair, rounds: int, folder: Path) -> tuple[Cost, Cost]:
    """Medians of both, measured in turns."""
    with running(pair.agent, folder) as (bench, params):
        theirs_params = pair.params_for_shell(params)
        if pair.shell == "Dummy":
            shell_act(pair, "start", theirs_params, folder)

        def ours() -> None:
            outcome = bench.run(Verb.MONITOR, depth=pair.depth)
            if outcome.health is not Health.RUNNING:
                raise AgentError(f"monitor: {outcome.health} {outcome.reason}")

        def theirs() -> None:
            shell_act(pair, "monitor", theirs_params, folder)

        gc.collect()
        gc.freeze()  # as the host does before it forks anything
        for warm in (ours, theirs):
            warm()
        turns = [(measured(ours), measured(theirs)) for _ in range(rounds)]
        gc.unfreeze()
    both = []
    for which in (0, 1):
        costs = [turn[which] for turn in turns]
        both.append(Cost(*(statistics.median(values) for values in zip(*costs, strict=True))))
    return both[0], both[1]


def main() -> None:
    rounds, wanted = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS, sys.argv[2:]
    print(f"medians of {rounds} monitors each, in turns; CPU and wall time in milliseconds")
    print("tree: all that the monitor ran; caller: what it costs the process that runs it\n")
    print(f"{'agent (depth) : shell agent':28}  ours: tree caller   shell: tree caller   ratio   wall: ours shell")
    for pair in (pair for pair in PAIRS if not wanted or pair.agent in wanted):
        title = f"{pair.agent} ({pair.depth}) : {pair.shell}"
        with tempfile.TemporaryDirectory(prefix="hostd-bench-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            folder.chmod(0o755)
            try:
                ours, theirs = compare(pair, rounds, folder)
            except (AgentError, KeyError) as error:
                print(f"{title:28}  left out: {error}")
                continue
        verdict = "" if ours.tree / theirs.tree <= AIM else f"   over {AIM:g}"
        print(
            f"{title:28}  {ours.tree:10.1f} {ours.caller:6.1f} {theirs.tree:13.1f} {theirs.caller:6.1f} "
            f"{ours.tree / theirs.tree:7.2f} {ours.wall:12.0f} {theirs.wall:5.0f}{verdict}",
            flush=True,
        )


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("needs root: it starts servers as their own users")
    main()
