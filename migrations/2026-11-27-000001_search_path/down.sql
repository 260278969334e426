-- The expressions of the older version mean the same, so there is nothing to undo.
SELECT;
