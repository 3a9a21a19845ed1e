//! The search: versions are nodes, deltas are edges, full images and the installed version are
//! where it starts (client spec, section 10 and the note on Q2).
//!
//! The original lists every path there is, which doubles with each version. Here each version
//! keeps only the ways to it that no other beats, so 5,000 images take milliseconds. Deltas that
//! do not lead upward are left out, so there is no cycle and versions are visited in order.

use std::collections::{BTreeMap, BTreeSet};

use system_image_formats::index::ImageKind;
use system_image_formats::outline::ImageOutline;
use system_image_formats::version::ImageVersion;

use crate::{Filter, ImageVerdict};

/// A way to a version: what it costs, and the images back to its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    /// Images that must be booted, so far.
    reboots: u64,
    /// Bytes, so far.
    size: u64,
    /// Images, so far.
    images: usize,
    /// The last image, as an index into [`Graph::images`].
    last: usize,
    /// The way that `last` extends, as an index into [`Graph::ways`].
    before: Option<usize>,
    /// Whether it starts with a full image.
    from_full: bool,
}

/// A complete path: its images and cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    /// Indexes into the list of images.
    pub(crate) images: Vec<usize>,
    pub(crate) reboots: u64,
    pub(crate) size: u64,
    pub(crate) from_full: bool,
}

/// The ways found so far.
pub(crate) struct Graph<'a> {
    images: &'a [ImageOutline],
    ways: Vec<Way>,
    /// The ways to each version that no other beats.
    best: BTreeMap<ImageVersion, Vec<usize>>,
    verdicts: Vec<ImageVerdict>,
}

impl<'a> Graph<'a> {
    /// Finds, for each version, the ways to it that no other beats.
    pub(crate) fn search(
        images: &'a [ImageOutline],
        installed: ImageVersion,
        filter: Option<Filter>,
        uses_patches: &dyn Fn(&ImageOutline) -> bool,
    ) -> Self {
        let mut graph = Self {
            images,
            ways: Vec::new(),
            best: BTreeMap::new(),
            verdicts: vec![ImageVerdict::Usable; images.len()],
        };
        let deltas = graph.sort_out(installed, filter);
        graph.roots(installed, filter, uses_patches);
        if filter != Some(Filter::Full) {
            graph.extend(&deltas);
        }
        graph.tell_unreached(installed);
        graph
    }

    /// What became of each image, in the order of the index.
    pub(crate) fn verdicts(&self) -> &[ImageVerdict] {
        &self.verdicts
    }

    /// The complete paths worth a comparison: for each version that no delta leads on from and
    /// each image that ends there, those that no other beats.
    pub(crate) fn paths(&self, filter: Option<Filter>) -> Vec<Path> {
        let bases: BTreeSet<_> = match filter {
            // A path is cut to its full image, wherever that would have led.
            Some(Filter::Full) => BTreeSet::new(),
            _ => self
                .usable()
                .filter_map(|(_, image)| image.kind.base())
                .collect(),
        };
        self.best
            .iter()
            .filter(|(version, _)| !bases.contains(version))
            .flat_map(|(_, ways)| ways.iter().map(|way| self.path(*way)))
            .collect()
    }

    fn usable(&self) -> impl Iterator<Item = (usize, &'a ImageOutline)> {
        self.images
            .iter()
            .enumerate()
            .filter(|(at, _)| self.verdicts[*at] == ImageVerdict::Usable)
    }

