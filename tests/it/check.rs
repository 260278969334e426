//! `clerk2pg check`: the configuration, Clerk, the clocks, the budget and the listener.

use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
};

use clerk_sim::{Effect, Endpoint, ErrorAnswer, ErrorBody, Options, Quirks, Rule, Sim};
use rustix::process::Signal;

use crate::support::{
    check::{CheckReport, NAMES, check_with},
    fixture::{Fixture, mirrored},
    http_server::{Server, answer},
    monitored::MonitoredDaemon,
    process::{EVERY_SECOND, NEVER, Process},
    proxy::{Proxy, upstream},
    summary::Exit,
    wait::eventually,
};

async fn check(fixture: &Fixture) -> CheckReport {
    check_with(fixture, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_installation_passes_every_check() {
    let fixture = mirrored(30).await;
    let before = fixture.sim.requests();
    let checked = check(&fixture).await;
    let id = fixture.sim.instance_id();
    checked
        .assert_failed(&[])
        .assert_check("configuration", "ok", "no file")
        .assert_check(
            "clerk",
            "ok",
            &format!("{} accepts the key, and answers in ", fixture.sim.url()),
        )
        .assert_check(
            "instance",
            "ok",
            &format!("{id} (production), 30 users; this database mirrors it"),
        )
        .assert_check("clock", "ok", "Clerk's clock agrees, the database's clock agrees")
        .assert_check("database", "ok", "PostgreSQL 1")
        .assert_check("tls", "ok", "nothing leaves this machine")
        .assert_check("permissions", "ok", "owns all objects that it needs")
        .assert_check("schema", "ok", "up to date")
        .assert_check("notifications", "ok", "NOTIFY clerk2pg arrives")
        .assert_check("lease", "ok", "free")
        .assert_check(
            "budget",
            "ok",
            "100 requests a second; a full sync of 30 users sends about 7, in 70 ms",
        )
        .assert_check("listener", "ok", "turned off");
    let (is_first, rest) = (
        "{\"ok\":true,\"checks\":[{\"name\":\"configuration\",\"status\":\"ok\",\"message\":",
        &checked.ran.stdout,
    );
    assert!(rest.starts_with(is_first) && rest.lines().count() == 1, "{checked:#?}");
    assert_eq!(fixture.sim.requests() - before, 3);
    assert_eq!(checked.ran.stderr, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_text_output_lists_the_same_checks() {
    let fixture = Fixture::new(3).await;
    let listen = ("CLERK2PG_HTTP__LISTEN", "127.0.0.1:0");
    let ran = fixture.run_with(&["check"], &[listen]).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:#?}");
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), NAMES.len(), "{ran:#?}");
    for (line, name) in lines.iter().zip(NAMES) {
        let mark = if name == "lease" { "-" } else { "✓" };
        assert!(line.starts_with(&format!("{mark} {name} ")), "{line}");
    }
    assert!(
        lines[7].ends_with("not there yet: the first start creates it"),
        "{ran:#?}"
    );
    assert!(lines[9].ends_with("not tried: there is no mirror yet"), "{ran:#?}");
    assert!(lines[11].contains("is free"), "{ran:#?}");

    let ran = fixture
        .run_with(&["check"], &[("CLERK_SECRET_KEY", "sk_live_other")])
        .await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), ""), "{ran:#?}");
    let mut lines = ran.stdout.lines().skip_while(|line| !line.starts_with("✗ clerk "));
    assert!(
        lines.next().unwrap().contains("Clerk refused the secret key"),
        "{ran:#?}"
    );
    assert!(
        lines
            .next()
            .unwrap()
            .trim_start()
            .starts_with("hint: check that CLERK_SECRET_KEY is a key of this instance"),
        "{ran:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_are_reported() {
    let fixture = mirrored(3).await;
    let refused = check_with(&fixture, &[("CLERK_SECRET_KEY", "sk_live_other")]).await;
    refused
        .assert_failed(&["clerk"])
        .assert_check("clerk", "failed", "Clerk refused the secret key")
        .assert_check("instance", "skipped", "")
        .assert_check("clock", "ok", "the database's clock agrees")
        .assert_check("lease", "ok", "free");
    assert!(!refused.ran.stdout.contains("sk_live_other"), "{refused:#?}");

    let other = Sim::start(Options {
        secret_key: fixture.sim.secret_key().to_owned(),
        instance_id: "ins_another".to_owned(),
        ..Options::default()
    });
    let other = other.await.unwrap();
    let pinned = format!(
        "mirrors the Clerk instance {}, but the key belongs to ins_another",
        fixture.sim.instance_id()
    );
    check_with(&fixture, &[("CLERK_API_URL", &other.url())])
        .await
        .assert_failed(&["instance"])
        .assert_check("instance", "failed", &pinned)
        .assert_hint("instance", "use that instance's key");

    let checked = check_with(&fixture, &[("CLERK_SECRET_KEY", "pk_live_a")]).await;
    checked
        .assert_failed(&["configuration"])
        .assert_check("configuration", "failed", "holds a publishable key")
        .assert_check("clerk", "skipped", "")
        .assert_check("budget", "skipped", "")
        .assert_check("schema", "ok", "up to date");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unavailable_clerk_stops_no_other_check() {
    let fixture = mirrored(3).await;
    let check = async |faults: Rule, says: &str| {
        fixture.sim.set_faults(faults);
        let checked = check(&fixture).await;
        fixture.sim.clear_faults();
        checked
            .assert_failed(&["clerk"])
            .assert_check("clerk", "failed", says)
            .assert_check("instance", "skipped", "")
            .assert_check("schema", "ok", "up to date")
            .assert_check("notifications", "ok", "NOTIFY clerk2pg arrives")
            .assert_check("lease", "ok", "free")
            .assert_check("budget", "ok", "100 requests a second");
    };
    let error = |status, retry_after| {
        Rule::new(Effect::Error(ErrorAnswer {
            status,
            retry_after,
            body: ErrorBody::Json,
        }))
    };
    check(Rule::new(Effect::Html), "an HTML page").await;
    check(Rule::new(Effect::Html).on([Endpoint::Count]), "an HTML page").await;
    check(error(429, Some(30)), "Clerk's rate limit is used up").await;
    check(error(503, None), "503").await;
    check(Rule::new(Effect::LatencyMs(60_000)), "no answer within 5 s").await;

    let gone = Proxy::refusing(upstream(&fixture.sim.url()));
    let url = gone.url(&fixture.sim.url());
    check_with(&fixture, &[("CLERK_API_URL", &url)])
        .await
        .assert_failed(&["clerk"])
        .assert_check(
            "clerk",
            "failed",
            &format!("Clerk cannot be reached: cannot connect (Connection refused (os error 111)), at {url}"),
        )
        .assert_check("database", "ok", "");
    let nothing = Server::start(|_| answer("404 Not Found", "", b"")).await;
    check_with(&fixture, &[("CLERK_API_URL", &nothing.url)])
        .await
        .assert_failed(&["clerk"])
        .assert_check("clerk", "failed", "GET /v1/users gave 404");
}

#[tokio::test(flavor = "multi_thread")]
async fn features_that_a_server_lacks_are_listed() {
    let fixture = Fixture::new(3).await;
    let missing = Quirks {
        missing_instance: true,
        ..Quirks::default()
    };
    fixture.sim.set_faults(missing.clone());
    let address = "does not say which instance it is, so its address is used instead, 3 users; this database mirrors no instance yet";
    let before = fixture.sim.requests();
    check(&fixture)
        .await
        .assert_failed(&[])
        .assert_check("instance", "warn", address);
    assert_eq!(fixture.sim.requests() - before, 6);
    fixture.sim.set_faults(Quirks {
        missing_count: true,
        ignore_starting_after: true,
        ..missing.clone()
    });
    check(&fixture).await.assert_failed(&[]).assert_check(
        "instance",
        "warn",
        "it lacks counts of users (only full syncs see deletions) and cursors",
    );
    fixture.sim.set_faults(Quirks {
        ignore_user_id: true,
        ignore_order_by: true,
        ..missing.clone()
    });
    check(&fixture)
        .await
        .assert_failed(&[])
        .assert_check(
            "instance",
            "warn",
            "the filter user_id (a deletion takes two answers for its id, ten seconds apart)",
        )
        .assert_check(
            "instance",
            "warn",
            "lists by the last change (only full syncs see changes)",
        );
    fixture.sim.set_faults(missing);
    fixture.once().await.assert_exit(Exit::Ok);
    check(&fixture)
        .await
        .assert_failed(&[])
        .assert_check("instance", "warn", "this database mirrors it");
    // The same database with Clerk's own address.
    fixture.sim.clear_faults();
    check(&fixture).await.assert_failed(&["instance"]).assert_check(
        "instance",
        "failed",
        &format!("mirrors the Clerk instance url:{}", fixture.sim.url()),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_is_reported() {
    let fixture = mirrored(3).await;
    let clerk = Proxy::open(upstream(&fixture.sim.url()));
    let url = clerk.url(&fixture.sim.url());
    clerk.shift_clock(3600);
    check_with(&fixture, &[("CLERK_API_URL", &url)])
        .await
        .assert_failed(&[])
        .assert_check(
            "clock",
            "warn",
            "Clerk's clock, or that of a proxy in front of it, is off",
        )
        .assert_check("clock", "warn", "60 min ahead, the database's clock agrees")
        .assert_hint("clock", "NTP");
    clerk.shift_clock(-3600);
    let away = ("DATABASE_URL", "postgres://app:hidden@127.0.0.1:1/app");
    check_with(&fixture, &[("CLERK_API_URL", &url), away])
        .await
        .assert_failed(&["database"])
        .assert_check("clock", "warn", "it is unknown which one is off")
        .assert_check("clock", "warn", "60 min behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_configuration_is_reported() {
    let fixture = mirrored(3).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    let path = file.display().to_string();
    let check = async |text: &str, environment: &[(&str, &str)]| {
        fs::write(&file, text).unwrap();
        let arguments = ["check", "--config", &path, "--format", "json"];
        CheckReport::new(fixture.run_with(&arguments, environment).await)
    };
    let misspelt = check("[schedule]\nfulll = \"\"\n", &[]).await;
    misspelt
        .assert_failed(&["configuration"])
        .assert_check(
            "configuration",
            "failed",
            &format!("{path}: there is no setting schedule.fulll"),
        )
        .assert_hint("configuration", "did you mean schedule.full?");
    for name in &NAMES[1..] {
        misspelt.assert_check(name, "skipped", "the configuration cannot be used");
    }
    check("", &[("RUST_LOG", "clerk2pg=nonsense")]).await.assert_check(
        "configuration",
        "failed",
        "log.level (or RUST_LOG) cannot be used",
    );
    check("", &[("DATABASE_URL", "postgres://app:hidden@db/app?sslmod=x")])
        .await
        .assert_failed(&["configuration"])
        .assert_check("configuration", "failed", "there is no parameter sslmod")
        .assert_check("clerk", "ok", "")
        .assert_check("clock", "ok", "Clerk's clock agrees")
        .assert_check("database", "skipped", "")
        .assert_check("lease", "skipped", "");
    // Both at once.
    check("", &[("DATABASE_URL", ""), ("CLERK_SECRET_KEY", "")])
        .await
        .assert_check(
            "configuration",
            "failed",
            "CLERK_SECRET_KEY is not set; DATABASE_URL is not set",
        )
        .assert_hint("configuration", "for the database: for example postgres://")
        .assert_check("clerk", "skipped", "the configuration has no key to ask with")
        .assert_check("database", "skipped", "the configuration has no address to connect to");
    check("[lease]\nttl = \"2s\"\n", &[])
        .await
        .assert_failed(&[])
        .assert_check(
            "configuration",
            "ok",
            &format!("{path} is read, and every key in it is known"),
        );
}

#[tokio::test(flavor = "multi_thread")]
async fn world_readable_secrets_are_reported() {
    let fixture = Fixture::new(3).await;
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let write = |name: &str, mode, text: &str| {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        file.display().to_string()
    };
    let with_key = format!("[clerk]\nsecret_key = \"{}\"\n", fixture.sim.secret_key());
    let check = async |config: &str, key: &str| {
        let environment = [("CLERK_SECRET_KEY", ""), ("CLERK_SECRET_KEY_FILE", key)];
        let arguments = ["check", "--config", config, "--format", "json"];
        let checked = CheckReport::new(fixture.run_with(&arguments, &environment).await);
        checked.assert_failed(&[]);
        assert!(!checked.ran.stdout.contains(fixture.sim.secret_key()), "{checked:#?}");
        checked
    };
    let (open, closed) = (
        write("open.toml", 0o644, &with_key),
        write("closed.toml", 0o640, &with_key),
    );
    let (plain, key) = (
        write("plain.toml", 0o644, ""),
        write("key", 0o604, fixture.sim.secret_key()),
    );
    let report = check(&open, "").await;
    report
        .assert_check("configuration", "warn", &format!("can read the secret in {open}"))
        .assert_hint("configuration", &format!("chmod o-r {open}"));
    check(&closed, "").await.assert_check("configuration", "ok", &closed);
    check(&plain, &key)
        .await
        .assert_check("configuration", "warn", &format!("can read the secret in {key}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn syncs_warn_of_world_readable_secrets() {
    let fixture = Fixture::new(3).await;
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let file = folder.path().join("config.toml");
    fs::write(
        &file,
        format!("[clerk]\nsecret_key = \"{}\"\n", fixture.sim.secret_key()),
    )
    .unwrap();
    let path = file.display().to_string();
    let said = async |mode, arguments: &[&str]| {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let arguments = [&["--config", &path], arguments].concat();
        let mut command = fixture.command(&arguments);
        command.env("CLERK_SECRET_KEY", "").envs([NEVER]);
        let process = Process::spawn(command);
        if arguments.len() == 2 {
            process.wait_for_log(" full sync ").await;
            process.signal(Signal::TERM);
        }
        let ran = process.wait_for_exit().await;
        ran.assert_exit(Exit::Ok);
        ran.stderr.matches(&format!("hint=\"chmod o-r {path}\"")).count()
    };
    for arguments in [&["--once"][..], &["--dry-run"], &[]] {
        assert_eq!(said(0o644, arguments).await, 1, "{arguments:?}");
        assert_eq!(said(0o640, arguments).await, 0, "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_daemon_is_recognized() {
    let fixture = Fixture::new(30).await;
    let watched = MonitoredDaemon::start(&fixture, &[EVERY_SECOND]).await;
    watched.wait_until_ready("in sync").await;
    let listen = ("CLERK2PG_HTTP__LISTEN", watched.address.as_str());
    check_with_daemon(&fixture, &[listen])
        .await
        .assert_failed(&[])
        .assert_check(
            "listener",
            "ok",
            &format!("a daemon answers at http://{}/: in sync", watched.address),
        );
    // The check leaves the daemon's notifications alone.
    fixture.db.execute("NOTIFY clerk2pg, 'full'").await;
    fixture.syncs(2).await;
    assert_eq!(watched.daemon.count_in_log("WARN"), 0, "{}", watched.daemon.log());

    // A syncing daemon holds the lease.
    fixture
        .sim
        .set_faults(Rule::new(Effect::LatencyMs(300)).on([Endpoint::List]));
    let holds = async || {
        fixture.db.execute("NOTIFY clerk2pg, 'full'").await;
        let checked = check_with_daemon(&fixture, &[listen]).await;
        let lease = checked.find("lease");
        lease["status"] == "ok"
            && lease["message"]
                .as_str()
                .unwrap()
                .contains(" is syncing now; of the daemons, ")
    };
    eventually("a check meets a sync", holds).await;
    fixture.sim.set_faults(Quirks {
        unauthorized: true,
        ..Quirks::default()
    });
    watched.wait_until_not_ready("refused").await;
    check_with_daemon(&fixture, &[listen])
        .await
        .assert_failed(&["clerk"])
        .assert_check("listener", "warn", "and is not ready: ");
    watched.daemon.stop(Signal::TERM).await.assert_exit(Exit::Ok);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    check_with(&fixture, &[("CLERK2PG_HTTP__LISTEN", &address)])
        .await
        .assert_check("listener", "warn", "Address already in use")
        .assert_hint("listener", "choose another one in http.listen");
}

/// Runs a check while a daemon writes.
async fn check_with_daemon(fixture: &Fixture, environment: &[(&str, &str)]) -> CheckReport {
    CheckReport::new(fixture.run_with(&["check", "--format", "json"], environment).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_beyond_the_budget_are_reported() {
    let fixture = Fixture::new(3).await;
    let often = [EVERY_SECOND, ("CLERK2PG_CLERK__RATE_LIMIT", "10")];
    check_with(&fixture, &often)
        .await
        .assert_failed(&[])
        .assert_check("budget", "warn", "1 request a second")
        .assert_check("budget", "warn", "an incremental sync every 1 s sends 2 a second")
        .assert_hint(
            "budget",
            "schedule fewer (schedule.incremental), or a larger clerk.request_budget",
        );
}
