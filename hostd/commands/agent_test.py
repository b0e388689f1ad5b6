"""``hostd-agent test``: does an agent keep the contract?

Shows the verdict, rule by rule, and decides the exit code: 0 only if no rule
failed and start, stop and monitor were really run.  The rules and how they
are tried are in ``hostd.proving``.
"""

import argparse
import difflib
import secrets
import shlex
import signal
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hostd.commands import options
from hostd.commands.agent_run import INTERRUPTED, given
from hostd.commands.agent_show import find
from hostd.commands.exits import ExitCode

if TYPE_CHECKING:
    from hostd.proving.findings import Finding, Rule, Verdict
    from hostd.proving.keeper import Keeper
    from hostd.proving.subject import Subject

WIDTH: Final = 80
TEXT_AT: Final = 29
"""Where the text of a rule's line begins."""
SHOWN_FROM_MS: Final = 1_000
NAMED_MAX: Final = 3
"""Rules that the verdict names; all of them stand above it."""
SEED_MAX: Final = 999_999
_EXAMPLES: Final[dict[object, str]] = {list: "'[\"…\"]'", bool: "true"}
EXAMPLES: Final = """examples:
  hostd-agent test httpd
  hostd-agent test ./my_agent.py --only stop,zombie
  hostd-agent test ./my_agent.py --live config=/srv/my.conf
  hostd-agent test mysql --junit mysql.xml --seed 4711

exit codes: 0 passed; 1 a rule was broken, or start, stop and monitor were not all tried;
2 wrong use; 4 it has no sandbox, and --live was not given, or hostd manages it
"""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = options.add(
        subparsers,
        "test",
        "validates an agent: starts, kills, freezes and starves its service",
        description="Validates an agent against the contract, on a private instance that its own\n"
        "sandbox makes in a throw-away directory.",
        epilog=EXAMPLES,
    )
    parser.add_argument("name", metavar="NAME", help="as after `agent =` in conf.d, or the path of a file")
    parser.add_argument("params", metavar="key=value", nargs="*", help="parameters, over those of the sandbox")
    parser.add_argument("--only", metavar="RULE", action="append", help="only these rules; repeatable, or with commas")
    parser.add_argument("--seed", type=int, metavar="N", help="of the moments of the races; default: at random")
    parser.add_argument("--live", action="store_true", help="act on the service itself: it is stopped and killed")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the verdict for a build server")
    parser.add_argument("--json", action="store_true", help="print facts for programs (schema 1)")
    parser.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    """The exit code."""
    from hostd.api import ConfigError
    from hostd.proving import runner
    from hostd.proving.keeper import keep
    from hostd.proving.rules import RULES
    from hostd.proving.stage import clear

    only = [word for text in namespace.only or () for word in text.split(",") if word]
    unknown = [word for word in only if word not in [rule.id for rule in RULES]]
    if unknown:
        near = difflib.get_close_matches(unknown[0], [rule.id for rule in RULES], n=3, cutoff=0.4)
        listed = f"did you mean {' or '.join(near)}?" if near else ", ".join(rule.id for rule in RULES)
        return _wrong(f'there is no rule "{unknown[0]}"; {listed}')
    try:
        subject = _subject(namespace)
    except ConfigError as error:
        return _wrong(str(error))
    rules = runner.chosen(RULES, only)
    refusal = _refusal(namespace, subject) if any(rule.is_live for rule in rules) else ""
    seed = secrets.randbelow(SEED_MAX) + 1 if namespace.seed is None else namespace.seed
    folder = Path(tempfile.mkdtemp(prefix="hostd-agent-test-"))
    folder.chmod(0o711)  # the service's own user must get through to its sandbox
    status = keep(
        lambda keeper: _prove(namespace, subject, rules, folder, refusal, seed, keeper),
        lambda: clear(folder),
    )
    if status < 0:
        print(f"hostd-agent: the test itself was killed by {signal.Signals(-status).name}", file=sys.stderr)
        return 128 - status
    return status


