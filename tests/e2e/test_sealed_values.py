"""What ingest seals for the vault, opened by implementations that nobody here wrote."""

import base64
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from psycopg import sql
from pyhpke import AEADId, CipherSuite, ContextInterface, KDFId, KEMId, KEMKey, OpenError

from dev import hpke, local_system, stack
from dev.local_system import DATABASE, Services
from dev.logins import failed, login, record, token
from dev.postgres import Postgres
from e2e.runtime_api import RunningFunction, running_function

pytestmark = pytest.mark.without_emulator

SALT = "0123456789abcdef0123456789abcdef"
SALT_ID = "sealed-values/salt"
FIELDS = {b"i": "ip", b"d": "device_id"}
ACCEPT_KEY = "INSERT INTO vault_keys (public_key, kms_key) VALUES (%s, 'none')"
READ_ENTRIES = """
SELECT enc, substr(body, place * entry_length + 1, entry_length)
FROM vault_inbox, generate_series(0, octet_length(body) / entry_length - 1) AS place
ORDER BY 1, 2
"""


@dataclass(frozen=True)
class Entry:
    """A sealed value, cut into its parts."""

    sequence: int
    field: str
    token: str
    ciphertext: bytes

    @property
    def associated_data(self) -> bytes:
        """What binds the ciphertext to its token."""
        return f"{self.field}:{self.token}".encode()


@dataclass(frozen=True)
class Vault:
    """The function, its database, and the private key, which the function does not have."""

    function: RunningFunction
    server: Postgres
    key: ec.EllipticCurvePrivateKey

    def streams(self) -> dict[bytes, list[Entry]]:
        """Read the sealed values of each encapsulated key, in the order of their numbers."""
        streams = defaultdict(list)
        with self.server.connect(DATABASE) as owner:
            for enc, entry in owner.execute(READ_ENTRIES):
                streams[enc].append(_cut(entry))
        return streams


@pytest.fixture(scope="module")
def vault(services: Services) -> Iterator[Vault]:
    """Run the function with a public key whose private key this test has."""
    server = services.postgres
    local_system.create_database(server)
    key = ec.generate_private_key(ec.SECP256R1())
    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with server.connect(DATABASE) as owner:
        owner.execute(ACCEPT_KEY, [spki])
        password = sql.Literal(server.password)
        owner.execute(sql.SQL("ALTER ROLE login_writer LOGIN PASSWORD {}").format(password))
    secrets = services.emulator.client("secretsmanager")
    secrets.create_secret(Name=SALT_ID, SecretString=SALT)
    variables = services.emulator.environment | {
        "SALT_SECRET_ID": SALT_ID,
        "DATABASE_URL": server.url("login_writer", server.password, DATABASE, sslmode="require"),
        "DATABASE_CA_BUNDLE": str(server.certificate_authority),
        "VAULT_PUBLIC_KEY": base64.b64encode(spki).decode(),
    }
    log = local_system.TARGET / "e2e-sealed-values" / "function.log"
    program = stack.copy_binary("bootstrap", log.parent)
    with running_function(program, variables, log) as function:
        yield Vault(function, server, key)


def test_two_foreign_implementations_open_every_value(vault: Vault) -> None:
    addresses = ["192.0.2.1", "2001:db8::1", "unknown", "198.51.100.200", "::ffff:192.0.2.7"]
    devices = ["593-47-5928", "x" * 47, "x" * 48, "ü" * 500, "😀"]
    logins = [login(ip=ip, device_id=device) for ip, device in zip(addresses, devices, strict=True)]
    logins += [login() for _ in range(995)]

    answer = vault.function.invoke({"Records": [record(each) for each in logins]})

    assert answer == failed()
    expected = {}
    for each in logins:
        expected[token(SALT, "ip", each["ip"])] = ("ip", each["ip"].removeprefix("::ffff:"))
        expected[token(SALT, "device_id", each["device_id"])] = ("device_id", each["device_id"])
    opened = {}
    streams = vault.streams()
    for encapsulated_key, entries in streams.items():
        assert [entry.sequence for entry in entries] == list(range(len(entries)))
        context = _pyhpke(vault.key, encapsulated_key)
        for entry in entries:
            plaintext = context.open(entry.ciphertext, entry.associated_data)
            opened[entry.token] = (entry.field, hpke.unpad(plaintext))
        last = entries[-1]
        stream = hpke.Stream(vault.key, encapsulated_key)
        plaintext = stream.open(last.sequence, last.ciphertext, last.associated_data)
        assert hpke.unpad(plaintext) == opened[last.token][1]
    assert opened == expected
    assert [len(entries) for entries in streams.values()] == [1000, 1000]


def test_moved_and_changed_values_do_not_open(vault: Vault) -> None:
    vault.function.invoke({"Records": [record(login()), record(login())]})
    encapsulated_key, (one, other, *_) = next(iter(vault.streams().items()))

    for ciphertext, associated_data in [
        (one.ciphertext, other.associated_data),
        (other.ciphertext, one.associated_data),
        (one.ciphertext[:-1], one.associated_data),
        (bytes([one.ciphertext[0] ^ 1]) + one.ciphertext[1:], one.associated_data),
    ]:
        with pytest.raises(OpenError):
            _pyhpke(vault.key, encapsulated_key).open(ciphertext, associated_data)


def test_no_value_reaches_the_log(vault: Vault) -> None:
    body = login(device_id="device-that-nobody-else-has")
    vault.function.invoke({"Records": [record(body)]})

    log = vault.function.log.read_text()

    assert json.loads(log.splitlines()[-1])["sealed"] == 2
    for secret in (body["ip"], body["device_id"], token(SALT, "device_id", body["device_id"])):
        assert secret not in log


def _cut(entry: bytes) -> Entry:
    return Entry(
        sequence=int.from_bytes(entry[:2]),
        field=FIELDS[entry[2:3]],
        token=entry[3:35].hex(),
        ciphertext=entry[35:],
    )


def _pyhpke(key: ec.EllipticCurvePrivateKey, encapsulated_key: bytes) -> ContextInterface:
    suite = CipherSuite.new(KEMId.DHKEM_P256_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM)
    private = KEMKey.from_pyca_cryptography_key(key)
    return suite.create_recipient_context(encapsulated_key, private, info=hpke.INFO)
