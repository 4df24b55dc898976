//! What a client has on disk.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use trunkline::Tls;

use super::identity::Identity;
use crate::support::scratch::Scratch;

/// What the files say.
pub struct Set<'a> {
    pub authorities: String,
    pub identity: &'a Identity,
}

/// `ca.crt`, `tls.crt` and `tls.key` in a directory.
pub struct Files(Scratch);

impl Files {
    pub fn new() -> Self {
        Self(Scratch::new())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    /// Looks at them every 50 ms.
    pub fn tls(&self) -> Tls {
        Tls::new()
            .ca_file(self.path("ca.crt"))
            .identity_files(self.path("tls.crt"), self.path("tls.key"))
            .reload_interval(Duration::from_millis(50))
    }

    /// One file after the other, each over what is there, as an editor or a script does it.
    pub fn rewrite(&self, set: &Set<'_>) {
        write(&self.path(""), set);
    }

    /// As Kubernetes does it with secrets: the files are links through a link to a directory, which is replaced as a
    /// whole, and the old directory is removed.
    pub fn relink(&self, set: &Set<'_>, nth: usize) {
        let directory = format!("..{nth}");
        fs::create_dir(self.path(&directory)).unwrap();
        write(&self.path(&directory), set);
        symlink(&directory, self.path("..new")).unwrap();
        let old = fs::read_link(self.path("..data"));
        fs::rename(self.path("..new"), self.path("..data")).unwrap();
        match old {
            Ok(old) => fs::remove_dir_all(self.path("").join(old)).unwrap(),
            Err(_) => {
                for name in ["ca.crt", "tls.crt", "tls.key"] {
                    symlink(Path::new("..data").join(name), self.path(name)).unwrap();
                }
            }
        }
    }

    /// A pipe that nobody writes into, in place of what is there: opening it waits for ever.
    pub fn pipe(&self, name: &str) -> PathBuf {
        let (path, new) = (self.path(name), self.path("..pipe"));
        let made = Command::new("mkfifo").arg(&new).status().unwrap();
        assert!(made.success());
        fs::rename(new, &path).unwrap();
        path
    }
}

fn write(directory: &Path, set: &Set<'_>) {
    fs::write(directory.join("ca.crt"), &set.authorities).unwrap();
    set.identity.write(directory, "tls");
}
