//! The original's score of a path and its order of ties (client spec, section 11).

use system_image_formats::version::ImageVersion;

use crate::graph::Path;

const MIB: u64 = 1 << 20;

/// One reboot costs as much as downloading 100 MiB.
const REBOOT: u64 = 100;

/// One version short of the newest costs as much as downloading 9001 MiB.
const VERSION_SHORT: u64 = 9001;

/// Scores the paths, whose ends `end` tells, and sorts them: lowest score first, then those that
/// start with a full image, then fewer bytes, fewer images, lower versions.
pub(crate) fn rank(paths: Vec<Path>, version: impl Fn(usize) -> ImageVersion) -> Vec<(u64, Path)> {
    let end = |path: &Path| path.images.last().map_or(0, |last| version(*last).get());
    let newest = paths.iter().map(end).max().unwrap_or(0);
    let smallest = paths.iter().map(|path| path.size).min().unwrap_or(0);
    let mut ranked: Vec<_> = paths
        .into_iter()
        .map(|path| {
            let distance = u64::from(newest - end(&path));
            let score = (path.reboots.saturating_mul(REBOOT))
                .saturating_add((path.size - smallest) / MIB)
                .saturating_add(distance.saturating_mul(VERSION_SHORT));
            (score, path)
        })
        .collect();
    ranked.sort_by(|(a_score, a), (b_score, b)| {
        (a_score, !a.from_full, a.size, a.images.len())
            .cmp(&(b_score, !b.from_full, b.size, b.images.len()))
            .then_with(|| {
                let versions = |path: &Path| path.images.iter().map(|at| version(*at)).collect();
                let (a, b): (Vec<_>, Vec<_>) = (versions(a), versions(b));
                a.cmp(&b)
            })
    });
    ranked
}
