//! Database URLs as libpq reads them: both forms, environment variables, password files, several
//! hosts.

use std::{fs, os::unix::fs::PermissionsExt};

use tokio::net::{TcpListener, TcpStream};

use crate::support::{
    database::Database,
    postgres::{Postgres, unused_address},
    program::{ProgramOutput, command},
    proxy::upstream,
    summary::Exit,
};

/// The parts of a test database's URL.
struct Parts {
    user: String,
    password: String,
    place: String,
    port: String,
    database: String,
}

impl Parts {
    fn of(db: &Database) -> Self {
        let rest = db.url.split_once("://").unwrap().1;
        let (credentials, _) = rest.rsplit_once('@').unwrap();
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let place = upstream(&db.url);
        let database = rest.rsplit_once('/').unwrap().1;
        Self {
            user: user.to_owned(),
            password: password.to_owned(),
            place: place.ip().to_string(),
            port: place.port().to_string(),
            database: database.split('?').next().unwrap().to_owned(),
        }
    }
}

/// Runs the program with exactly this environment.
async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> ProgramOutput {
    let mut command = command();
    command
        .args(arguments)
        .env("HOME", "/nowhere")
        .envs(environment.iter().copied());
    command.output().await.unwrap().into()
}

#[track_caller]
fn assert_accepted(ran: &ProgramOutput) {
    ran.assert_exit(Exit::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn url_and_keyword_forms_are_read_and_variables_fill_in_what_is_missing() {
    let db = Database::new().await;
    let Parts {
        user,
        password,
        place,
        port,
        database,
    } = &Parts::of(&db);
    for url in [
        db.url.clone(),
        db.url.replacen("postgres://", "postgresql://", 1),
        format!("host={place} port = {port} user='{user}' password='{password}' dbname={database}"),
        format!("postgres:///{database}?host={place}&port={port}&user={user}&password={password}"),
        format!("postgres://{user}:{password}@nowhere.invalid:{port}/{database}?hostaddr={place}"),
    ] {
        assert_accepted(&run(&["migrate"], &[("DATABASE_URL", &url)]).await);
    }
    let variables = [
        ("PGHOST", place.as_str()),
        ("PGPORT", port),
        ("PGUSER", user),
        ("PGPASSWORD", password),
        ("PGDATABASE", database),
        ("PGAPPNAME", "named"),
        ("PGCONNECT_TIMEOUT", "5"),
        ("PGOPTIONS", "-c statement_timeout=30000"),
    ];
    // Variables alone, and for the parts that a URL omits.
    assert_accepted(&run(&["migrate"], &variables).await);
    let only_name = format!("dbname={database}");
    let partly = [
        &variables[..],
        &[("PGDATABASE", "nowhere"), ("DATABASE_URL", only_name.as_str())],
    ]
    .concat();
    assert_accepted(&run(&["migrate"], &partly).await);
    let nowhere = [&variables[..], &[("PGDATABASE", "clerk2pg_nowhere")]].concat();
    let ran = run(&["migrate"], &nowhere).await;
    ran.assert_exit(Exit::Failed);
    assert!(ran.stderr.contains("\"clerk2pg_nowhere\" does not exist"), "{ran:#?}");
    // Variables of another program do not choose the database that is written to.
    let ran = run(&["migrate"], &variables[..4]).await;
    ran.assert_exit(Exit::Usage);
    assert!(ran.stderr.contains("DATABASE_URL is not set"), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_of_other_clients_are_accepted() {
    let db = Database::new().await;
    db.execute("CREATE SCHEMA elsewhere").await;
    let prisma = "schema=elsewhere&connection_limit=5&pgbouncer=true&pool_timeout=10&sslaccept=accept_invalid_certs\
                  &socket_timeout=5&statement_cache_size=0&supa=base-pooler.x";
    for url in [
        format!("{}?{prisma}", db.url),
        format!(
            "{}?currentSchema=elsewhere&prepareThreshold=0",
            db.url.replacen("postgres://", "jdbc:postgresql://", 1)
        ),
        db.url.replacen("postgres://", "postgresql+asyncpg://", 1),
    ] {
        assert_accepted(&run(&["migrate"], &[("DATABASE_URL", &url)]).await);
    }
    let strangers = "SELECT count(*) FROM pg_class WHERE relnamespace = 'elsewhere'::regnamespace";
    assert_eq!(db.number(strangers).await, 0);
    assert!(
        db.number("SELECT count(*) FROM pg_class WHERE relnamespace = 'clerk'::regnamespace")
            .await
            > 0
    );

    // Logged at debug, with names only.
    let url = format!("{}?{prisma}", db.url);
    let ran = run(&["migrate"], &[("DATABASE_URL", &url), ("RUST_LOG", "clerk2pg=debug")]).await;
    let said: Vec<_> = ran
        .stderr
        .lines()
        .filter(|line| line.contains("ignoring parameters of other clients"))
        .collect();
    assert_eq!(said.len(), 1, "{ran:#?}");
    assert!(
        said[0].contains("connection_limit") && !said[0].contains("elsewhere"),
        "{ran:#?}"
    );
    let ran = run(&["migrate"], &[("DATABASE_URL", &url)]).await;
    assert!(!ran.stderr.contains("ignoring parameters"), "{ran:#?}");

    let ran = run(
        &["migrate"],
        &[("DATABASE_URL", &format!("{}?connection_limits=5", db.url))],
    )
    .await;
    ran.assert_exit(Exit::Usage);
    assert!(ran.stderr.contains("did you mean connection_limit?"), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_is_read_from_a_passfile() {
    // This needs a server that asks for a password.
    let server = Postgres::start().await;
    let port = server.port;
    let home = server.files.path().display().to_string();
    let url = format!("postgres://anyway@localhost:{port}/postgres");
    let with = |text: &str| server.file(".pgpass", text);
    let check = async || run(&["migrate"], &[("DATABASE_URL", &url), ("HOME", &home)]).await;

    let file = with(&format!(
        "# of the test\nelsewhere:*:*:*:wrong\nlocalhost:{port}:postgres:anyway:hidden\n"
    ));
    assert_accepted(&check().await);
    with("*:*:*:anyway:hidden\n");
    assert_accepted(&check().await);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let ran = check().await;
    ran.assert_exit(Exit::Failed);
    assert!(
        ran.stderr.contains("is ignored: users other") && ran.stderr.contains("chmod 600"),
        "{ran:#?}"
    );
    assert!(
        ran.stderr.contains("password missing") && !ran.stderr.contains("hidden"),
        "{ran:#?}"
    );
    fs::remove_file(&file).unwrap();
    let ran = check().await;
    assert!(
        ran.stderr
            .contains("error: Postgres refused the connection: password missing"),
        "{ran:#?}"
    );

    // Another file name. An explicit password has priority over any file.
    let other = server.file("other", &format!("localhost:{port}:*:*:hidden"));
    let named = format!("{url}?passfile={other}");
    assert_accepted(&run(&["migrate"], &[("DATABASE_URL", &named)]).await);
    assert_accepted(&run(&["migrate"], &[("DATABASE_URL", &url), ("PGPASSFILE", &other)]).await);
    let ran = run(&["migrate"], &[("DATABASE_URL", &named), ("PGPASSWORD", "wrong")]).await;
    assert!(ran.stderr.contains("password authentication failed"), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_writable_of_several_hosts_is_used() {
    let (_socket, dead) = unused_address();
    // The first server is read-only like a standby.
    let (reader, writer) = tokio::join!(Postgres::start(), Postgres::start());
    reader.set("default_transaction_read_only = on").await;
    let (reads, writes) = (
        format!("127.0.0.1:{}", reader.port),
        format!("127.0.0.1:{}", writer.port),
    );
    let migrate = async |hosts: &str, parameters: &str| {
        let url = format!("postgres://postgres@{hosts}/postgres?{parameters}");
        run(&["migrate"], &[("DATABASE_URL", &url)]).await
    };
    let all = format!("{dead},{reads},{writes}");
    for parameters in ["read-write", "primary", "read-write&load_balance_hosts=random"] {
        assert_accepted(&migrate(&all, &format!("target_session_attrs={parameters}")).await);
    }
    let ran = migrate(&all, "target_session_attrs=any").await;
    assert!(ran.stderr.contains("read-only transaction"), "{ran:#?}");
    assert_accepted(&migrate(&format!("{dead},{writes}"), "").await);
    // A server that refuses the role is not skipped.
    let ran = run(
        &["migrate"],
        &[(
            "DATABASE_URL",
            &format!("postgres://stranger@{reads},{writes}/postgres"),
        )],
    )
    .await;
    assert!(ran.stderr.contains("Postgres refused the connection"), "{ran:#?}");

    // If no host works, each is listed with its reason.
    let ran = migrate(&format!("{dead},{reads}"), "target_session_attrs=read-write").await;
    ran.assert_exit(Exit::Failed);
    for part in [
        format!("refused (os error 111), at {dead}/postgres; "),
        format!("does not allow writes, at {reads}/postgres"),
    ] {
        assert!(ran.stderr.contains(&part), "{part}: {ran:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ipv6_host_is_reached() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        eprintln!("this machine has no IPv6");
        return;
    };
    let db = Database::new().await;
    let (server, port) = (upstream(&db.url), listener.local_addr().unwrap().port());
    let carrying = tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = TcpStream::connect(server).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    });
    let Parts {
        user,
        password,
        database,
        ..
    } = &Parts::of(&db);
    for url in [
        format!("postgres://{user}:{password}@[::1]:{port}/{database}"),
        format!("host=::1 port={port} user={user} password='{password}' dbname={database}"),
    ] {
        assert_accepted(&run(&["migrate"], &[("DATABASE_URL", &url)]).await);
    }
    carrying.abort();
}
