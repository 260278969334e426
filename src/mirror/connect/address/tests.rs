//! Connection strings, and what they are parsed to.

use super::*;
use crate::secret::Secret;

fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Address, MirrorError> {
    let variables = variables.iter().chain(&[("HOME", "/home/ann")]);
    let variables = variables.map(|(name, value)| ((*name).to_owned(), Secret::from((*value).to_owned())));
    Address::parse(text, &variables.collect())
}

#[track_caller]
fn places(text: &str, expected: &[&str]) {
    let address = parse(text, &[]).unwrap();
    let found: Vec<_> = address.hosts.iter().map(|host| address.place(host)).collect();
    assert_eq!(found, expected, "{text}");
}

#[track_caller]
fn check_error(text: &str, variables: &[(&str, &str)], place: &str, why: &str) {
    let error = parse(text, variables).unwrap_err();
    let message = format!("{error} {}", error.hint());
    assert!(message.starts_with(place) && message.contains(why), "{text}: {message}");
    assert!(
        !message.contains("hidden") && !message.contains("secret"),
        "{text}: {message}"
    );
}

#[test]
fn hosts_and_ports() {
    places("postgres://u@db/app", &["db:5432/app"]);
    places("postgres://u@db", &["db:5432/u"]);
    places("host=db port=6000 user=u", &["db:6000/u"]);
    places(
        "postgres://u@one,two:5433,[::1]:5434/app",
        &["one:5432/app", "two:5433/app", "[::1]:5434/app"],
    );
    places("host=one,two port=6000 dbname=app", &["one:6000/app", "two:6000/app"]);
    places(
        "hostaddr=10.0.0.1,::1 dbname=app",
        &["10.0.0.1:5432/app", "[::1]:5432/app"],
    );
    places("host=one hostaddr=10.0.0.1 dbname=app", &["one:5432/app"]);
    places("host=/run/pg,one dbname=app", &["/run/pg:5432/app", "one:5432/app"]);
    assert!(parse("dbname=app", &[]).unwrap().hosts[0].socket().is_some());
}

#[test]
fn what_is_left_out_comes_from_variables() {
    let variables = [
        ("PGHOST", "db"),
        ("PGPORT", "6000"),
        ("PGUSER", "ann"),
        ("PGPASSWORD", "secret"),
        ("PGDATABASE", "app"),
        ("PGSSLMODE", "verify-full"),
        ("PGSSLROOTCERT", "/ca.pem"),
        ("PGAPPNAME", "mirror"),
        ("PGCONNECT_TIMEOUT", "3"),
        ("PGTARGETSESSIONATTRS", "read-write"),
        ("PGOPTIONS", "-c a=b"),
        ("PGPASSFILE", "/pass"),
    ];
    let address = parse("", &variables).unwrap();
    assert_eq!(address.place(&address.hosts[0]), "db:6000/app");
    assert_eq!(
        (address.user.as_str(), address.connect_timeout),
        ("ann", Some(Duration::from_secs(3)))
    );
    assert_eq!(address.passfile, Some(PathBuf::from("/pass")));
    assert_eq!(address.tls.mode, Mode::VerifyFull);
    assert_eq!(address.tls.roots, Some(Roots::File(PathBuf::from("/ca.pem"))));
    let config = &address.config;
    assert_eq!(config.get_password(), Some(&b"secret"[..]));
    assert_eq!(config.get_application_name(), Some("mirror"));
    assert_eq!(config.get_options(), Some("-c a=b"));
    assert_eq!(config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);

    let stated = parse("postgres://bob:other@elsewhere:1/else?sslmode=disable", &variables).unwrap();
    assert_eq!(stated.place(&stated.hosts[0]), "elsewhere:1/else");
    assert_eq!((stated.user.as_str(), stated.tls.mode), ("bob", Mode::Disable));
    assert!(!format!("{stated:?}").contains("other"));
}

#[test]
fn what_nobody_states() {
    let address = parse("postgres://u@db", &[]).unwrap();
    assert_eq!(address.tls.mode, Mode::Prefer);
    assert_eq!((address.database.as_str(), address.connect_timeout), ("u", None));
    assert_eq!(address.passfile, Some(PathBuf::from("/home/ann/.pgpass")));
    assert_eq!(address.config.get_application_name(), None);
    assert_eq!(address.config.get_tcp_user_timeout(), Some(&Duration::from_secs(30)));
    assert_eq!(address.config.get_password(), None);
    let system = parse("postgres://u@db?sslrootcert=system", &[]).unwrap();
    assert_eq!(
        (system.tls.mode, system.tls.roots),
        (Mode::VerifyFull, Some(Roots::System))
    );
    // Milliseconds, as in libpq; the library uses seconds elsewhere.
    let timeout = parse("postgres://u@db?tcp_user_timeout=1500&password=", &[]).unwrap();
    assert_eq!(
        timeout.config.get_tcp_user_timeout(),
        Some(&Duration::from_millis(1500))
    );
}

