"""What can be judged by reading the module and asking what it takes; nothing is started."""

import ast
import inspect
import re
from pathlib import Path
from typing import Any, Final

from hostd import loading
from hostd.api import Field
from hostd.confd.values import Unfit, duration_ms
from hostd.proving import aside
from hostd.proving.afflictions import Circumstances, Trace
from hostd.proving.breaches import Untried, Violation
from hostd.proving.findings import Rulebook
from hostd.proving.stage import Stage

RULES = Rulebook(is_live=False)

NOBODY: Final = 65_534
ANSWER_MAX_S: Final = 5.0
SECRET_NAMES: Final = re.compile(r"(^|_)(password|passwd|passphrase|secret|token|api_?key)$")
NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
VERBS: Final = ("start", "stop", "monitor")


@RULES.rule(
    "loads",
    "it loads, and every hook in it is known",
    why="A misspelt hook is never called; a file that cannot be read stops its services at the next boot.",
)
def loads(stage: Stage) -> str | None:
    if stage.subject.broken:
        raise Violation("a module with the hooks start, stop and monitor", stage.subject.broken)
    optional = sorted(stage.subject.agent.hooks - set(VERBS))
    return f"also {', '.join(optional)}" if optional else None


@RULES.rule(
    "import-harmless",
    "loading it does nothing but define it",
    why="hostd loads every agent on every node, also where its service is not installed and must not run.",
    needs=("loads",),
)
def import_harmless(stage: Stage) -> str | None:
    path = _source(stage)
    try:
        stage.call(lambda: [loading.load_file(path, checked=False), None][1], ANSWER_MAX_S)
    except aside.Failed as failed:
        raise Violation("it loads in a fresh process", str(failed)) from failed
    _insist_on_inaction(stage.hook_trace, "loading it")
    return None


@RULES.rule(
    "imports",
    "of hostd it imports hostd.api only",
    why="All else of hostd may change with the next release, and the agent would break with it.",
    needs=("loads",),
)
def imports(stage: Stage) -> str | None:
    tree = ast.parse(_source(stage).read_text())
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.ImportFrom):
            names = [f"hostd.{alias.name}" for alias in node.names] if node.module == "hostd" else [node.module or ""]
        else:
            names = [alias.name for alias in node.names]
        for name in names:
            if name.split(".")[0] == "hostd" and not f"{name}.".startswith("hostd.api."):
                raise Violation("imports of hostd.api", f"line {node.lineno} imports {name}")
    return None


@RULES.rule(
    "docstring",
    "its docstring says what it runs",
    why="The first line is what `hostd-agent list` shows, and the rest is all that the next person has.",
    needs=("loads",),
)
def docstring(stage: Stage) -> str | None:
    text = ast.get_docstring(ast.parse(_source(stage).read_text())) or ""
    if len(text.split()) < 5:
        raise Violation("a docstring of a sentence or more at the top of the file", repr(text) if text else "none")
    return None


@RULES.rule(
    "parameters",
    "parameters answer anywhere, without acting",
    why="They are asked for by `hostd check`, as any user, and where the service is not installed.",
    needs=("loads",),
)
def parameters(stage: Stage) -> str | None:
    subject = stage.subject

    def ask() -> list[str]:
        return [field.name for field in subject.agent.parameters(subject.reference).fields]

    seen = [field.name for field in subject.parameters.fields]
    for who, under in (("root", Circumstances(path="")), ("nobody", Circumstances(path="", user=NOBODY))):
        try:
            names = stage.call(ask, ANSWER_MAX_S, under)
        except aside.Failed as failed:
            raise Violation(f"an answer as {who}, with an empty PATH", str(failed)) from failed
        _insist_on_inaction(stage.hook_trace, "parameters")
        if names != seen:
            raise Violation("the same answer each time", f"{', '.join(names)} instead of {', '.join(seen)}")
    return f"{len(seen)} parameters"


@RULES.rule(
    "defaults",
    "each default is of its parameter's type",
    why="The operator who sets nothing gets the default: it is checked by nobody else.",
    needs=("loads",),
)
def defaults(stage: Stage) -> str | None:
    names = [field.name for field in stage.subject.parameters.fields]
    for field in stage.subject.parameters.fields:
        if names.count(field.name) > 1 or not NAME.fullmatch(field.name):
            raise Violation("names of letters, digits and _, each once", f"parameter {field.name!r}")
        if field.is_required or field.default is None:
            continue
        if not _fits(field):
            kind = getattr(field.type, "__name__", str(field.type))
            raise Violation(f"a default of type {kind} for {field.name}", repr(field.default))
        items = field.default if isinstance(field.default, list) else [field.default]
        if field.choices and any(item not in field.choices for item in items):
            raise Violation(f"a default of {field.name} that is one of its choices", repr(field.default))
    return None


