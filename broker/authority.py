"""The broker's own certificate authority: X.509 v3, ECDSA on P-256, made with the `cryptography` library.

Lifetimes: the authority ten years, everything it signs 825 days (the most that Apple's systems accept of a server
certificate from an authority of one's own, support.apple.com/103769). A revocation list that has expired refuses
everybody (RFC 5280, 5.1.2.5; OpenSSL does), so it lives as long as the authority and is replaced whenever somebody is
revoked.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.errors import BrokerError

AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 825
RENEW_DAYS = 30
"""Who has fewer days left is told to renew."""
_BACKDATE = timedelta(hours=1)
"""A device whose clock is a little late may connect at once."""
_PEM = serialization.Encoding.PEM


@dataclass(frozen=True, slots=True)
class Issued:
    """A signed certificate with its key, both PEM."""

    certificate: bytes
    key: bytes
    serial: int
    expires: datetime


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs what the broker and its users show each other."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, gateway: str, now: datetime) -> Authority:
        """Make a new authority; what an older one signed is foreign to it."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"anyECG broker of {gateway}")
        usage = _usage(key_cert_sign=True, crl_sign=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            _builder(name, name, key, now, AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(identifier, critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, certificate: Path, key: Path) -> Authority:
        """Read an authority; `BrokerError` if it, or its key, is not there."""
        try:
            loaded = serialization.load_pem_private_key(key.read_bytes(), password=None)
            made = x509.load_pem_x509_certificate(certificate.read_bytes())
        except (OSError, ValueError) as error:
            raise BrokerError(
                f"the authority's key {key} cannot be used ({error}): run as the user who ran `anyecg broker init`, "
                "or bring the key back from where you keep it"
            ) from None
        if not isinstance(loaded, ec.EllipticCurvePrivateKey) or loaded.public_key() != made.public_key():
            raise BrokerError(f"{key} is not the key of {certificate}")
        return cls(made, loaded)

    def pem(self) -> bytes:
        """Return the certificate that clients are told to trust."""
        return self.certificate.public_bytes(_PEM)

    def key_pem(self) -> bytes:
        return _key_pem(self.key)

    def issue_server(self, names: Sequence[str], now: datetime, days: float = CERTIFICATE_DAYS) -> Issued:
        """Sign a certificate for a broker that is called by `names` (DNS names and IP addresses)."""
        return self._issue(names[0], now, days, ExtendedKeyUsageOID.SERVER_AUTH, [_general(name) for name in names])

    def issue_client(self, user: str, now: datetime, days: float = CERTIFICATE_DAYS) -> Issued:
        """Sign a certificate that makes its holder `user`."""
        return self._issue(user, now, days, ExtendedKeyUsageOID.CLIENT_AUTH, [])

    def revocation_list(self, serials: Iterable[int], now: datetime) -> bytes:
        """Return the list (PEM) of certificates that no longer count."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - _BACKDATE)
            .next_update(self.certificate.not_valid_after_utc)
        )
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - _BACKDATE).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(_PEM)

    def _issue(
        self, name: str, now: datetime, days: float, purpose: x509.ObjectIdentifier, names: list[x509.GeneralName]
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = (
            _builder(_name(name), self.certificate.subject, key, now, days, self.certificate.not_valid_after_utc)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        made = builder.sign(self.key, hashes.SHA256())
        return Issued(made.public_bytes(_PEM), _key_pem(key), made.serial_number, made.not_valid_after_utc)


def expiry(certificate: Path) -> datetime:
    """Return when a PEM certificate ends. Raises `BrokerError` if it cannot be read."""
    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        raise BrokerError(f"certificate {certificate} cannot be read: {error}") from None


def days_left(certificate: Mapping[str, object], now: datetime) -> float:
    """Return the days a peer's certificate (`SSLSocket.getpeercert`) has left."""
    return (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - now.timestamp()) / 86_400


def now_utc() -> datetime:
    """Return the time now, to the second, as certificates have it."""
    return datetime.now(UTC).replace(microsecond=0)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
    days: float,
    latest: datetime | None = None,
) -> x509.CertificateBuilder:
    until = now + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, until) - _BACKDATE)
        .not_valid_after(min(until, latest) if latest is not None else until)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
