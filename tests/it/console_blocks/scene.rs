//! Where the commands of a block run: a database, a Clerk, a folder and an environment.

use std::{path::Path, process::Stdio};

use clerk_sim::{Options, Sim};
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::{
    fixture::Fixture,
    monitored::MonitoredDaemon,
    organizations::ALL,
    process::Process,
    program::{ProgramOutput, wait_for_exit},
    roles::Role,
    summary::Exit,
    wait::PATIENCE,
};

/// Printed before the output of each command.
const OUTPUT: char = '\u{1e}';

/// Printed after it, before the exit code.
const CODE: char = '\u{1d}';

pub struct Scene {
    pub fixture: Fixture,
    /// The working directory, and the home.
    pub folder: TempDir,
    environment: Vec<(String, String)>,
    /// What is real here, and what pages show instead.
    shown: Vec<(String, &'static str)>,
    /// The exit code of each command.
    exits: Vec<i32>,
    role: Option<Role>,
    daemons: Vec<Process>,
    /// Another Clerk.
    other: Option<Sim>,
}

impl Scene {
    /// An empty database, and a Clerk with some users. The same seed gives the same users each time.
    pub async fn new(users: usize) -> Self {
        let fixture = Fixture::with(Options {
            users,
            seed: 1,
            ..Options::default()
        })
        .await;
        let environment = [
            ("DATABASE_URL", fixture.db.url.as_str()),
            ("CLERK_SECRET_KEY", fixture.sim.secret_key()),
            ("CLERK_API_URL", &fixture.sim.url()),
            ("CLERK2PG_HTTP__LISTEN", ""),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let server = fixture.db.url.rsplit('@').next().unwrap();
        let database = server.rsplit('/').next().unwrap().to_owned();
        let shown = vec![
            (fixture.db.url.clone(), "postgres://app:…@localhost/app"),
            (server.to_owned(), "localhost:5432/app"),
            (database, "app"),
            (fixture.sim.secret_key().to_owned(), "sk_live_…"),
            (fixture.sim.url(), "https://api.clerk.com"),
        ];
        Self {
            environment: environment.to_vec(),
            shown,
            fixture,
            folder: TempDir::new().unwrap(),
            exits: Vec::new(),
            role: None,
            daemons: Vec::new(),
            other: None,
        }
    }

    /// The same with the users mirrored, so long ago that Clerk's next answers count.
    pub async fn mirrored(users: usize) -> Self {
        let scene = Self::new(users).await;
        scene.once(Exit::Ok).await;
        scene
    }

    /// Runs a full sync, and makes its rows older.
    pub async fn once(&self, exit: Exit) {
        self.prepare(&["--once"]).await.assert_exit(exit);
        self.fixture.age_rows().await;
    }

    /// Writes the mapping that `init` proposes for the table `User`.
    pub async fn initialized(self) -> Self {
        self.prepare(&["init", "--table", r#"public."User""#])
            .await
            .assert_exit(Exit::Ok);
        self
    }

    /// Runs the program with the scene's configuration.
    pub async fn prepare(&self, arguments: &[&str]) -> ProgramOutput {
        let mut command = self.fixture.command(arguments);
        command.current_dir(&self.folder).envs([ALL]);
        wait_for_exit(command.spawn().unwrap()).await
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Returns the id of the other Clerk's instance.
    pub fn other_instance(&self) -> String {
        self.other.as_ref().unwrap().instance_id().to_owned()
    }

    /// Shows a text in place of what is real here.
    pub fn showing(mut self, real: impl Into<String>, shown: &'static str) -> Self {
        self.shown.insert(0, (real.into(), shown));
        self
    }

    /// The commands end with these codes, in place of 0.
    pub fn exits(mut self, codes: &[i32]) -> Self {
        self.exits = codes.to_vec();
        self
    }

    /// Writes the configuration file.
    pub fn configure(&self, text: &str) {
        std::fs::write(self.folder.path().join("config.toml"), text).unwrap();
    }

    /// Connects as this role.
    pub fn with_role(mut self, role: Role) -> Self {
        self = self.with("DATABASE_URL", &role.url).showing(role.name.clone(), "app");
        self.role = Some(role);
        self
    }

    /// Runs daemons until the scene ends.
    pub fn with_daemons(mut self, leader: MonitoredDaemon, standby: Process) -> Self {
        self = self
            .with("CLERK2PG_HTTP__LISTEN", &leader.address)
            .showing(leader.address.clone(), "127.0.0.1:9465");
        self.daemons = vec![leader.daemon, standby];
        self
    }

    /// Keeps another Clerk running until the scene ends.
    pub fn keep(mut self, other: Sim) -> Self {
        self.other = Some(other);
        self
    }

    /// Runs the commands of a block in one shell, and returns what each prints.
    pub async fn run(&self, commands: &[&str]) -> Vec<String> {
        let mut script = "exec 2>&1\n".to_owned();
        for command in commands {
            let command =
                self.shown
                    .iter()
                    .fold((*command).to_owned(), |text, (real, shown)| match shown.contains('…') {
                        true => text.replace(shown, real),
                        false => text,
                    });
            script += &format!("printf '{OUTPUT}'\n{command}\nprintf '{CODE}%d' $?\n");
        }
        let output = tokio::time::timeout(PATIENCE, self.shell(&script).output()).await;
        let output = String::from_utf8(output.expect("the commands do not end").unwrap().stdout).unwrap();
        let mut printed = Vec::new();
        for (at, part) in output.split(OUTPUT).skip(1).enumerate() {
            let (text, code) = part
                .split_once(CODE)
                .unwrap_or_else(|| panic!("{}: {part}", commands[at]));
            let expected = self.exits.get(at).copied().unwrap_or_default();
            assert_eq!(code, expected.to_string(), "$ {}\n{text}", commands[at]);
            let shown = self.shown.iter();
            printed.push(shown.fold(text.to_owned(), |text, (real, shown)| text.replace(real, shown)));
        }
        printed
    }

    fn shell(&self, script: &str) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_clerk2pg")).parent().unwrap().to_owned();
        let server = std::env::var_os("CLERK2PG_PG_BIN").unwrap_or_default();
        let others = std::env::var_os("PATH").unwrap_or_default();
        let path = [program, server.into()]
            .into_iter()
            .chain(std::env::split_paths(&others));
        let mut command = Command::new("bash");
        command
            .args(["--norc", "--noprofile", "-c", script])
            .env_clear()
            .env("PATH", std::env::join_paths(path).unwrap())
            .env("HOME", self.folder.path())
            .env("LC_ALL", "C.UTF-8")
            .env("PAGER", "cat")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Stops the daemons and removes the role.
    pub async fn end(self) {
        for daemon in self.daemons {
            daemon.kill().await;
        }
        if let Some(role) = self.role {
            role.end(&self.fixture).await;
        }
    }
}
