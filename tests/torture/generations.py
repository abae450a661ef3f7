"""The salts of the run: the first salt, and those that a resalt added."""

import hashlib
import hmac
import json
from dataclasses import dataclass, field

from dev import logins


@dataclass
class Generations:
    """Computes tokens, independently of the Rust. Generation 0 is that of the first salt."""

    first: str
    later: list[str] = field(default_factory=list)

    @property
    def secret(self) -> str:
        """The text of the secret."""
        if not self.later:
            return self.first
        return json.dumps({"salt": self.first, "later_salts": self.later})

    def tokens(self, name: str, value: str) -> list[str]:
        """Return the token of a value in each generation."""
        return self.chain(logins.token(self.first, name, value))

    def chain(self, token: str) -> list[str]:
        """Return what each generation makes of a token of the first."""
        tokens = [token]
        for salt in self.later:
            tokens.append(_mac(salt, tokens[-1]))
        return tokens

    def fingerprints(self) -> list[str]:
        """Return the fingerprint of each generation."""
        return [mac[:16] for mac in self.chain(_mac(self.first, "salt:fingerprint"))]


def _mac(salt: str, text: str) -> str:
    return hmac.new(salt.encode(), text.encode(), hashlib.sha256).hexdigest()
