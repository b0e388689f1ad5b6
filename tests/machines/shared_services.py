"""The services of the mission with all their data on a shared filesystem: what conf.d says and what lies there.

Decides paths and configuration files; each server's own is on the disk, too,
except what Debian keeps in /etc for Apache.
"""

from tests.machines.cluster import Service

PLACE = "/gfs"
PAGE = "this page is on the shared disk"
BASE = "o=lab"
PATIENT = 'requires = ["gfs"]\ntimeout = { start = "300s", stop = "300s" }\n'

MYSQL = Service(
    "mysql",
    "clustnode2",
    "172.23.2.13",
    f'agent = "mysql"\nparams = {{ datadir = "{PLACE}/mysql", query_timeout = 30.0 }}\n{PATIENT}',
)
LDAP = Service(
    "ldap",
    "clustnode1",
    "172.23.2.14",
    f'agent = "ldap"\nparams = {{ config = "{PLACE}/ldap/slapd.conf", urls = ["ldap://172.23.2.14/"], '
    f'base = "{BASE}", search_timeout = 30.0 }}\n{PATIENT}',
)
CYRUS = Service(
    "cyrus",
    "clustnode2",
    "172.23.2.15",
    f'agent = "cyrus"\nparams = {{ config = "{PLACE}/cyrus/imapd.conf", services = "{PLACE}/cyrus/cyrus.conf", '
    f"initialize = true, request_timeout = 60.0 }}\n{PATIENT}",
)
WEB = Service(
    "web",
    "clustnode1",
    "172.23.2.16",
    f'agent = "httpd"\nparams = {{ url = "http://172.23.2.16/shared/", pattern = "{PAGE}", request_timeout = 30.0 }}\n'
    f"{PATIENT}",
)
ALL = (MYSQL, LDAP, CYRUS, WEB)

APACHE = f"Alias /shared {PLACE}/www\n<Directory {PLACE}/www>\n  Require all granted\n</Directory>\n"
"""For /etc/apache2/conf-enabled on both nodes."""

SLAPD = f"""\
include /etc/ldap/schema/core.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile /run/slapd/slapd.pid
database mdb
maxsize 10485760
suffix "{BASE}"
directory {PLACE}/ldap/db
"""
IMAPD = f"""\
configdirectory: {PLACE}/cyrus/lib
defaultpartition: default
partition-default: {PLACE}/cyrus/spool
servername: cyrus
sasl_pwcheck_method: auxprop
proc_path: /run/cyrus/proc
mboxname_lockpath: /run/cyrus/lock
lmtpsocket: /run/cyrus/socket/lmtp
idlesocket: /run/cyrus/socket/idle
notifysocket: /run/cyrus/socket/notify
"""
MASTER = f"""\
START {{
  recover cmd="/usr/sbin/cyrus ctl_cyrusdb -C {PLACE}/cyrus/imapd.conf -r"
}}
SERVICES {{
  imap cmd="imapd -C {PLACE}/cyrus/imapd.conf" listen="{CYRUS.address}:143" prefork=1
}}
EVENTS {{
  checkpoint cmd="/usr/sbin/cyrus ctl_cyrusdb -C {PLACE}/cyrus/imapd.conf -c" period=30
}}
"""

FILLED = f"""\
cp -a --sparse=always /var/lib/mysql {PLACE}/mysql
mkdir {PLACE}/www
echo '{PAGE}' > {PLACE}/www/index.html

mkdir -p {PLACE}/ldap/db
cat > {PLACE}/ldap/slapd.conf << END
{SLAPD}END
printf 'dn: {BASE}\\nobjectClass: organization\\no: lab\\n' > {PLACE}/ldap/entry.ldif
slapadd -q -f {PLACE}/ldap/slapd.conf -l {PLACE}/ldap/entry.ldif
chown -R openldap:openldap {PLACE}/ldap

mkdir -p {PLACE}/cyrus/lib {PLACE}/cyrus/spool
cat > {PLACE}/cyrus/imapd.conf << END
{IMAPD}END
cat > {PLACE}/cyrus/cyrus.conf << END
{MASTER}END
chown -R cyrus:mail {PLACE}/cyrus
"""
"""A script that makes all of it on the mounted disk."""
