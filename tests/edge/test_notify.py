"""Notices: in order, at most once, never waited for; as a script, a mail and a webhook get them."""

import http.server
import json
import os
import selectors
import socketserver
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hostd import bulletin, cgroups, config, notices, notifying
from hostd.api import AgentError, ConfigError, Notice, Parameters
from hostd.bulletin import Bulletin
from hostd.clock import now_ms
from hostd.confd.telling import KINDS
from hostd.config import Configuration, Directories, Notifier
from hostd.core.effects import AnyFact, ClearanceTurned, LinkOpened, PhaseChanged, ServiceTurned
from hostd.core.plan import Plan
from hostd.core.terms import Clearance, Phase, ServiceState, Why
from hostd.messages import News, Notified
from hostd.notifying import Notifying
from hostd.recorder import Header
from hostd.registry import Registry
from tests.edge.test_commands import FACTS
from tests.edge.test_status import Scene

RUNS = ServiceTurned("mysql", ServiceState.RUNNING, Why.PRIMARY)
FAILS = ServiceTurned("mysql", ServiceState.FAILED, Why.START_FAILED, "port 3306 is taken")


def configuration(folder: Path, *notifiers: Notifier) -> Configuration:
    plan = Plan("example", ("a", "b"))
    return Configuration(plan=plan, node="a", key=folder / "key", links=(), resources=(), notifiers=notifiers)


class Office:
    """The queues of a host in a loop of their own, with programs that a test writes."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        self.folder = folder
        self.registry = Registry.load(Directories(), system=folder / "none")
        self.groups = cgroups.choose("a", folder)
        self.selector = selectors.DefaultSelector()
        self.heard: list[Notified] = []
        self.serial = 0
        self.notifying = self.staffed()

    def staffed(self, *notifiers: Notifier) -> Notifying:
        told = configuration(self.folder, *notifiers)
        self.notifying = Notifying(self.registry, self.groups, told, self.selector, self.heard.append)
        return self.notifying

    def script(self, name: str, acts: str, timeout_ms: int = 10_000, **params: Any) -> Notifier:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{acts}\n")
        path.chmod(0o755)
        told = {"program": path, "recipient": "", "environment": {}} | params
        return Notifier(name, "script", ("service", "node"), told, {}, timeout_ms)

    def happens(self, *facts: AnyFact) -> None:
        for fact in facts:
            self.serial += 1
            self.notifying.take(News(self.serial, 1_700_000_000.25, fact))

    def run(self, until: Callable[[], bool], limit_s: float = 20) -> None:
        end = time.monotonic() + limit_s
        while not until():
            assert time.monotonic() < end, self.heard
            wake = self.notifying.wake_at_ms()
            wait_ms = 50 if wake is None else max(0, min(50, wake - now_ms()))
            for key, _ in self.selector.select(wait_ms / 1_000):
                key.data()
            self.notifying.tick()

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    yield made
    made.run(lambda: not made.notifying.busy)
    made.groups.tidy()


# -- the queues --------------------------------------------------------------------------


def test_events_come_in_order_and_only_those_that_were_asked_for(office: Office) -> None:
    """One delivery at a time: a slow program gets them one after the other; a link's event is not for it."""
    office.staffed(office.script("slow", f'sleep 0.05; echo "$HOSTD_SERIAL $HOSTD_EVENT" >> {office.folder}/got'))
    office.happens(RUNS, LinkOpened("serial1", True, ""), FAILS, RUNS)
    office.run(lambda: len(office.heard) == 3)
    assert office.lines("got") == ["1 ServiceTurned", "3 ServiceTurned", "4 ServiceTurned"]
    assert office.heard == [Notified("slow")] * 3


