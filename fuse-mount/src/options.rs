//! What may be said after `-o`: the words that mount(8) and /etc/fstab have, as far as they make sense here.

/// How a drive is mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// Other users of this machine may use the drive too, as far as modes and owners allow.
    pub allow_other: bool,
    /// Root may use it too.
    pub allow_root: bool,
    /// The kernel holds the mounting user to modes and owners, too.
    pub default_permissions: bool,
    /// Programs on the drive cannot be run.
    pub noexec: bool,
}

/// An option that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// The drive cannot be written yet.
    #[error("the drive is read-only: `{0}` is not possible")]
    ReadOnly(String),
    /// Not an option.
    #[error("`{0}` is not a mount option")]
    Unknown(String),
}

impl MountOptions {
    /// Takes in options as they stand after one `-o`: words, with commas between them.
    pub fn add(&mut self, words: &str) -> Result<(), OptionError> {
        for word in words.split(',').filter(|word| !word.is_empty()) {
            match word {
                "allow_other" => self.allow_other = true,
                "allow_root" => self.allow_root = true,
                "default_permissions" => self.default_permissions = true,
                "noexec" => self.noexec = true,
                // What is so in any case, and what only fstab's readers look at.
                "ro" | "nodev" | "nosuid" | "noatime" | "exec" | "_netdev" | "auto" | "noauto" | "nofail" | "user"
                | "users" => {}
                other if other.starts_with("x-") => {}
                "rw" => return Err(OptionError::ReadOnly(word.to_owned())),
                other => return Err(OptionError::Unknown(other.to_owned())),
            }
        }
        Ok(())
    }

    /// Others come in, so modes and owners must count.
    pub(crate) fn checks_permissions(&self) -> bool {
        self.default_permissions || self.allow_other || self.allow_root
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_followed_ignored_or_refused_never_misread() {
        let mut options = MountOptions::default();
        options.add("ro,nofail,x-systemd.automount").expect("of no effect");
        assert_eq!(options, MountOptions::default());
        options.add("allow_other,noexec").expect("known");
        assert!(options.allow_other && options.noexec && options.checks_permissions());
        assert_eq!(options.add("rw"), Err(OptionError::ReadOnly("rw".to_owned())));
        for word in ["suid", "allow-other", "uid=1000"] {
            assert_eq!(options.add(word), Err(OptionError::Unknown(word.to_owned())));
        }
    }
}
