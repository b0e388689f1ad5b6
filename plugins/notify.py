"""Tells people and programs of events: ``[[notify]] type`` script, mail and webhook.

Decides how one event is put for each of them.  A script gets it as
Pacemaker's alert agents do, in its environment, so that an existing one
works as it is; a mail is one short text; a webhook gets JSON with the names
of ``hostd log --json``.  Nothing is tried twice: each event is told at most
once, and ``serial`` shows a gap.
"""

import datetime
import email.message
import email.utils
import ipaddress
import json
import os
import shutil
import smtplib
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from hostd.api import AgentError, Field, Notice, Parameters, hookimpl

SCHEMA: Final = 1
"""Of the webhook's JSON; fields come, none goes."""
VERSION: Final = "1.1.24"
"""A release of Pacemaker whose alert agents are served; scripts print it or ask for at least 1.1.15."""
SENDMAIL: Final = "/usr/sbin/sendmail"
SAID_MAX: Final = 200
_FAILED_STATES: Final = ("failed", "blocked", "recovering")


@hookimpl
def notify_types() -> dict[str, Parameters]:
    """What each takes."""
    return {
        "script": Parameters(
            Field("program", Path, help="run once for each event, with CRM_alert_... in its environment"),
            Field("recipient", default="", help="what the program finds in CRM_alert_recipient"),
            Field("environment", dict, default={}, help="more of its environment"),
        ),
        "mail": Parameters(
            Field("to", list, help="addresses"),
            Field("from", default="", help="an address; default: hostd at this machine"),
            Field(
                "relay", default="", help="HOST or HOST:PORT that takes mail by SMTP; default: sendmail of this machine"
            ),
            Field("starttls", bool, default=False, help="encrypt, and refuse a relay that cannot or is another"),
            Field("ca", Path, default=None, help="certificates to trust instead of this machine's (/etc/ssl/certs)"),
            Field("username", default="", help="for the relay; its password is a secret"),
            Field("password", default=None, secret=True, help="for the relay"),
            Field("sendmail", Path, default=Path(SENDMAIL), help="used without a relay"),
        ),
        "webhook": Parameters(
            Field("url", help="gets the event by POST, as JSON"),
            Field("url", default=None, secret=True, help="instead: a URL that nobody else may know"),
            Field("headers", dict, default={}, help="more headers"),
            Field("token", default=None, secret=True, help="sent as Authorization: Bearer"),
        ),
    }


@hookimpl
def notify(notice: Notice) -> bool | None:
    """By its type."""
    if notice.type == "script":
        _run_script(notice)
    elif notice.type == "mail":
        _send_mail(notice)
    elif notice.type == "webhook":
        _post(notice)
    else:
        return None
    return True


# -- script -----------------------------------------------------------------------------


def _run_script(notice: Notice) -> None:
    program = Path(notice.params["program"])
    extra = {str(key): str(value) for key, value in notice.params["environment"].items()}
    done = notice.run([str(program)], env={**extra, **alert(notice, str(notice.params["recipient"]))})
    if done.returncode != 0:
        raise AgentError(f"{program.name} ended with exit status {done.returncode}{_said(done.stderr or done.stdout)}")


def alert(notice: Notice, recipient: str) -> dict[str, str]:
    """The environment of Pacemaker's alert agents, and the event itself beside it."""
    fields = notice.fields
    shown: dict[str, Any] = {
        "node": notice.node,
        "node_sequence": notice.serial,
        "recipient": recipient,
        "timestamp": datetime.datetime.fromtimestamp(notice.at).strftime("%Y-%m-%d %H:%M:%S.%f"),
        "timestamp_epoch": int(notice.at),
        "timestamp_usec": int(notice.at * 1_000_000) % 1_000_000,
        "version": VERSION,
        "desc": notice.text,
        "nodeid": "",
    }
    if notice.kind in ("service", "resource", "address"):
        state = str(fields.get("state", ""))
        failed = state in _FAILED_STATES or bool(fields.get("station"))
        shown |= {
            "kind": "resource",
            "rsc": fields.get("service") or fields.get("address", ""),
            "task": {"starting": "start", "running": "start", "stopping": "stop", "stopped": "stop"}.get(
                state, "monitor"
            ),
            "interval": 0,
            "rc": int(failed),
            "target_rc": 0,
            "status": int(failed) * 4,  # PCMK_LRM_OP_ERROR
            "exec_time": 0,
        }
    elif notice.kind == "fencing":
        failed = not fields.get("asked") and fields.get("clearance") == "none"
        shown |= {"kind": "fencing", "task": "off", "rc": int(failed)}
    elif notice.kind == "node":
        shown |= {"kind": "node"}
    else:
        shown |= {"kind": "attribute", "attribute_name": notice.event, "attribute_value": notice.text}
    ours: dict[str, Any] = {"kind": notice.kind, "event": notice.event, "text": notice.text, "cluster": notice.cluster}
    ours |= {"serial": notice.serial, "dropped": notice.dropped, "fields": json.dumps(dict(fields))}
    return {f"CRM_alert_{key}": str(value) for key, value in shown.items()} | {
        f"HOSTD_{key.upper()}": str(value) for key, value in ours.items()
    }


