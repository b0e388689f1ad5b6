"""What slapd is told by slapd.conf, or by the folder of cn=config, as far as an agent has to know it.

Decides which directives and attributes mean the same, and follows includes.
Whether they are right, ``slapd -Ttest`` says; what cannot be read here is left
out.  Knows no process.
"""

import re
from pathlib import Path
from typing import Final

USUAL: Final = ("/etc/ldap/slapd.d", "/etc/ldap/slapd.conf", "/etc/openldap/slapd.d", "/etc/openldap/slapd.conf")
"""Debian's and Red Hat's; of each the folder of cn=config first."""


def usual() -> str:
    """The distribution's configuration; the first name of it where none is there."""
    return next((config for config in USUAL if Path(config).exists()), USUAL[0])


def chosen(config: str) -> tuple[str, str]:
    """The words by which slapd and its tools are told to use it."""
    return ("-F" if Path(config).is_dir() else "-f"), config


def databases(config: str) -> list[str]:
    """The folders of its databases."""
    return _settings(config, "directory", "olcDbDirectory")


def run_files(config: str) -> list[str]:
    """The files that slapd writes when it starts."""
    return _settings(config, "pidfile|argsfile", "olcPidFile|olcArgsFile")


def _settings(config: str, directives: str, attributes: str) -> list[str]:
    """The values of these directives of slapd.conf and what it includes, or of these attributes of cn=config."""
    if Path(config).is_dir():
        text = "\n".join(path.read_text(errors="replace") for path in sorted(Path(config).rglob("*.ldif")))
        return re.findall(rf"^(?:{attributes}): (\S+)$", text.replace("\n ", ""), re.MULTILINE)
    try:
        text = Path(config).read_text(errors="replace")
    except OSError:
        return []  # slapd will say it
    found = re.findall(rf"^(?:{directives})\s+\"?([^\"\s]+)", text, re.MULTILINE | re.IGNORECASE)
    for included in re.findall(r"^include\s+\"?([^\"\s]+)", text, re.MULTILINE | re.IGNORECASE):
        found += _settings(included, directives, attributes) if included != config else []
    return found
