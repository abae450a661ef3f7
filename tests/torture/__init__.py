"""Checks that no fault loses, duplicates or leaks a message: see `python -m torture --help`.

- `messages`: the messages that are sent, and the row of each
- `sqs`: a model of SQS, which delivers, redelivers, and records the history of every message
- `functions`: several processes of the release build, each behind a Runtime API
- `network`: the proxies before Postgres and Secrets Manager
- `proxied_servers`: Postgres and Secrets Manager behind these proxies
- `generations`: the salts, and the tokens by them
- `vault`: the key pair, what is sealed, and what the vault has
- `migrate`: the program that folds and resalts
- `erasures`: erase values, as the broker does
- `cores`: core files
- `faults`: the faults, which break servers, network and functions
- `verification`: compares the history with the table, the ledger and the logs
- `vault_verification`: compares it with the vault
- `report`: prints the results
"""

from dev import TARGET

RESULTS = TARGET / "torture"