    /// Gives a verdict to each image that can be no part of any path. Returns the deltas by base.
    fn sort_out(
        &mut self,
        installed: ImageVersion,
        filter: Option<Filter>,
    ) -> BTreeMap<ImageVersion, Vec<usize>> {
        let mut deltas: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (at, image) in self.images.iter().enumerate() {
            let first = seen.insert((image.kind.base(), image.version));
            self.verdicts[at] = match image.kind {
                _ if !first => ImageVerdict::Duplicate,
                ImageKind::Full { .. } if filter == Some(Filter::Delta) => ImageVerdict::Filtered,
                ImageKind::Delta { .. } if filter == Some(Filter::Full) => ImageVerdict::Filtered,
                ImageKind::Full { minversion } if minversion > installed => {
                    ImageVerdict::NeedsVersion(minversion)
                }
                ImageKind::Full { .. } if image.version <= installed => ImageVerdict::NotNewer,
                ImageKind::Delta { base } if base >= image.version => ImageVerdict::NotUpward,
                _ => ImageVerdict::Usable,
            };
            if let (ImageVerdict::Usable, Some(base)) = (self.verdicts[at], image.kind.base()) {
                deltas.entry(base).or_default().push(at);
            }
        }
        // Ties are decided by this order: deltas by ascending version.
        for of_base in deltas.values_mut() {
            of_base.sort_by_key(|at| self.images[*at].version);
        }
        deltas
    }

    /// Ways of one image. Only here patches count: they lead from what is installed.
    fn roots(
        &mut self,
        installed: ImageVersion,
        filter: Option<Filter>,
        uses_patches: &dyn Fn(&ImageOutline) -> bool,
    ) {
        let usable: Vec<_> = self.usable().collect();
        for (last, image) in usable {
            let starts = match image.kind {
                ImageKind::Full { .. } => true,
                ImageKind::Delta { base } => base == installed && filter != Some(Filter::Full),
            };
            if starts {
                self.offer(Way {
                    reboots: image.bootme.into(),
                    size: if uses_patches(image) {
                        image.patched
                    } else {
                        image.size
                    },
                    images: 1,
                    last,
                    before: None,
                    from_full: image.kind.is_full(),
                });
            }
        }
    }

    /// Follows the deltas from each reached version, in ascending order: as every delta leads
    /// upward, all ways to a version are known when its turn comes.
    fn extend(&mut self, deltas: &BTreeMap<ImageVersion, Vec<usize>>) {
        for (base, of_base) in deltas {
            // Owned, because extending adds ways, if never to this version.
            let ways = self.best.get(base).cloned().unwrap_or_default();
            for before in ways {
                for &last in of_base {
                    let (way, image) = (self.ways[before], &self.images[last]);
                    self.offer(Way {
                        reboots: way.reboots + u64::from(image.bootme),
                        size: way.size.saturating_add(image.size),
                        images: way.images + 1,
                        last,
                        before: Some(before),
                        from_full: way.from_full,
                    });
                }
            }
        }
    }

    /// Keeps a way unless a known one beats it; forgets the known ones that it beats.
    ///
    /// Ways with another last image stay, because that image's rollout decides over the path; and
    /// ways from a full image stay beside those from deltas, because they win ties of the score,
    /// which does not see the last MiB of a difference.
    fn offer(&mut self, way: Way) {
        let image = &self.images[way.last];
        let (ways, images) = (&self.ways, self.images);
        let beats = |a: &Way, b: &Way| {
            images[a.last].phased == images[b.last].phased
                && a.from_full == b.from_full
                && a.reboots <= b.reboots
                && a.size <= b.size
                && (a.reboots < b.reboots || a.size < b.size || a.images <= b.images)
        };
        let best = self.best.entry(image.version).or_default();
        if best.iter().any(|known| beats(&ways[*known], &way)) {
            return;
        }
        best.retain(|known| !beats(&way, &ways[*known]));
        best.push(self.ways.len());
        self.ways.push(way);
    }

    fn path(&self, way: usize) -> Path {
        let end = self.ways[way];
        let mut images = Vec::with_capacity(end.images);
        let mut at = Some(way);
        while let Some(way) = at {
            images.push(self.ways[way].last);
            at = self.ways[way].before;
        }
        images.reverse();
        Path {
            images,
            reboots: end.reboots,
            size: end.size,
            from_full: end.from_full,
        }
    }

    fn tell_unreached(&mut self, installed: ImageVersion) {
        for (at, image) in self.images.iter().enumerate() {
            let lost = |base| base != installed && !self.best.contains_key(&base);
            if self.verdicts[at] == ImageVerdict::Usable && image.kind.base().is_some_and(lost) {
                self.verdicts[at] = ImageVerdict::Unreachable;
            }
        }
    }
}
