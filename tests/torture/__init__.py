"""Nothing lost, nothing twice, nothing leaked, whatever breaks: see `python -m torture --help`.

- `messages`: what is sent, and what must become of it
- `sqs`: a model of SQS, which delivers, redelivers, and keeps the books
- `functions`: several processes of the release build, each behind a Runtime API
- `network`: the proxies before Postgres and before Secrets Manager
- `proxied_servers`: the servers behind them
- `faults`: what is done to all of these
- `verdict`: the comparison of the books with the table, and the search of the logs
"""

from dev import TARGET

RESULTS = TARGET / "torture"
