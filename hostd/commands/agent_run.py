"""``hostd-agent run``: one action of one agent by hand, in a child, under its time limit.

The same code that the daemon uses (``hostd.actions``), in a runtime
directory of its own, so that a running hostd neither sees nor disturbs it.
"""

import argparse
import json
import selectors
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hostd.commands import options
from hostd.commands.agent_show import find
from hostd.commands.exits import ExitCode

if TYPE_CHECKING:
    from hostd.actions import Actions
    from hostd.api import Parameters
    from hostd.jobs import Job, Outcome

INTERRUPTED: Final = 130
"""128 + SIGINT, as shells have it."""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = options.add(
        subparsers,
        "run",
        "one action, with its outcome and time",
        epilog="example: hostd-agent run httpd monitor --depth 10 config=/srv/httpd.conf "
        "url=http://127.0.0.1:8080/ (a secret is read from a file: password=@/etc/hostd/secret)",
    )
    parser.add_argument("name", metavar="NAME", help="as after `agent =` in conf.d, or the path of a file")
    parser.add_argument("action", metavar="ACTION", choices=("start", "stop", "monitor", "validate"))
    parser.add_argument("params", metavar="key=value", nargs="*", help="parameters, as in conf.d")
    parser.add_argument("--depth", type=int, default=0, choices=(0, 10, 20), help="how deep a monitor looks")
    parser.add_argument("--timeout", metavar="TIME", help='time limit, such as "30s"; default: the agent\'s')
    parser.add_argument("--json", action="store_true", help="print facts for programs (schema 1)")
    parser.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    """The exit code."""
    from hostd import cgroups
    from hostd.actions import Actions
    from hostd.api import ConfigError
    from hostd.confd.values import Unfit, duration_ms
    from hostd.jobs import Job, Verb
    from hostd.registry import Registry

    directories, node = options.directories(namespace), options.node(namespace)
    registry = Registry.load(directories)
    runtime = directories.runtime / "agent-run"
    try:
        agent, reference = find(registry, namespace.name)
        parameters = agent.parameters(reference)
        limit = namespace.timeout or parameters.timeouts.get(namespace.action, "60s")
        job = Job(
            service="hostd-agent",
            resource=agent.name,
            agent=reference,
            verb=Verb(namespace.action),
            params=typed(namespace.params, parameters, node),
            timeout_ms=duration_ms(limit),
            depth=namespace.depth,
        )
        runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (ConfigError, Unfit) as error:
        return _wrong(str(error))
    except OSError as error:
        return _wrong(f"{error.filename}: {error.strerror}; run it as root or name another --runtime-dir")
    selector = selectors.DefaultSelector()
    groups = cgroups.choose(f"{node}-agent-run", runtime)
    actions = Actions(registry, groups, node=node, runtime=runtime, state=directories.state, selector=selector)
    try:
        outcome = _to_the_end(actions, selector, job)
    except KeyboardInterrupt:
        actions.abort()
        return INTERRUPTED
    finally:
        groups.tidy()
    _tell(job, outcome, as_json=namespace.json)
    return ExitCode.DONE if _is_yes(outcome) else ExitCode.NO


def typed(pairs: list[str], parameters: "Parameters", node: str) -> dict[str, Any]:
    """``key=value`` texts as conf.d would give them to the agent.  Raises ConfigError."""
    from hostd.api import ConfigError
    from hostd.confd.complain import Complaints
    from hostd.confd.params import fill

    complaints = Complaints({})
    filled = fill(complaints, ("parameter",), given(pairs, parameters), parameters, (node,), Path.cwd())
    if complaints.gathered:
        raise ConfigError("\n".join(complaint.text for complaint in complaints.gathered))
    return filled.values[node]


def given(pairs: list[str], parameters: "Parameters") -> dict[str, Any]:
    """``key=value`` texts as conf.d would have them, not yet checked.  Raises ConfigError."""
    from hostd.api import ConfigError

    kinds = {field.name: field for field in parameters.fields}
    found: dict[str, Any] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator:
            raise ConfigError(f'"{pair}" is no parameter; write key=value')
        field = kinds.get(key)
        if field is not None and field.secret and text.startswith("@"):
            try:
                text = Path(text[1:]).read_text().rstrip("\n")
            except OSError as error:
                raise ConfigError(f"{key}: {error.filename}: {error.strerror}") from error
        found[key] = _parsed(text) if field is not None and field.type in (int, float, bool, list) else text
    return found


def _parsed(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # then its type is wrong, and that is said better where types are checked


def _to_the_end(actions: "Actions", selector: selectors.BaseSelector, job: "Job") -> "Outcome":
    from hostd.clock import now_ms

    outcomes: list[Outcome] = []
    began_at_ms = now_ms()
    actions.start(job, outcomes.append)
    while not outcomes:
        wake = actions.wake_at_ms()
        wait_ms = 1_000 if wake is None else max(0, min(1_000, wake - now_ms()))
        for key, _ in selector.select(wait_ms / 1000):
            key.data()
        actions.tick()
        waited_s = (now_ms() - began_at_ms) // 1000
        if waited_s and sys.stderr.isatty():
            print(f"\r{job.verb.value} … {waited_s} s", end="", file=sys.stderr, flush=True)
    if (now_ms() - began_at_ms) >= 1000 and sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return outcomes[0]


def _is_yes(outcome: "Outcome") -> bool:
    from hostd.api import Health

    return outcome.ok and not outcome.leftovers and outcome.health in (None, Health.RUNNING)


def _tell(job: "Job", outcome: "Outcome", *, as_json: bool) -> None:
    health = outcome.health.name.lower() if outcome.health else None
    if as_json:
        facts = {
            "schema": 1,
            "agent": job.agent,
            "action": job.verb.value,
            "ok": outcome.ok,
            "health": health,
            "timed_out": outcome.timed_out,
            "leftovers": outcome.leftovers,
            "reason": outcome.reason,
            "cure": outcome.cure,
            "took_ms": outcome.took_ms,
            "evidence": outcome.evidence,
            "main_process": outcome.main_pid or None,
            "output": outcome.output,
        }
        print(json.dumps(facts, indent=2))
        return
    word = health or ("done" if outcome.ok else "failed")
    print(f"{job.verb.value} of {job.agent}: {word} after {outcome.took_ms} ms")
    for label, text in (
        ("reason", outcome.reason),
        ("cure", outcome.cure),
        ("main process", str(outcome.main_pid or "")),
        ("left over", f"{outcome.leftovers} process{'es' * (outcome.leftovers != 1)}" if outcome.leftovers else ""),
        ("evidence", outcome.evidence),
        ("it printed", outcome.output),
    ):
        if text:
            print(f"  {label}: " + text.replace("\n", "\n    "))


def _wrong(text: str) -> int:
    print(f"hostd-agent: {text}", file=sys.stderr)
    return ExitCode.WRONG_USE
