"""Signing requests that ask for what they must not get."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from trimtab.runtime import certificates
from trimtab.runtime.certificates import Role


def asking_for_admin() -> bytes:
    """One that names itself admin, control plane and authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName(
        [
            x509.UniformResourceIdentifier(certificates.uri("f", Role.ADMIN, "root")),
            x509.DNSName(certificates.CONTROL_PLANE),
        ]
    )
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")]))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.PEM)


def of_another_kind() -> bytes:
    """One for an RSA key."""
    key = rsa.generate_private_key(65_537, 2048)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def signed_by_another() -> bytes:
    """One whose signature does not fit the key in it."""
    good = x509.load_pem_x509_csr(asking_for_admin())
    der = bytearray(good.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der))
    return forged.public_bytes(serialization.Encoding.PEM)