def test_a_failure_is_told_and_nothing_is_tried_twice(office: Office) -> None:
    """The reason has the last line that the program printed; the next event is delivered all the same."""
    acts = f'echo once >> {office.folder}/got; echo "no route" >&2; exit $((HOSTD_SERIAL % 2))'
    office.staffed(office.script("fails", acts))
    office.happens(RUNS, FAILS)
    office.run(lambda: len(office.heard) == 2)
    assert office.lines("got") == ["once", "once"]
    assert "exit status 1: no route" in office.heard[0].failure and not office.heard[1].failure


def test_a_hang_is_ended_with_all_that_it_started_and_hurts_nobody_else(office: Office) -> None:
    """At the limit; meanwhile another [[notify]] is served, and what waited is served afterwards."""
    hangs = office.script(
        "hangs", f"[ $HOSTD_SERIAL = 1 ] && sleep 300 & wait; echo $HOSTD_SERIAL >> {office.folder}/a", 3_000
    )
    quick = office.script("quick", f"echo $HOSTD_SERIAL >> {office.folder}/b")
    office.staffed(hangs, quick)
    office.happens(RUNS, FAILS)
    office.run(lambda: office.lines("b") == ["1", "2"], limit_s=10)
    assert office.lines("a") == []
    office.run(lambda: office.lines("a") == ["2"])
    assert any(word.name == "hangs" and "did not end within" in word.failure for word in office.heard)


