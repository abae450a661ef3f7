-- Finds the rings: users that are connected by devices. A device with more than 50 users connects nobody.
--
-- This is "connected components": each device starts as a group of its own. In each round, a group joins its smallest
-- neighbour, and the names of the groups are shortened until each device has the name of its group. At least half of
-- the groups that have a neighbour are gone after two rounds, so a chain of 1,000 devices takes about 10 rounds.
--
-- Only the rings of users with a changed device can differ. All users of an unchanged device are in the same ring. So
-- the statements read only the users of changed devices, and the members of their rings.
CREATE TEMPORARY TABLE changed_user ON COMMIT DROP AS
SELECT user_id FROM pg_temp.part WHERE field = 'device_id'
UNION
SELECT user_id FROM pg_temp.change WHERE field = 'device_id';
ANALYZE pg_temp.changed_user;

CREATE TEMPORARY TABLE changed_ring ON COMMIT DROP AS
SELECT DISTINCT ring FROM ring_members JOIN pg_temp.changed_user USING (user_id);

INSERT INTO pg_temp.changed_user
SELECT user_id FROM ring_members JOIN pg_temp.changed_ring USING (ring)
EXCEPT
SELECT user_id FROM pg_temp.changed_user;
ANALYZE pg_temp.changed_user;

CREATE TEMPORARY TABLE device ON COMMIT DROP AS
SELECT row_number() OVER (ORDER BY token) AS number, token, row_number() OVER (ORDER BY token) AS ring_number
FROM token_period
WHERE field = 'device_id' AND period = '28d' AND users <= 50 AND token IN (
    SELECT token FROM token_user_day JOIN pg_temp.changed_user USING (user_id) WHERE field = 'device_id'
);
CREATE INDEX ON pg_temp.device (number);
ANALYZE pg_temp.device;

CREATE TEMPORARY TABLE device_user ON COMMIT DROP AS
SELECT number, user_id, sum(logins) AS logins, min(day) AS first_day, max(day) AS last_day
FROM pg_temp.device
JOIN token_user_day USING (token)
WHERE field = 'device_id' AND day > (SELECT through - 28 FROM state)
GROUP BY number, user_id;

CREATE TEMPORARY TABLE neighbour ON COMMIT DROP AS
SELECT lowest AS a, number AS b
FROM (SELECT number, min(number) OVER (PARTITION BY user_id) AS lowest FROM pg_temp.device_user) AS of_user
WHERE lowest < number
GROUP BY lowest, number;
ANALYZE pg_temp.neighbour;

DO $$
BEGIN
    LOOP
        UPDATE pg_temp.device
        SET ring_number = joined.a
        FROM (SELECT b, min(a) AS a FROM pg_temp.neighbour GROUP BY b) AS joined
        WHERE device.number = joined.b;
        EXIT WHEN NOT FOUND;

        LOOP
            UPDATE pg_temp.device
            SET ring_number = next.ring_number
            FROM pg_temp.device AS next
            WHERE next.number = device.ring_number AND next.ring_number <> device.ring_number;
            EXIT WHEN NOT FOUND;
        END LOOP;

        -- From here, a pair stands for two groups, with the smaller number first.
        UPDATE pg_temp.neighbour
        SET a = least(device_a.ring_number, device_b.ring_number),
            b = greatest(device_a.ring_number, device_b.ring_number)
        FROM pg_temp.device AS device_a, pg_temp.device AS device_b
        WHERE device_a.number = a AND device_b.number = b;

        DELETE FROM pg_temp.neighbour WHERE a = b;
    END LOOP;
END
$$;

CREATE TEMPORARY TABLE ring_user ON COMMIT DROP AS
SELECT first_device.token AS ring, device.number, user_id, logins, first_day, last_day
FROM pg_temp.device_user
JOIN pg_temp.device USING (number)
JOIN pg_temp.device AS first_device ON first_device.number = device.ring_number;

DELETE FROM rings WHERE ring IN (SELECT ring FROM pg_temp.changed_ring);
INSERT INTO rings (ring, users, devices, logins, first_day, last_day)
SELECT ring, count(DISTINCT user_id), count(DISTINCT number), sum(logins), min(first_day), max(last_day)
FROM pg_temp.ring_user
GROUP BY ring;

DELETE FROM ring_members WHERE ring IN (SELECT ring FROM pg_temp.changed_ring);
INSERT INTO ring_members (ring, user_id) SELECT DISTINCT ring, user_id FROM pg_temp.ring_user;
