"""``hostd-agent export``: the OCF agents it writes, judged by xmllint, by ocf-tester, and by their exit codes."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostd import export as export_text
from hostd import exported
from hostd.api import ConfigError, Field, Parameters
from hostd.api.foreign import ocf
from hostd.config import Directories
from hostd.registry import Registry
from tests.contracts.bench import folder_for_servers

SCHEMAS = Path("/usr/share/resource-agents")

AGENT = """
from pathlib import Path
from hostd.api import AgentError, ConfigError, Field, Health, NotInstalled, Parameters, hookimpl

@hookimpl
def parameters():
    return Parameters(
        Field("answer", str, default="RUNNING", help='what monitor says: <&> "it"'),
        Field("number", int, default=3, choices=(3, 4), help="a number"),
        Field("share", float, default=0.5, help="a share"),
        Field("flag", bool, default=True, help="a flag"),
        Field("names", list, default=["a", "b"], help="names"),
        Field("place", Path, default=None, help="a place"),
        Field("needed", str, help="must be there"),
        Field("word", str, default=None, secret=True, help="hush"),
        summary="answers as told", timeouts={"start": "31s", "stop": "2m"}, monitor_interval="7s", monitor_depth=10)

@hookimpl
def start(resource):
    p = resource.params
    print(p["number"], p["share"], p["flag"], p["names"], p["place"], p["needed"], p["word"], resource.depth,
          resource.interval_ms, resource.node, resource.name, oct(resource.run_dir.stat().st_mode & 0o777),
          resource.run_dir, 0 < resource.remaining < 9.6, sep="|")

@hookimpl
def stop(resource):
    raise NotInstalled("no such program", cure="install it")

@hookimpl
def monitor(resource):
    match resource.params["answer"]:
        case "broken": raise AgentError("it is ill", cure="heal it")
        case "forbidden": raise PermissionError("not for you")
        case "bug": return 1 / 0
        case "unfit": raise ConfigError("no such disk; plug it in")
        case "none": return None
    return Health[resource.params["answer"]]

