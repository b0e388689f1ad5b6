"""A mail by an encrypted relay: a small SMTP server with a certificate of its own, on loopback."""

import datetime
import ipaddress
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hostd.api import AgentError, Notice
from hostd.config import Directories
from hostd.registry import Registry

Key = ec.EllipticCurvePrivateKey


class Relay(socketserver.ThreadingTCPServer):
    """What it was said before and after the encryption; ``offers`` it, or does not."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext, *, offers: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Dialogue)
        self.context, self.offers = context, offers
        self.plain: list[str] = []
        self.encrypted: list[str] = []

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Dialogue(socketserver.BaseRequestHandler):
    """As much of SMTP as one mail with a login takes (RFC 5321, 3207, 4954)."""

    server: Relay

    def handle(self) -> None:
        self.request.settimeout(20)
        self.request.sendall(b"220 relay\r\n")
        if self._talk(self.request, self.server.plain) == "starttls":
            self.request.sendall(b"220 go ahead\r\n")
            try:
                encrypted = self.server.context.wrap_socket(self.request, server_side=True)
            except (ssl.SSLError, OSError):  # the client does not trust it, and hangs up
                return
            self._talk(encrypted, self.server.encrypted)

    def _talk(self, connection: Any, said: list[str]) -> str:
        in_data = False
        for raw in connection.makefile("rb"):
            line = raw.decode().rstrip("\r\n")
            said.append(line)
            word = line.split(" ")[0].lower()
            if in_data:
                in_data = line != "."
                answer = b"" if in_data else b"250 taken\r\n"
            elif word == "starttls":
                return word
            elif word == "ehlo":
                can = b"250-STARTTLS\r\n" if self.server.offers and said is self.server.plain else b""
                answer = b"250-relay\r\n" + can + b"250 AUTH PLAIN\r\n"
            else:
                in_data = word == "data"
                answer = {"data": b"354 go on\r\n", "quit": b"221 bye\r\n", "auth": b"235 welcome\r\n"}.get(
                    word, b"250 relay\r\n"
                )
            connection.sendall(answer)
        return ""


def signed(name: str, key: Key, by: str, authority: Key, *, is_authority: bool = False) -> x509.Certificate:
    """A certificate of ``name``, an address or the name of an authority, from yesterday to tomorrow."""
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, by)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    if not is_authority:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(authority, hashes.SHA256())


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ssl.SSLContext]:
    """A context with a certificate for an address, by an authority whose own is in ``authority.pem``."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = ec.generate_private_key(ec.SECP256R1())
    own = signed("our authority", authority, "our authority", authority, is_authority=True)
    (folder / "authority.pem").write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def context(address: str) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        file = folder / f"{address}.pem"
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        certificate = signed(address, key, "our authority", authority).public_bytes(serialization.Encoding.PEM)
        file.write_bytes(key.private_bytes(*form) + certificate)
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(file)
        return made

    context.authority = folder / "authority.pem"  # type: ignore[attr-defined]
    return context


@pytest.fixture
def serve() -> Iterator[Callable[..., Relay]]:
    running: list[tuple[Relay, threading.Thread]] = []

    def start(context: ssl.SSLContext, *, offers: bool = True) -> Relay:
        relay = Relay(context, offers=offers)
        thread = threading.Thread(target=relay.serve_forever)
        thread.start()
        running.append((relay, thread))
        return relay

    yield start
    for relay, thread in running:
        relay.shutdown()
        thread.join()
        relay.server_close()


def send(to: Relay, folder: Path, ca: Path | None = None, **params: Any) -> None:
    """One mail by the plugin, as the hands would have it sent."""
    (folder / "pw").write_text("s3cret\n")
    (folder / "pw").chmod(0o600)
    usual = {"to": ["root@site"], "from": "hostd@site", "relay": to.place, "starttls": True, "username": "hostd"}
    notice = Notice(
        type="mail", params=usual | {"ca": ca} | params, secrets={"password": folder / "pw"}, kind="node",
        event="PhaseChanged", fields={}, text="b is off", cluster="example", node="a", serial=7, at=1_700_000_000.25,
        dropped=0, deadline=time.monotonic() + 20,
    )  # fmt: skip
    Registry.load(Directories()).notify(notice)


def test_a_mail_is_encrypted_to_a_relay_of_an_authority_that_is_trusted(
    certified: Any, serve: Callable[..., Relay], tmp_path: Path
) -> None:
    """Nothing but the greeting is said before; login and letter come after."""
    relay = serve(certified("127.0.0.1"))
    send(relay, tmp_path, certified.authority)
    assert [line.split()[0] for line in relay.plain] == ["ehlo", "STARTTLS"]
    said = "\n".join(relay.encrypted)
    assert "AUTH PLAIN" in said and "mail FROM:<hostd@site>" in said and "Subject: [example] a: b is off" in said


def test_a_relay_that_nobody_vouches_for_gets_no_mail_and_no_password(
    certified: Any, serve: Callable[..., Relay], tmp_path: Path
) -> None:
    """A certificate of an unknown authority, or of another machine: refused, with what to do about it."""
    for address, ca in (("127.0.0.1", None), ("127.0.0.9", certified.authority)):
        relay = serve(certified(address))
        with pytest.raises(AgentError, match="certificate is not to be trusted") as refused:
            send(relay, tmp_path, ca)
        assert "ca" in refused.value.cure.split()
        assert relay.encrypted == [] and "s3cret" not in str(refused.value)


def test_a_relay_that_cannot_encrypt_gets_no_mail(certified: Any, serve: Callable[..., Relay], tmp_path: Path) -> None:
    """Also not one from which somebody in between has taken the offer away."""
    relay = serve(certified("127.0.0.1"), offers=False)
    with pytest.raises(AgentError, match="could not be sent: STARTTLS"):
        send(relay, tmp_path, certified.authority)
    assert not any(line.lower().startswith(("auth", "mail", "data")) for line in relay.plain)


def test_a_password_goes_over_no_network_in_clear(certified: Any, serve: Callable[..., Relay], tmp_path: Path) -> None:
    """Without starttls, only a relay on this very machine is told it."""
    relay = serve(certified("127.0.0.1"))
    with pytest.raises(AgentError, match="for all to read") as refused:
        send(relay, tmp_path, starttls=False, relay="mail.example.org:587")
    assert refused.value.cure == "set starttls = true"
    send(relay, tmp_path, starttls=False)
    assert any(line.startswith("AUTH PLAIN") for line in relay.plain)
