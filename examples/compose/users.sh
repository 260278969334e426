#!/bin/sh
# An example application that reads its users from its own database. Every two seconds it prints the
# number of users and the newest one.
set -eu
DATABASE_URL=$(cat "$DATABASE_URL_FILE")
while true; do
    psql "$DATABASE_URL" --no-psqlrc --tuples-only --no-align --field-separator=', newest: ' --command="
        SELECT count(*) OVER () || ' users', coalesce(full_name, primary_email, id) || ' (' || id || ')'
        FROM clerk.users ORDER BY created_at DESC LIMIT 1" || true
    sleep 2
done
