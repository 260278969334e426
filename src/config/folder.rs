//! A folder with a configuration file, for tests.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
};

use super::{ConfigError, ConfigSource, Loaded, load};
use crate::deliver::Endpoint;

/// A folder with a configuration file.
pub(super) struct Folder(tempfile::TempDir);

impl Folder {
    pub(super) fn new(text: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("config.toml", text);
        folder
    }

    pub(super) fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Sets the mode of a file in it, or of itself.
    pub(super) fn allow(&self, name: &str, mode: u32) {
        fs::set_permissions(self.0.path().join(name), Permissions::from_mode(mode)).unwrap();
    }

    /// Loads the file. The folder is `DIR` in errors.
    pub(super) fn load(&self, environment: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        let pairs = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let source = ConfigSource {
            file: Some(self.0.path().join("config.toml")),
            environment: pairs.collect(),
        };
        load(&source).map_err(|error| self.hide(&error))
    }

    pub(super) fn endpoints(&self, environment: &[(&str, &str)]) -> Result<Vec<Endpoint>, ConfigError> {
        let loaded = self.load(environment)?;
        let endpoints = loaded.require_endpoints().map(<[_]>::to_vec);
        endpoints.map_err(|error| self.hide(&error))
    }

    fn hide(&self, error: &ConfigError) -> ConfigError {
        let path = self.0.path().display().to_string();
        ConfigError {
            message: error.message.replace(&path, "DIR"),
            hint: error.hint.clone(),
        }
    }
}
