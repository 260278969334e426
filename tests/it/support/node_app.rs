//! An application in Node: its packages come from npm's registry, where that can be reached.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::support::{fixture::Fixture, pipe::pipe};

/// The oldest major version of Node that the packages support.
const NODE: u32 = 20;

/// How npm says that there is no registry, rather than that something is wrong with a package.
const NO_REGISTRY: [&str; 13] = [
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ECONNRESET",
    "ETIMEDOUT",
    "ENETUNREACH",
    "EHOSTUNREACH",
    "ERR_SOCKET_TIMEOUT",
    "E403",
    "E407",
    "E502",
    "E503",
    "E504",
];

/// An application, in a folder of its own with its packages.
pub struct NodeApp {
    folder: PathBuf,
    /// Two runs of the tests share the folder, but not at the same time.
    _lock: File,
}

impl NodeApp {
    /// Copies an application of `examples/` into the target folder and installs its packages, which
    /// later runs find there. Returns `None`, and says so, if Node or the registry is missing.
    pub async fn install(name: &str) -> Option<Self> {
        Self::install_from(&format!("examples/{name}")).await
    }

    /// The same for any folder of the project.
    pub async fn install_from(source: &str) -> Option<Self> {
        match Self::try_install(source).await {
            Ok(app) => Some(app),
            Err(why) => {
                say_skipped(source, &why);
                None
            }
        }
    }

    async fn try_install(source: &str) -> Result<Self, String> {
        node().await?;
        version("npm").await.ok_or("npm is missing")?;
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
        let folder = target().join(source.file_name().unwrap());
        fs::create_dir_all(&folder).unwrap();
        let lock = File::create(folder.with_extension("lock")).unwrap();
        lock.lock().unwrap();
        copy(&source, &folder);
        let app = Self { folder, _lock: lock };

        let wanted = fs::read(source.join("package-lock.json")).unwrap();
        let installed = app.folder.join("installed");
        if fs::read(&installed).is_ok_and(|found| found == wanted) {
            return Ok(app);
        }
        // npm removes the packages first. If it then fails, they are not there.
        let _ = fs::remove_file(&installed);
        let options = ["ci", "--json", "--no-audit", "--no-fund", "--fetch-timeout=60000"];
        let retries = [
            "--fetch-retries=2",
            "--fetch-retry-mintimeout=1000",
            "--fetch-retry-maxtimeout=5000",
        ];
        let ran = app.npm().args(options).args(retries).output().await.unwrap();
        if !ran.status.success() {
            let said: Value = serde_json::from_slice(&ran.stdout).unwrap_or_default();
            let code = said["error"]["code"].as_str().unwrap_or_default();
            assert!(NO_REGISTRY.contains(&code), "npm ci: {ran:?}");
            return Err(format!("npm's registry cannot be reached ({code})"));
        }
        fs::write(installed, wanted).unwrap();
        Ok(app)
    }

    /// A file of the application.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file of the application.
    pub fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    /// Reads a file of the application.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Runs a script of `package.json` with the fixture's environment, and returns its output.
    pub async fn run(&self, fixture: &Fixture, script: &str, arguments: &[&str], stdin: &str) -> Output {
        let programs = Path::new(env!("CARGO_BIN_EXE_clerk2pg")).parent().unwrap();
        let others = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([programs.to_owned()].into_iter().chain(std::env::split_paths(&others)));
        let mut command = self.npm();
        command.args(["run", "--silent", script, "--"]).args(arguments);
        with_environment(&mut command, fixture);
        let mut child = command.env("PATH", path.unwrap()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        // A script that does not read its input may have closed it already.
        let _ = input.write_all(stdin.as_bytes()).await;
        drop(input);
        child.wait_with_output().await.unwrap()
    }

    /// The same for a script that must succeed. Returns what it printed on stdout.
    pub async fn succeed(&self, fixture: &Fixture, script: &str, arguments: &[&str], stdin: &str) -> String {
        let ran = self.run(fixture, script, arguments, stdin).await;
        assert!(ran.status.success(), "npm run {script}: {ran:?}");
        String::from_utf8(ran.stdout).unwrap()
    }

    /// Runs a file of the application, which reads the input and then writes its answer.
    pub async fn answer(&self, file: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let mut command = Command::new("node");
        pipe(command.arg(self.path(file)).args(arguments), input).await
    }

    /// Returns a command of Node that runs a file of a package with the fixture's environment.
    pub fn node(&self, fixture: &Fixture, file: &str) -> Command {
        let mut command = self.command("node");
        command.arg(self.path("node_modules").join(file));
        with_environment(&mut command, fixture);
        command
    }

    /// Returns a command of npm, whose packages and cache are in the target folder.
    fn npm(&self) -> Command {
        let mut command = self.command("npm");
        command
            // Scripts of packages would download more than the registry has.
            .env("npm_config_ignore_scripts", "true")
            .env("npm_config_cache", target().join("npm"))
            .env("npm_config_update_notifier", "false");
        command
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.folder)
            // Prisma's generator needs no schema engine, but downloads one unless this is a file.
            .env("PRISMA_SCHEMA_ENGINE_BINARY", self.folder.join("package.json"))
            .env("CHECKPOINT_DISABLE", "1")
            .env("PRISMA_HIDE_UPDATE_MESSAGE", "1")
            .env("NEXT_TELEMETRY_DISABLED", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

/// Whether Node is there and new enough. Returns why not.
pub async fn node() -> Result<(), String> {
    match version("node").await {
        None => Err("node is missing".to_owned()),
        Some(version) if version < NODE => Err(format!("node {version} is older than {NODE}")),
        Some(_) => Ok(()),
    }
}

/// Says that a test of something cannot run here.
pub fn say_skipped(what: &str, why: &str) {
    // What print macros write is only shown for a test that fails.
    let _ = writeln!(std::io::stderr(), "the test of {what} is skipped: {why}");
}

/// Gives a command the environment of the fixture's program.
fn with_environment(command: &mut Command, fixture: &Fixture) {
    for (name, value) in fixture.command(&[]).as_std().get_envs() {
        command.env(name, value.unwrap_or_default());
    }
}

/// Returns the major version of a tool; `None` if it cannot be run.
async fn version(tool: &str) -> Option<u32> {
    let ran = Command::new(tool).arg("--version").output().await.ok()?;
    let version = String::from_utf8(ran.stdout).ok()?;
    version.trim_start_matches('v').split('.').next()?.parse().ok()
}

/// Where the applications and npm's cache are.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("node")
}

/// Copies the files of a folder into another one.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            // The packages of somebody who tries the example.
            true if entry.file_name() == "node_modules" => {}
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), &to).unwrap()),
        }
    }
}