@hookimpl
def validate(resource):
    raise AgentError("does not fit")
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def export(name: str, folder: Path) -> Path:
    """As an operator would, by the command."""
    argv = [sys.executable, "-m", "hostd.commands.agent_main", "export", name, str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported agent that answers as it is told."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "told.py").write_text(f'"""Answers as told."""\n{AGENT}')
    return export(str(folder / "told.py"), folder / "ocf")


@pytest.fixture
def run(told: Path, tmp_path: Path) -> Run:
    """Runs one action of it with these OCF parameters, in an environment such as Pacemaker's."""

    def act(action: str, env: dict[str, str] | None = None, **params: str) -> "subprocess.CompletedProcess[str]":
        variables = {
            "PATH": "/usr/bin:/bin",
            "OCF_RESOURCE_INSTANCE": "web:0",
            "HA_RSCTMP": str(tmp_path),
            "OCF_RESKEY_needed": "x",
            "OCF_RESKEY_CRM_meta_timeout": "10000",
        }
        variables |= env or {}
        variables |= {f"OCF_RESKEY_{name}": value for name, value in params.items()}
        argv = [str(told), *([action] if action else [])]
        return subprocess.run(argv, env=variables, capture_output=True, text=True, timeout=60, check=False)

    return act


def lint(meta_data: str) -> str:
    """What the document type that ocf-tester takes and the RELAX NG schema object to."""
    said = ""
    for arguments in (["--valid", "-"], ["--relaxng", "metadata.rng", "-"]):
        argv = ["xmllint", "--noout", *arguments]
        done = subprocess.run(argv, input=meta_data, cwd=SCHEMAS, capture_output=True, text=True, check=False)
        said += done.stderr if done.returncode else ""
    return said


def test_meta_data_is_valid_by_the_schemas_of_resource_agents(told: Path) -> None:
    """As the exported agent prints it, with nothing in its environment."""
    assert told.stat().st_mode & 0o777 == 0o755
    said = subprocess.run([str(told), "meta-data"], env={}, capture_output=True, text=True, check=True).stdout
    assert lint(said) == ""


def test_every_agent_of_ours_can_be_exported(tmp_path: Path) -> None:
    """But for those that run somebody else's: Pacemaker does so itself."""
    registry = Registry.load(Directories(), system=tmp_path / "none")
    refused = []
    for name, agent in registry.agents.items():
        try:
            parameters = agent.parameters(name)
        except ConfigError:
            refused.append(name)
            continue
        text = export_text.script(name, Path(agent.path), parameters, summary=parameters.summary)
        meta_data = text.partition("<<'END_OF_META_DATA'\n")[2].partition("\nEND_OF_META_DATA\n")[0]
        assert lint(meta_data) == "", name
        assert len(ocf.read_xml(meta_data).parameters) == len(parameters.fields)
    assert sorted(refused) == ["lsb", "ocf", "script", "systemd"]


def test_meta_data_tells_types_defaults_and_limits(run: Run) -> None:
    """As our own reader of meta-data sees them."""
    described = ocf.read_xml(run("meta-data").stdout)
    assert {p.name: (p.type, p.default, p.is_required) for p in described.parameters} == {
        "answer": ("string", "RUNNING", False),
        "number": ("integer", "3", False),
        "share": ("string", "0.5", False),
        "flag": ("boolean", "true", False),
        "names": ("string", "a,b", False),
        "place": ("string", None, False),
        "needed": ("string", None, True),
        "word": ("string", None, False),
    }
    assert (described.timeouts["start"], described.timeouts["stop"]) == ("31s", "2m")
    assert (described.monitor_interval, described.summary) == ("7s", "answers as told")


def test_parameters_and_circumstances_reach_the_agent_typed(run: Run, tmp_path: Path) -> None:
    """Numbers, flags, lists, paths, a secret from its file; depth, interval, node, instance, private folder."""
    (tmp_path / "secret").write_text("hush\n")
    env = {"OCF_CHECK_LEVEL": "10", "OCF_RESKEY_CRM_meta_interval": "0", "OCF_RESKEY_CRM_meta_on_node": "n1"}
    params = {
        "number": "4",
        "share": "2",
        "flag": "no",
        "names": "x, y",
        "place": "/srv",
        "word": f"@{tmp_path}/secret",
    }
    said = run("start", env, **params)
    assert said.returncode == 0, said.stderr
    run_dir = f"{tmp_path}/hostd-told-web:0"
    expected = [
        "4",
        "2.0",
        "False",
        "['x', 'y']",
        "/srv",
        "x",
        "hush",
        "10",
        "0",
        "n1",
        "web:0",
        "0o700",
        run_dir,
        "True",
    ]
    assert said.stdout.strip().split("|") == expected


@pytest.mark.parametrize(
    ("action", "params", "code", "reason"),
    [
        ("monitor", {"answer": "RUNNING"}, 0, ""),
        ("monitor", {"answer": "STOPPED"}, 7, ""),
        ("monitor", {"answer": "DEGRADED"}, 190, ""),
        ("monitor", {"answer": "broken"}, 1, "it is ill; heal it"),
        ("monitor", {"answer": "bug"}, 1, "agent's mistake: ZeroDivisionError"),
        ("monitor", {"answer": "none"}, 1, "agent's mistake: monitor returned None"),
        ("monitor", {"answer": "unfit"}, 2, "no such disk; plug it in"),
        ("monitor", {"answer": "forbidden"}, 4, "not for you"),
        ("stop", {}, 5, "no such program; install it"),
        ("start", {"number": "many"}, 6, "number = 'many' does not fit"),
        ("start", {"number": "5"}, 6, "use one of 3, 4"),
        ("start", {"flag": "perhaps"}, 6, "must be true or false"),
        ("start", {"place": "srv"}, 6, "is no absolute path"),
        ("start", {"word": "@/nowhere"}, 2, "/nowhere: No such file"),
        ("validate-all", {}, 0, ""),
        ("validate-all", {"number": "5"}, 6, "use one of"),
    ],
)
def test_each_outcome_has_its_exit_code_and_reason(
    run: Run, action: str, params: dict[str, str], code: int, reason: str
) -> None:
    """All codes of the API that an agent of ours can mean; the reason stands behind ocf-exit-reason."""
    said = run(action, **params)
    assert said.returncode == code, said.stderr
    given = [line for line in said.stderr.splitlines() if line.startswith("ocf-exit-reason:")]
    assert len(given) == bool(reason) and reason in "".join(given)


def test_validate_all_looks_at_the_machine_from_level_10_on(run: Run) -> None:
    """Level 0 is about the parameters alone, says API 1.1."""
    said = run("validate-all", {"OCF_CHECK_LEVEL": "10", "OCF_EXIT_REASON_PREFIX": "because:"})
    assert said.returncode == 2 and said.stderr.strip() == "because:does not fit"


def test_unknown_actions_and_usage(run: Run) -> None:
    """3 for what it does not know, no action included; 0 for usage."""
    for action in ("frobnicate", "promote", "notify", "migrate_to", "reload", ""):
        assert run(action).returncode == 3, action
    said = run("usage")
    assert said.returncode == 0 and "start|stop|monitor" in said.stdout


def test_a_list_whose_items_hold_commas_is_given_as_toml(run: Run) -> None:
    """Such as an option of a server."""
    said = run("start", names='["--sql-mode=A,B", "x"]')
    assert "['--sql-mode=A,B', 'x']" in said.stdout
    assert run("start", names='["open').returncode == 6


def test_a_missing_required_parameter_is_inherently_wrong(told: Path) -> None:
    """6: on no node would it work."""
    said = subprocess.run([str(told), "start"], env={}, capture_output=True, text=True, check=False)
    assert said.returncode == 6 and "needed is missing" in said.stderr


def test_without_hostd_it_says_that_hostd_is_not_installed(told: Path, tmp_path: Path) -> None:
    """And meta-data is there all the same."""
    text = told.read_text()
    orphan = tmp_path / "told"
    orphan.write_text(text.replace("told.py", "gone.py"))
    orphan.chmod(0o755)
    for action, code in (("monitor", 5), ("meta-data", 0)):
        said = subprocess.run([str(orphan), action], env={}, capture_output=True, text=True, check=False)
        assert said.returncode == code, said.stderr


def test_a_file_that_is_no_agent_is_not_installed(tmp_path: Path) -> None:
    """As a broken installation: another node may have a good one."""
    (tmp_path / "bad.py").write_text("import nowhere\n")
    assert exported.run(tmp_path / "bad.py", "monitor", {}) == ocf.Exit.INSTALLED


def test_a_secret_is_not_shown_even_where_it_is_wrong() -> None:
    """Its value stays out of the reason, which ends up in every log."""
    fields = Parameters(Field("pin", int, secret=True))
    with pytest.raises(ConfigError) as caught:
        exported.values(fields, {"OCF_RESKEY_pin": "12x4"})
    assert "12x4" not in str(caught.value)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    with folder_for_servers() as folder:
        yield folder


@pytest.mark.parametrize("name", ["dummy", "httpd"])
def test_it_passes_ocf_tester(name: str, open_folder: Path) -> None:
    """The field's own judge, unchanged, with a real server for httpd."""
    (open_folder / "sandbox").mkdir(mode=0o755)
    params: dict[str, object] = {"process": "true"}
    if name == "httpd":
        sandbox = Registry.load(Directories(), system=open_folder / "none").agent(name).sandbox(open_folder / "sandbox")
        assert sandbox is not None
        params = sandbox
    agent = export(name, open_folder / "ocf")
    options = [word for key, value in params.items() for word in ("-o", f"{key}={value}")]
    instance = f"hostd-test-{os.getpid()}"
    argv = ["ocf-tester", "-n", instance, *options, str(agent)]
    env = {"PATH": os.environ["PATH"], "HA_RSCTMP": str(open_folder)}
    judged = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=110, check=False)
    assert judged.returncode == 0 and "passed all tests" in judged.stdout, judged.stdout + judged.stderr


def test_what_is_not_ours_is_not_exported(tmp_path: Path) -> None:
    """Pacemaker runs OCF, LSB and systemd itself."""
    for name, said in (("ocf:heartbeat:Dummy", "Pacemaker runs"), ("lsb", "write lsb:NAME"), ("htpd", "did you mean")):
        argv = [sys.executable, "-m", "hostd.commands.agent_main", "export", name, str(tmp_path)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2 and said in done.stderr
    assert list(tmp_path.iterdir()) == []
