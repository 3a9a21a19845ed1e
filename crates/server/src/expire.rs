//! Old images leave the index (server spec, section 16.3). Their files stay until nothing has named
//! them for a while.

use system_image_formats::index::Index;
use system_image_formats::version::ImageVersion;

use crate::bases::fulls;

/// Keeps the `keep` newest full images, or all for 0: older ones go, and with them every delta from
/// or to one of them. Returns the versions that are gone.
pub fn expire(index: &mut Index, keep: u32) -> Vec<ImageVersion> {
    if keep == 0 {
        return Vec::new();
    }
    let gone: Vec<_> = fulls(index)
        .iter()
        .skip(keep as usize)
        .map(|image| image.version)
        .collect();
    index.images.retain(|image| {
        let base = image.kind.base();
        !gone.contains(&image.version) && base.is_none_or(|base| !gone.contains(&base))
    });
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(images: &[(u32, Option<u32>)]) -> Index {
        let images: Vec<_> = images
            .iter()
            .map(|(version, base)| match base {
                None => format!(r#"{{"type": "full", "version": {version}}}"#),
                Some(base) => {
                    format!(r#"{{"type": "delta", "version": {version}, "base": {base}}}"#)
                }
            })
            .collect();
        let text = format!(
            r#"{{"global": {{"generated_at": "Mon Dec 18 08:54:59 UTC 2017"}}, "images": [{}]}}"#,
            images.join(",")
        );
        Index::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn deltas_from_and_to_an_expired_version_go_with_it() {
        let mut now = index(&[
            (1, None),
            (2, None),
            (2, Some(1)),
            (3, None),
            (3, Some(2)),
            (3, Some(1)),
        ]);
        assert_eq!(expire(&mut now, 0), []);
        assert_eq!(expire(&mut now, 2), [ImageVersion::new(1)]);
        assert_eq!(now, index(&[(2, None), (3, None), (3, Some(2))]));
        assert_eq!(expire(&mut now, 2), []);
    }
}
