UPDATE clerk.sync_runs SET outcome = 'in_step' WHERE outcome = 'in_sync';