def _prove(
    namespace: argparse.Namespace,
    subject: "Subject",
    rules: "list[Rule]",
    folder: Path,
    refusal: str,
    seed: int,
    keeper: "Keeper",
) -> int:
    """In the child of the keeper."""
    from hostd.proving import evidence, facts, junit, runner, views
    from hostd.proving.stage import Stage

    is_live = not subject.has_sandbox or namespace.live
    if not is_live:
        views.leave_the_machines()  # else mounts of the sandbox are undone one by one; as non-root it can mount nothing
    screen = Screen(len(rules), is_quiet=namespace.json, untold=(refusal, runner.WITHOUT_A_STAGE))
    place = "its text only" if refusal else "on the service itself" if is_live else "on a private instance"
    screen.head(subject, seed, place)
    stage = Stage(subject, folder, keeper, seed, is_live=is_live)
    try:
        verdict = runner.prove(
            stage,
            rules,
            refusal=refusal,
            keep_in=evidence.new_folder(options.directories(namespace).state, subject.agent.name),
            seed=seed,
            began=screen.began,
            ended=screen.ended,
        )
    except KeyboardInterrupt:
        screen.clear()
        print("hostd-agent: interrupted; what was started is killed", file=sys.stderr)
        return INTERRUPTED
    finally:
        stage.close()
    screen.clear()
    if namespace.json:
        print(facts.as_json(verdict))
    else:
        _tell(verdict)
    if namespace.junit is not None:
        try:
            junit.write(verdict, namespace.junit)
        except OSError as error:
            return _wrong(f"{namespace.junit}: {error.strerror}")
    if refusal:
        print(f"hostd-agent: {refusal}", file=sys.stderr)
        return ExitCode.UNSAFE
    untried = sum(finding.reason == runner.WITHOUT_A_STAGE for finding in verdict.findings)
    if untried and not is_live:
        advice = f"mend what the rule sandbox says, or {_live(subject, namespace)}"
        print(f"hostd-agent: {untried} rules were not tried; {advice}", file=sys.stderr)
    return ExitCode.DONE if verdict.is_passed else ExitCode.NO


# -- what is tested ------------------------------------------------------------------


def _subject(namespace: argparse.Namespace) -> "Subject":
    """The agent and its parameters.  Raises ConfigError, but not for a file that is broken."""
    from hostd.api import ConfigError
    from hostd.proving.subject import Subject, stand_in
    from hostd.registry import Registry

    registry = Registry.load(options.directories(namespace))
    name = namespace.name
    try:
        agent, reference = find(registry, name)
    except ConfigError as error:
        path = name if Path(name).is_file() else next((b.path for b in registry.broken if b.name == name), "")
        if not path:
            raise
        return stand_in(registry, name, path, str(error))
    parameters = agent.parameters(reference)
    subject = Subject(registry, agent, reference, parameters, given(namespace.params, parameters))
    subject.check(is_complete=namespace.live)
    return subject


def _refusal(namespace: argparse.Namespace, subject: "Subject") -> str:
    """Why no live rule may be tried, or ""."""
    if subject.broken or (subject.has_sandbox and not namespace.live):
        return ""
    if not namespace.live:
        return (
            f"{subject.reference} has no sandbox, so only its text was judged. To have it started, stopped and "
            f"killed, {_live(subject, namespace)}"
        )
    return _managed(namespace, subject)


def _live(subject: "Subject", namespace: argparse.Namespace) -> str:
    """What to give for it to be tried without a sandbox, and the command."""
    gift = subject.parameters.trial or "an instance that nobody uses"
    wanted = [field for field in subject.parameters.fields if field.is_required and field.name not in subject.given]
    missing = [f"{field.name}={_EXAMPLES.get(field.type, '…')}" for field in wanted]
    given_words = [shlex.quote(word) for word in namespace.params if word.partition("=")[0] not in subject.secrets]
    command = " ".join(["hostd-agent test", namespace.name, *given_words, *missing, "--live"])
    return f"give it {gift}: {command}"


def _managed(namespace: argparse.Namespace, subject: "Subject") -> str:
    """Why this is, or may be, what a running hostd manages here; "" if it is not."""
    from hostd import lock
    from hostd.api import ConfigError
    from hostd.commands.ask import Unanswered, status
    from hostd.config import load

    directories, node = options.directories(namespace), options.node(namespace)
    try:
        if not lock.is_held(directories.runtime / "lock"):
            return ""
        services = status(directories.runtime).services
    except (Unanswered, PermissionError) as error:
        return f"a hostd runs here and does not tell what it manages: {error}"
    wanted = subject.reference
    mine = [name for name, service in services.items() if any(r.agent == wanted for r in service.resources)]
    if not mine:
        return ""
    refusal = f"the hostd that runs here manages {', '.join(mine)} with {wanted}"
    try:
        resources = load(directories.config, node, subject.registry.parameters, subject.registry.link_types()).resources
        params = subject.filled(subject.given, node)
    except ConfigError:
        return f"{refusal}, and conf.d does not tell with which parameters"
    if any(r.agent == wanted and not subject.is_elsewhere(params, r.params) for r in resources):
        return f"{refusal}: it would be stopped and killed under its hands; see hostd stop and hostd maintenance"
    return ""


