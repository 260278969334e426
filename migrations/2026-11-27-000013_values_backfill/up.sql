-- Derives the primary address and number of existing rows, because a sync writes a row again only
-- if its document changes. Rows that a constraint or trigger of the application refuses stay as
-- they are.

-- Waits for rows that the application has locked, instead of skipping them like refused ones.
-- Readers do not wait for this.
SET LOCAL lock_timeout = 0;

DO $backfill$
DECLARE
    -- The rows whose derived columns differ from what their documents say. Every literal has its
    -- type, so that no operator of another schema fits better.
    differ CONSTANT text := $sql$
        SELECT u.id, email.value AS email, email.is_verified AS email_verified, phone.value AS phone,
               phone.is_verified AS phone_verified
        FROM clerk.users AS u
        LEFT JOIN LATERAL (
            SELECT entry ->> 'email_address'::text AS value,
                   coalesce(entry -> 'verification'::text -> 'status'::text = '"verified"'::jsonb, false) AS is_verified
            FROM pg_catalog.jsonb_array_elements(
                CASE WHEN pg_catalog.jsonb_typeof(u.email_addresses) = 'array'::text THEN u.email_addresses ELSE '[]'::jsonb END
            ) WITH ORDINALITY AS list(entry, place)
            WHERE pg_catalog.jsonb_typeof(entry) = 'object'::text
              AND entry -> 'id'::text = pg_catalog.to_jsonb(u.primary_email_address_id)
              AND pg_catalog.jsonb_typeof(entry -> 'email_address'::text) = 'string'::text
            ORDER BY place LIMIT 1
        ) AS email ON true
        LEFT JOIN LATERAL (
            SELECT entry ->> 'phone_number'::text AS value,
                   coalesce(entry -> 'verification'::text -> 'status'::text = '"verified"'::jsonb, false) AS is_verified
            FROM pg_catalog.jsonb_array_elements(
                CASE WHEN pg_catalog.jsonb_typeof(u.phone_numbers) = 'array'::text THEN u.phone_numbers ELSE '[]'::jsonb END
            ) WITH ORDINALITY AS list(entry, place)
            WHERE pg_catalog.jsonb_typeof(entry) = 'object'::text
              AND entry -> 'id'::text = pg_catalog.to_jsonb(u.primary_phone_number_id)
              AND pg_catalog.jsonb_typeof(entry -> 'phone_number'::text) = 'string'::text
            ORDER BY place LIMIT 1
        ) AS phone ON true
        WHERE (u.primary_email IS DISTINCT FROM email.value
            OR u.primary_email_verified IS DISTINCT FROM email.is_verified
            OR u.primary_phone IS DISTINCT FROM phone.value
            OR u.primary_phone_verified IS DISTINCT FROM phone.is_verified)
    $sql$;
    derive CONSTANT text := 'UPDATE clerk.users AS t
        SET primary_email = d.email, primary_email_verified = d.email_verified,
            primary_phone = d.phone, primary_phone_verified = d.phone_verified
        FROM (' || differ || ') AS d WHERE t.id = d.id';
    one text;
BEGIN
    BEGIN
        EXECUTE derive;
    EXCEPTION WHEN OTHERS THEN
        FOR one IN EXECUTE 'SELECT d.id FROM (' || differ || ') AS d' LOOP
            BEGIN
                EXECUTE derive || ' AND t.id = $1' USING one;
            EXCEPTION WHEN OTHERS THEN
                NULL;
            END;
        END LOOP;
    END;
END
$backfill$;

-- Values that a later version wrote before an earlier one replaced it: keys of extra that have a
-- column of their own.
UPDATE clerk.users AS u SET unexpected = found.names
FROM (
    SELECT r.id, pg_catalog.array_agg(key.name ORDER BY key.name) AS names
    FROM clerk.users AS r
    CROSS JOIN LATERAL pg_catalog.jsonb_object_keys(r.extra) AS key(name)
    WHERE pg_catalog.jsonb_typeof(r.extra) = 'object'::text AND key.name IN (
        SELECT field.attname::text FROM pg_catalog.pg_attribute AS field
        JOIN pg_catalog.pg_attribute AS extra ON extra.attrelid = field.attrelid AND extra.attname = 'extra'::name
        WHERE field.attrelid = 'clerk.users'::pg_catalog.regclass::pg_catalog.oid AND field.attnum > 0::int2 AND field.attnum < extra.attnum
    )
    GROUP BY r.id
) AS found
WHERE found.id = u.id AND u.unexpected IS NULL;

-- Few rows have such a value, so counting them is cheap.
CREATE INDEX users_unexpected_idx ON clerk.users (id) WHERE unexpected IS NOT NULL;