def test_when_too_many_wait_the_oldest_are_dropped_and_said(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue is bounded; the next that comes says how many are missing."""
    monkeypatch.setattr(notifying, "WAITING_MAX", 2)
    gate = office.folder / "gate"
    os.mkfifo(gate)
    acts = f'[ $HOSTD_SERIAL = 1 ] && cat {gate}; echo "$HOSTD_SERIAL $HOSTD_DROPPED" >> {office.folder}/got'
    office.staffed(office.script("slow", acts))
    office.happens(RUNS, RUNS, RUNS, RUNS, RUNS)
    assert [word.dropped for word in office.heard] == [1, 1]
    gate.write_text("")
    office.run(lambda: len(office.lines("got")) == 3)
    assert office.lines("got") == ["1 0", "4 2", "5 0"]


def test_a_reload_keeps_what_waits(office: Office) -> None:
    """A [[notify]] of the same name keeps its queue; one that is gone ends what it has begun, and no more."""
    gates = [office.folder / f"gate-{name}" for name in ("kept", "gone")]  # one writer may let two readers in
    for gate in gates:
        os.mkfifo(gate)
    waits = f"[ $HOSTD_SERIAL = 1 ] && cat {office.folder}/gate-${{0##*/}}"
    acts = f'{waits}; echo "$0 $HOSTD_SERIAL" >> {office.folder}/got'
    office.staffed(office.script("kept", acts), office.script("gone", acts))
    office.happens(RUNS, FAILS)
    after = configuration(office.folder, office.script("kept", acts))
    office.notifying.renew(office.registry, after)
    for gate in gates:
        gate.write_text("")
    office.run(lambda: len(office.lines("got")) == 3)
    assert sorted(line.rpartition("/")[2] for line in office.lines("got")) == ["gone 1", "kept 1", "kept 2"]


# -- what is news ---------------------------------------------------------------------------


def board(folder: Path, disk: ThreadPoolExecutor, told: list[News]) -> Bulletin:
    notifier = Notifier("x", "script", ("service", "node"), {}, {}, 1_000)
    scene = Scene()

    def header() -> Header:
        return Header(1, "test", "a", scene.core.plan, 0.0, 0)

    return Bulletin(
        scene.core, configuration(folder, notifier), scene.figures, folder, disk, header, lambda _: "", told.append
    )


def test_a_new_brain_does_not_tell_what_stands_as_it_was_told(tmp_path: Path) -> None:
    """It counts on, keeps to itself that it looks and finds the service as it was, and tells what is different."""
    told: list[News] = []
    with ThreadPoolExecutor(1) as disk:
        first = board(tmp_path, disk, told)
        first.add(RUNS)
        first.add(LinkOpened("wire", True, ""))  # counted, and asked for by nobody
        first.turn(0)
    with ThreadPoolExecutor(1) as disk:
        second = board(tmp_path, disk, told)
        second.add(ServiceTurned("mysql", ServiceState.UNKNOWN, Why.STARTED))
        second.add(msgspec.structs.replace(RUNS, why=Why.ADOPTED))
        second.add_observed("b", FAILS)
        second.add(FAILS)
    assert [(news.serial, news.fact) for news in told] == [(1, RUNS), (3, FAILS)]


def test_what_was_told_last_may_be_damaged(tmp_path: Path) -> None:
    """Then something is told once more, and nothing breaks."""
    (tmp_path / bulletin._FILE).write_text('{"serial": ')
    told: list[News] = []
    with ThreadPoolExecutor(1) as disk:
        board(tmp_path, disk, told).add(RUNS)
    assert len(told) == 1


def test_failures_are_problems_until_a_delivery_succeeds(tmp_path: Path) -> None:
    """Counted and shown by name as a warning."""
    with ThreadPoolExecutor(1) as disk:
        desk = board(tmp_path, disk, [])
        desk.notified(Notified("mail1", "connection refused"))
        figures = desk._figures
        assert figures.notify_failures == {"mail1": "connection refused"}
        desk.notified(Notified("mail1"))
        assert figures.notify_failures == {}
        assert figures.counters["notifications_failed"] == figures.counters["notifications_sent"] == 1


def test_every_fact_has_a_kind_that_conf_d_knows() -> None:
    """None is left out of [[notify]] for, and every kind has a fact."""
    assert {notices.kind_of(fact) for fact in FACTS} == set(KINDS)


# -- script, mail, webhook -------------------------------------------------------------------


def a_notice(type_: str, fact: AnyFact, params: dict[str, Any], **secrets: Path) -> Notice:
    return Notice(
        type=type_, params=params, secrets=secrets, kind=notices.kind_of(fact), event=type(fact).__name__,
        fields=notices.named(fact), text="mysql fails: port 3306 is taken", cluster="example", node="a", serial=7,
        at=1_700_000_000.25, dropped=2, deadline=time.monotonic() + 10,
    )  # fmt: skip


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load(Directories())


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        (RUNS, {"kind": "resource", "rsc": "mysql", "task": "start", "rc": "0", "target_rc": "0", "status": "0"}),
        (FAILS, {"kind": "resource", "rsc": "mysql", "task": "monitor", "rc": "1", "status": "4"}),
        (PhaseChanged(Phase.ALONE, False, 3, Why.PEER_FENCED), {"kind": "node", "node": "a"}),
        (ClearanceTurned(False, Clearance.FENCED), {"kind": "fencing", "task": "off", "rc": "0"}),
        (ClearanceTurned(False, Clearance.NONE, "no answer"), {"kind": "fencing", "rc": "1"}),
        (LinkOpened("x", False, "away"), {"kind": "attribute", "attribute_name": "LinkOpened"}),
    ],
)
def test_a_script_gets_the_environment_of_an_alert_agent(
    registry: Registry, tmp_path: Path, fact: AnyFact, expected: dict[str, str]
) -> None:
    """What alert agents of Pacemaker look at is there and fits; nothing is in an argument."""
    script = tmp_path / "alert"
    script.write_text(f"#!/bin/sh\n[ $# = 0 ] && env > {tmp_path}/env\n")
    script.chmod(0o755)
    params = {"program": script, "recipient": "root", "environment": {"SITE": "here"}}
    registry.notify(a_notice("script", fact, params))
    env = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines() if "=" in line)
    found = {key.removeprefix("CRM_alert_"): value for key, value in env.items()}
    assert expected.items() <= found.items()
    assert (found["recipient"], found["node_sequence"], found["timestamp_epoch"]) == ("root", "7", "1700000000")
    assert found["timestamp_usec"] == "250000" and found["desc"] and env["SITE"] == "here"
    assert json.loads(env["HOSTD_FIELDS"]) == json.loads(json.dumps(notices.named(fact)))


def test_a_mail_by_sendmail_says_what_where_and_when(registry: Registry, tmp_path: Path) -> None:
    """One letter with the event in its subject, marked as made by a machine; what was dropped is said."""
    sendmail = tmp_path / "sendmail"
    sendmail.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments; cat > {tmp_path}/letter\n')
    sendmail.chmod(0o755)
    params = {"to": ["root@localhost"], "from": "", "relay": "", "sendmail": sendmail}
    registry.notify(a_notice("mail", FAILS, params))
    letter = (tmp_path / "letter").read_text()
    assert "Subject: [example] a: mysql fails: port 3306 is taken" in letter
    assert "To: root@localhost" in letter and "Auto-Submitted: auto-generated" in letter
    assert "2 events before this one were dropped" in letter and "root@" not in (tmp_path / "arguments").read_text()


class _Relay(socketserver.StreamRequestHandler):
    """As much of SMTP as one mail takes."""

    def handle(self) -> None:
        said = self.server.said  # type: ignore[attr-defined]
        self.wfile.write(b"220 relay\r\n")
        in_data = False
        for raw in self.rfile:
            line = raw.decode().rstrip("\r\n")
            said.append(line)
            if in_data:
                in_data = line != "."
                answer = b"" if in_data else b"250 taken\r\n"
            elif line.lower() == "data":
                in_data, answer = True, b"354 go on\r\n"
            else:
                answer = b"221 bye\r\n" if line.lower() == "quit" else b"250 relay\r\n"
            self.wfile.write(answer)


@pytest.fixture
def relay() -> Iterator[socketserver.TCPServer]:
    with socketserver.TCPServer(("127.0.0.1", 0), _Relay) as server:
        server.said = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_mail_goes_through_a_relay(registry: Registry, relay: socketserver.TCPServer) -> None:
    """By SMTP to HOST:PORT; a relay that is not there is a failure with its reason."""
    params = {"to": ["root@site"], "from": "hostd@site", "relay": f"127.0.0.1:{relay.server_address[1]}",
              "starttls": False, "ca": None, "username": ""}  # fmt: skip
    registry.notify(a_notice("mail", FAILS, params))
    said = "\n".join(relay.said)  # type: ignore[attr-defined]
    assert "mail FROM:<hostd@site>" in said and "Subject: [example] a: mysql fails" in said
    with pytest.raises(AgentError, match="could not be sent"):
        registry.notify(a_notice("mail", FAILS, params | {"relay": "127.0.0.1:1"}))


class _Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((dict(self.headers), json.loads(body)))  # type: ignore[attr-defined]
        self.send_response(500 if self.path == "/broken" else 204)
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        pass


def test_a_webhook_gets_json_with_a_schema_and_the_token_from_its_file(registry: Registry, tmp_path: Path) -> None:
    """The names of hostd log --json; an answer that is no 2xx is a failure, and no secret is in it."""
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    token.chmod(stat.S_IRUSR)
    with http.server.HTTPServer(("127.0.0.1", 0), _Hook) as server:
        server.got = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}"
            registry.notify(a_notice("webhook", FAILS, {"url": url, "headers": {"X-Site": "here"}}, token=token))
            (tmp_path / "url").write_text(f"{url}/hooks/t0ken\n")
            (tmp_path / "url").chmod(stat.S_IRUSR)
            registry.notify(a_notice("webhook", FAILS, {"headers": {}}, url=tmp_path / "url"))
            with pytest.raises(AgentError, match="answered 500") as failed:
                registry.notify(a_notice("webhook", FAILS, {"url": url + "/broken", "headers": {}}, token=token))
        finally:
            server.shutdown()
            thread.join()
    (headers, facts), (_, again), _ = server.got  # type: ignore[attr-defined]
    assert again == facts
    assert headers["Authorization"] == "Bearer s3cret" and headers["X-Site"] == "here"
    assert "s3cret" not in str(failed.value)
    assert (facts["schema"], facts["serial"], facts["kind"], facts["event"]) == (1, 7, "service", "ServiceTurned")
    assert facts["fields"] == {
        "service": "mysql", "state": "failed", "why": "start_failed", "detail": "port 3306 is taken",
    }  # fmt: skip


@pytest.mark.parametrize(("text", "mode", "says"), [("s3cret", 0o644, "chmod 600"), ("two\nlines", 0o600, "one line")])
def test_an_unfit_secret_is_not_used(tmp_path: Path, text: str, mode: int, says: str) -> None:
    """A file that others may read, or that holds more than one line: refused, and nothing of it is shown."""
    token = tmp_path / "token"
    token.write_text(text)
    token.chmod(mode)
    with pytest.raises(AgentError) as refused:
        a_notice("webhook", FAILS, {}, token=token).secret("token")
    assert says in f"{refused.value} {refused.value.cure}" and text not in str(refused.value)


# -- conf.d ----------------------------------------------------------------------------------

CLUSTER = """
[cluster]
name = "example"
nodes = ["a", "b"]
[[heartbeat.link]]
type = "any"
"""


def load(folder: Path, text: str, registry: Registry) -> Configuration:
    (folder / "00.toml").write_text(CLUSTER + text)
    links = {"any": Parameters(any_others=True)}
    return config.load(folder, "a", registry.parameters, links, registry.notify_types())


def test_whom_it_tells_is_read_and_in_no_digest(registry: Registry, tmp_path: Path) -> None:
    """Defaults: node, service and fencing; 30 s. Both nodes may differ: the plan is the same with and without."""
    text = """
    [metrics]
    textfile = "hostd.prom"
    [[notify]]
    type = "webhook"
    params = { url = "https://site/" }
    secrets = { token = "token" }
    [[notify]]
    type = "mail"
    for = ["fencing"]
    params = { to = { a = ["root@a"], b = ["root@b"] } }
    """
    found = load(tmp_path, text, registry)
    assert found.metrics_textfile == tmp_path / "hostd.prom"
    hook, mail = found.notifiers
    assert (hook.name, hook.kinds, hook.timeout_ms) == ("webhook1", ("node", "service", "fencing"), 30_000)
    assert hook.secrets == {"token": tmp_path / "token"} and "token" not in hook.params
    assert mail.params["to"] == ["root@a"] and mail.kinds == ("fencing",)
    assert load(tmp_path, "", registry).plan == found.plan


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[metrics]\ntextfile = "x.txt"', "does not end in .prom"),
        ('[metrics]\ntextfil = "x.prom"', "did you mean textfile?"),
        ('[[notify]]\ntype = "pigeon"', 'use "'),
        ("[[notify]]\nparams = {}", "type is missing"),
        ('[[notify]]\ntype = "script"', "program is missing"),
        ('[[notify]]\ntype = "script"\nparams = { program = "/x" }\nfor = ["weather"]', "is not one of its values"),
        ('[[notify]]\ntype = "webhook"\nparams = { url = "x", token = "s3cret" }', "is not a known parameter"),
        ('[[notify]]\ntype = "webhook"\nparams = { url = "x" }\nsecrets = { tokn = "/x" }', "known here: url, token"),
        (2 * '[[notify]]\nname = "x"\ntype = "webhook"\nparams = { url = "x" }\n', "is the name of two"),
    ],
)
def test_a_mistake_is_told_with_its_cure(registry: Registry, tmp_path: Path, text: str, says: str) -> None:
    """As everywhere in conf.d: the place, the rule, the cure; a secret's value is never shown."""
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text, registry)
    assert says in str(error.value) and "s3cret" not in str(error.value)
