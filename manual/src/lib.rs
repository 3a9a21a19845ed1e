//! Man pages and completions, made of the same definitions as the command lines themselves.
//!
//! A program of its own, so that what runs on a device carries none of it.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_complete::{Shell, generate_to};

/// The shells that get completions.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Fish, Shell::Zsh];

/// The command lines of all programs.
pub fn programs() -> [Command; 3] {
    [
        system_image_server::commands::Cli::command(),
        system_image_client::cli::command(),
        system_image_upgrader::cli::Cli::command(),
    ]
}

/// The names of a command's man pages without `.1`: its own, and one for each subcommand, which is
/// the words of the command with `-` between them.
pub fn pages(command: &Command) -> Vec<String> {
    fn add(command: &Command, name: &str, names: &mut Vec<String>) {
        names.push(name.to_owned());
        for subcommand in command.get_subcommands().filter(|one| !one.is_hide_set()) {
            add(
                subcommand,
                &format!("{name}-{}", subcommand.get_name()),
                names,
            );
        }
    }
    let mut names = Vec::new();
    add(command, command.get_name(), &mut names);
    names
}

/// Writes `man/man1/*.1` and `completions/{bash,fish,zsh}/*` below `directory`.
///
/// # Errors
/// When a file cannot be written.
pub fn write(directory: &Path) -> io::Result<()> {
    let man = directory.join("man/man1");
    fs::create_dir_all(&man)?;
    for program in programs() {
        // `help` explains what the pages do, and would have a page for each of them.
        clap_mangen::generate_to(program.clone().disable_help_subcommand(true), &man)?;
        for shell in SHELLS {
            let place = directory.join("completions").join(shell.to_string());
            fs::create_dir_all(&place)?;
            let name = program.get_name().to_owned();
            generate_to(shell, &mut program.clone(), name, place)?;
        }
    }
    Ok(())
}