# -- what is shown ---------------------------------------------------------------------


class Screen:
    """One line per rule as it ends, and on a terminal the rule that is being tried."""

    def __init__(self, count: int, *, is_quiet: bool, untold: tuple[str, ...]) -> None:
        """``untold``: reasons to skip that are told once, at the end."""
        self._count, self._is_quiet, self._untold = count, is_quiet, untold
        self._number = 0
        self._shows_progress = sys.stderr.isatty()

    def head(self, subject: "Subject", seed: int, where: str) -> None:
        if not self._is_quiet:
            print(f"{subject.reference}: {subject.agent.path}\n  {where}, seed {seed}\n", flush=True)

    def began(self, rule: "Rule") -> None:
        self._number += 1
        if self._shows_progress:
            print(f"\r\033[K… {self._number}/{self._count} {rule.id}", end="", file=sys.stderr, flush=True)

    def ended(self, finding: "Finding") -> None:
        self.clear()
        if not self._is_quiet and not (finding.reason and finding.reason in self._untold):
            print(_line(finding), flush=True)

    def clear(self) -> None:
        if self._shows_progress:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _line(finding: "Finding") -> str:
    from hostd.proving.findings import Result

    word = {Result.OK: "ok", Result.FAILED: "FAILED", Result.SKIPPED: "skipped"}[finding.result]
    text = finding.reason if finding.result is Result.SKIPPED else finding.title
    lines = textwrap.wrap(text, WIDTH - TEXT_AT) or [""]
    seconds = f"{finding.took_ms / 1000:.1f} s" if finding.took_ms >= SHOWN_FROM_MS else ""
    if seconds and len(lines[-1]) + len(seconds) + 2 <= WIDTH - TEXT_AT:
        lines[-1] = lines[-1].ljust(WIDTH - TEXT_AT - len(seconds)) + seconds
    return f"{word:<8} {finding.id:<19} " + ("\n" + " " * TEXT_AT).join(lines)


def _tell(verdict: "Verdict") -> None:
    """What failed, and the verdict in one line."""
    from hostd.proving.findings import Result

    failed = verdict.of(Result.FAILED)
    for finding in failed:
        print(f"\nFAILED {finding.id}: {finding.title}")
        for label in ("expected", "came", "why", "evidence"):
            if text := getattr(finding, label):
                print(_folded(f"  {label:<9} ", text))
    counts = f"{len(verdict.of(Result.OK))} ok, {len(failed)} failed, {len(verdict.of(Result.SKIPPED))} skipped"
    print(f"\n{counts} in {verdict.took_ms / 1000:.1f} s; seed {verdict.seed}")
    print(f"{verdict.agent}: {_conclusion(verdict)}")


def _folded(label: str, text: str) -> str:
    """Within 80 columns; a path is never broken."""
    indent = " " * len(label)
    return textwrap.fill(
        text, WIDTH, initial_indent=label, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _conclusion(verdict: "Verdict") -> str:
    from hostd.proving.findings import Result

    if verdict.word == "failed":
        broken = [finding.id for finding in verdict.of(Result.FAILED)]
        more = f" and {len(broken) - NAMED_MAX} more rules" if len(broken) > NAMED_MAX else ""
        return f"FAILED, it breaks {', '.join(broken[:NAMED_MAX])}{more}"
    if verdict.word == "incomplete":
        return f"incomplete, not tried: {', '.join(verdict.missing)}"
    from hostd.proving.rules import RULES

    tried = len(verdict.findings)
    return "passed" if tried == len(RULES) else f"passed, of {len(RULES)} rules these {tried}"


def _wrong(text: str) -> int:
    print(f"hostd-agent: {text}", file=sys.stderr)
    return ExitCode.WRONG_USE
