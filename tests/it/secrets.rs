//! No secret and no personal data is printed at any level, whatever fails.
//!
//! Each entry of [`CASES`] makes one thing fail. Each case runs at each of [`LEVELS`].

mod failures;

use std::{collections::BTreeMap, fs, io, time::Duration};

use clerk_sim::{Faults, Options, Sim, Unstorable};
use futures_util::StreamExt;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    secrets::failures::CASES,
    support::{
        database::{Database, connect},
        fixture::Fixture,
        http_server::{Server, answer},
        monitored::{ANY, MonitoredDaemon},
        postgres::Postgres,
        process::{NEVER, Process},
        program::ProgramOutput,
        wait::eventually,
    },
};

/// Like Clerk's keys, with characters that a URL escapes.
pub const KEY: &str = "sk_live_Zx7Kq9Vw+Rt5Yp8/Lm2Nc4Bd6";

/// With characters that have a meaning in a URL.
pub const PASSWORD: &str = "Hq7Zt5wLn@Kd9Bv4Rc/Rv3Tx8Wm4y";

/// Rejected keys and passwords are secrets, too.
pub const WRONG_KEY: &str = "sk_live_Gd3Hs8Jf2Kp6Lq9Mw4Nv7";
pub const WRONG_PASSWORD: &str = "Cj5Xk2Vb8Nm3Qw";
pub const PROXY_PASSWORD: &str = "Fy6Tg9Hb4Uj2Ik";
pub const WEBHOOK_SECRET: &str = "whsec_Pl3Ok8Ij5Uh2Yg7Tf4Rd";

/// The domain of all users' addresses.
const MAILBOXES: &str = "mailboxes-of-a-test.example";
pub const EMAIL: &str = "zebulonia.1@mailboxes-of-a-test.example";
const PERSONAL: [&str; 5] = [MAILBOXES, "Zebulonia", "Quackenbush", "5550199887766", "a private note"];

/// Returns the forms of a secret, and all parts of it that reveal much.
fn forms(secret: &str) -> Vec<String> {
    let bare = secret.trim_start_matches("sk_live_").trim_start_matches("whsec_");
    let letters: Vec<char> = bare.chars().collect();
    let mut forms: Vec<String> = letters.windows(8).map(|part| part.iter().collect()).collect();
    forms.push(encoded(secret));
    forms
}

pub fn encoded(text: &str) -> String {
    text.replace('%', "%25")
        .replace('@', "%40")
        .replace('/', "%2F")
        .replace('+', "%2B")
}

fn secrets() -> Vec<String> {
    let secrets = [KEY, PASSWORD, WRONG_KEY, WRONG_PASSWORD, PROXY_PASSWORD, WEBHOOK_SECRET];
    let base64 = [
        "c2tfbGl2ZV9aeDdLcTlWdytSdDVZcDgvTG0yTmM0QmQ2",
        "SHE3WnQ1d0xuQEtkOUJ2NFJjL1J2M1R4OFdtNHk=",
    ];
    let forms = secrets.iter().flat_map(|secret| forms(secret));
    forms.chain(base64.map(str::to_owned)).collect()
}

fn personal_data() -> Vec<String> {
    PERSONAL.map(str::to_owned).to_vec()
}

/// Returns the lines of a text that contain one of these words.
fn leaks<'t>(text: &'t str, words: &[String]) -> Vec<&'t str> {
    let holds = |line: &&str| words.iter().any(|word| line.contains(word.as_str()));
    text.lines().filter(holds).collect()
}

/// Levels for `RUST_LOG`, which apply to every library.
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

const SYNC: &[&str] = &["--once", "--format", "json"];

const OTHERS: [&[&str]; 6] = [
    &["check"],
    &["--dry-run"],
    &["status"],
    &["migrate"],
    &["approve", "0123456789ab"],
    &["health"],
];

/// How long a command may wait. Some would wait for minutes, so it is stopped then.
const LIMIT: Duration = Duration::from_secs(2);

