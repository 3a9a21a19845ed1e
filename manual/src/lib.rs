//! Man pages and completions, made of the same definitions as the command lines and the
//! configuration themselves.
//!
//! A program of its own, so that what runs on a device carries none of it.

pub mod configuration;

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_complete::{Shell, generate_to};

/// The shells that get completions.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Fish, Shell::Zsh];

/// The command lines of all programs.
pub fn programs() -> [Command; 5] {
    [
        system_image_server::commands::Cli::command(),
        system_image_client::cli::command(),
        system_image_client::daemon::command(),
        system_image_downloader::cli::command(),
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

/// The section of a program's pages: what runs by itself is in 8.
pub fn section(program: &Command) -> &'static str {
    match program.get_name() {
        "system-image-dbus" => "8",
        _ => "1",
    }
}

/// Writes `man/man*/*` and `completions/{bash,fish,zsh}/*` below `directory`.
///
/// # Errors
/// When a file cannot be written.
pub fn write(directory: &Path) -> io::Result<()> {
    for program in programs() {
        let section = section(&program);
        let man = directory.join(format!("man/man{section}"));
        fs::create_dir_all(&man)?;
        if section == "1" {
            // `help` explains what the pages do, and would have a page for each of them.
            clap_mangen::generate_to(program.clone().disable_help_subcommand(true), &man)?;
        } else {
            let name = format!("{}.{section}", program.get_name());
            let mut page = fs::File::create(man.join(name))?;
            clap_mangen::Man::new(program.clone())
                .section(section)
                .render(&mut page)?;
        }
        for shell in SHELLS {
            let place = directory.join("completions").join(shell.to_string());
            fs::create_dir_all(&place)?;
            let name = program.get_name().to_owned();
            generate_to(shell, &mut program.clone(), name, place)?;
        }
    }
    let section = configuration::SECTION;
    let man = directory.join(format!("man/man{section}"));
    fs::create_dir_all(&man)?;
    let mut page = fs::File::create(man.join(format!("{}.{section}", configuration::NAME)))?;
    configuration::page().to_writer(&mut page)
}
