//! Config errors that name the file, the line, the key and what is allowed.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::sample::{self, SECTIONS};

/// Why a config cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}, line {line}: not valid TOML: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// A section or key that does not exist.
    #[error("{}, line {line}: unknown key `{key}`; allowed here: {allowed}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key, with its section.
        key: String,
        /// The keys that exist there.
        allowed: String,
    },
    /// A value that is not allowed.
    #[error("{}, line {line}: `{key}`: {allowed}", path.display())]
    BadValue {
        /// The file.
        path: PathBuf,
        /// The line, from 1; 1 if the key is not written in the file.
        line: usize,
        /// The key, with its section.
        key: String,
        /// What is wrong, and what is allowed.
        allowed: String,
    },
    /// The network's key file is not one.
    #[error("{}: not a network key: 64 hex digits are expected on its last line", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
    },
}

/// A config text with the place of everything in it.
pub(super) struct Lines<'t> {
    origin: &'t Path,
    text: &'t str,
    table: DeTable<'t>,
}

impl<'t> Lines<'t> {
    pub(super) fn new(origin: &'t Path, text: &'t str) -> Result<Self, ConfigError> {
        match DeTable::parse(text) {
            Ok(table) => Ok(Self { origin, text, table: table.into_inner() }),
            Err(error) => Err(ConfigError::Syntax {
                path: origin.to_owned(),
                line: line_of(text, error.span().map_or(0, |span| span.start)),
                message: error.message().to_owned(),
            }),
        }
    }

    /// Refuses sections and keys that [`sample::KEYS`] does not list.
    pub(super) fn refuse_unknown_keys(&self) -> Result<(), ConfigError> {
        for (section, keys) in &self.table {
            let name = section.get_ref().as_ref();
            let unknown = |key: String, span: Range<usize>, allowed: Vec<String>| ConfigError::UnknownKey {
                path: self.origin.to_owned(),
                line: line_of(self.text, span.start),
                key,
                allowed: allowed.join(", "),
            };
            if !SECTIONS.iter().any(|(known, _)| *known == name) {
                let sections = SECTIONS.iter().map(|(known, _)| format!("[{known}]")).collect();
                return Err(unknown(name.to_owned(), section.span(), sections));
            }
            let DeValue::Table(keys) = keys.get_ref() else { continue };
            for key in keys.keys() {
                let key_name = key.get_ref().as_ref();
                let mut known = sample::keys_of(name);
                if !known.any(|doc| doc.key == key_name) {
                    let allowed = sample::keys_of(name).map(|doc| doc.key.to_owned()).collect();
                    return Err(unknown(format!("[{name}] {key_name}"), key.span(), allowed));
                }
            }
        }
        Ok(())
    }

    /// A value that its key does not allow.
    pub(super) fn bad_value(&self, error: &toml::de::Error) -> ConfigError {
        let start = error.span().map_or(0, |span| span.start);
        ConfigError::BadValue {
            path: self.origin.to_owned(),
            line: line_of(self.text, start),
            key: self.key_at(start),
            allowed: error.message().trim_end().to_owned(),
        }
    }

    /// A value that other keys, or a limit, forbid.
    pub(super) fn conflict(&self, section: &str, key: &str, allowed: &str) -> ConfigError {
        let span = self.table.get(section).and_then(|keys| match keys.get_ref() {
            DeValue::Table(keys) => keys.get_key_value(key).map(|(key, _)| key.span()),
            _ => None,
        });
        ConfigError::BadValue {
            path: self.origin.to_owned(),
            line: line_of(self.text, span.map_or(0, |span| span.start)),
            key: format!("[{section}] {key}"),
            allowed: allowed.to_owned(),
        }
    }

    /// The key whose value stands at byte `at`.
    fn key_at(&self, at: usize) -> String {
        for (section, keys) in &self.table {
            if let DeValue::Table(table) = keys.get_ref() {
                for (key, value) in table {
                    if key.span().contains(&at) || value.span().contains(&at) {
                        return format!("[{}] {}", section.get_ref(), key.get_ref());
                    }
                }
            }
            if section.span().contains(&at) || Spanned::span(keys).contains(&at) {
                return section.get_ref().to_string();
            }
        }
        "config".to_owned()
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}
