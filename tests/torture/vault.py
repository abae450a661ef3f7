"""The vault's key pair, its role, a witness of all that is sealed, and what the vault has.

Only `Vault` has the private key. It is never written anywhere.
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import psycopg
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from psycopg import sql

from dev import hpke

BROKER = "torture_broker"
FIELDS = {"i": "ip", "d": "device_id"}

# Keeps what each committed batch sealed and which messages it wrote: an erasure changes
# vault_inbox, and the fold empties it.
WITNESS = """
CREATE SCHEMA torture;
CREATE TABLE torture.sealed (LIKE vault_inbox, xid xid8 NOT NULL DEFAULT pg_current_xact_id());
CREATE TABLE torture.written (
    message_id uuid NOT NULL, xid xid8 NOT NULL DEFAULT pg_current_xact_id()
);
CREATE FUNCTION torture.note_sealed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ BEGIN INSERT INTO torture.sealed VALUES (NEW.*); RETURN NULL; END $$;
CREATE FUNCTION torture.note_written() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ BEGIN INSERT INTO torture.written VALUES (NEW.message_id); RETURN NULL; END $$;
CREATE TRIGGER note AFTER INSERT ON vault_inbox
FOR EACH ROW EXECUTE FUNCTION torture.note_sealed();
CREATE TRIGGER note AFTER INSERT ON processed_messages
FOR EACH ROW EXECUTE FUNCTION torture.note_written();
"""
READ_WRITTEN = """
SELECT message_id::text, xid::text, pg_xact_commit_timestamp(xid::xid) FROM torture.written
"""
READ_INBOX = "SELECT written_at, enc, entry_length, body, NULL FROM vault_inbox"
READ_WITNESS = "SELECT written_at, enc, entry_length, body, xid::text FROM torture.sealed"
READ_SEALED = """
SELECT to_jsonb(vault_sealed) ->> 'sealed_token', encode(token, 'hex'), enc, sequence, field,
    ciphertext
FROM vault_sealed JOIN vault_streams ON vault_streams.id = stream_id
"""
READ_ERASED = "SELECT encode(token, 'hex'), erased_at, never_again FROM vault_erased"
READ_AUDIT = "SELECT id, outcome FROM vault_audit"


class Place(NamedTuple):
    """What identifies a sealed value: its stream, and its number there."""

    enc: bytes
    sequence: int


@dataclass(frozen=True)
class Sealed:
    """A sealed value."""

    place: Place
    field: str
    token: str
    # The token beside which it was sealed.
    sealed_token: str
    ciphertext: bytes
    # When the transaction of the batch began; only of values in the inbox and of the witness.
    written_at: datetime | None = None
    # The transaction; only of values of the witness.
    transaction: str | None = None


class Written(NamedTuple):
    """The transaction that wrote a message, and when it was committed."""

    transaction: str
    at: datetime


@dataclass(frozen=True)
class Contents:
    """What the vault has."""

    inbox: list[Sealed]
    sealed: list[Sealed]
    # When each token was erased, and whether for ever.
    erased: dict[str, tuple[datetime, bool]]


@dataclass
class Vault:
    """The key pair of a run, and the password of the broker's role."""

    password: str
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    _streams: dict[bytes, hpke.Stream] = field(default_factory=dict)

    @property
    def public_key(self) -> dict[str, str]:
        """The setting of the function."""
        spki = self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return {"VAULT_PUBLIC_KEY": base64.b64encode(spki).decode()}

    @property
    def settings(self) -> dict[str, str]:
        """The settings of migrate."""
        return {**self.public_key, "VAULT_KMS_KEY": "torture"}

    @property
    def private_bytes(self) -> bytes:
        """The private key, which no file may have."""
        return self.key.private_numbers().private_value.to_bytes(32)

    def prepare(self, owner: psycopg.Connection) -> None:
        """Create the witness, and a member of login_vault, which acts as the broker does."""
        owner.execute(WITNESS)
        owner.execute("SET log_statement = 'none'")  # keeps the password out of the log
        create = sql.SQL("CREATE ROLE {} LOGIN IN ROLE login_vault PASSWORD {}")
        owner.execute(create.format(sql.Identifier(BROKER), sql.Literal(self.password)))

    def open(self, sealed: Sealed) -> str | None:
        """Open a value; `None` if it does not open, or has a wrong form."""
        stream = self._streams.get(sealed.place.enc)
        if stream is None:
            stream = self._streams[sealed.place.enc] = hpke.Stream(self.key, sealed.place.enc)
        associated_data = f"{sealed.field}:{sealed.sealed_token}".encode()
        try:
            return hpke.unpad(
                stream.open(sealed.place.sequence, sealed.ciphertext, associated_data)
            )
        except (InvalidTag, ValueError):
            return None


def read(owner: psycopg.Connection) -> Contents:
    """Read what the vault has, in one snapshot."""
    with owner.transaction():
        owner.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        sealed = [
            Sealed(
                Place(enc, sequence), FIELDS[name], token, (old or token).removeprefix("\\x"), body
            )
            for old, token, enc, sequence, name, body in owner.execute(READ_SEALED)
        ]
        inbox = list(_cut_bodies(owner, READ_INBOX))
        rows = owner.execute(READ_ERASED).fetchall()
    return Contents(inbox, sealed, {token: (at, for_ever) for token, at, for_ever in rows})


def read_witness(owner: psycopg.Connection) -> dict[Place, Sealed]:
    """Read what all committed batches have sealed."""
    return {sealed.place: sealed for sealed in _cut_bodies(owner, READ_WITNESS)}


def read_written(owner: psycopg.Connection) -> dict[str, Written]:
    """Read which transaction wrote each message, by the ids of the messages."""
    return {id_: Written(*transaction) for id_, *transaction in owner.execute(READ_WRITTEN)}


def _cut_bodies(owner: psycopg.Connection, query: str) -> Iterator[Sealed]:
    for written_at, enc, length, body, transaction in owner.execute(query):
        for start in range(0, len(body), length):
            entry = body[start : start + length]
            token = entry[3:35].hex()
            yield Sealed(
                Place(enc, int.from_bytes(entry[:2])),
                FIELDS[chr(entry[2])],
                token,
                token,
                entry[35:],
                written_at,
                transaction,
            )
