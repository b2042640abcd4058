//! Failure domains: what is likely to be lost together.

use std::{fmt, sync::Arc};

/// The failure domain of a node: the observed /24 or /48 in the open network, a configured name in a private one.
///
/// Whoever observes decides which of the two it is; here domains are only compared, and copied for each place in a plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(Arc<str>);

impl Domain {
    /// The domain with this name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The one domain of all nodes whose address says nothing, such as those behind a relay. Were each of them a
    /// domain of its own, hiding behind a relay would be the cheapest way to be in many.
    pub fn unknown() -> Self {
        Self("unknown".into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
