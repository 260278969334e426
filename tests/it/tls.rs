//! TLS with Postgres: what each `sslmode` connects to, and the messages if it does not.

use clerk_sim::{Options, Sim};
use rustix::process::Signal;

use crate::support::{
    authority::Authority,
    connecting::{assert_accepted, assert_refused, migrate, url},
    database::{Database, connect},
    fixture::Fixture,
    on_demand::{DEBUG, LISTENING},
    postgres::Postgres,
    process::{NEVER, Process},
    program::command,
    summary::{Exit, changed},
    wait::eventually,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_sslmode_connects_where_libpq_does() {
    let server = Postgres::start().await;
    let roots = format!("&sslrootcert={}", server.file("ca.pem", &server.authority.certificate));
    let other = format!(
        "&sslrootcert={}",
        server.file("other.pem", &Authority::new("another").certificate)
    );
    // For each mode and further parameters: whether a role can log in that requires TLS, and one
    // that forbids it.
    let cases = [
        ("disable", "", false, true),
        ("allow", "", true, true),
        ("prefer", "", true, true),
        ("require", "", true, false),
        ("require", roots.as_str(), true, false),
        ("verify-ca", roots.as_str(), true, false),
        ("verify-full", roots.as_str(), true, false),
        ("verify-full", &format!("{roots}&channel_binding=require"), true, false),
        ("require", "&channel_binding=require", true, false),
        ("disable", other.as_str(), false, true),
        ("require", other.as_str(), false, false),
        ("prefer", other.as_str(), false, false),
    ];
    for (mode, more, encrypted, plain) in cases {
        for (role, comes_in) in [("encrypted", encrypted), ("plain", plain)] {
            let ran = migrate(&server, &url(&server, role, &format!("sslmode={mode}{more}")), &[]).await;
            assert_eq!(ran.code, Some(i32::from(!comes_in)), "{role} {mode}{more}: {ran:#?}");
        }
    }
    // The default is `prefer`.
    assert_accepted(&migrate(&server, &url(&server, "encrypted", ""), &[]).await);
    assert_accepted(&migrate(&server, &url(&server, "plain", ""), &[]).await);
    let in_clear = url(&server, "encrypted", "sslmode=disable");
    assert_refused(
        &migrate(&server, &in_clear, &[]).await,
        Exit::Failed,
        "no encryption",
        "sslmode=verify-full",
    );
    let unbound = url(&server, "anyway", "sslmode=disable&channel_binding=require");
    assert_refused(
        &migrate(&server, &unbound, &[]).await,
        Exit::Failed,
        "channel binding",
        "check user",
    );

    server.set("ssl = off").await;
    for mode in ["allow", "prefer"] {
        assert_accepted(&migrate(&server, &url(&server, "anyway", &format!("sslmode={mode}")), &[]).await);
    }
    for mode in ["require", &format!("verify-ca{roots}"), &format!("verify-full{roots}")] {
        let ran = migrate(&server, &url(&server, "anyway", &format!("sslmode={mode}")), &[]).await;
        assert_refused(
            &ran,
            Exit::Failed,
            "TLS with Postgres failed: the server does not support it, at localhost:",
            "turn on ssl",
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_checked_against_authority_and_name() {
    let server = Postgres::start().await;
    let ca = server.file("ca.pem", &server.authority.certificate);
    let other = server.file("other.pem", &Authority::new("another").certificate);
    let elsewhere = url(&server, "encrypted", "").replace("localhost", "127.0.0.1");
    let check = async |url: String, environment: &[(&str, &str)]| migrate(&server, &url, environment).await;

    for mode in ["prefer", "require", "verify-ca", "verify-full"] {
        let ran = check(
            url(&server, "anyway", &format!("sslmode={mode}&sslrootcert={other}")),
            &[],
        )
        .await;
        assert_refused(
            &ran,
            Exit::Failed,
            "no authority in sslrootcert signed the server's certificate",
            "set sslrootcert to the authority",
        );
    }
    let ran = check(format!("{elsewhere}sslmode=verify-full&sslrootcert={ca}"), &[]).await;
    assert_refused(
        &ran,
        Exit::Failed,
        "certificate is for localhost, not for 127.0.0.1",
        "sslmode=verify-ca",
    );
    assert_accepted(&check(format!("{elsewhere}sslmode=verify-ca&sslrootcert={ca}"), &[]).await);
    assert_accepted(&check(format!("{elsewhere}sslmode=require&sslrootcert={ca}"), &[]).await);
    // The name counts, whatever address it leads to.
    let named = format!(
        "{}sslmode=verify-full&sslrootcert={ca}&hostaddr=127.0.0.1",
        url(&server, "encrypted", "")
    );
    assert_accepted(&check(named.clone(), &[]).await);
    assert_accepted(&check(named.replace("localhost", "LOCALHOST"), &[]).await);

    // The system's root certificates, which a variable of OpenSSL names.
    let system = url(&server, "encrypted", "sslrootcert=system");
    assert_accepted(&check(system.clone(), &[("SSL_CERT_FILE", &ca)]).await);
    assert_refused(
        &check(system.clone(), &[("SSL_CERT_FILE", &other)]).await,
        Exit::Failed,
        "no authority in sslrootcert",
        "sslrootcert",
    );
    assert_refused(
        &check(format!("{system}&sslmode=require"), &[]).await,
        Exit::Usage,
        "needs sslmode=verify-full",
        "for example",
    );

    // No certificate is trusted by default.
    for mode in ["verify-ca", "verify-full"] {
        let ran = check(url(&server, "encrypted", &format!("sslmode={mode}")), &[]).await;
        assert_refused(
            &ran,
            Exit::Usage,
            "/.postgresql/root.crt cannot be used: there is no such file",
            "sslrootcert=system",
        );
    }
    let ran = check(
        url(&server, "encrypted", "sslmode=verify-ca&sslrootcert=/nowhere/ca.pem"),
        &[],
    )
    .await;
    assert_refused(
        &ran,
        Exit::Usage,
        "sslrootcert=/nowhere/ca.pem cannot be used: there is no such file",
        "sslrootcert=FILE",
    );
    let empty = server.file("empty.pem", "nothing\n");
    let ran = check(
        url(&server, "encrypted", &format!("sslmode=verify-ca&sslrootcert={empty}")),
        &[],
    )
    .await;
    assert_refused(&ran, Exit::Usage, "it contains no certificate", "sslrootcert=FILE");

    // As with libpq, a root file at its default location is enough for a check.
    server.file(".postgresql/root.crt", &server.authority.certificate);
    assert_accepted(&check(url(&server, "encrypted", "sslmode=verify-full"), &[]).await);
    server.file(".postgresql/root.crt", &Authority::new("another").certificate);
    assert_refused(
        &check(url(&server, "encrypted", "sslmode=require"), &[]).await,
        Exit::Failed,
        "no authority in sslrootcert",
        "sslrootcert",
    );
    assert_accepted(&check(url(&server, "encrypted", "sslmode=prefer"), &[]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unencrypted_connection_is_warned_of_once() {
    let server = Postgres::start().await;
    // This address leads to this machine, but does not show it.
    let check = async |role: &str, mode: &str| {
        let url = url(&server, role, &format!("sslmode={mode}&hostaddr=0.0.0.0"));
        let ran = migrate(&server, &url, &[]).await;
        assert_eq!(ran.code, Some(0), "{role} {mode}: {ran:#?}");
        ran.stderr
            .matches("the connection to Postgres is not encrypted")
            .count()
    };
    assert_eq!(check("plain", "prefer").await, 1);
    assert_eq!(check("plain", "disable").await, 1);
    assert_eq!(check("anyway", "allow").await, 1);
    assert_eq!(check("encrypted", "allow").await, 0);
    assert_eq!(check("encrypted", "prefer").await, 0);
    assert_eq!(check("encrypted", "require").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_needs_no_tls() {
    let server = Postgres::start().await;
    let folder = server.socket().display().to_string();
    for url in [
        format!(
            "host={folder} port={} user=anyway dbname=postgres sslmode=verify-full",
            server.port
        ),
        format!(
            "postgres://anyway@{}:{}/postgres?sslmode=require",
            folder.replace('/', "%2F"),
            server.port
        ),
    ] {
        assert_accepted(&migrate(&server, &url, &[]).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_with_every_connection_encrypted() {
    let server = Postgres::start().await;
    let options = Options {
        users: 30,
        secret_key: "sk_live_test".to_owned(),
        ..Options::default()
    };
    let (db, sim) = tokio::join!(Database::on_server(server.admin()), Sim::start(options));
    let fixture = Fixture { db, sim: sim.unwrap() };
    let ca = server.file("ca.pem", &server.authority.certificate);
    let address = |password: &str| {
        let database = fixture.db.url.rsplit_once('/').unwrap().1;
        let place = format!("localhost:{}/{database}", server.port);
        format!("postgres://encrypted:{password}@{place}?sslmode=verify-full&sslrootcert={ca}")
    };
    let ran = fixture.once_with(&[("DATABASE_URL", &address("hidden"))]).await;
    ran.assert(Exit::Ok, changed().created(30));

    let passfile = server.file("pass", "*:*:*:*:hidden\n");
    let (url, config) = (address(""), server.file("config.toml", ""));
    let mut command = fixture.command(&["--config", &config]);
    command.envs([NEVER, DEBUG, ("CLERK2PG_SCHEDULE__INCREMENTAL", "")]);
    command.env("DATABASE_URL", &url).env("PGPASSFILE", &passfile);
    let daemon = Process::spawn(command);
    daemon.wait_for_log(LISTENING).await;
    let id = fixture.sim.create_random();
    fixture.notify(&id).await;
    eventually("the user's row", async || fixture.has_user(&id).await).await;
    let clear = "SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE application_name = 'clerk2pg' AND NOT ssl";
    assert_eq!(fixture.db.number(clear).await, 0);

    // An untrusted certificate is no outage that ends by itself. Open connections continue.
    server.file("ca.pem", &Authority::new("another").certificate);
    daemon.signal(Signal::HUP);
    daemon.wait_for_log("TLS with Postgres failed").await;
    server.file("ca.pem", &server.authority.certificate);
    // A new password is read without a restart.
    fixture.db.execute("ALTER ROLE encrypted PASSWORD 'renewed'").await;
    server.file("pass", "*:*:*:*:renewed\n");
    fixture.sim.create_random();
    daemon.signal(Signal::HUP);
    fixture.wait_for_next_sync().await;
    let ran = daemon.stop(Signal::TERM).await;
    ran.assert_exit(Exit::Ok);
    assert!(
        !ran.stderr.contains("hidden") && !ran.stderr.contains("renewed"),
        "{ran:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untrusted_certificate_ends_the_daemon_at_start() {
    let server = Postgres::start().await;
    let other = server.file("other.pem", &Authority::new("another").certificate);
    let url = url(
        &server,
        "encrypted",
        &format!("sslmode=verify-full&sslrootcert={other}"),
    );
    let sim = Sim::start(Options {
        users: 1,
        ..Options::default()
    });
    let sim = sim.await.unwrap();
    for arguments in [&[][..], &["--once"], &["--dry-run"]] {
        let mut command = command();
        command.args(arguments).env("DATABASE_URL", &url);
        command
            .env("CLERK_SECRET_KEY", sim.secret_key())
            .env("CLERK_API_URL", sim.url());
        let ran = Process::spawn(command).wait_for_exit().await;
        assert_refused(
            &ran,
            Exit::Failed,
            "TLS with Postgres failed",
            "set sslrootcert to the authority",
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn direct_tls_is_used_where_the_server_supports_it() {
    let server = Postgres::start().await;
    let ca = server.file("ca.pem", &server.authority.certificate);
    let version = connect(&server.admin()).await;
    let version = version.query_one("SELECT current_setting('server_version_num')::int", &[]);
    let is_known = version.await.unwrap().get::<_, i32>(0) >= 170_000;
    for mode in ["require".to_owned(), format!("verify-full&sslrootcert={ca}")] {
        let url = url(&server, "encrypted", &format!("sslmode={mode}&sslnegotiation=direct"));
        let ran = migrate(&server, &url, &[]).await;
        if is_known {
            assert_accepted(&ran);
        } else {
            assert_refused(
                &ran,
                Exit::Failed,
                "needs PostgreSQL 17",
                "check that the server is running",
            );
        }
    }
}