# -- mail --------------------------------------------------------------------------------


def _send_mail(notice: Notice) -> None:
    letter = _letter(notice)
    try:
        if notice.params["relay"]:
            _by_relay(notice, letter)
        else:
            _by_sendmail(notice, letter)
    except ssl.SSLCertVerificationError as error:
        raise AgentError(
            f"the mail was not sent: the relay's certificate is not to be trusted: {error.verify_message}",
            cure="name the relay as its certificate does; if its authority is your own, name that file as ca",
        ) from error
    except (OSError, smtplib.SMTPException) as error:
        raise AgentError(f"the mail could not be sent: {error}", cure="see the relay and its log") from error


def _letter(notice: Notice) -> email.message.EmailMessage:
    letter = email.message.EmailMessage()
    sender = notice.params["from"] or f"hostd@{os.uname().nodename}"
    subject = f"[{notice.cluster}] {notice.node}: {notice.text}"
    letter["Subject"] = " ".join(subject.split())[:200]
    letter["From"], letter["To"] = sender, ", ".join(map(str, notice.params["to"]))
    letter["Date"] = email.utils.formatdate(notice.at, localtime=True)
    letter["Message-ID"] = f"<{notice.serial}.{int(notice.at * 1_000)}.{notice.node}@{notice.cluster}.hostd>"
    letter["Auto-Submitted"] = "auto-generated"
    before = "1 event before this one was" if notice.dropped == 1 else f"{notice.dropped} events before this one were"
    lost = f"\n{before} dropped: too many waited.\n" if notice.dropped else ""
    at = datetime.datetime.fromtimestamp(notice.at).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
    letter.set_content(
        f"{at}  {notice.node}\n{notice.text}\n{lost}\n"
        f"cluster {notice.cluster}, event {notice.serial} of {notice.node} ({notice.event})\n"
        "More: hostd status, hostd log\n"
    )
    return letter


def _by_relay(notice: Notice, letter: email.message.EmailMessage) -> None:
    host, _, port = (
        notice.params["relay"].rpartition(":") if ":" in notice.params["relay"] else (notice.params["relay"], "", "25")
    )
    if notice.params["username"] and not notice.params["starttls"] and not _is_here(host.strip("[]")):
        raise AgentError("the password would cross the network for all to read", cure="set starttls = true")
    with smtplib.SMTP(host.strip("[]"), int(port), timeout=max(1.0, notice.remaining)) as relay:
        if notice.params["starttls"]:
            # smtplib by itself would take any certificate
            relay.starttls(context=ssl.create_default_context(cafile=notice.params["ca"]))
        if notice.params["username"]:
            relay.login(notice.params["username"], notice.secret("password") or "")
        relay.send_message(letter)


def _is_here(host: str) -> bool:
    """This very machine, as far as its name tells."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _by_sendmail(notice: Notice, letter: email.message.EmailMessage) -> None:
    program = shutil.which(str(notice.params["sendmail"]))
    if program is None:
        raise AgentError(f"{notice.params['sendmail']} is not there", cure="install a mail server, or set relay")
    done = notice.run([program, "-t", "-i"], input=letter.as_string())
    if done.returncode != 0:
        raise AgentError(f"sendmail ended with exit status {done.returncode}{_said(done.stderr)}")


# -- webhook -----------------------------------------------------------------------------


def _post(notice: Notice) -> None:
    url = notice.secret("url") or str(notice.params["url"])
    host = urlsplit(url).hostname or "the web server"  # of the URL only this is shown: the rest may be a secret
    if urlsplit(url).scheme not in ("http", "https"):
        raise AgentError("url is no address of a web server", cure="use http:// or https://")
    headers = {"Content-Type": "application/json", "User-Agent": "hostd", **notice.params["headers"]}
    token = notice.secret("token")
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, json.dumps(facts(notice)).encode(), headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=max(1.0, notice.remaining)) as answer:
            answer.read(1)
    except urllib.error.HTTPError as error:
        raise AgentError(f"{host} answered {error.code} {error.reason}") from error
    except OSError as error:
        raise AgentError(f"{host} was not told: {getattr(error, 'reason', error)}") from error


def facts(notice: Notice) -> dict[str, Any]:
    """What a webhook gets; the fields of an event as in ``hostd log --json``."""
    return {
        "schema": SCHEMA,
        "cluster": notice.cluster,
        "node": notice.node,
        "serial": notice.serial,
        "at": notice.at,
        "kind": notice.kind,
        "event": notice.event,
        "fields": dict(notice.fields),
        "text": notice.text,
        "dropped": notice.dropped,
    }


def _said(output: str) -> str:
    """The last line that a program printed, for a reason."""
    lines = output.strip().splitlines()
    return f": {lines[-1].strip()[:SAID_MAX]}" if lines else ""
