"""Compares the vault with the messages, their rows and the erasures."""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Any

from torture.erasures import Erasure
from torture.messages import Message
from torture.proxied_servers import ProxiedServers
from torture.sqs import History, Violation
from torture.vault import READ_AUDIT, Contents, Place, Sealed, Vault, Written

Value = tuple[str, str]
# The outcomes of an erasure that was committed.
COMMITTED = {"done", "unknown", "erased"}
# How long a transaction may stay invisible after the time of its commit.
VISIBLE_AFTER = timedelta(seconds=1)
COLUMNS = {"masked_ip": "ip", "masked_device_id": "device_id"}


@dataclass(frozen=True)
class Token:
    """What a token stands for, and the generation of its salt."""

    value: Value
    generation: int


@dataclass
class VaultFindings:
    """The violations, and counts for the report."""

    lost: list[Violation] = field(default_factory=list)
    leaked: list[Violation] = field(default_factory=list)
    mixed: list[Violation] = field(default_factory=list)
    other: list[Violation] = field(default_factory=list)
    sealed: int = 0
    witnessed: int = 0
    in_inbox: int = 0
    opened: int = 0
    erased: int = 0
    erased_for_ever: int = 0
    sealed_again: int = 0
    # Rows whose token was erased.
    cleared: int = 0
    committed_erasures: int = 0
    # Erasures that were committed, but not answered.
    unconfirmed: int = 0
    # Erasures of a token that a resalt had replaced meanwhile.
    late_erasures: int = 0


