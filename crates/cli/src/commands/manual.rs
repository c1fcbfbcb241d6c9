//! `openelm completions` and `openelm man`: the command as shells and `man` want it.

use std::io::{Write, stdout};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Command};
use clap_complete::Shell;

/// Print what makes a shell complete this command: its subcommands, options and values.
#[derive(Args)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

/// Print the manual page, or write those of all subcommands.
///
/// `openelm man | man -l -` shows it.
#[derive(Args)]
pub struct Man {
    /// A folder for the pages of the command and all its subcommands, for example ~/.local/share/man/man1
    #[arg(long, short, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

pub fn complete(arguments: &Completions, mut command: Command) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "openelm", &mut script);
    Ok(stdout().write_all(&script)?)
}

pub fn man(arguments: Man, command: Command) -> Result<()> {
    let Some(folder) = arguments.output else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        return Ok(stdout().write_all(&page)?);
    };
    let written = std::fs::create_dir_all(&folder).and_then(|()| clap_mangen::generate_to(command, &folder));
    written.with_context(|| folder.display().to_string())
}