#[test]
fn what_is_wrong_names_the_parameter_and_what_would_be_right() {
    const STRING: &str = "database.url (DATABASE_URL) cannot be used: ";
    let check = |text, why| check_error(text, &[], STRING, why);
    check(
        "postgres://u:hidden@h/d?sslmod=require",
        "no parameter sslmod; did you mean sslmode?",
    );
    check(
        "postgres://u:hidden@h/d?schemas=public",
        "no parameter schemas; did you mean schema?",
    );
    check(
        "postgres://u:hidden@h/d?frobnicate=1",
        "no parameter frobnicate, neither in libpq",
    );
    check(
        "postgres://u:hidden@h/d?sslaccept=yes",
        "sslaccept=yes, expected strict, accept_invalid_certs",
    );
    check("postgres://u:hidden@h/d?ssl=maybe", "ssl=maybe, expected true");
    check(
        "postgres://u:hidden@h/d?sslkey=k&sslpassword=secret",
        "sslpassword is a parameter of libpq that",
    );
    check(
        "postgres://u:hidden@h/d?sslcrl=x",
        "sslcrl is a parameter of libpq that",
    );
    check(
        "postgres://u:hidden@h/d?sslmode=full",
        "sslmode=full, expected disable, allow, prefer, require, verify-ca, verify-full",
    );
    check(
        "postgres://u:hidden@h/d?connect_timeout=soon",
        "connect_timeout=soon, expected a number of seconds",
    );
    check(
        "postgres://u:hidden@h/d?target_session_attrs=standby",
        "expected any, read-write, primary",
    );
    check(
        "postgres://u:hidden@h/d?sslmode=require&sslrootcert=system",
        "needs sslmode=verify-full",
    );
    check(
        "postgres://u:hidden@h/d?sslnegotiation=direct",
        "sslmode=require or higher",
    );
    check(
        "postgres://u:hidden@h/d?gssencmode=require",
        "gssencmode=require, expected disable, prefer",
    );
    check(
        "postgres://u:hidden@h/d?host=a,b&hostaddr=::1",
        "lists of the same length",
    );
    check("postgres://u@h:1,i:2/d?host=a,b,c", "one port for all hosts");
    check(
        "postgres://u@h/d?hostaddr=h",
        "hostaddr=h, expected numeric IP addresses",
    );
    // Passwords that contain delimiters.
    check("postgres://u:first@hidden@h/d", "as %40");
    check("postgres://u:hidden/more@h/d", "as %2F");
    check("postgres://u:hid%den@h/d", "as %25");
    check("host=h password=my hidden=1", "password='…'");
    check_error(
        "postgres://u@h/d",
        &[("PGSSLMODE", "on")],
        "PGSSLMODE cannot be used: ",
        "it is on, expected disable,",
    );
    check_error(
        "postgres://u@h/d",
        &[("PGPORT", "x")],
        "PGPORT cannot be used: ",
        "1 to 65535",
    );
}

#[test]
fn parameters_of_other_clients_are_left_aside() {
    let plain = parse("postgres://u:p@db:6543/app?sslmode=require", &[]).unwrap();
    for parameters in [
        "schema=public&connection_limit=5&pgbouncer=true&pool_timeout=0&socket_timeout=3&statement_cache_size=0",
        "sslaccept=accept_invalid_certs&sslidentity=client.p12&sslpassword=secret&supa=base-pooler.x",
        "uselibpqcompat=true&statement_timeout=1&lock_timeout=1",
        "prepareThreshold=0&currentSchema=other&pool_max_conns=10&search_path=other",
        "serverVersion=16&charset=utf8&sslcert=",
    ] {
        let url = format!("postgres://u:p@db:6543/app?sslmode=require&{parameters}");
        let address = parse(&url, &[]).unwrap();
        assert_eq!(format!("{address:?}"), format!("{plain:?}"), "{parameters}");
    }
    let words = parse(
        "host=db port=6543 user=u password=p dbname=app sslmode=require pool_max_conns=3",
        &[],
    );
    assert_eq!(format!("{:?}", words.unwrap()), format!("{plain:?}"));
}

#[test]
fn what_other_clients_ask_of_tls_is_never_less() {
    let tls = |parameters: &str| parse(&format!("postgres://u@db/app?{parameters}"), &[]).unwrap().tls;
    let check = |parameters: &str, mode| assert_eq!(tls(parameters).mode, mode, "{parameters}");
    check("schema=public", Mode::Prefer);
    check("sslaccept=strict", Mode::VerifyFull);
    check("sslmode=require&sslaccept=strict", Mode::VerifyFull);
    check("sslaccept=strict&sslmode=prefer", Mode::VerifyFull);
    check("sslmode=disable&sslaccept=strict", Mode::Disable);
    check("sslaccept=accept_invalid_certs", Mode::Prefer);
    check("sslmode=verify-full&sslaccept=accept_invalid_certs", Mode::VerifyFull);
    check("ssl=true", Mode::Require);
    check("ssl=verify-full", Mode::VerifyFull);
    check("ssl=false", Mode::Prefer);
    check("sslmode=verify-full&ssl=true", Mode::VerifyFull);
    check("ssl=true&sslmode=verify-ca", Mode::VerifyCa);
    check("ssl=no-verify", Mode::Require);
    check("sslmode=no-verify", Mode::Require);
    check("ssl-mode=verify-full&ssl-root-cert=/ca.pem", Mode::VerifyFull);
    // To Prisma, this is the certificate of the server's authority; to libpq, that of the client.
    let file = |path: &str| Some(PathBuf::from(path));
    let strict = tls("sslaccept=strict&sslcert=/ca.pem");
    assert_eq!(
        (strict.roots, strict.certificate),
        (Some(Roots::File("/ca.pem".into())), None)
    );
    assert_eq!(tls("sslaccept=strict").roots, Some(Roots::System));
    let variables = [("PGSSLROOTCERT", "/own.pem")];
    let own = parse("postgres://u@db/app?sslaccept=strict", &variables).unwrap().tls;
    assert_eq!(
        (own.mode, own.roots),
        (Mode::VerifyFull, Some(Roots::File("/own.pem".into())))
    );
    let lax = tls("sslaccept=accept_invalid_certs&sslcert=/ca.pem");
    assert_eq!((lax.roots, lax.certificate), (None, None));
    let own = tls("sslcert=/client.pem&sslkey=/client.key");
    assert_eq!(
        (own.roots, own.certificate, own.key),
        (None, file("/client.pem"), file("/client.key"))
    );
}