class Knowledge:
    """What the vault and the rows must look like, by the messages and the erasures alone."""

    def __init__(self, servers: ProxiedServers, history: History, erasures: list[Erasure]) -> None:
        """Compute all tokens of all values."""
        generations = servers.generations
        [(accepted,)] = servers.query("SELECT fingerprint FROM salt_fingerprint")
        fingerprints = generations.fingerprints()
        self.findings = VaultFindings()
        self.generation = fingerprints.index(accepted) if accepted in fingerprints else -1
        if self.generation != len(fingerprints) - 1:
            text = "the accepted salt is not the last salt of the secret"
            self.findings.mixed.append(Violation(text))
        self.messages_of: dict[Value, list[Message]] = defaultdict(list)
        self._current: dict[Value, str] = {}
        self.tokens: dict[str, Token] = {}
        for message in history.messages:
            for value in message.values.items():
                self.messages_of[value].append(message)
        for value in self.messages_of:
            tokens = generations.tokens(*value)
            self._current[value] = tokens[self.generation]
            self.tokens |= {token: Token(value, place) for place, token in enumerate(tokens)}
        self._outcomes: dict[int, str | None] = dict(servers.query(READ_AUDIT))
        self._erasures = erasures
        self._erased = {
            token for (token,) in servers.query("SELECT encode(token, 'hex') FROM vault_erased")
        }

    @cached_property
    def committed(self) -> list[Erasure]:
        """The erasures that were committed, by the audit."""
        committed = []
        for erasure in self._erasures:
            outcome = self._outcomes.get(erasure.entry)
            if erasure.entry is not None and erasure.entry not in self._outcomes:
                self.findings.other.append(Violation("an entry of the audit is lost"))
            if outcome in COMMITTED:
                committed.append(erasure)
                self.findings.unconfirmed += not erasure.answered
            elif erasure.answered:
                self.findings.other.append(Violation("an answered erasure is not in the audit"))
        self.findings.committed_erasures = len(committed)
        return committed

    @cached_property
    def possible(self) -> dict[Value, list[Erasure]]:
        """The erasures that may have erased each value."""
        possible: dict[Value, list[Erasure]] = defaultdict(list)
        for erasure in self.committed:
            known = (self.tokens.get(token) for token in erasure.tokens)
            answered = {token.value for token in known if token is not None}
            for value in erasure.values:
                if not erasure.answered or value in answered:
                    possible[value].append(erasure)
        return possible

    @cached_property
    def certain(self) -> dict[Value, list[Erasure]]:
        """The erasures that have certainly erased each value."""
        certain: dict[Value, list[Erasure]] = defaultdict(list)
        for erasure in self.committed:
            for token in erasure.tokens:
                meaning = self.tokens.get(token)
                if meaning is None:
                    text = "an erasure names a token of no message"
                    self.findings.other.append(Violation(text, erasure.message))
                elif meaning.generation != self.generation and token in self._erased:
                    self.findings.late_erasures += 1
                else:
                    certain[meaning.value].append(erasure)
        return certain

    def check_row(self, message: Message, row: tuple[Any, ...]) -> None:
        """Check the columns of a good message's row."""
        expected = message.row._replace(**dict.fromkeys(COLUMNS))
        seen = type(message.row)(*row)
        if seen._replace(**dict.fromkeys(COLUMNS)) != expected:
            self.findings.other.append(Violation("has a row with wrong values", message))
        for column, name in COLUMNS.items():
            self._check_column(message, getattr(seen, column), (name, message.values[name]))

    def _check_column(self, message: Message, token: str | None, value: Value) -> None:
        if token is None:
            self.findings.cleared += 1
            if not any(erasure.with_rows for erasure in self.possible.get(value, [])):
                self.findings.lost.append(Violation("has a row without a token", message))
        elif token == self._current[value]:
            if any(
                erasure.with_rows and _was_written(message, erasure)
                for erasure in self.certain.get(value, [])
            ):
                text = "has a row with a token that was erased with its rows"
                self.findings.leaked.append(Violation(text, message))
        elif token in self.tokens and self.tokens[token].value == value:
            self.findings.mixed.append(Violation("has a row of another salt", message))
        else:
            self.findings.other.append(Violation("has a row with a wrong token", message))

    def check_witness(self, witness: dict[Place, Sealed], written: dict[str, Written]) -> None:
        """Check that each batch sealed only values of the messages that it wrote.

        So a refused message leaves no value, and a redelivery does not bring an erased value back.
        """
        self.findings.witnessed = len(witness)
        for sealed in witness.values():
            token = self.tokens.get(sealed.token)
            if token is None:
                self.findings.other.append(Violation("a batch sealed a value of no message"))
                continue
            messages = self.messages_of[token.value]
            found = (written[message.id] for message in messages if message.id in written)
            if not any(_wrote(sealed, transaction) for transaction in found):
                text = f"its {sealed.field} was sealed by a batch that did not write it"
                self.findings.leaked.append(Violation(text, messages[0]))

    def check_erased(self, contents: Contents) -> None:
        """Check that the vault remembers each erasure that was answered."""
        findings = self.findings
        findings.erased = len(contents.erased)
        findings.erased_for_ever = sum(for_ever for _, for_ever in contents.erased.values())
        for value, erasures in self.certain.items():
            erased = contents.erased.get(self._current[value])
            for_ever = any(erasure.never_again for erasure in erasures)
            if erased is None or (for_ever and not erased[1]):
                findings.lost.append(Violation("an answered erasure is lost"))

    def check_contents(
        self,
        vault: Vault,
        contents: Contents,
        witness: dict[Place, Sealed],
        tokens_of_rows: set[str],
    ) -> None:
        """Open each value, and check that it is there for a reason, and that none is missing."""
        for sealed in [*contents.sealed, *contents.inbox]:
            self._check_sealed(vault, sealed, witness)
        for sealed in contents.sealed:
            self._check_erasures(sealed, contents, witness)
        present = {sealed.token for sealed in [*contents.sealed, *contents.inbox]}
        for token in tokens_of_rows - present:
            meaning = self.tokens.get(token)
            if meaning is not None and meaning.value not in self.possible:
                message = self.messages_of[meaning.value][0]
                self.findings.lost.append(Violation(f"its {meaning.value[0]} is lost", message))

    def _check_sealed(self, vault: Vault, sealed: Sealed, witness: dict[Place, Sealed]) -> None:
        findings = self.findings
        token, old = self.tokens.get(sealed.token), self.tokens.get(sealed.sealed_token)
        if token is None or old is None or token.value != old.value:
            findings.other.append(Violation("the vault has a token of no message"))
            return
        message = self.messages_of[token.value][0]
        if token.generation != self.generation:
            findings.mixed.append(Violation("the vault has a token of another salt", message))
        if (sealed.field, vault.open(sealed)) != token.value:
            text = f"its {sealed.field} does not open to what was sent"
            findings.lost.append(Violation(text, message))
        findings.opened += 1
        origin = witness.get(sealed.place)
        if origin is None or (origin.ciphertext, origin.token) != (
            sealed.ciphertext,
            sealed.sealed_token,
        ):
            findings.other.append(Violation("the vault has a value that no batch sealed", message))

    def _check_erasures(
        self, sealed: Sealed, contents: Contents, witness: dict[Place, Sealed]
    ) -> None:
        """Check that a value of vault_sealed is there in spite of the erasures."""
        token, erased = self.tokens.get(sealed.token), contents.erased.get(sealed.token)
        if token is None or erased is None:
            return
        findings, messages = self.findings, self.messages_of[token.value]
        erased_at, for_ever = erased
        origin = witness.get(sealed.place)
        findings.sealed_again += 1
        if for_ever:
            text = f"its {sealed.field} was erased for ever, and is in the vault"
            findings.leaked.append(Violation(text, messages[0]))
        elif origin is not None and origin.written_at <= erased_at:
            text = f"its {sealed.field} was erased, and came back from a batch of before"
            findings.leaked.append(Violation(text, messages[0]))


def _wrote(sealed: Sealed, written: Written) -> bool:
    """Return whether a batch may have written a message.

    A batch may begin before another batch has written the message, and seal its values although it
    is late. This is harmless: an erasure that follows keeps them out, because the batch is older.
    """
    is_overtaken = sealed.written_at < written.at + VISIBLE_AFTER
    return sealed.transaction == written.transaction or is_overtaken


def _was_written(message: Message, erasure: Erasure) -> bool:
    """Return whether a message was written when an erasure began."""
    return message.deleted_at is not None and message.deleted_at < erasure.began
