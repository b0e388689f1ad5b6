"""conf.d is read again: what runs is stopped as it was started, and a bad file changes nothing.

The host is real, its heart and brain are small ones that do as they are told.
"""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hostd import cgroups, config, description, processes, reloading
from hostd.core.snapshot import Wish, WishKind
from hostd.registry import Registry
from hostd.reloading import Setup
from hostd.state import save_wishes
from tests.edge.host_lives import wait_for
from tests.edge.test_host import Machine, is_sleeping

HEAD = """
[cluster]
name = "example"
nodes = ["a", "b"]
[[heartbeat.link]]
type = "udp"
interface = "lo"
address = { a = "127.0.0.1", b = "127.0.0.2" }
"""
WEB = '[service.web]\nagent = "dummy"\nparams = {{ process = true{} }}\n'
NOTING = '''"""Notes what it is asked."""
from pathlib import Path
from hostd.api import AgentError, Field, Health, Parameters, hookimpl

@hookimpl
def parameters():
    return Parameters(Field("stuck", bool, default=False))

def note(resource, what):
    with open("{diary}", "a") as diary:
        diary.write(f"{{what}} {{resource.name}}\\n")

@hookimpl
def start(resource):
    note(resource, "start")
    (resource.run_dir / "up").touch()

@hookimpl
def stop(resource):
    note(resource, "stop")
    if resource.params["stuck"]:
        raise AgentError("it is stuck")
    (resource.run_dir / "up").unlink(missing_ok=True)

@hookimpl
def monitor(resource):
    return Health.RUNNING if (resource.run_dir / "up").exists() else Health.STOPPED
'''
DO = (
    "Do(action_id={id}, service='{service}', resource='{resource}', action=Action.{verb}, timeout_ms=10000, "
    "depth=0, recurring=False)"
)


class Site(Machine):
    """A host that reads a real conf.d."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.conf, agents = folder / "conf.d", folder / "agents"
        self.diary = folder / "diary"
        self.conf.mkdir()
        agents.mkdir()
        for name in ("low", "middle", "top"):
            (agents / f"{name}.py").write_text(NOTING.format(diary=self.diary))
        self.directories = config.Directories(
            config=self.conf, agents=(agents,), runtime=folder / "run", state=folder / "state"
        )
        self.numbers = iter(range(1, 100))

    def write(self, *services: str, head: str = HEAD) -> None:
        (self.conf / "all.toml").write_text(head + "\n".join(services))

    def setup(self) -> Setup:
        registry = Registry.load(self.directories, system=self.folder / "none")
        configuration = config.load(self.conf, "a", registry.parameters, registry.link_types())
        described = description.describe(configuration, registry, (b"key",), "00")
        return Setup(configuration, registry, *self.mains(), described)

    def up(self, *services: str) -> None:
        self.write(*services)
        self.start()
        self.wait_for_lives(1, 1)

    def ask(self, verb: str, service: str = "web", resource: str = "dummy") -> dict[str, Any]:
        """One action, as the newest brain asks for it, to its end."""
        number = next(self.numbers)
        self.order(DO.format(id=number, service=service, resource=resource, verb=verb))
        return self.done(number)

    def reload(self) -> dict[str, Any]:
        """The host's word; the next brain is there if it is DONE."""
        number, brains = next(self.numbers), len(self.lives("brain"))
        self.order(f"Reload(request_id={number})")
        answer: Any = wait_for(lambda: [f for f in self.told("brain", "Reloaded") if f["request_id"] == number])
        if answer[0]["outcome"] == "DONE":
            self.wait_for_lives(1, brains + 1)
            wait_for(lambda: len(self.told("brain", "Unfinished")) > brains)
        return dict(answer[0])

    def outdated(self) -> list[str]:
        """As the newest brain was told."""
        return list(self.told("brain", "Unfinished")[-1]["outdated"])

    def noted(self) -> list[str]:
        return self.diary.read_text().splitlines()

    def close(self) -> None:
        super().close()
        groups = cgroups.choose("a", self.directories.runtime)
        for process in groups.in_resource("web", "dummy"):
            processes.kill(process)
        time.sleep(0.05)
        groups.tidy()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def test_what_runs_is_stopped_with_the_parameters_of_its_start(site: Site) -> None:
    """By the new ones its stop would fail; after its next start they count."""
    site.up(WEB.format(""))
    pid = site.ask("START")["pid"]
    site.write(WEB.format(', fail = "stop"'))
    assert site.reload()["outcome"] == "DONE" and site.outdated() == ["web"]
    assert site.ask("MONITOR")["health"] == "RUNNING" and is_sleeping(pid)
    assert site.ask("STOP")["ok"] and not is_sleeping(pid)
    assert site.ask("MONITOR")["health"] == "STOPPED"
    assert site.ask("START")["ok"]
    assert not site.ask("STOP")["ok"], "the new parameters let it fail"


