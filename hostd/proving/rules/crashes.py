"""The service dies without being asked: is it noticed, and does it come back?"""

from hostd import processes
from hostd.proving.breaches import Untried
from hostd.proving.findings import Rulebook
from hostd.proving.rules import steps
from hostd.proving.stage import Stage

RULES = Rulebook(is_live=True)


@RULES.rule(
    "crash-noticed",
    "kill -9 of the service is noticed",
    why="A crash that monitor does not see is an outage that lasts until somebody calls.",
    needs=("start", "stop"),
)
def crash_noticed(stage: Stage) -> str | None:
    outcome = steps.start(stage)
    if outcome.main_pid and [process.pid for process in steps.victims(stage)] != [outcome.main_pid]:
        raise Untried("main_process names no process of the service")
    lost = steps.lose(stage)
    for depth in dict.fromkeys((stage.subject.depth, 0)):
        steps.insist_not_up(stage, f"after {lost}", depth=depth)
    if lost == steps.UNMOUNTED:
        return f"{lost}, by the next monitor"
    if outcome.main_pid:
        return "at once: its main process is watched"
    return "by the next monitor: it names no main process to watch"


@RULES.rule(
    "zombie",
    "a dead process not yet collected is dead",
    why="kill -0 and a pid file call a zombie alive; in a container, or under a hung parent, it stays one.",
    needs=("start", "stop", "crash-noticed"),
)
def zombie(stage: Stage) -> str | None:
    steps.start(stage)
    victims = steps.victims(stage)
    stage.keeper.hold()
    try:
        stage.kill(victims, and_collect=False)
        looks = [processes.look(process.pid) for process in victims]
        if not any(look is not None and look.state == "Z" for look in looks):
            raise Untried("its parent collects it at once: it never is a zombie")
        steps.insist_not_up(stage, f"while {steps.named(victims)} is a zombie", depth=0)
    finally:
        stage.keeper.release()
    return None


@RULES.rule(
    "start-after-crash",
    "start works after kill -9 of everything",
    why="It comes back after a crash or a power cut, with stale pid files, sockets and locks lying about.",
    needs=("start", "start-usable", "stop"),
)
def start_after_crash(stage: Stage) -> str | None:
    steps.start(stage)
    lost = steps.lose_all(stage)
    outcome = steps.start(stage, when=f"start after {lost}")
    steps.insist_up(stage, "after that start")
    return f"{outcome.took_ms} ms"


@RULES.rule(
    "recovery",
    "stop and start work after kill -9 of its main",
    why="This is how hostd recovers: orphaned workers must not survive the stop, nor serve beside the next one.",
    needs=("start", "start-usable", "stop", "leftover-processes"),
)
def recovery(stage: Stage) -> str | None:
    steps.start(stage)
    lost = steps.lose(stage)
    steps.stop(stage, when=f"stop after {lost}")
    steps.insist_stopped(stage, "after that stop")
    steps.insist_nothing_left(stage, "after that stop")
    steps.start(stage, when="start after that")
    steps.insist_up(stage, "after that start")
    return None
