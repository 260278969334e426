-- The older version's expressions mean the same; nothing is to be undone.
SELECT;
