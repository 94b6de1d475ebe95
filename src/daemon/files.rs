//! The configuration room's window on the world: files, patterns, host name, environment.

use std::path::Path;

use crate::config::{Children, Files};
use crate::limits::CONFIG_BYTES_MAX;
use crate::sys::{describe, file, glob, machine};

/// The real file system, and the bundled children there really are.
pub struct RealFiles(pub Children);

impl Files for RealFiles {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, String> {
        file::read_bounded(Path::new(path), CONFIG_BYTES_MAX).map_err(|error| match error.errno {
            libc::EFBIG => format!("larger than {CONFIG_BYTES_MAX} bytes; this is no configuration"),
            errno => describe(errno).to_owned(),
        })
    }

    fn glob(&mut self, pattern: &str) -> Vec<String> {
        glob::glob(pattern)
    }

    fn host_name(&mut self) -> String {
        machine::host_name()
    }

    fn env(&mut self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn children(&self) -> Children {
        self.0
    }
}

/// A path that stays right whatever the working directory, and that `%(here)s` can be made of.
pub fn absolute(path: &str) -> String {
    std::path::absolute(path).map_or_else(|_| path.to_owned(), |path| path.to_string_lossy().into_owned())
}
