//! What goes to stdout: results, as lines or as JSON. Remarks go to stderr.
//!
//! Nothing here panics when the reader goes away: that is an error like any other, which ends the command quietly.

use std::io::{self, BufWriter, IsTerminal, Write};

use serde::Serialize;

use crate::{escape, exit::Failure};

/// How results are to be printed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
}

impl Output {
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
    }

    /// JSON was asked for.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Progress is to be shown.
    pub(crate) fn shows_progress(&self) -> bool {
        !self.json && !self.quiet
    }

    /// One JSON value on a line of its own.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, value).map_err(|error| Failure::Output(error.into()))?;
        out.write_all(b"\n").and_then(|()| out.flush()).map_err(Failure::Output)
    }

    /// A line of text.
    pub(crate) fn line(&self, text: impl AsRef<str>) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", text.as_ref()).and_then(|()| out.flush()).map_err(Failure::Output)
    }

    /// The report of what was done: JSON, or lines unless they are not wanted.
    pub(crate) fn done(&self, value: &impl Serialize, lines: impl FnOnce() -> Vec<String>) -> Result<(), Failure> {
        match (self.json, self.quiet) {
            (true, _) => self.json(value),
            (false, true) => Ok(()),
            (false, false) => lines().iter().try_for_each(|line| self.line(line)),
        }
    }

    /// Facts that were asked for: JSON or lines, whatever `--quiet` says.
    pub(crate) fn facts(&self, value: &impl Serialize, lines: impl FnOnce() -> Vec<String>) -> Result<(), Failure> {
        if self.json { self.json(value) } else { lines().iter().try_for_each(|line| self.line(line)) }
    }

    /// A remark on stderr.
    pub(crate) fn remark(&self, text: &str) {
        if self.shows_progress() {
            // Nobody to tell is no reason to fail.
            let _ = writeln!(io::stderr(), "{}", escape::text(text));
        }
    }

    /// Something that is not as it should be, on stderr, though the command goes on.
    pub(crate) fn warning(&self, text: &str) {
        if !self.json {
            let _ = writeln!(io::stderr(), "warning: {}", escape::text(text));
        }
    }

    /// Starts a list that is printed as it comes.
    pub(crate) fn list(&self) -> List {
        List { json: self.json, out: BufWriter::with_capacity(64 << 10, io::stdout()), started: false }
    }
}

/// True if a person is likely to read stderr.
pub(crate) fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// A list of any length: a JSON array with an item a line, or lines.
pub(crate) struct List {
    json: bool,
    out: BufWriter<io::Stdout>,
    started: bool,
}

impl List {
    /// The next item.
    pub(crate) fn item(&mut self, value: &impl Serialize, line: impl FnOnce() -> String) -> io::Result<()> {
        if !self.json {
            return writeln!(self.out, "{}", line());
        }
        self.out.write_all(if self.started { b",\n" } else { b"[\n" })?;
        self.started = true;
        serde_json::to_writer(&mut self.out, value).map_err(io::Error::from)
    }

    /// The end of the list.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        let end: &[u8] = match (self.json, self.started) {
            (false, _) => b"",
            (true, true) => b"\n]\n",
            (true, false) => b"[]\n",
        };
        self.out.write_all(end).and_then(|()| self.out.flush()).map_err(Failure::Output)
    }
}

/// Columns, each as wide as its widest cell; those named in `right` are flush right.
pub(crate) fn columns(rows: &[Vec<String>], right: &[usize]) -> Vec<String> {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let padding = " ".repeat(widths[column] - cell.chars().count());
            if right.contains(&column) { format!("{padding}{cell}") } else { format!("{cell}{padding}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["a", "1", "x"], ["long", "200", "y"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(columns(&rows, &[1]), ["a       1  x", "long  200  y"]);
    }
}
