"""The example of the mission in the lab: mysql, ldap, cyrus and a web server, their data on one shared disk.

Decides what the operator of such a site would have prepared: a disk that both
nodes can mount, the servers' configuration and first data on it, and conf.d.
The disk is a folder of the lab; each node mounts it by a bind mount, which
stands for a cluster filesystem.  Real servers, frugal settings: MariaDB,
OpenLDAP, Cyrus IMAP and Apache httpd, as their agents' sandboxes make them.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hostd.config import Directories
from hostd.registry import Registry
from tests.lab.client import Ask, Client
from tests.lab.cluster import APACHE, MODULES, MODULES_FOLDER, Cluster, LabService, Settings
from tests.lab.lab import Lab
from tests.lab.names import CYRUS_ADDRESS, LDAP_ADDRESS, MYSQL_ADDRESS, SHARED, WEB_ADDRESS

SERVERS = {
    "mysql": ("mariadbd", "mysqld"),
    "ldap": ("slapd",),
    "cyrus": ("cyrmaster", "imapd", "lmtpd", "idled", "ctl_cyrusdb"),
    "web": ("apache2",),
}
"""All programs of each service that touch its data, by the names of their processes."""

BASE = "o=example"
PASSWORD = "only for the lab"

GFS = """\
[service.gfs]
on = "all"
agent = "filesystem"
params = {{ device = "{disk}", directory = "{shared}", fstype = "bind" }}
"""

FIRST_ROWS = f"""\
FLUSH PRIVILEGES;
CREATE DATABASE site;
CREATE TABLE site.visits (number INT PRIMARY KEY) ENGINE=InnoDB;
CREATE USER client@'%' IDENTIFIED BY '{PASSWORD}';
GRANT SELECT, INSERT ON site.* TO client@'%';
"""

SLAPD = """\
include /etc/ldap/schema/core.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile /run/slapd/slapd.pid
argsfile /run/slapd/slapd.args
database mdb
maxsize 16777216
suffix "{base}"
rootdn "cn=client,{base}"
rootpw "{password}"
directory {folder}/db
"""
FIRST_ENTRY = f"dn: {BASE}\nobjectClass: organization\no: {BASE.partition('=')[2]}\n"

# the page is on the shared disk, and the server puts in which node it runs on
PAGE = '<!doctype html><title>example</title><p>the same page, served by <!--#include virtual="/hostname" -->\n'
PAGE_WITH_NODE = """
LoadModule include_module {modules}/mod_include.so
LoadModule alias_module {modules}/mod_alias.so
Alias /hostname /etc/hostname
<Location />
    Require all granted
    Options +Includes
    SetOutputFilter INCLUDES
