-- The values go with their column.
SELECT;
