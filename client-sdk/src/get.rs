//! From the vault to this machine: plan what is needed next, fetch it ahead, open it and write it in order.

use std::{
    io::Write,
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use bytes::Bytes;
use commonhold_storage_engine::tree::{
    ChunkSource,
    entry::{Entry, EntryKind, FileContent},
    file::{self, Extent},
};

use crate::{
    error::{Error, IoContext},
    progress::Progress,
    put::EntryCounts,
    reader::{ContentSource, Reader},
    restore::{NotRestored, OpenFile, OpenFolder, Restorer},
};
use plan::{Planner, Step};

mod plan;

/// How a get is done.
#[derive(Debug, Clone, Copy, Default)]
pub struct GetOptions {
    /// Replace files that are there; enter folders that are there.
    pub overwrite: bool,
}

/// What a get did.
#[derive(Debug, Clone, serde::Serialize)]
pub struct GetReport {
    /// What was restored.
    pub entries: EntryCounts,
    /// Bytes of file contents.
    pub bytes: u64,
    /// What could not be restored of it (owners, attributes, devices): the first 10,000.
    pub not_restored: Vec<NotRestored>,
    /// How much could not be restored of it, in all.
    pub not_restored_total: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Restores `entry` as `target`.
pub(crate) fn get<S: ContentSource>(
    source: &S,
    entry: &Entry,
    target: &Path,
    options: &GetOptions,
    progress: &Arc<Progress>,
) -> Result<GetReport, Error> {
    let start = std::time::Instant::now();
    let target = std::path::absolute(target).doing("find", target)?;
    let no_name = || Error::TargetExists { path: target.clone() };
    let name = target.file_name().ok_or_else(no_name)?.to_owned();
    if !options.overwrite && target.symlink_metadata().is_ok() {
        return Err(Error::TargetExists { path: target });
    }
    let parent = target.parent().unwrap_or(Path::new("/"));
    let (restorer, parent) = Restorer::open(parent, options.overwrite)?;
    if entry.directory().is_none() {
        restorer.clear_drafts(&parent);
    }
    let mut writer =
        Writer { restorer, folders: vec![parent], file: None, counts: EntryCounts::default(), bytes: 0, progress };
    let plan = |planner: &mut Planner<'_, S>| planner.entry(name, entry.clone());
    let written = plan::run(source, progress, plan, |step, bytes| writer.step(step, &bytes));
    if let (Some(file), Some(folder)) = (writer.file.take(), writer.folders.last()) {
        writer.restorer.discard(folder, &file);
    }
    written?;
    let (not_restored, not_restored_total) = writer.restorer.into_not_restored();
    Ok(GetReport {
        entries: writer.counts,
        bytes: writer.bytes,
        not_restored,
        not_restored_total,
        seconds: start.elapsed().as_secs_f64(),
    })
}

struct Writer<'p> {
    restorer: Restorer,
    folders: Vec<OpenFolder>,
    file: Option<OpenFile>,
    counts: EntryCounts,
    bytes: u64,
    progress: &'p Progress,
}

impl Writer<'_> {
    fn step(&mut self, step: Step, bytes: &[u8]) -> Result<(), Error> {
        let parent = self.folders.last().ok_or(Error::Stopped)?;
        match step {
            Step::Enter(name, entry) => {
                let folder = self.restorer.folder(parent, &name)?;
                self.folders.push(folder);
                self.counts.count(&entry.kind);
            }
            Step::Leave(entry) => {
                if let Some(folder) = self.folders.pop() {
                    self.restorer.finish_folder(&folder, &entry);
                }
                self.done(1, 0);
            }
            Step::File(name, entry) => {
                self.counts.count(&entry.kind);
                let file = self.file.insert(self.restorer.file(parent, &name, &entry)?);
                if let EntryKind::File(FileContent::Inline(inline)) = &entry.kind {
                    file.write(inline)?;
                    self.done(0, inline.len() as u64);
                }
            }
            Step::Link(name, entry) => {
                self.counts.count(&entry.kind);
                self.restorer.link(parent, &name, &entry)?;
                self.done(1, 0);
            }
            Step::Data(_) => {
                self.file.as_mut().ok_or(Error::Stopped)?.write(bytes)?;
                self.done(0, bytes.len() as u64);
            }
            Step::Hole(bytes) => {
                self.file.as_mut().ok_or(Error::Stopped)?.skip(bytes);
                self.done(0, bytes);
            }
            Step::EndFile(entry) => {
                let file = self.file.as_ref().ok_or(Error::Stopped)?;
                self.restorer.finish_file(parent, file, &entry)?;
                self.file = None;
                self.done(1, 0);
            }
            Step::Special(name, entry) => {
                self.counts.count(&entry.kind);
                self.restorer.special(parent, &name, &entry)?;
                self.done(1, 0);
            }
        }
        Ok(())
    }

    fn done(&mut self, entries: u64, bytes: u64) {
        self.bytes += bytes;
        Progress::add(&self.progress.entries_done, entries);
        Progress::add(&self.progress.bytes_done, bytes);
    }
}

