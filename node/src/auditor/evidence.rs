//! Evidence on the disk: signed wrong answers, a folder each, bounded.

use std::{fs, io, path::Path};

use commonhold_protocol::{
    NodeId,
    ask::{Request, Response},
};

use super::Evidence;

/// The most that is kept; what comes then is only counted.
const FILES_MAX: usize = 1024;

/// A folder `NODE-HASH` with `challenge`, `answer` and `manifest-I`: messages as they travelled.
pub(super) fn keep(folder: &Path, node: NodeId, evidence: &Evidence) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    if fs::read_dir(folder)?.count() >= FILES_MAX {
        return Ok(());
    }
    let hash = hex::encode(&evidence.challenge.hash()[..8]);
    let own = folder.join(format!("{node:#}-{hash}"));
    fs::create_dir_all(&own)?;
    fs::write(own.join("challenge"), Request::Audit(evidence.challenge.clone()).to_bytes())?;
    for (number, manifest) in evidence.manifests.iter().enumerate() {
        fs::write(own.join(format!("manifest-{number}")), manifest.to_bytes())?;
    }
    fs::write(own.join("answer"), Response::Audited(evidence.answer.clone()).to_bytes())
}
