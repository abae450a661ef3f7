-- A ring.
SELECT ring, users, devices, logins, first_day, last_day
FROM {analytics}.rings
WHERE ring = $1
