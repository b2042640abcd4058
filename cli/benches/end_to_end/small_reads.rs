//! Random reads of 4 KiB: in a session that is open, as a mounted drive would, and by a command of their own.

use std::{fs::File, os::unix::fs::FileExt, time::Instant};

use commonhold_client_sdk::{Home, OpenOptions, Vault, VaultPath};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    Failure, Settings,
    content::Content,
    local_network::{LocalNetwork, PASSPHRASE},
    report::{Aim, Report, Row},
    step,
};

const READ_BYTES: u64 = 4096;
const COLD_READS: usize = 9;
const WARM_MS_MAX: f64 = 10.0;

/// Reads from the large file that does not compress, which is stored at `/noise`.
pub(crate) fn measure(
    settings: &Settings,
    network: &LocalNetwork,
    content: &Content,
    report: &mut Report,
) -> Result<(), Failure> {
    step("random reads");
    let source = File::open(&content.noise)?;
    let mut random = StdRng::seed_from_u64(11);
    let last = settings.large_bytes.saturating_sub(READ_BYTES);
    let check = |offset: u64, read: &[u8]| {
        let mut wanted = vec![0; READ_BYTES.min(settings.large_bytes) as usize];
        source.read_exact_at(&mut wanted, offset)?;
        if wanted == read { Ok(()) } else { Err(Failure::from(format!("wrong bytes at {offset}"))) }
    };

    let vault = Vault::open(&Home::at(network.home()), PASSPHRASE, &OpenOptions::default())?;
    let started = Instant::now();
    let file = vault.open_file(&VaultPath::parse("/noise".as_ref())?)?;
    check(0, &file.read_at(0, READ_BYTES as usize)?)?;
    let first = milliseconds(started);
    let mut warm = Vec::with_capacity(settings.reads);
    for _ in 0..settings.reads {
        let offset = random.random_range(0..=last);
        let started = Instant::now();
        let read = file.read_at(offset, READ_BYTES as usize)?;
        warm.push(milliseconds(started));
        check(offset, &read)?;
    }
    drop((file, vault));

    let mut cold = Vec::with_capacity(COLD_READS);
    for _ in 0..COLD_READS {
        let offset = random.random_range(0..=last);
        let ran = network.client(|command| {
            command.args(["cat", "/noise", "--offset", &offset.to_string(), "--length", &READ_BYTES.to_string()]);
        })?;
        cold.push(ran.seconds * 1e3);
        check(offset, &ran.output)?;
    }

    let section = "small reads";
    warm.sort_by(f64::total_cmp);
    cold.sort_by(f64::total_cmp);
    report.push(Row::new(section, "first byte of a large file, open session", first, "ms"));
    let median = Row::new(section, "4 KiB, open session, median", warm[warm.len() / 2], "ms");
    report.push(median.aim(Some(Aim::AtMost(WARM_MS_MAX))));
    report.push(Row::new(section, "4 KiB, open session, 99th of 100", warm[warm.len() * 99 / 100], "ms"));
    report.push(Row::new(section, "4 KiB, cold command, median", cold[cold.len() / 2], "ms"));
    report.push(Row::new(section, "4 KiB, cold command, worst", cold[cold.len() - 1], "ms"));
    Ok(())
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