def test_how_it_was_started_outlives_the_daemon(site: Site) -> None:
    """An upgrade or a crash, and conf.d changed meanwhile: told as outdated, stopped in the old way."""
    site.up(WEB.format(""))
    pid = site.ask("START")["pid"]
    os.kill(site.pid, signal.SIGKILL)
    site.end()
    site.write(WEB.format(', fail = "stop"'))
    site.start()
    site.wait_for_lives(2, 2)
    wait_for(lambda: len(site.told("brain", "Unfinished")) == 2)
    assert site.outdated() == ["web"]
    assert site.ask("STOP")["ok"] and not is_sleeping(pid)


def test_what_an_older_hostd_started_is_taken_for_started_as_conf_d_says(site: Site) -> None:
    """It kept no record: nothing is outdated, and nothing is lost."""
    site.up(WEB.format(""))
    pid = site.ask("START")["pid"]
    os.kill(site.pid, signal.SIGKILL)
    site.end()
    for record in (site.folder / "run" / "origins").iterdir():
        record.unlink()
    site.write(WEB.format(", seconds = 500"))
    site.start()
    site.wait_for_lives(2, 2)
    wait_for(lambda: len(site.told("brain", "Unfinished")) == 2)
    assert site.outdated() == []
    assert site.ask("MONITOR")["health"] == "RUNNING"
    assert site.ask("STOP")["ok"] and not is_sleeping(pid)


def test_defaults_of_a_newer_agent_make_nothing_outdated(site: Site) -> None:
    """Only what the operator wrote is compared; the newer agent's default is there when it stops."""
    site.up('[service.web]\nagent = "low"\n')
    site.ask("START", resource="low")
    agent = site.folder / "agents" / "low.py"
    fresh = 'Field("stuck", bool, default=False), Field("late", int, default=5)'
    text = agent.read_text().replace('Field("stuck", bool, default=False)', fresh)
    agent.write_text(text.replace('note(resource, "stop")', "note(resource, f\"stop {resource.params['late']}\")"))
    answer = site.reload()
    assert [change["kind"] for change in answer["changes"]] == ["agent"] and site.outdated() == []
    assert site.ask("STOP", resource="low")["ok"]
    assert site.noted() == ["start low", "stop 5 low"]


def test_an_agent_that_was_replaced_is_asked_until_the_new_one_starts(site: Site) -> None:
    """Its name is not in conf.d any more: the new one stands for it."""
    site.up(WEB.format(""))
    pid = site.ask("START")["pid"]
    site.write('[service.web]\nagent = "low"\n')
    assert site.reload()["outcome"] == "DONE" and site.outdated() == ["web"]
    assert site.ask("MONITOR", resource="low")["health"] == "RUNNING"
    assert site.ask("STOP", resource="low")["ok"] and not is_sleeping(pid)
    assert site.ask("START", resource="low")["ok"] and site.noted() == ["start low"]


def test_a_resource_that_is_gone_is_stopped_in_its_place(site: Site) -> None:
    """The middle one of three: after the one above it and before the one below."""
    three = '[service.web]\nresources = [{ agent = "low" }, { agent = "middle" }, { agent = "top" }]\n'
    site.up(three)
    for name in ("low", "middle", "top"):
        site.ask("START", resource=name)
    site.write(three.replace('{ agent = "middle" }, ', ""))
    site.reload()
    assert site.outdated() == ["web"]
    for name in ("top", "low"):
        assert site.ask("STOP", resource=name)["ok"]
    assert site.noted()[3:] == ["stop top", "stop middle", "stop low"]
    assert list((site.folder / "run" / "origins").iterdir()) == []


