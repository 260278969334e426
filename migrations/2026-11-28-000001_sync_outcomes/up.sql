-- "in sync" is the term everywhere else.
UPDATE clerk.sync_runs SET outcome = 'in_sync' WHERE outcome = 'in_step';