/// Writes the bytes `range` of a file to `out`, as far as there are any.
pub(crate) fn cat<S: ContentSource>(
    source: &S,
    content: &FileContent,
    range: Range<u64>,
    out: &mut dyn Write,
    progress: &Arc<Progress>,
) -> Result<u64, Error> {
    let range = range.start..range.end.min(content.length());
    if range.is_empty() {
        return Ok(0);
    }
    let root = match content {
        FileContent::Inline(bytes) => {
            let part = &bytes[range.start as usize..range.end as usize];
            out.write_all(part).map_err(Error::Output)?;
            return Ok(part.len() as u64);
        }
        FileContent::Chunks(root) => root,
    };
    progress.bytes_total.fetch_add(range.end - range.start, Ordering::Relaxed);
    // The first extent may begin before the range; the planner, which finds it, is another thread.
    let first = Mutex::new(None);
    let plan = |planner: &mut Planner<'_, S>| {
        for extent in file::extents(planner.source, root, range.start) {
            let (offset, extent) = extent?;
            if offset >= range.end {
                break;
            }
            first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(offset);
            match extent {
                Extent::Data(chunk) => planner.push(Step::Data(chunk))?,
                Extent::Hole(bytes) => planner.push(Step::Hole(bytes))?,
            }
        }
        Ok(())
    };
    let mut at: Option<u64> = None;
    let mut written = 0;
    plan::run(source, progress, plan, |step, bytes| {
        let start = *at.get_or_insert_with(|| first.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(0));
        if let Step::Hole(bytes) = step {
            let end = start + bytes;
            let zeros = range.end.min(end).saturating_sub(range.start.max(start));
            write_zeros(out, zeros, progress)?;
            written += zeros;
            at = Some(end);
            return Ok(());
        }
        let end = start + bytes.len() as u64;
        let part = &bytes[clamp(&range, start, end)];
        out.write_all(part).map_err(Error::Output)?;
        written += part.len() as u64;
        Progress::add(&progress.bytes_done, part.len() as u64);
        at = Some(end);
        Ok(())
    })?;
    Ok(written)
}

/// The part of `start..end` that lies in `range`, counted from `start`.
fn clamp(range: &Range<u64>, start: u64, end: u64) -> Range<usize> {
    let from = range.start.clamp(start, end) - start;
    let to = range.end.clamp(start, end) - start;
    from as usize..to as usize
}

/// A hole can be far longer than anybody wants to wait.
fn write_zeros(out: &mut dyn Write, mut bytes: u64, progress: &Progress) -> Result<(), Error> {
    let zeros = [0; 64 << 10];
    while bytes > 0 {
        progress.check()?;
        let part = bytes.min(zeros.len() as u64);
        out.write_all(&zeros[..part as usize]).map_err(Error::Output)?;
        Progress::add(&progress.bytes_done, part);
        bytes -= part;
    }
    Ok(())
}

/// A file that is read here and there.
pub struct OpenedFile {
    reader: Reader,
    content: FileContent,
}

impl OpenedFile {
    pub(crate) fn new(reader: Reader, content: FileContent) -> Self {
        Self { reader, content }
    }

    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        self.content.length()
    }

    /// The bytes from `offset` on, at most `length`, fewer only at the end: fetches the chunks that hold them and their
    /// proofs, nothing else.
    pub fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, Error> {
        read_at(&self.reader, &self.content, offset, length)
    }
}

/// The bytes of a file from `offset` on, at most `length`, fewer only at the end.
pub(crate) fn read_at<S>(source: &S, content: &FileContent, offset: u64, length: usize) -> Result<Bytes, Error>
where
    S: ChunkSource<Error = Error>,
{
    let range = offset..offset.saturating_add(length as u64).min(content.length());
    if range.is_empty() {
        return Ok(Bytes::new());
    }
    let root = match content {
        FileContent::Inline(bytes) => return Ok(bytes.slice(range.start as usize..range.end as usize)),
        FileContent::Chunks(root) => root,
    };
    let mut read = Vec::with_capacity(length.min(1 << 20));
    for extent in file::extents(source, root, range.start) {
        let (start, extent) = extent?;
        if start >= range.end {
            break;
        }
        let end = start + extent.length();
        match extent {
            Extent::Data(chunk) => read.extend_from_slice(&source.get(&chunk)?[clamp(&range, start, end)]),
            Extent::Hole(_) => read.resize(read.len() + clamp(&range, start, end).len(), 0),
        }
    }
    Ok(read.into())
}

#[cfg(test)]
mod tests;