@RULES.rule(
    "help",
    "each parameter has a sentence of help",
    why="`hostd-agent show` is the operator's manual at three in the morning.",
    needs=("loads",),
)
def help_sentences(stage: Stage) -> str | None:
    silent = [field.name for field in stage.subject.parameters.fields if len(field.help.split()) < 2]
    if silent:
        raise Violation("a sentence of help for each parameter", f"next to nothing for {', '.join(silent)}")
    if not (stage.subject.parameters.summary or stage.subject.agent.summary):
        raise Violation("a summary, or a docstring whose first line is one", "neither")
    return None


@RULES.rule(
    "limits",
    "its time limits and interval make sense",
    why="The limit decides how long a hang stays unnoticed, and whether a slow start is killed too early.",
    needs=("loads",),
)
def limits(stage: Stage) -> str | None:
    asked = stage.subject.parameters
    for verb, limit in asked.timeouts.items():
        if verb not in (*VERBS, "validate"):
            raise Violation("limits for start, stop, monitor and validate", f"one for {verb!r}")
        if _duration_ms(verb, limit) < 100:
            raise Violation(f"a time limit of {verb} from 100ms to 30 days", repr(limit))
    interval_ms = _duration_ms("monitor_interval", asked.monitor_interval)
    if interval_ms < 100:
        raise Violation("a monitor_interval of 100ms or more", repr(asked.monitor_interval))
    if asked.monitor_depth not in (0, 10, 20):
        raise Violation("a monitor_depth of 0, 10 or 20", repr(asked.monitor_depth))
    return ", ".join(f"{verb} {asked.timeouts[verb]}" for verb in VERBS)


@RULES.rule(
    "secrets-marked",
    "what looks like a secret is marked as one",
    why="Only a parameter with secret=True is hidden in status, logs, evidence and error messages.",
    needs=("loads",),
)
def secrets_marked(stage: Stage) -> str | None:
    bare = [f.name for f in stage.subject.parameters.fields if SECRET_NAMES.search(f.name.lower()) and not f.secret]
    if bare:
        raise Violation("secret=True for each", ", ".join(bare))
    return None


@RULES.rule(
    "process-safe",
    "its code neither exits nor forks by itself",
    why="An action answers by returning or raising; a fork of its own answers twice, an exit not at all.",
    needs=("loads",),
)
def process_safe(stage: Stage) -> str | None:
    forbidden = {"sys.exit", "os._exit", "os.fork", "os.forkpty", "os.abort", "os.daemon", "exit", "quit"}
    for node in ast.walk(ast.parse(_source(stage).read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in forbidden:
            said = f"line {node.lineno} calls {ast.unparse(node)}"
            raise Violation("AgentError for a failure, return for a success", said)
    return None


# -- by which means -------------------------------------------------------------------


def _source(stage: Stage) -> Path:
    """The agent's file.  Untried if there is none (an installed package)."""
    path = Path(stage.subject.agent.path)
    if not path.is_file():
        raise Untried(f"it is no file of its own ({stage.subject.agent.path})")
    return path


def _insist_on_inaction(trace: Trace, what: str) -> None:
    written = [name for name in trace.written if name != "/dev/null" and not name.endswith(".pyc")]
    acted = [*(f"runs {c}" for c in trace.commands), *(f"writes {w}" for w in written)]
    acted += [f"talks to {n}" for n in trace.network]
    if acted:
        raise Violation(f"{what} runs, writes and contacts nothing", f"it {acted[0]}")


def _fits(field: Field) -> bool:
    default: Any = field.default
    if field.type is float:
        return isinstance(default, int | float) and not isinstance(default, bool)
    if field.type is Path:
        return isinstance(default, str | Path)
    if inspect.isclass(field.type) and field.type in (str, int, bool, list, dict):
        return isinstance(default, field.type) and (field.type is bool or not isinstance(default, bool))
    return True  # a converter of the agent's own: its result may be anything


def _duration_ms(name: str, text: Any) -> int:
    try:
        return duration_ms(text)
    except Unfit as unfit:
        raise Violation(f"{name} as a duration with a unit", f"{text!r}, which {unfit.rule}") from unfit