def test_a_service_that_is_gone_is_stopped_as_it_was_started(site: Site) -> None:
    """In reverse order, without being asked; one that is stuck is told."""
    site.up(
        '[service.web]\nresources = [{ agent = "low" }, { agent = "top" }]\n',
        '[service.hard]\nagent = "middle"\nparams = { stuck = true }\n',
        '[service.rest]\nagent = "dummy"\n',
    )
    site.ask("START", resource="low")
    site.ask("START", resource="top")
    site.ask("START", service="hard", resource="middle")
    site.write('[service.rest]\nagent = "dummy"\n')
    site.reload()
    told: Any = wait_for(lambda: site.told("brain", "Unstopped"))
    assert list(told[0]["services"]) == ["hard"] and "it is stuck" in told[0]["services"]["hard"]
    wait_for(lambda: "stop low" in site.noted())
    stops = [line for line in site.noted() if line.startswith("stop") and "middle" not in line]
    assert stops == ["stop top", "stop low"]


def test_a_service_that_is_gone_is_left_alone_in_maintenance(site: Site) -> None:
    """Hands off is hands off; the first reload after its end stops it."""
    site.up('[service.hard]\nagent = "middle"\n', WEB.format(""))
    site.ask("START", service="hard", resource="middle")
    save_wishes(site.folder / "state", (Wish(WishKind.MAINTENANCE, "", "on", 1, "a"),))
    site.write(WEB.format(""))
    site.reload()
    told: Any = wait_for(lambda: site.told("brain", "Unstopped"))
    assert "maintenance" in told[0]["services"]["hard"] and site.noted() == ["start middle"]
    save_wishes(site.folder / "state", ())
    assert site.reload()["outcome"] == "SAME"
    wait_for(lambda: "stop middle" in site.noted())
    assert site.told("brain", "Unstopped")[-1]["services"] == {}


def test_a_bad_conf_d_is_refused_and_everything_goes_on(site: Site) -> None:
    """All complaints come back; heart, brain and service are the same as before."""
    site.up(WEB.format(""))
    pid = site.ask("START")["pid"]
    site.write(WEB.format(', colour = "red"'), '[service.other]\nagent = "dumy"\nprimary = "c"\n')
    answer = site.reload()
    assert answer["outcome"] == "BAD"
    assert "colour" in answer["text"] and '"c"' in answer["text"]
    assert len(site.lives("brain")) == len(site.lives("heart")) == 1
    assert site.ask("MONITOR")["health"] == "RUNNING" and is_sleeping(pid)


def test_a_service_that_works_is_not_given_up_for_a_broken_agent(site: Site) -> None:
    """At a start it would be set aside; a reload is refused."""
    site.up('[service.web]\nagent = "low"\n')
    (site.folder / "agents" / "low.py").write_text("def (:\n")
    answer = site.reload()
    assert answer["outcome"] == "BAD" and "web" in answer["text"]
    assert site.ask("START", resource="low")["ok"], "the one that was loaded"


