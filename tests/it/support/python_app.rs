//! A program in Python: its packages come from PyPI, where that can be reached.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use tokio::process::Command;

use crate::support::{node_app::say_skipped, pipe::pipe};

/// The oldest minor version of Python 3 that the packages support.
const PYTHON: u32 = 11;

/// How pip says that there is no registry, rather than that something is wrong with a package.
const NO_REGISTRY: [&str; 3] = ["connection broken by", "ProxyError", "HTTP error 4"];

/// A virtual environment with the packages of a `requirements.txt`.
pub struct PythonApp {
    python: PathBuf,
    source: PathBuf,
    /// Two runs of the tests share the environment, but not while it is made.
    _lock: File,
}

impl PythonApp {
    /// Makes the environment in the target folder, where later runs find it. `source` is a folder of
    /// the project. Returns `None`, and says so, if Python or the registry is missing.
    pub async fn install(source: &str) -> Option<Self> {
        match Self::try_install(source).await {
            Ok(app) => Some(app),
            Err(why) => {
                say_skipped(&format!("{source} with Python"), &why);
                None
            }
        }
    }

    async fn try_install(source: &str) -> Result<Self, String> {
        let version = run(Command::new("python3").args(["-c", "import sys; print(sys.version_info.minor)"])).await;
        let version = version.map_err(|_| "python3 is missing")?;
        if version.trim().parse().is_ok_and(|minor: u32| minor < PYTHON) {
            return Err(format!("python 3.{} is older than 3.{PYTHON}", version.trim()));
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
        fs::create_dir_all(&folder).unwrap();
        let lock = File::create(folder.join("lock")).unwrap();
        lock.lock().unwrap();
        let venv = folder.join(source.file_name().unwrap());
        let app = Self {
            python: venv.join("bin/python"),
            source,
            _lock: lock,
        };

        let requirements = app.source.join("requirements.txt");
        let wanted = fs::read(&requirements).unwrap();
        let installed = venv.join("installed");
        if fs::read(&installed).is_ok_and(|found| found == wanted) {
            return Ok(app);
        }
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))
            .await
            .map_err(|_| "python3 -m venv fails; is python3-venv missing?")?;
        let options = [
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--disable-pip-version-check",
        ];
        let mut pip = Command::new(&app.python);
        let pip = pip
            .args(["-m", "pip", "install"])
            .args(options)
            .arg("-r")
            .arg(&requirements);
        if let Err(why) = run(pip).await {
            let is_missing = NO_REGISTRY.iter().any(|part| why.contains(part));
            assert!(is_missing, "pip install: {why}");
            return Err("PyPI cannot be reached".to_owned());
        }
        fs::write(installed, wanted).unwrap();
        Ok(app)
    }

    /// Runs a file of the source folder, which reads the input and then writes its answer.
    pub async fn answer(&self, file: &str, input: &[u8]) -> Vec<u8> {
        pipe(Command::new(&self.python).arg(self.source.join(file)), input).await
    }
}

/// Runs a command. Returns what it prints on stdout, or on stderr if it fails.
async fn run(command: &mut Command) -> Result<String, String> {
    let ran = command.output().await.map_err(|error| error.to_string())?;
    match ran.status.success() {
        true => Ok(String::from_utf8_lossy(&ran.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&ran.stderr).into_owned()),
    }
}
