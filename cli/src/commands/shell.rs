//! `completions SHELL` and `man`: made from the definition of the command line, so they cannot drift from it.

use std::io::{self, Write};

use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use crate::{args, exit::Failure};

pub(super) fn completions(args: &args::Completions) -> Result<(), Failure> {
    // In memory first: the generator panics when its reader leaves.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::definition(), "commonhold", &mut script);
    print(&script)
}

pub(super) fn manual(args: &args::Man) -> Result<(), Failure> {
    print(&page(&args.command)?)
}

fn page(names: &[String]) -> Result<Vec<u8>, Failure> {
    let mut program = args::definition().disable_help_subcommand(true);
    program.build();
    let mut command = &program;
    for name in names {
        let unknown = || Failure::NoSuchCommand { name: names.join(" ") };
        command = command.get_subcommands().find(|command| command.get_name() == name).ok_or_else(unknown)?;
    }
    let title = std::iter::once("commonhold").chain(names.iter().map(String::as_str)).collect::<Vec<_>>().join("-");
    let manual = Man::new(command.clone()).title(title.to_uppercase()).manual("commonhold");
    let mut page = Vec::new();
    write_page(&manual, command.has_subcommands(), &mut page).map_err(Failure::Output)?;
    Ok(page)
}

/// As `Man::render`, but with the tables of the help as lists: a page would run their lines together.
fn write_page(manual: &Man, has_subcommands: bool, page: &mut Vec<u8>) -> io::Result<()> {
    manual.render_title(page)?;
    manual.render_name_section(page)?;
    manual.render_synopsis_section(page)?;
    manual.render_description_section(page)?;
    manual.render_options_section(page)?;
    if has_subcommands {
        manual.render_subcommands_section(page)?;
    }
    let mut lists = Roff::new();
    for (heading, rows) in [("EXIT STATUS", &args::EXIT_CODES[..]), ("ENVIRONMENT", &args::ENVIRONMENT[..])] {
        lists.control("SH", [heading]);
        for (name, text) in rows {
            lists.control("TP", []).text([bold(*name)]).text([roman(*text)]);
        }
    }
    lists.to_writer(page)
}

fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(Failure::Output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_the_program_and_for_each_command() {
        let text = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            page(&names).map(|page| String::from_utf8(page).expect("text"))
        };
        let whole = text(&[]).expect("a page");
        for part in ["COMMONHOLD_PASSPHRASE", "EXIT STATUS", "put"] {
            assert!(whole.contains(part), "{part}");
        }
        assert!(text(&["node", "run"]).expect("a page").contains("SIGTERM"));
        assert!(matches!(text(&["nothing"]), Err(Failure::NoSuchCommand { .. })));
    }
}
