DROP INDEX clerk.users_unexpected_idx;
