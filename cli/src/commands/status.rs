//! `status`: what the vault is, how much is in it, and how well it is kept.

use commonhold_client_sdk::VaultStatus;

use crate::{
    args,
    exit::Failure,
    figures,
    output::{Output, columns},
};

pub(super) fn run(args: &args::Status, output: &Output) -> Result<(), Failure> {
    let vault = super::open(&args.entry)?;
    let status = vault.status()?;
    output.facts(&status, || lines(&status))
}

fn lines(status: &VaultStatus) -> Vec<String> {
    let date = |ms: u64| figures::date(i64::try_from(ms / 1000).unwrap_or(i64::MAX));
    let or_nothing = |ms: Option<u64>| ms.map_or_else(|| "nothing is stored yet".to_owned(), date);
    let rows = [
        ("vault", status.vault.clone()),
        ("network", status.network.clone()),
        (
            "nodes",
            format!("{} answer, with {} free", figures::grouped(status.nodes as u64), figures::size(status.free_bytes)),
        ),
        (
            "stored",
            format!(
                "{} with {} in all",
                figures::count(status.segments, "segment", "segments"),
                figures::size(status.segment_bytes)
            ),
        ),
        ("coding", status.coding.clone().unwrap_or_else(|| "chosen by the size of the network".to_owned())),
        ("last change", or_nothing(status.written_at_ms)),
        (
            "changes",
            format!(
                "{} by {}",
                figures::grouped(status.heads_written),
                figures::count(status.devices as u64, "device", "devices")
            ),
        ),
        ("kept until", or_nothing(status.kept_until_ms)),
    ];
    columns(&rows.map(|(name, value)| vec![format!("{name}:"), value]), &[])
}
