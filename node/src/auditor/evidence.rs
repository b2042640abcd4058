//! Evidence on the disk: signed wrong answers, one file each, bounded.

use std::{fs, io, path::Path};

use commonhold_protocol::{
    NodeId,
    ask::{Request, Response},
};

use super::{Auditor, Evidence};

/// The most that is kept; what comes then is only counted.
const FILES_MAX: usize = 1024;

impl Auditor {
    pub(super) fn keep_evidence(&self, node: NodeId, evidence: Evidence) {
        let folder = self.parts.folder.clone();
        let keep = move || {
            if let Err(error) = write(&folder, node, &evidence) {
                tracing::warn!(%error, folder = %folder.display(), "evidence cannot be kept");
            }
        };
        self.parts.tasks.spawn_blocking(keep);
    }
}

/// `NODE-HASH.challenge`, `.answer` and `.manifest-I`: messages as they travelled.
fn write(folder: &Path, node: NodeId, evidence: &Evidence) -> io::Result<()> {
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