def test_an_agent_that_hangs_as_it_is_loaded_does_not_hang_the_host(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read in a child first, under a limit."""
    monkeypatch.setattr(reloading, "CHECK_MAX_MS", 1_500)
    site.up(WEB.format(""))
    (site.folder / "agents" / "stuck.py").write_text("import time\ntime.sleep(1000)\n")
    number = next(site.numbers)
    site.order(f"Reload(request_id={number})")
    time.sleep(0.3)
    assert site.ask("MONITOR")["ok"], "the host works meanwhile"
    answer: Any = wait_for(lambda: site.told("brain", "Reloaded"))
    assert answer[0]["outcome"] == "BAD" and "no end in" in answer[0]["text"]


def test_another_cluster_is_refused(site: Site) -> None:
    """Nodes and name are what both nodes know each other by."""
    site.up(WEB.format(""))
    site.write(WEB.format(""), head=HEAD.replace("example", "another"))
    assert site.reload()["outcome"] == "FORBIDDEN"
    assert len(site.lives("brain")) == 1


def test_nothing_is_done_if_nothing_differs(site: Site) -> None:
    """Another layout of the same files is no difference."""
    site.up(WEB.format(""))
    site.write("# a comment", WEB.format(""))
    assert site.reload()["outcome"] == "SAME"
    assert len(site.lives("brain")) == 1


def test_a_start_under_way_is_waited_for(site: Site) -> None:
    """Its outcome reaches the brain that asked for it; what is asked meanwhile is for the next."""
    site.up(WEB.format(", start_delay = 1.5"))
    site.order(DO.format(id=1, service="web", resource="dummy", verb="START"), "Reload(request_id=2)")
    site.write(WEB.format(", start_delay = 0.0"))
    wait_for(lambda: site.told("brain", "Reloaded"))
    heard = [fact["what"] for fact in site.told("brain") if fact["what"] in ("Done", "Reloaded", "Relieved")]
    assert heard[:2] == ["Done", "Reloaded"]
    site.wait_for_lives(1, 2)
    assert site.told("brain", "Unfinished")[-1]["services"] == []


def test_the_heart_goes_on_unless_it_is_concerned(site: Site) -> None:
    """A service is none of its business, a link is."""
    site.up(WEB.format(""))
    site.write(WEB.format(", seconds = 500"))
    site.reload()
    assert len(site.lives("heart")) == 1
    site.write(WEB.format(", seconds = 500"), head=HEAD.replace("127.0.0.2", "127.0.0.3"))
    site.reload()
    site.wait_for_lives(2, 3)
    new = site.lives("heart")[-1]
    wait_for(lambda: [f for f in site.told("brain", "Renew") if f["hears"] == new])


def test_who_is_told_to_end_between_two_brains_leaves_in_order(site: Site) -> None:
    """The next brain hears of it."""
    site.up(WEB.format(""))
    old = site.lives("brain")[0]
    site.write(WEB.format(", seconds = 500"))
    number = next(site.numbers)
    site.order(f"Reload(request_id={number})")
    wait_for(lambda: site.told("brain", "Reloaded") or not is_sleeping(old))
    os.kill(site.pid, signal.SIGTERM)
    wait_for(lambda: site.told("brain", "Signalled"), 15)
    site.order("Goodbye(exit_code=0)")
    assert site.end() == 0


def test_what_is_written_down_is_private(site: Site) -> None:
    """Secrets are in it, since a stop may need them."""
    site.up(WEB.format(', token = "hush"'))
    site.ask("START")
    folder = site.folder / "run" / "origins"
    (record,) = folder.iterdir()
    assert "hush" in record.read_text()
    assert folder.stat().st_mode & 0o777 == 0o700 and record.stat().st_mode & 0o777 == 0o600


def test_a_description_shows_no_secret(site: Site) -> None:
    """Nor a digest that could be looked up: it is salted."""
    site.write(WEB.format(', token = "hush"'))
    described = site.setup().description
    text = json.dumps(msgspec.to_builtins(described))
    assert "hush" not in text and "token" in text
    other = description.describe(site.setup().configuration, site.setup().registry, (b"key",), "11")
    assert other.services["web"].resources["dummy"].params != described.services["web"].resources["dummy"].params


def test_systemd_is_told_that_it_reloads_and_when_it_is_done(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGHUP, as from systemctl reload: RELOADING with the time of the signal, then READY."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(site.folder / "notify"))
    manager.settimeout(10)
    monkeypatch.setenv("NOTIFY_SOCKET", str(site.folder / "notify"))
    site.up(WEB.format(""))
    site.order("Alive(status='well', ready=True)")
    assert b"READY=1" in manager.recv(1_000)
    site.write(WEB.format(", seconds = 500"))
    os.kill(site.pid, signal.SIGHUP)
    assert manager.recv(1_000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
    site.wait_for_lives(1, 2)
    site.order("Alive(status='well', ready=True)")
    assert b"READY=1" in manager.recv(1_000)
    manager.close()
