//! A file that was received whole, before it is at its place.

use camino::{Utf8Path, Utf8PathBuf};

use crate::digest::Digest;
use crate::disk::Disk;
use crate::error::FetchError;
use crate::request::{Fetched, Place};

/// A whole file whose digest was checked, still under its temporary name, and locked there.
///
/// Dropped, it stays there, and the next attempt finds it whole.
#[derive(Debug)]
#[must_use]
pub struct Received {
    /// Its size, in bytes.
    pub size: u64,
    /// Bytes that came over the network for it, in this call.
    pub transferred: u64,
    /// Its digest, if one was known or asked for, computed from what was written.
    pub digest: Option<Digest>,
    /// What the server says that it is: the header `Content-Type`, whole.
    pub content_type: Option<String>,
    /// How the server calls it (`Content-Disposition`): one element of a path, which is neither
    /// empty nor `.` nor `..`.
    pub name: Option<String>,
    pub(crate) part: Utf8PathBuf,
    pub(crate) disk: Disk,
}

impl Received {
    /// Where it is now.
    pub fn part(&self) -> &Utf8Path {
        &self.part
    }

    /// Makes it durable and puts it at `destination`, which must be on the same file system. Its name
    /// is durable too when this returns. After an error it is still where it was, so that another
    /// name can be tried; after success there is nothing to place any more.
    ///
    /// # Errors
    /// [`FetchError::Exists`] if there is such a name already and it is to be a new one, besides
    /// those of the disk.
    pub async fn place(
        &mut self,
        destination: &Utf8Path,
        how: Place,
    ) -> Result<Fetched, FetchError> {
        let path = destination.to_owned();
        self.disk.run(move |sink| sink.place(&path, how)).await?;
        Ok(Fetched {
            path: destination.to_owned(),
            size: self.size,
            digest: self.digest.clone(),
            transferred: self.transferred,
        })
    }
}
