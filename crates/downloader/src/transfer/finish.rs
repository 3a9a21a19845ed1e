//! What is done with a file when all of it is there (specification, sections 10 and 16).

use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use system_image_durable as durable;
use system_image_fetch::{FetchError, Place, Received};
use tokio::task::spawn_blocking;

use super::bring::failure_of;
use super::{command, unpack};
use crate::job::failure::Failure;
use crate::job::names;

/// What is done after it is in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// Nothing.
    Nothing,
    /// A command gets it; then it is deleted.
    Command(Vec<String>),
    /// A command is wanted that may not be run.
    Forbidden,
    /// It is unpacked into its directory; then it is deleted.
    Unpack,
}

/// Puts a file in its place and does what is wanted with it. Returns the path to tell.
///
/// An `exact` destination is taken or nothing; another gets a number when somebody has been faster.
pub async fn finish(
    mut received: Received,
    mut destination: Utf8PathBuf,
    exact: bool,
    after: After,
) -> Result<Utf8PathBuf, Failure> {
    if after == After::Forbidden {
        let _ = durable::remove(received.part());
        return Err(Failure::not_run("commands are not run for this caller"));
    }
    loop {
        match received.place(&destination, Place::New).await {
            Ok(_) => break,
            Err(FetchError::Exists { .. }) if !exact => {
                destination = names::free(&destination, is_there);
            }
            Err(error) => return Err(failure_of(&error)),
        }
    }
    match after {
        After::Nothing | After::Forbidden => Ok(destination),
        After::Command(words) => {
            let ran = command::run(&words, &destination).await?;
            durable::remove(&destination).map_err(|error| disk(&destination, &error))?;
            ran.map(|()| destination)
        }
        After::Unpack => unpacked(destination).await,
    }
}

/// Whether something has that name, whatever it is.
pub fn is_there(path: &Utf8Path) -> bool {
    path.symlink_metadata().is_ok()
}

async fn unpacked(archive: Utf8PathBuf) -> Result<Utf8PathBuf, Failure> {
    let directory = archive.parent().unwrap_or(Utf8Path::new("/")).to_owned();
    let into = directory.clone();
    let unpacked = spawn_blocking(move || {
        unpack::unpack(&archive, &into)?;
        durable::remove(&archive)
    });
    match unpacked.await {
        Ok(Ok(())) => Ok(directory),
        Ok(Err(error)) => Err(disk(&directory, &error)),
        Err(error) => Err(Failure::not_run(error.to_string())),
    }
}

/// What the disk said.
pub fn disk(path: &Utf8Path, error: &io::Error) -> Failure {
    let number = error.raw_os_error().unwrap_or_default();
    Failure::disk(number, format!("{error}: {path}"))
}
