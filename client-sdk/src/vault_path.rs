//! A path in a vault: names of bytes, from the root.

use std::{ffi::OsStr, fmt, os::unix::ffi::OsStrExt};

use commonhold_storage_engine::tree::name::Name;

use crate::error::Error;

/// An absolute path in a vault; the root has no names. Names may hold any bytes but `/` and NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct VaultPath(Vec<Name>);

impl VaultPath {
    /// The root folder.
    pub fn root() -> Self {
        Self::default()
    }

    /// Reads `/a/b`; a missing leading slash and doubled or trailing ones are forgiven, `.` and `..` are not.
    pub fn parse(text: &OsStr) -> Result<Self, Error> {
        let bad = |reason| Error::BadPath { path: text.to_string_lossy().into_owned(), reason };
        let parts = text.as_bytes().split(|byte| *byte == b'/').filter(|part| !part.is_empty());
        let names: Vec<Name> = parts
            .map(|part| {
                Name::new(part.to_vec()).map_err(|_| bad("`.` and `..`, NUL and names over 255 bytes are not allowed"))
            })
            .collect::<Result<_, _>>()?;
        if names.len() > DEPTH_MAX { Err(bad("it is too deep")) } else { Ok(Self(names)) }
    }

    pub(crate) fn from_names(names: Vec<Name>) -> Self {
        Self(names)
    }

    /// The names from the root down.
    pub fn names(&self) -> &[Name] {
        &self.0
    }

    /// The folder above and the last name; none for the root.
    pub fn split_last(&self) -> Option<(Self, &Name)> {
        let (last, above) = self.0.split_last()?;
        Some((Self(above.to_vec()), last))
    }

    /// The path of `name` in this folder.
    pub fn join(&self, name: Name) -> Self {
        let mut names = self.0.clone();
        names.push(name);
        Self(names)
    }

    /// True if this is `other` or lies below it.
    pub fn starts_with(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }
}

/// The most folders above a file.
pub(crate) const DEPTH_MAX: usize = 512;

impl fmt::Display for VaultPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        self.0.iter().try_for_each(|name| write!(f, "/{}", String::from_utf8_lossy(name.as_bytes())))
    }
}

impl fmt::Debug for VaultPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VaultPath({self})")
    }
}

#[cfg(test)]
mod tests;
