-- The logins and the different users of each day, by the values of a dimension. The rank orders the values of a day.
SELECT day, rank, value, logins, users
FROM (
    SELECT day, row_number() OVER (PARTITION BY day ORDER BY logins DESC, value) AS rank, value, logins, users
    FROM {analytics}.daily
    WHERE dimension = $1 AND day >= $2 - ($3 - 1)::integer AND day <= LEAST($2, $4)
) AS ranked
WHERE day < $4 OR rank > $5
ORDER BY day DESC, rank
LIMIT $6
