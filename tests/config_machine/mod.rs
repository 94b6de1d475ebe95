//! A machine for the configuration reader: files, environment and name from memory.
#![allow(dead_code, reason = "each test uses a part of it")]

use multusd::child::CHILDREN;
use multusd::config::{Children, Files};

/// The machine.
#[derive(Default)]
pub struct Machine {
    files: Vec<(String, Option<Vec<u8>>)>,
    pub env: Vec<(&'static str, &'static str)>,
}

impl Machine {
    /// With a main file `multusd.cfg`.
    pub fn with(bytes: &[u8]) -> Machine {
        Machine { files: vec![("multusd.cfg".into(), Some(bytes.into()))], env: Vec::new() }
    }

    /// One more file.
    pub fn file(&mut self, path: &str, text: &str) {
        self.files.push((path.into(), Some(text.into())));
    }

    /// A directory.
    pub fn directory(&mut self, path: &str) {
        self.files.push((path.into(), None));
    }
}

impl Files for Machine {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, String> {
        match self.files.iter().find(|(name, _)| name == path) {
            Some((_, Some(bytes))) => Ok(bytes.clone()),
            Some((_, None)) => Err("Is a directory".into()),
            None => Err("No such file or directory".into()),
        }
    }

    /// Only `*` in the last part, which is what the tests use.
    fn glob(&mut self, pattern: &str) -> Vec<String> {
        let (start, end) = pattern.split_once('*').unwrap_or((pattern, ""));
        let matches = |name: &String| match pattern.contains('*') {
            true => name.starts_with(start) && name.ends_with(end) && !name[start.len()..].contains('/'),
            false => name == pattern,
        };
        let mut list: Vec<String> = self.files.iter().map(|(name, _)| name.clone()).filter(matches).collect();
        list.sort();
        list
    }

    fn host_name(&mut self) -> String {
        "pump-7".into()
    }

    fn env(&mut self, name: &str) -> Option<String> {
        self.env.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string())
    }

    fn children(&self) -> Children {
        CHILDREN
    }
}
