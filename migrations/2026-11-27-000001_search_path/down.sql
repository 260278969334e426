-- The older version's expressions mean the same; there is nothing to undo.
SELECT;
