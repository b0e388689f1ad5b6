"""Questions that may never be answered: what a child may do, and what is done about it."""

import errno
import os
import signal
import time
from pathlib import Path

import pytest

from hostd.api import AgentError, Resource, probes


@pytest.fixture
def resource(tmp_path: Path) -> Resource:
    return Resource(name="r", node="n", params={}, run_dir=tmp_path, deadline=time.monotonic() + 20)


def ask(resource: Resource, question: object, limit: float = 5, slot: str = "slot") -> object:
    return probes.ask(resource, slot, "the question", question, object, limit)  # type: ignore[arg-type]


def test_an_answer_comes_back_whatever_its_size(resource: Resource) -> None:
    """Also one larger than any pipe; and nothing is remembered of a question that was answered."""
    assert ask(resource, lambda: ["x" * 1000] * 1000) == ["x" * 1000] * 1000
    assert list(resource.run_dir.iterdir()) == []


def test_what_a_question_raises_is_raised_here(resource: Resource) -> None:
    """The kernel's errors and the agent's own, as they are."""

    def missing() -> str:
        return Path("/nowhere/at/all").read_text()

    def refuse() -> str:
        raise AgentError("the reason", cure="the cure")

    with pytest.raises(OSError) as failed:
        ask(resource, missing)
    assert failed.value.errno == errno.ENOENT
    with pytest.raises(AgentError, match="the reason") as refused:
        ask(resource, refuse)
    assert refused.value.cure == "the cure"


def test_a_child_that_dies_is_told(resource: Resource) -> None:
    """By a signal, and by our own mistake."""
    with pytest.raises(AgentError, match="its child ended with -9"):
        ask(resource, lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(AgentError, match="its child ended with 70"):
        ask(resource, lambda: 1 // 0)


def test_what_hangs_and_can_be_killed_is_gone_afterwards(resource: Resource) -> None:
    """The next question of the slot is asked."""
    with pytest.raises(probes.Hang, match=r"the question did not return within 0\.2 s \(process \d+, state S"):
        ask(resource, lambda: time.sleep(60), limit=0.2)
    assert ask(resource, lambda: "next") == "next"


def test_a_question_that_is_still_under_way_is_not_asked_again(resource: Resource) -> None:
    """An action that was killed leaves its child behind; other slots are free."""
    child = os.fork()
    if child == 0:
        ask(resource, lambda: time.sleep(60), limit=50)
        os._exit(0)
    until = time.monotonic() + 10
    while not (resource.run_dir / "asked-slot").exists() and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with pytest.raises(probes.Hang, match=r"the question still hangs, for \d+ s now"):
        ask(resource, lambda: "again")
    assert ask(resource, lambda: "other", slot="other") == "other"
    left = int((resource.run_dir / "asked-slot").read_text().partition('"pid":')[2].partition(",")[0])
    os.kill(left, signal.SIGKILL)
    while probes.alive_since(left) and time.monotonic() < until:
        time.sleep(0.01)
    assert ask(resource, lambda: "again") == "again"


@pytest.mark.parametrize("text", ["", "{", '{"pid": 1, "started": 1, "asked_at_ms": 1, "what": "other"}'])
def test_a_stale_record_refuses_nothing(resource: Resource, text: str) -> None:
    """Its process is another one by now, or the record is torn."""
    (resource.run_dir / "asked-slot").write_text(text)
    assert ask(resource, lambda: "asked") == "asked"


def test_a_command_runs_within_its_limit(resource: Resource) -> None:
    """Its output and code come back; what takes too long is killed and told."""
    done = probes.run(resource, "slot", ["sh", "-c", "echo out; echo err >&2; exit 3"], 5)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    with pytest.raises(probes.Hang, match=r"sleep 60 did not return within 0\.2 s"):
        probes.run(resource, "slot", ["sleep", "60"], 0.2)
    with pytest.raises(AgentError, match="no-such-program cannot be run"):
        probes.run(resource, "slot", ["no-such-program"], 5)


def test_patience_leaves_time_to_tell(tmp_path: Path) -> None:
    """However long is wanted, the action keeps a margin; of a short limit, half."""
    for seconds, wanted, expected in ((20, 5, 5), (20, 60, 20 - probes.MARGIN_S), (1, 60, 0.5), (-1, 60, 0.05)):
        resource = Resource(name="r", node="n", params={}, run_dir=tmp_path, deadline=time.monotonic() + seconds)
        assert probes.patience(resource, wanted) == pytest.approx(expected, abs=0.2)