/// A response in place of Clerk's: status, headers and body. `ECHO` stands for the key of the
/// request and an email address.
type Answer = (&'static str, &'static str, &'static str);

/// A mirror, and what will fail.
pub struct Scene {
    fixture: Fixture,
    environment: BTreeMap<&'static str, String>,
    files: TempDir,
    answer: Option<Answer>,
    sql: &'static str,
    said: String,
}

/// Actions of the cases.
impl Scene {
    pub fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.environment.insert(name, value.into());
    }

    /// Uses a configuration file alone.
    pub fn config(&mut self, text: &str) {
        for name in ["CLERK_SECRET_KEY", "CLERK_API_URL", "DATABASE_URL"] {
            self.set(name, "");
        }
        fs::write(self.files.path().join("config.toml"), text).unwrap();
    }

    /// Adds a configuration file with one endpoint: its address, and further lines.
    pub fn endpoint(&mut self, url: &str, lines: &str) {
        let text = format!("[[endpoints]]\nname = 'app'\nurl = '{url}'\n{lines}\n");
        fs::write(self.files.path().join("config.toml"), text).unwrap();
    }

    pub fn file(&self, text: &str) -> String {
        let file = self.files.path().join("file");
        fs::write(&file, text).unwrap();
        file.display().to_string()
    }

    /// Returns the database URL with another form of the password.
    pub fn url(&self, password: &str) -> String {
        self.fixture.db.url.replace("postgres@", &format!("anyway:{password}@"))
    }

    pub fn clerk_url(&self) -> String {
        self.fixture.sim.url()
    }

    pub fn fault(&mut self, fault: impl Into<Faults>) {
        self.fixture.sim.set_faults(fault);
    }

    /// SQL that a superuser runs on the mirror.
    pub fn sql(&mut self, sql: &'static str) {
        self.sql = sql;
    }

    pub fn answer(&mut self, status: &'static str, headers: &'static str, body: &'static str) {
        self.answer = Some((status, headers, body));
    }
}

impl Scene {
    async fn new(postgres: &Postgres) -> Self {
        let options = Options {
            users: 12,
            secret_key: KEY.to_owned(),
            ..Options::default()
        };
        let (db, sim) = tokio::join!(Database::on_server(postgres.admin()), Sim::start(options));
        let fixture = Fixture { db, sim: sim.unwrap() };
        for (number, id) in fixture.sim.user_ids().iter().enumerate() {
            fixture.sim.update(id, |user| personal(user, number));
        }
        let mut scene = Self {
            fixture,
            environment: BTreeMap::new(),
            files: tempfile::tempdir().unwrap(),
            answer: None,
            sql: "",
            said: String::new(),
        };
        scene.set("DATABASE_URL", scene.url(&encoded(PASSWORD)));
        scene.set("CLERK2PG_CLERK__TIMEOUT", "200ms");
        scene.set("CLERK_WEBHOOK_SECRET", WEBHOOK_SECRET);
        scene
    }

    /// Plays a case and returns everything that is printed.
    async fn play(postgres: &Postgres, case: fn(&mut Self)) -> String {
        let mut scene = Self::new(postgres).await;
        let first = scene.command(&["--once"]).output().await.unwrap();
        scene.keep("the first sync", first.into());
        case(&mut scene);
        scene.fixture.db.execute(scene.sql).await;
        let server = match scene.answer {
            Some(given) => Some(Server::start(move |head| echo(given, head)).await),
            None => None,
        };
        if let Some(server) = &server {
            scene.set("CLERK_API_URL", &server.url);
        }
        for level in LEVELS {
            scene.set("RUST_LOG", level);
            scene.change();
            scene.run(SYNC).await;
        }
        // At the last level, which logs most.
        for command in OTHERS {
            scene.run(command).await;
        }
        scene.change();
        scene.daemon().await;
        scene.kept().await;
        scene.said
    }

    fn command(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = self.fixture.command(arguments);
        command.current_dir(self.files.path()).envs(&self.environment);
        command
    }

    async fn run(&mut self, arguments: &[&str]) {
        let process = Process::spawn(self.command(arguments));
        self.keep(&format!("{arguments:?}"), process.wait_for_exit_within(LIMIT).await);
    }

    fn keep(&mut self, what: &str, ProgramOutput { code, stdout, stderr }: ProgramOutput) {
        assert_ne!(code, Some(101), "{what} panicked: {stderr}");
        self.said += &format!("{what}\n{stdout}\n{stderr}\n");
    }

    /// Runs a daemon, and records its log, its HTTP responses, and what other sessions see of it.
    async fn daemon(&mut self) {
        let mut command = self.command(&[]);
        command.envs([ANY, NEVER]);
        let mut daemon = Process::spawn(command);
        let is_over = async |daemon: &mut Process, texts: &[&str]| {
            eventually("it goes on", async || {
                daemon.has_ended() || texts.iter().any(|text| daemon.count_in_log(text) > 0)
            })
            .await;
        };
        is_over(&mut daemon, &["serving probes"]).await;
        let _ = tokio::time::timeout(
            LIMIT,
            is_over(&mut daemon, &[" full sync ", "waiting until", "the sync failed"]),
        )
        .await;
        if daemon.has_ended() {
            return self.keep("the daemon", daemon.wait_for_exit().await);
        }
        let watched = MonitoredDaemon::new(daemon).await;
        for path in ["/", "/metrics", "/readyz", "/livez", "/nowhere"] {
            // A daemon that cannot continue may end meanwhile.
            if let Ok(answer) = whole_answer(&watched.address, path).await {
                self.said += &format!("{path}\n{answer}\n");
            }
        }
        let seen = "SELECT string_agg(concat_ws(' ', application_name, query), E'\n') FROM pg_stat_activity WHERE usename = 'anyway'";
        self.said += &self.fixture.db.text(seen).await.unwrap_or_default();
        self.said += &fs::read_to_string(format!("/proc/{}/cmdline", watched.daemon.pid())).unwrap();
        let ran = watched.daemon.stop(Signal::TERM).await;
        self.keep("the daemon", ran);
    }

