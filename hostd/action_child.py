"""The child that runs one action: what it keeps of the host, and what it hands back.

Decides how an agent's answer or exception becomes an :class:`Answer`.  It
knows no time limit but the deadline that it tells the agent: the host
strikes from outside, whatever happens in here.
"""

import contextlib
import faulthandler
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NoReturn

import msgspec

from hostd import loading, processes
from hostd.api import AgentError, ConfigError, Health, Resource
from hostd.registry import Agent

STACK_SIGNAL: Final = signal.SIGUSR2
"""Makes the child print where in the agent's code it is; sent before evidence is collected."""

LAG_S: Final = 0.3
"""The agent is told a deadline that is later by this: when both strike, the
host is first and the evidence is of the hang and not of its cleaning up."""

TEXT_MAX: Final = 2_000
"""Characters of a reason or cure; an answer must fit a pipe's 64 kB in one write."""

_ANSWER_FD: Final = 3
_NOT_INHERITED: Final = (
    "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES",
)  # fmt: skip
"""Of systemd, meant for hostd: a service that found them would speak for hostd."""


class Answer(msgspec.Struct, frozen=True):
    """What the child hands back over its pipe, once."""

    ok: bool
    health: Health | None = None
    reason: str = ""
    cure: str = ""
    main_pid: int = 0
    main_started: int = 0
    """Its start time in clock ticks, so that a number used again is not watched."""


class Task(msgspec.Struct, frozen=True):
    """What the child needs to know of its action."""

    name: str
    node: str
    verb: str
    params: dict[str, Any]
    run_dir: Path
    timeout_ms: int
    depth: int
    reference: str
    service: str
    interval_ms: int


def detach(parent: int, output: int, keep: int) -> None:
    """Leave everything of the host behind but the module state: session, signals, open files, priority.

    ``output`` becomes stdout and stderr, ``keep`` file 3; all others are
    closed, sockets and the host's lock included.
    """
    processes.die_with_parent(parent)
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    nothing = os.open("/dev/null", os.O_RDWR)
    kept = os.dup(keep)  # out of the way of the numbers that are overwritten below
    os.dup2(nothing, 0, inheritable=True)
    os.dup2(output, 1, inheritable=True)
    os.dup2(output, 2, inheritable=True)
    os.dup2(kept, _ANSWER_FD, inheritable=False)
    os.closerange(_ANSWER_FD + 1, os.sysconf("SC_OPEN_MAX"))
    sys.stdout = open(1, "w", buffering=1, errors="replace", closefd=False)  # noqa: SIM115 - as long as we live
    sys.stderr = open(2, "w", buffering=1, errors="replace", closefd=False)  # noqa: SIM115 - likewise
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    with contextlib.suppress(PermissionError):  # not root: then nobody was exempt either
        Path("/proc/self/oom_score_adj").write_text("0")  # the host may be exempt, a service must not be
    for name in _NOT_INHERITED:
        os.environ.pop(name, None)
    os.chdir("/")
    os.umask(0o022)


def run(agent: Agent, task: Task) -> NoReturn:
    """Run the action, hand back the answer and end this process.  Call after :func:`detach`."""
    faulthandler.register(STACK_SIGNAL, file=2, all_threads=True)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]  # not closed, the host's: their files are gone already
    root.setLevel(logging.DEBUG)
    resource = Resource(
        name=task.name,
        node=task.node,
        params=MappingProxyType(task.params),
        run_dir=task.run_dir,
        deadline=time.monotonic() + task.timeout_ms / 1000 + LAG_S,
        depth=task.depth,
        reference=task.reference,
        service=task.service,
        interval_ms=task.interval_ms,
    )
    answer = _answered(agent, task.verb, resource)
    if answer.ok and task.verb in ("start", "monitor") and answer.health is not Health.STOPPED:
        answer = _with_main_process(answer, agent, resource)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # a full disk costs output, not the answer
            stream.flush()
    try:
        os.write(_ANSWER_FD, msgspec.msgpack.encode(answer))
    except BrokenPipeError:
        os._exit(1)  # nobody wants it any more
    os._exit(0)


def _answered(agent: Agent, verb: str, resource: Resource) -> Answer:
    acts: dict[str, Callable[[Resource], Health | None]] = {
        "start": agent.start,
        "stop": agent.stop,
        "monitor": agent.monitor,
        "validate": agent.validate,
    }
    try:
        return Answer(ok=True, health=acts[verb](resource))
    except AgentError as error:
        return Answer(ok=False, reason=error.reason[:TEXT_MAX], cure=error.cure[:TEXT_MAX])
    except ConfigError as error:
        return Answer(ok=False, reason=str(error)[:TEXT_MAX])
    except BaseException as error:  # the edge: agent code may raise anything, sys.exit included
        logging.getLogger(f"hostd.agent.{resource.name}").exception("the agent's own mistake")
        said = loading.last_line(error, Path(agent.path))
        return Answer(
            ok=False,
            reason=f"agent's mistake: {said}"[:TEXT_MAX],
            cure="an agent raises AgentError(reason) for what it foresees",
        )


def _with_main_process(answer: Answer, agent: Agent, resource: Resource) -> Answer:
    """The answer, with the process to watch.  Not to know it costs speed and is no failure."""
    try:
        pid = agent.main_process(resource)
    except Exception:  # the edge: agent code; the action itself went well
        logging.getLogger(f"hostd.agent.{resource.name}").exception("main_process failed")
        return answer
    process = processes.look(pid) if pid is not None else None
    if process is None:
        return answer
    return msgspec.structs.replace(answer, main_pid=process.pid, main_started=process.started)
