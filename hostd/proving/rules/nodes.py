"""A rehearsal with two nodes: the same data, another name and run directory.

Both are this machine, so what an agent sees of processes is more than it
would see of another machine; only locks on shared storage help there.
"""

from hostd import processes
from hostd.proving.breaches import Untried, Violation
from hostd.proving.findings import Rulebook
from hostd.proving.rules import steps
from hostd.proving.stage import Stage

RULES = Rulebook(is_live=True)


@RULES.rule(
    "two-nodes",
    "stopped on A, it starts on B and back",
    why="This is what it is all for: pid files, locks and sockets that A left must not keep it from B.",
    needs=("start", "start-usable", "stop", "leftover-processes"),
)
def two_nodes(stage: Stage) -> str | None:
    steps.insist_stopped(stage, "before all, on B", node="b")
    for here, there in (("a", "b"), ("b", "a")):
        steps.start(stage, node=here, when=f"start on {here.upper()}")
        steps.stop(stage, node=here, when=f"stop on {here.upper()}")
        steps.insist_stopped(stage, f"after stop on {here.upper()}, on {there.upper()}", node=there)
    steps.start(stage, node="a", when="start on A again")
    steps.insist_up(stage, "on A again", node="a")
    return None


@RULES.rule(
    "after-power-cut",
    "killed on A, it starts on B",
    why="A dead node stops nothing: B finds the data as the power cut left them.",
    needs=("start", "start-usable", "stop", "leftover-processes", "start-after-crash", "two-nodes"),
)
def after_power_cut(stage: Stage) -> str | None:
    steps.start(stage, node="a", when="start on A")
    lost = steps.lose_all(stage)
    outcome = steps.start(stage, node="b", when=f"start on B after {lost} on A")
    steps.insist_up(stage, "after that", node="b")
    steps.stop(stage, node="b", when="stop on B")
    return f"{outcome.took_ms} ms"


@RULES.rule(
    "never-both",
    "while it runs on A, start on B runs no second",
    why="Two servers on one set of data destroy it: the last line of defence is the agent's own.",
    needs=("start", "start-usable", "stop"),
)
def never_both(stage: Stage) -> str | None:
    if not stage.subject.parameters.exclusive_storage:
        raise Untried("nothing to try: it does not say exclusive_storage, data that two must never write at once")
    first = steps.start(stage, node="a", when="start on A")
    second = stage.start(node="b")
    both = {
        process.pid
        for outcome in (first, second)
        for process in [processes.look(outcome.main_pid) if outcome.main_pid else None]
        if process is not None and process.is_alive
    }
    on_b = stage.processes("b")
    if len(both) > 1 or (second.ok and on_b and stage.processes("a")):
        raise Violation("start on B fails, or finds what runs", f"{steps.told(second)}; on B: {steps.named(on_b)}")
    steps.insist_up(stage, "on A, after the attempt on B", node="a")
    return f"start on B: {steps.told(second)}"
