INSERT INTO exports (
    day, objects, key, rows, ledger_entries, ledger_seen, deleted_rows, bytes, sha256, etag, closed, changed, exported_at
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, false, now())
ON CONFLICT (day) DO UPDATE
SET
    objects = excluded.objects,
    key = excluded.key,
    rows = excluded.rows,
    ledger_entries = excluded.ledger_entries,
    ledger_seen = excluded.ledger_seen,
    deleted_rows = excluded.deleted_rows,
    bytes = excluded.bytes,
    sha256 = excluded.sha256,
    etag = excluded.etag,
    closed = excluded.closed,
    changed = excluded.changed,
    exported_at = excluded.exported_at
