SELECT
    $1::timestamptz AS now,
    ($1 AT TIME ZONE 'UTC')::date AS today,
    ($1 AT TIME ZONE 'UTC' - INTERVAL '6 hours')::date - 15 AS final
