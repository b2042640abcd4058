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
    vault.close();
    output.facts(&status, || lines(&status))
}

fn lines(status: &VaultStatus) -> Vec<String> {
    let date =
        |moment: commonhold_protocol::Timestamp| figures::date(i64::try_from(moment.0 / 1000).unwrap_or(i64::MAX));
    let rows = [
        ("vault", format!("{:#}", status.vault)),
        ("network", status.network.clone()),
        ("nodes reachable", figures::grouped(status.nodes_reachable as u64)),
        ("content", format!("{} in {}", figures::size(status.bytes), figures::count(status.files, "file", "files"))),
        ("segments", figures::grouped(status.segments as u64)),
        ("coding", status.coding.clone().unwrap_or_else(|| "too few nodes to store".to_owned())),
        ("kept until", status.lease.map_or_else(|| "nothing is stored yet".to_owned(), date)),
    ];
    columns(&rows.map(|(name, value)| vec![format!("{name}:"), value]), &[])
}
