-- Derives display_name of existing rows, because a sync writes a row again only if its document
-- changes. Rows that a constraint or trigger of the application refuses stay as they are.

-- Waits for rows that the application has locked, instead of skipping them like refused ones.
-- Readers do not wait for this.
SET LOCAL lock_timeout = 0;

DO $backfill$
DECLARE
    -- Every literal has its type, so that no operator of another schema fits better.
    differ CONSTANT text := $sql$
        SELECT u.id, coalesce(
            u.full_name,
            nullif(pg_catalog.btrim(u.username, E' \t\n\r'::text), ''::text),
            nullif(pg_catalog.substring(u.primary_email, '^(.*)@'::text), ''::text),
            u.primary_phone) AS display_name
        FROM clerk.users AS u
    $sql$;
    derive CONSTANT text := 'UPDATE clerk.users AS t SET display_name = d.display_name
        FROM (' || differ || ') AS d WHERE t.id = d.id AND d.display_name IS NOT NULL';
    one text;
BEGIN
    BEGIN
        EXECUTE derive;
    EXCEPTION WHEN OTHERS THEN
        FOR one IN EXECUTE 'SELECT d.id FROM (' || differ || ') AS d WHERE d.display_name IS NOT NULL' LOOP
            BEGIN
                EXECUTE derive || ' AND t.id = $1' USING one;
            EXCEPTION WHEN OTHERS THEN
                NULL;
            END;
        END LOOP;
    END;
END
$backfill$;
