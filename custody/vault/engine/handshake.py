# SPDX-License-Identifier: AGPL-3.0-or-later
"""How OpenBao starts a plugin: a cookie and a certificate in the environment, one line on stdout, mutual TLS on a unix socket."""

import base64
import datetime as dt
import json
import logging
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

COOKIE: Final = ("VAULT_BACKEND_PLUGIN", "6669da05-b1c8-4f49-97d9-c8e5bed98e20")
"""Not a secret: it tells a plugin from a program that somebody started by mistake."""
PROTOCOL: Final = "5"
_HOST: Final = "localhost"


class NotStartedByOpenBao(Exception):
    """The environment is not the one in which OpenBao starts a plugin of protocol 5 with mutual TLS."""


@dataclass(frozen=True, slots=True)
class Start:
    """What OpenBao told: its own certificate, the only one trusted in either direction, and where sockets belong."""

    host_certificate: str
    sockets: Path | None


def read_environment(environment: Mapping[str, str]) -> Start:
    """Raises NotStartedByOpenBao. Without a certificate there is no TLS, and whoever reaches the socket could ask: refused.

    A host that could not start protocol 5 tries again with 3 and 4, and without TLS: refused the same way.
    """
    if environment.get(COOKIE[0]) != COOKIE[1]:
        raise NotStartedByOpenBao("this is a plugin of OpenBao, which starts it (docs/vault-engine.md)")
    if PROTOCOL not in environment.get("PLUGIN_PROTOCOL_VERSIONS", "").split(","):
        raise NotStartedByOpenBao(f"protocol {PROTOCOL} is not offered")
    certificate = environment.get("PLUGIN_CLIENT_CERT", "")
    if "BEGIN CERTIFICATE" not in certificate:
        raise NotStartedByOpenBao("no PLUGIN_CLIENT_CERT: without mutual TLS nothing is served")
    sockets = environment.get("PLUGIN_UNIX_SOCKET_DIR")
    return Start(certificate, Path(sockets) if sockets else None)


@dataclass(frozen=True, slots=True)
class Tls:
    """One key of this process's life: serves with it, and dials back with it."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    certificate: bytes  # DER


def make_tls(host_certificate: str) -> Tls:
    """A fresh self-signed certificate. The key touches a file of ours for an instant, because ssl reads keys from files only."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(key)
    chain = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with tempfile.TemporaryDirectory(prefix="bulkhead-seat-") as folder:  # of mode 0700
        file = Path(folder) / "tls.pem"
        file.touch(mode=0o600)
        file.write_bytes(chain)
        server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for context in (server, client):
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=host_certificate)
            context.load_cert_chain(file)
            context.set_alpn_protocols(["h2"])
        file.unlink()
    return Tls(server, client, certificate.public_bytes(serialization.Encoding.DER))


def _certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _HOST)])
    now = dt.datetime.now(dt.UTC)
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=1))
        .not_valid_after(now + dt.timedelta(days=365 * 30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(_HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .sign(key, hashes.SHA256())
    )


def take_stdout() -> int:
    """The descriptor for the handshake line; from here on whatever is printed goes to stderr, which is the server's log."""
    line = os.dup(1)
    os.dup2(2, 1)
    return line


def say_hello(stdout: int, socket: Path, certificate: bytes) -> None:
    """The one line that OpenBao waits for."""
    encoded = base64.b64encode(certificate).rstrip(b"=").decode()
    os.write(stdout, f"1|{PROTOCOL}|unix|{socket}|grpc|{encoded}\n".encode())


class ServerLog(logging.Formatter):
    """Lines as hclog reads them. Of an exception its type and place only: a message or a local may repeat what was sent."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        told = record.getMessage()
        if record.exc_info and record.exc_info[0] is not None:
            trace = record.exc_info[2]
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            where = "" if trace is None else f" at {trace.tb_frame.f_code.co_name}:{trace.tb_lineno}"
            told = f"{told}: {record.exc_info[0].__name__}{where}"
        moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
        line = {"@level": record.levelname.lower(), "@message": told, "@module": "bulkhead-seat"}
        return json.dumps(line | {"@timestamp": moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")})
