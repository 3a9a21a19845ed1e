//! Android's boot images: a header page, then kernel, ramdisk and more, each on pages of its own.

use anyhow::ensure;

/// Where the header's fields are, in bytes.
const KERNEL_SIZE: usize = 8;
const RAMDISK_SIZE: usize = 16;
const PAGE_SIZE: usize = 36;

/// Length of what is read of the header.
const HEADER: usize = 608;

/// The size that a recovery has afterwards, in bytes (server spec, section 18.1).
const LIMIT: usize = 0x90_0000;

/// A boot image, cut at its ramdisk.
#[derive(Debug)]
pub(super) struct BootImage<'a> {
    /// Header and kernel.
    before: &'a [u8],
    ramdisk: &'a [u8],
    /// What comes on the pages behind the ramdisk.
    after: &'a [u8],
    page: usize,
}

impl<'a> BootImage<'a> {
    /// Reads an image; `None` when it is none.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() < HEADER || !bytes.starts_with(b"ANDROID!") {
            return None;
        }
        let word = |at: usize| {
            let word = u32::from_le_bytes(bytes[at..at + 4].try_into().ok()?);
            usize::try_from(word).ok()
        };
        let page = word(PAGE_SIZE)?;
        if !page.is_power_of_two() || !(512..=65_536).contains(&page) {
            return None;
        }
        let start = page.checked_add(word(KERNEL_SIZE)?.checked_next_multiple_of(page)?)?;
        let end = start.checked_add(word(RAMDISK_SIZE)?)?;
        let after = end.checked_next_multiple_of(page)?;
        Some(Self {
            before: bytes.get(..start)?,
            ramdisk: bytes.get(start..end)?,
            after: bytes.get(after..).unwrap_or_default(),
            page,
        })
    }

    /// The ramdisk as it is packed.
    pub(super) fn ramdisk(&self) -> &'a [u8] {
        self.ramdisk
    }

    /// The image with another ramdisk, as long as recoveries are.
    pub(super) fn with_ramdisk(&self, ramdisk: &[u8]) -> anyhow::Result<Vec<u8>> {
        let used = self
            .after
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        let mut image = self.before.to_vec();
        let size = u32::try_from(ramdisk.len())?.to_le_bytes();
        image[RAMDISK_SIZE..RAMDISK_SIZE + 4].copy_from_slice(&size);
        image.extend_from_slice(ramdisk);
        image.resize(image.len().next_multiple_of(self.page), 0);
        image.extend_from_slice(&self.after[..used]);
        ensure!(
            image.len() <= LIMIT,
            "the recovery has {} bytes with the keyring, {LIMIT} are the most",
            image.len()
        );
        image.resize(LIMIT, 0);
        Ok(image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(kernel: &[u8], ramdisk: &[u8], second: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 2048];
        image[..8].copy_from_slice(b"ANDROID!");
        let sizes = [
            (8, kernel.len()),
            (16, ramdisk.len()),
            (24, second.len()),
            (36, 2048),
        ];
        for (at, size) in sizes {
            image[at..at + 4].copy_from_slice(&u32::try_from(size).unwrap().to_le_bytes());
        }
        for part in [kernel, ramdisk, second] {
            image.extend(part);
            image.resize(image.len().next_multiple_of(2048), 0);
        }
        image
    }

    #[test]
    fn only_the_ramdisk_changes() {
        let old = image(&[1; 3000], &[2; 100], &[3; 5000]);
        let parsed = BootImage::parse(&old).unwrap();
        assert_eq!(parsed.ramdisk(), [2; 100]);
        let new = parsed.with_ramdisk(&[4; 2500]).unwrap();
        let want = image(&[1; 3000], &[4; 2500], &[3; 5000]);
        assert_eq!((&new[..want.len()], new.len()), (&want[..], LIMIT));
        assert!(parsed.with_ramdisk(&vec![4; LIMIT]).is_err());
        for len in [0, 100, 2048, 5000] {
            assert!(BootImage::parse(&old[..len]).is_none(), "{len}");
        }
    }
}
