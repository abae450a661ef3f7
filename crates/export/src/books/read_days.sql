-- Returns the days that are in the books or in the ledger. The caller fills in which.
SELECT
    coalesce(exports.day, ledger_day.day) AS day,
    coalesce(entries, 0) AS entries,
    objects,
    exported_at IS NOT NULL AS is_exported,
    rows,
    ledger_entries,
    ledger_seen,
    coalesce(deleted_rows, 0) AS deleted_rows,
    coalesce(closed, false) AS closed,
    coalesce(changed, false) AS changed
FROM {exports} AS exports
FULL JOIN ({ledger_day}) AS ledger_day ON exports.day = ledger_day.day
WHERE coalesce(exports.day, ledger_day.day) BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'
