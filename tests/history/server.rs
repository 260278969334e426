//! A PostgreSQL server for one history: it restarts, crashes, and its disk fills up.

use std::{
    fs::{self, File},
    path::PathBuf,
    time::Duration,
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    mount::{MountFlags, UnmountFlags, mount, unmount},
    process::Signal,
};
use tempfile::TempDir;
use tokio_postgres::NoTls;

use crate::support::{
    postgres::{Postgres, RECOVERY},
    wait::within,
};

pub struct Server {
    postgres: Postgres,
    disk: Option<Disk>,
}

impl Server {
    /// Starts a server on a disk of some megabytes if this process may mount one, otherwise on the
    /// usual disk.
    pub async fn start(megabytes: u32) -> Self {
        let disk = Disk::mounted(megabytes);
        let folder = match &disk {
            Some(disk) => tempfile::tempdir_in(disk.folder.path()),
            None => tempfile::tempdir(),
        };
        // The log must leave room for tables.
        let settings = format!("max_wal_size = {}\nmin_wal_size = 8\n", megabytes / 6);
        Self {
            postgres: Postgres::start_in(folder.unwrap(), &settings).await,
            disk,
        }
    }

    pub fn address(&self) -> String {
        self.postgres.admin()
    }

    /// Stops or crashes the server, and starts it again after a pause.
    pub async fn restarts(&mut self, in_order: bool, pause: Duration) {
        self.postgres.stop(if in_order { Signal::INT } else { Signal::QUIT });
        tokio::time::sleep(pause).await;
        self.answers().await;
    }

    /// Fills the disk. False if the server has no disk of its own.
    pub fn fills(&self) -> bool {
        self.disk.as_ref().map(Disk::fill).is_some()
    }

    /// Frees the disk, and starts the server if it has ended.
    pub async fn is_emptied(&mut self) {
        if let Some(disk) = &self.disk {
            fs::remove_file(disk.ballast()).unwrap();
        }
        self.answers().await;
    }

    async fn answers(&mut self) {
        let address = self.address();
        within(RECOVERY, "the server answers again", async || {
            if self.postgres.has_ended() {
                self.postgres.restart().await;
            }
            tokio_postgres::connect(&address, NoTls).await.is_ok()
        })
        .await;
    }
}

/// A small file system in memory.
struct Disk {
    folder: TempDir,
}

impl Disk {
    /// `make test` gives tests their own mounts, if it may.
    fn mounted(megabytes: u32) -> Option<Self> {
        std::env::var_os("CLERK2PG_MAY_MOUNT")?;
        let folder = tempfile::tempdir().unwrap();
        let size = std::ffi::CString::new(format!("size={megabytes}m")).unwrap();
        mount("tmpfs", folder.path(), "tmpfs", MountFlags::empty(), &*size).unwrap();
        Some(Self { folder })
    }

    fn ballast(&self) -> PathBuf {
        self.folder.path().join("ballast")
    }

    fn fill(&self) {
        let ballast = File::create(self.ballast()).unwrap();
        let (mut length, mut more) = (0, 1 << 30);
        while more >= 4096 {
            match fallocate(&ballast, FallocateFlags::empty(), length, more) {
                Ok(()) => length += more,
                Err(_) => more /= 2,
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The server's folder is gone, so nothing uses the disk.
        let _ = unmount(self.folder.path(), UnmountFlags::DETACH);
    }
}
