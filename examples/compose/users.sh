#!/bin/sh
# An application that has its users at Clerk and reads them from its own database: every two seconds it says how many there are, and who came last.
set -eu
DATABASE_URL=$(cat "$DATABASE_URL_FILE")
while true; do
    psql "$DATABASE_URL" --no-psqlrc --tuples-only --no-align --field-separator=', newest: ' --command="
        SELECT count(*) OVER () || ' users', coalesce(full_name, primary_email, id) || ' (' || id || ')'
        FROM clerk.users ORDER BY created_at DESC LIMIT 1" || true
    sleep 2
done