    /// Records what the database keeps of syncs and rejected users, without documents, which are
    /// what is mirrored.
    async fn kept(&mut self) {
        let sql = "SELECT concat_ws(E'\n',
            (SELECT string_agg(to_jsonb(r)::text, E'\n') FROM clerk.sync_runs r),
            (SELECT string_agg(concat_ws(' ', user_id, reason), E'\n') FROM clerk.rejected_users),
            (SELECT string_agg(to_jsonb(s)::text, E'\n') FROM clerk.sync_state s))";
        self.said += &self.fixture.db.text(sql).await.unwrap();
    }

    /// Changes for the next sync: new, changed, deleted and unstorable users.
    fn change(&self) {
        let sim = &self.fixture.sim;
        let ids = sim.user_ids();
        for id in &ids[..2] {
            sim.update(id, |user| {
                user["username"] = "refused".into();
                user["public_metadata"] = fastrand::u32(..).into();
            });
        }
        assert!(sim.delete(&ids[3]));
        // An address that another user has.
        sim.update(&sim.create_random(), |user| personal(user, 7));
        for kind in Unstorable::ALL.into_iter().filter(|kind| *kind != Unstorable::Huge) {
            sim.insert_unstorable(kind);
        }
        for field in ["first_name", "created_at", "banned", "last_sign_in_at"] {
            sim.update(&sim.create_random(), |user| {
                user[field] = json!([{"email_address": EMAIL}])
            });
        }
    }
}

/// Gives a user distinctive personal data.
fn personal(user: &mut Value, number: usize) {
    user["first_name"] = "Zebulonia".into();
    user["last_name"] = "\"Zeb\" Quackenbush".into();
    user["primary_email_address_id"] = "idn_1".into();
    user["email_addresses"] = json!([{"id": "idn_1", "email_address": format!("zebulonia.{number}@{MAILBOXES}")}]);
    user["primary_phone_number_id"] = "idn_2".into();
    user["phone_numbers"] = json!([{"id": "idn_2", "phone_number": "+15550199887766"}]);
    user["private_metadata"] = json!({"note": "a private note"});
}

async fn whole_answer(address: &str, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let question = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(question.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn echo((status, headers, body): Answer, head: &str) -> Vec<u8> {
    let key = head
        .lines()
        .find_map(|line| line.split_once("Bearer "))
        .map_or("", |(_, key)| key);
    let echoed = |text: &str| text.replace("ECHO", &format!("{key} {EMAIL}"));
    answer(status, &echoed(headers), echoed(body).as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_printed_at_any_level_in_any_failure() {
    let postgres = Postgres::start().await;
    let set = format!("ALTER ROLE anyway PASSWORD '{PASSWORD}'");
    connect(&postgres.admin()).await.batch_execute(&set).await.unwrap();
    let played =
        futures_util::stream::iter(CASES).map(async |(name, case)| (*name, Scene::play(&postgres, *case).await));
    let mut played: Vec<_> = played.buffer_unordered(4).collect().await;
    let (secrets, personal) = (secrets(), personal_data());
    // A value that the server refuses may be in its log. Statements must contain none.
    let log = postgres.log();
    let of_the_server = |line: &&str| !["ERROR: ", "DETAIL: ", "HINT: "].iter().any(|kind| line.contains(kind));
    assert_eq!(leaks(&log, &secrets), [""; 0]);
    played.push((
        "the server's log",
        log.lines().filter(of_the_server).collect::<Vec<_>>().join("\n"),
    ));
    for (name, said) in &played {
        assert_eq!(leaks(said, &secrets), [""; 0], "{name}");
        assert_eq!(leaks(said, &personal), [""; 0], "{name}");
    }

    // The search covered the places where secrets would be.
    let said = |name: &str| &played.iter().find(|(played, _)| *played == name).unwrap().1;
    for part in [
        " TRACE ",
        " DEBUG ",
        " WARN ",
        "left out",
        "/metrics",
        "clerk2pg_syncs_total",
        "SELECT ",
        "user_",
    ] {
        assert!(said("nothing").contains(part), "{part} is not searched");
    }
    assert!(log.contains("STATEMENT: "));
}

#[test]
fn the_search_for_secrets_finds_them() {
    for secret in [KEY, PASSWORD, WEBHOOK_SECRET] {
        for hidden in [secret.to_owned(), encoded(secret), secret[10..20].to_owned()] {
            let line = format!("DEBUG sent to=\"Bearer {hidden}\"");
            assert_eq!(leaks(&format!("before\n{line}\nafter"), &secrets()), [line.as_str()]);
        }
    }
    assert_eq!(leaks(&format!("a\n  {EMAIL}"), &personal_data()).len(), 1);
}
