//! Parameters of other clients that share the address with clerk2pg. They do not concern clerk2pg:
//! pools, caches, timeouts, and the schema of an application's tables. Source: the documentation of
//! each client.

/// Parameters that are ignored. Those about TLS are handled in [`super::params`].
pub(super) const IGNORED: &[&str] = &[
    // Prisma.
    "connection_limit",
    "max_connection_lifetime",
    "max_idle_connection_lifetime",
    "pgbouncer",
    "pool_timeout",
    "schema",
    "single_use_connections",
    "socket_timeout",
    "statement_cache_size",
    // Supabase and Vercel, for Prisma.
    "supa",
    "workaround",
    // node-postgres and postgres.js.
    "binary",
    "connectionTimeoutMillis",
    "encoding",
    "fetch_types",
    "idleTimeoutMillis",
    "idle_in_transaction_session_timeout",
    "idle_timeout",
    "keepAlive",
    "lock_timeout",
    "max",
    "max_lifetime",
    "prepare",
    "query_timeout",
    "statement_timeout",
    "uselibpqcompat",
    // asyncpg and SQLAlchemy.
    "async_fallback",
    "command_timeout",
    "prepared_statement_cache_size",
    "timeout",
    // Django.
    "conn_health_checks",
    "conn_max_age",
    "disable_server_side_cursors",
    // Java.
    "ApplicationName",
    "connectTimeout",
    "currentSchema",
    "loginTimeout",
    "prepareThreshold",
    "reWriteBatchedInserts",
    "socketTimeout",
    "stringtype",
    "tcpKeepAlive",
    // Go.
    "binary_parameters",
    "default_query_exec_mode",
    "description_cache_capacity",
    "pool_health_check_period",
    "pool_max_conn_idle_time",
    "pool_max_conn_lifetime",
    "pool_max_conn_lifetime_jitter",
    "pool_max_conns",
    "pool_min_conns",
    "pool_min_idle_conns",
    "search_path",
    "statement_cache_capacity",
    "statement_cache_mode",
    // sqlx.
    "statement-cache-capacity",
    // Rails.
    "checkout_timeout",
    "pool",
    "prepared_statements",
    "reaping_frequency",
    "schema_search_path",
    // Ecto.
    "pool_size",
    // Symfony.
    "charset",
    "serverVersion",
    // Crystal.
    "initial_pool_size",
    "max_idle_pool_size",
    "max_pool_size",
    "retry_attempts",
    "retry_delay",
    // The server's own, which some clients pass on.
    "TimeZone",
    "timezone",
];

/// Other clients' names for libpq's parameters.
pub(super) const ALIASES: [(&str, &str); 5] = [
    ("ssl-ca", "sslrootcert"),
    ("ssl-cert", "sslcert"),
    ("ssl-key", "sslkey"),
    ("ssl-mode", "sslmode"),
    ("ssl-root-cert", "sslrootcert"),
];
