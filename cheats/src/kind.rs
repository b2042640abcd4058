//! What there is to cheat with.

/// One chunk group in so many is deleted, of each shard.
pub const DELETED_PARTS: u64 = 20;

/// How a node cheats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Has deleted a part of each shard to save the space, and answers with zeros in its place.
    Deletes,
    /// Flips a bit in whatever it sends.
    Flips,
    /// Answers from what it read first of each shard, whatever is asked for.
    Stale,
    /// Accepts shards, claims them, and never writes a byte.
    Forgets,
    /// Claims all shards of each segment that it hears of.
    Invents,
    /// Is busy whenever it is audited.
    Refuses,
    /// Has deleted a part of each shard, answers for the rest, and hangs up when it is asked for what it lacks.
    HangsUp,
    /// Has deleted a part of each shard, answers for the rest, and says nothing when it is asked for what it lacks. It
    /// takes no more shards: while it is silent about one, it is not audited for any other.
    Silent,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Deletes,
        Self::Flips,
        Self::Stale,
        Self::Forgets,
        Self::Invents,
        Self::Refuses,
        Self::HangsUp,
        Self::Silent,
    ];

    /// As it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deletes => "deletes",
            Self::Flips => "flips",
            Self::Stale => "stale",
            Self::Forgets => "forgets",
            Self::Invents => "invents",
            Self::Refuses => "refuses",
            Self::HangsUp => "hangs-up",
            Self::Silent => "silent",
        }
    }

    /// The kind of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}
