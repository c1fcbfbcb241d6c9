//! What the tests share: settings for a server of their own, and what a pull tells.

#![allow(dead_code, reason = "each test takes a part of it")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use openelm_hub::{Event, HubError, Name, Patience, PullOptions, Settings, pull};
use openelm_testing::server::Server;
use tempfile::TempDir;

/// A place for models, and the settings that name it and the server.
pub struct Place {
    pub settings: Settings,
    _folder: TempDir,
}

impl Place {
    pub fn new(server: &Server) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_owned();
        let patience = Patience { retries: 0, pause: Duration::from_millis(1), silence: Duration::from_millis(500) };
        let settings = Settings {
            endpoint: server.url(),
            corenet_endpoint: server.url(),
            cache: home.join("hub"),
            home,
            token: None,
            offline: false,
            certificates: None,
            patience,
        };
        Self { settings, _folder: folder }
    }

    pub fn pull(&self, name: &str) -> Result<PathBuf, HubError> {
        self.pull_with(name, &PullOptions::default(), &mut |_| {})
    }

    pub fn pull_with(
        &self,
        name: &str,
        options: &PullOptions,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<PathBuf, HubError> {
        pull(&Name::parse(name).unwrap(), options, &self.settings, on_event)
    }
}

/// Names of all files below `folder`, sorted, hidden ones left out.
pub fn files_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}

/// A sound file for a checkpoint's place.
pub fn content(length: usize) -> Vec<u8> {
    openelm_testing::checkpoint(length)
}
