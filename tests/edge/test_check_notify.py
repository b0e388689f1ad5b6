"""What ``hostd check`` says of [[notify]] before anything has to be told."""

import json
from pathlib import Path

import pytest

from hostd.commands.main import main

CONF = """
[cluster]
name = "example"
nodes = ["clustnode1", "clustnode2"]
[[heartbeat.link]]
type = "serial"
device = "/dev/ttyS0"
"""


@pytest.mark.parametrize(
    ("notify", "mode", "severity", "complaint"),
    [
        ('type = "webhook"\nparams = { url = "http://x/" }\nsecrets = { token = "pw" }', 0o600, "", ""),
        ('type = "webhook"\nparams = { url = "http://x/" }\nsecrets = { token = "pw" }', 0o640, "error", "chmod 600"),
        ('type = "webhook"\nsecrets = { url = "pw" }', 0o604, "error", "pw may be read by others (mode 0604)"),
        ('type = "webhook"\nsecrets = { url = "none" }', 0o600, "error", "none: "),
        ('type = "webhook"', 0o600, "error", "params.url is missing"),
        ('type = "webhook"\nparams = { url = "https://x/services/T0123/B0123/abcdefghijklmnopqrstuvwx" }', 0o600,
         "warning", "(url) holds a secret, and others may read"),
        ('type = "webhook"\nparams = { url = "https://u:pw@x/" }', 0o600, "warning", "(url) holds a secret"),
        ('type = "webhook"\nparams = { url = "http://x/", headers = { Authorization = "Basic dTpwdw==" } }', 0o600,
         "warning", "(headers.Authorization) holds a secret"),
        ('type = "script"\nparams = { program = "nobody-here" }', 0o600, "error", "nobody-here (program) is not there"),
        ('type = "mail"\nparams = { to = ["root"] }', 0o600, "", ""),
    ],
)  # fmt: skip
def test_who_is_told_is_looked_at_before_it_is_needed(
    tmp_path: Path, notify: str, mode: int, severity: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files of secrets as strictly as at a delivery, programs, and secrets that stand in an open conf.d."""
    (tmp_path / "pw").write_text("s3cret-9\n")
    (tmp_path / "pw").chmod(mode)
    (tmp_path / "all.toml").write_text(f"{CONF}[[notify]]\n{notify}\n")

    def told() -> list[dict[str, str]]:
        main(
            [
                "check",
                "--config",
                str(tmp_path),
                "--node",
                "clustnode1",
                "--json",
                "--runtime-dir",
                str(tmp_path / "run"),
            ]
        )
        complaints = json.loads(capsys.readouterr().out)["complaints"]
        return [c for c in complaints if c["key"].startswith("[[notify]] #1")]

    found = told()
    assert [c["severity"] for c in found] == [severity] * bool(severity)
    assert all(complaint in c["text"] and "s3cret-9" not in c["text"] for c in found)
    if "holds a secret" in complaint:
        (tmp_path / "all.toml").chmod(0o600)
        assert told() == []
