//! What there is for a steward to lie with.

/// How a node lies as a steward. With the shards that it holds it is honest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lie {
    /// Says that it keeps whatever it is given, keeps nothing, and knows nothing.
    Drops,
    /// Keeps what it was given first of each vault and of each segment, and serves that for ever.
    Old,
    /// Serves and spreads records full of claims that nobody made good, forged heads and leases, calls every segment
    /// lost, and is always at work on its repair.
    MakesUp,
    /// Refuses to keep anything.
    Rejects,
    /// Says the truth, but says what it knows of heads and records when all others have long answered.
    Late,
}

impl Lie {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Drops, Self::Old, Self::MakesUp, Self::Rejects, Self::Late];

    /// As it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Drops => "drops",
            Self::Old => "old",
            Self::MakesUp => "makes-up",
            Self::Rejects => "rejects",
            Self::Late => "late",
        }
    }

    /// The lie of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|lie| lie.name() == name)
    }
}