</Location>
"""


class Mission(Cluster):
    """Two nodes with hostd, the four services of the example, and the disk that they share."""

    def __init__(self, lab: Lab, settings: Settings | None = None) -> None:
        """Make the data and write conf.d; nothing is started yet."""
        self.disk = lab.folder / "disk"
        self.disk.mkdir()
        self.disk.chmod(0o755)
        self._agents = Registry.load(Directories(), system=lab.folder / "no-agents")
        services = [self._mysql(), self._ldap(), self._cyrus(), self._web()]
        super().__init__(lab, services, settings)
        for node in lab.nodes:
            (node.config / "conf.d" / "gfs.toml").write_text(GFS.format(disk=self.disk, shared=SHARED))

    def ask(self) -> Client:
        """A client that keeps asking all four, each in its own protocol, and writes wherever it can."""
        return self.lab.ask(
            Ask("mysql", MYSQL_ADDRESS, protocol="mysql", port=3306, user="client", password=PASSWORD),
            Ask("ldap", LDAP_ADDRESS, protocol="ldap", port=389, user=f"cn=client,{BASE}", password=PASSWORD),
            Ask("cyrus", CYRUS_ADDRESS, protocol="imap", port=143, **self._mail_login),
            Ask("web", WEB_ADDRESS, http=True),
        )

    # -- what each server needs -------------------------------------------------------

    def _mysql(self) -> LabService:
        made = self._sandbox("mysql")
        argv = ["mariadbd", f"--defaults-file={made['config']}", f"--datadir={made['datadir']}"]
        first = subprocess.run(
            [*argv, f"--user={made['user']}", "--bootstrap"],
            input=FIRST_ROWS, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if first.returncode != 0:
            raise RuntimeError(f"the first rows of mysql could not be written: {first.stderr[-2000:]}")
        params = {"datadir": self._inside(made["datadir"]), "config": self._inside(made["config"])}
        params |= {"user": made["user"], "bind_address": MYSQL_ADDRESS}
        return service("mysql", "clustnode2", MYSQL_ADDRESS, params, 'options = ["--skip-networking=0"]')

    def _ldap(self) -> LabService:
        folder = self.disk / "ldap"
        (folder / "db").mkdir(parents=True)
        given = {"base": BASE, "password": PASSWORD}
        config, outside = folder / "slapd.conf", folder / "outside.conf"
        config.write_text(SLAPD.format(folder=self._inside(folder), **given))
        outside.write_text(SLAPD.format(folder=folder, **given))
        subprocess.run(["chown", "openldap:", folder / "db"], check=True)
        subprocess.run(
            ["slapadd", "-q", "-f", outside],
            input=FIRST_ENTRY, user="openldap", text=True, capture_output=True, timeout=60, check=True,
        )  # fmt: skip
        outside.unlink()
        params = {"config": self._inside(config), "base": BASE}
        return service("ldap", "clustnode1", LDAP_ADDRESS, params, f'urls = ["ldap://{LDAP_ADDRESS}/"]')

    def _cyrus(self) -> LabService:
        made = self._sandbox("cyrus")
        self._mail_login = {"user": made["user"], "password": made["password"]}
        for name in ("config", "services"):
            path = Path(made[name])
            text = path.read_text().replace(str(self.disk), SHARED)
            path.write_text(with_door(text, f"{CYRUS_ADDRESS}:143"))
        params = {name: self._inside(made[name]) for name in ("config", "services")} | self._mail_login
        return service("cyrus", "clustnode2", CYRUS_ADDRESS, params, "initialize = true")

    def _web(self) -> LabService:
        folder = self.disk / "www"
        (folder / "htdocs").mkdir(parents=True)
        (folder / "htdocs" / "index.html").write_text(PAGE)
        modules = "\n".join(
            f"LoadModule {module}_module {MODULES_FOLDER}/mod_{module}.so"
            for module in MODULES
            if (MODULES_FOLDER / f"mod_{module}.so").exists()  # some are linked in
        )
        config = folder / "httpd.conf"
        config.write_text(
            APACHE.format(service="web", address=WEB_ADDRESS, modules=modules, folder=self._inside(folder / "htdocs"))
            + PAGE_WITH_NODE.format(modules=MODULES_FOLDER)
        )
        params = {"config": self._inside(config), "url": f"http://{WEB_ADDRESS}/", "pattern": "the same page"}
        return service("web", "clustnode1", WEB_ADDRESS, params)

    def _sandbox(self, agent: str) -> dict[str, Any]:
        """What the agent's own sandbox makes, on the disk."""
        folder = self.disk / agent
        folder.mkdir()
        folder.chmod(0o711)
        made = self._agents.agent(agent).sandbox(folder)
        assert made is not None, f"{agent} has no sandbox"
        return dict(made)

    def _inside(self, path: str | Path) -> str:
        """Where the nodes see what is at this path of the disk."""
        return f"{SHARED}/{Path(path).relative_to(self.disk)}"


def service(name: str, primary: str, address: str, params: Mapping[str, str], more: str = "") -> LabService:
    """A service of the example.  ``more``: further lines of its parameters, as TOML."""
    given = "".join(f'{key} = "{value}"\n' for key, value in params.items())
    lines = f'agent = "{"httpd" if name == "web" else name}"\nrequires = ["gfs"]\n'
    return LabService(name, primary, address, f"{lines}[service.{name}.params]\n{given}{more}\n")


def with_door(text: str, door: str) -> str:
    """cyrus.conf that lets imapd listen there instead of at the loopback."""
    start = text.find('listen="127.0.0.1:')
    if start < 0:
        return text
    end = text.index('"', start + len('listen="'))
    return f'{text[:start]}listen="{door}{text[end:]}'
