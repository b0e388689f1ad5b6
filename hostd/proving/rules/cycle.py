"""The ordinary life: probe, start, monitor, stop, and all of it twice.

What resource-agents' ocf-tester checks, against hostd's contract.
"""

from hostd.api import ConfigError
from hostd.jobs import Verb
from hostd.proving import aside
from hostd.proving.breaches import Untried, Violation
from hostd.proving.findings import Rulebook
from hostd.proving.rules import steps
from hostd.proving.stage import Stage

RULES = Rulebook(is_live=True)

DEPTHS = (0, 10, 20)
LATE_DOORS_MS = 400
"""How long after a start a new door shows that the start had returned too early."""


@RULES.rule(
    "sandbox",
    "there is an instance to be tried",
    why="What follows starts, kills and starves a service: it must be one of its own.",
    needs=("loads",),
)
def sandbox(stage: Stage) -> str | None:
    try:
        stage.open()
    except aside.Failed as failed:
        if failed.is_foreseen:
            raise Untried(f"its sandbox cannot be made here: {failed}") from failed
        raise Violation("parameters of a private instance", str(failed)) from failed
    except ConfigError as error:
        raise Violation("parameters that fit what the agent takes", str(error)) from error
    if stage.is_live and steps.is_up(stage.monitor()):
        raise Untried("the service runs already, for somebody: stop it first")
    return stage.subject.shown(stage.params) or None


@RULES.rule(
    "probe",
    "monitor says STOPPED before the first start",
    why="hostd probes every service on every node before it acts; a wrong answer means two instances, or none.",
    needs=("sandbox",),
)
def probe(stage: Stage) -> str | None:
    try:
        for depth in DEPTHS:
            steps.insist_stopped(stage, "before the first start", depth=depth)
    except Violation:
        stage.memory[steps.NEVER_STOPPED] = True
        raise
    return None


@RULES.rule(
    "probe-harmless",
    "monitor of a stopped service starts nothing",
    why="A probe runs on every node at once: one that starts things breaks the data on the spot.",
    needs=("sandbox",),
)
def probe_harmless(stage: Stage) -> str | None:
    for depth in DEPTHS:
        stage.monitor(depth=depth)
    steps.insist_nothing_left(stage, "after three probes")
    return None


@RULES.rule(
    "validate",
    "validate accepts the parameters",
    why="`hostd check` asks it; what refuses good parameters teaches the operator to look away.",
    needs=("sandbox",),
)
def validate(stage: Stage) -> str | None:
    if "validate" not in stage.subject.agent.hooks:
        raise Untried("nothing to try: it has no validate hook, which is optional")
    outcome = stage.validate()
    if not outcome.ok:
        raise Violation("success", steps.told(outcome), outcome.evidence)
    steps.insist_nothing_left(stage, "after validate")
    return None


@RULES.rule(
    "stop-stopped",
    "stop of a stopped service is a success",
    why="Recovery always begins with a stop; one that fails there has the node fenced for nothing.",
    needs=("sandbox",),
)
def stop_stopped(stage: Stage) -> str | None:
    for when in ("before the first start", "again"):
        steps.stop(stage, when=f"stop {when}")
    steps.insist_stopped(stage, "after it")
    return None


@RULES.rule(
    "start",
    "start brings it up within its time limit",
    why="It is what the agent is for.",
    needs=("sandbox",),
)
def start(stage: Stage) -> str | None:
    outcome = steps.start(stage)
    limit_ms = stage.subject.limit_ms(Verb.START)
    return f"{outcome.took_ms} ms of {limit_ms} ms"


@RULES.rule(
    "start-usable",
    "start returns when it is usable, not before",
    why="What depends on it starts next, and the takeover is reported done: both rely on this return.",
    needs=("start",),
)
def start_usable(stage: Stage) -> str | None:
    steps.start(stage)
    doors = stage.listening()
    steps.insist_up(stage, "at once after start")
    if stage.processes():
        stage.pause(LATE_DOORS_MS)
        late = stage.listening() - doors
        if late:
            raise Violation("all doors open when start returns", f"{', '.join(sorted(late))} opened later")
    return None


@RULES.rule(
    "depths",
    "monitor of depth 0, 10 and 20 says RUNNING",
    why="The operator may choose any depth; one that the agent does not know must do what a lesser one does.",
    needs=("start", "start-usable"),
)
def depths(stage: Stage) -> str | None:
    steps.start(stage)
    took = []
    for depth in DEPTHS:
        outcome = steps.insist_up(stage, "while it runs", depth=depth)
        took.append(f"{outcome.took_ms}")
    return f"{'/'.join(took)} ms"


@RULES.rule(
    "start-running",
    "start of a running service changes nothing",
    why="After a restart of hostd a start may be asked for twice; a second instance or a restart is an outage.",
    needs=("start", "start-usable"),
)
def start_running(stage: Stage) -> str | None:
    first = steps.start(stage)
    before = stage.processes()
    second = steps.start(stage, when="start while it runs")
    steps.insist_same(first, second)
    gone = [process for process in before if process.pid == first.main_pid and process not in stage.processes()]
    if gone:
        raise Violation("the running processes stay", f"{steps.named(gone)} gone")
    if not first.main_pid and len(stage.processes()) > len(before):
        raise Violation(f"no more processes than before ({steps.named(before)})", steps.named(stage.processes()))
    steps.insist_up(stage, "afterwards")
    return None


@RULES.rule(
    "monitor-harmless",
    "monitor of a running service changes nothing",
    why="It runs every few seconds for years: what it starts, restarts or leaves adds up.",
    needs=("start", "start-usable"),
)
def monitor_harmless(stage: Stage) -> str | None:
    first = steps.start(stage)
    steps.insist_up(stage, "while it runs")
    count = len(stage.processes())
    for _ in range(4):
        outcome = steps.insist_up(stage, "while it runs")
        steps.insist_same(first, outcome)
    if len(stage.processes()) >= count + 4:
        raise Violation(f"{count} processes as before", f"{len(stage.processes())} after four monitors")
    return None


@RULES.rule(
    "main-process",
    "main_process names a process of the service",
    why="hostd watches it, and recovers at once when it ends; a wrong number means wrong alarms, or none.",
    needs=("start",),
)
def main_process(stage: Stage) -> str | None:
    if "main_process" not in stage.subject.agent.hooks:
        raise Untried("nothing to try: it has no main_process hook; a crash is noticed by the next monitor only")
    outcome = steps.start(stage)
    found = stage.processes()
    if not found:
        raise Untried("no process of it runs here")
    if outcome.main_pid not in [process.pid for process in found]:
        said = f"process {outcome.main_pid}" if outcome.main_pid else "none"
        raise Violation(f"one of {steps.named(found)}", said)
    return None


@RULES.rule(
    "stop",
    "stop ends it, and monitor says STOPPED then",
    why="After a stop the other node starts it on the same data: a stop that lies destroys them.",
    needs=("start",),
)
def stop(stage: Stage) -> str | None:
    started = steps.start(stage)
    served = {process.pid for process in stage.processes()}
    outcome = stage.stop()
    if not outcome.ok:
        raise Violation("success", steps.told(outcome), outcome.evidence)
    left = stage.processes()
    serving = [
        process for process in left if process.pid == (started.main_pid or process.pid) and process.pid in served
    ]
    if serving and (started.main_pid or len(serving) == len(served)):
        raise Violation("success only when it has ended", f"success, but {steps.named(serving)} still runs")
    steps.insist_stopped(stage, "after stop")
    return f"{outcome.took_ms} ms of {stage.subject.limit_ms(Verb.STOP)} ms"
