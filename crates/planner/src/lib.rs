//! Chooses the images that take a device from its version to the newest one that it may have.
//!
//! In: a verified [`Outline`], the installed version, the user's wishes and the device's place in
//! rollouts. Out: a [`Plan`]: a [`Route`] of at most one full image and then deltas, or why there
//! is none; beside it every candidate and every image with the reason why it was not taken. No
//! file, clock or network here: every rule is tested with a table.

mod graph;
pub mod phase;
mod route;
mod score;
mod start;

use std::fmt;
use std::str::FromStr;

use system_image_formats::outline::{ImageOutline, Outline};
use system_image_formats::version::{ImageVersion, Percentage};
use system_image_trust::Verified;

use self::graph::Graph;
pub use self::phase::{PhaseSource, device_percentage, phase_channel};
pub use self::route::{Route, files};
pub use self::start::Start;

/// Which candidates count (client spec, section 10.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Only a single full image.
    Full,
    /// Only deltas.
    Delta,
}

/// The text is neither `full` nor `delta`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Bad filter type: {0}")]
pub struct FilterError(String);

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        match text {
            "full" => Ok(Self::Full),
            "delta" => Ok(Self::Delta),
            _ => Err(FilterError(text.to_owned())),
        }
    }
}

/// What the device and its user ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The version to start from, see [`Start`].
    pub installed: ImageVersion,
    /// Which candidates count.
    pub filter: Option<Filter>,
    /// Cuts the chosen route after this version (client spec, section 10.5).
    pub cap: Option<ImageVersion>,
    /// The device's place in rollouts.
    pub phase: PhaseSource,
    /// Memory in bytes that the device has for applying patches; 0 if it takes none.
    pub patch_memory: u64,
}

/// What was decided, and everything that led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan<'a> {
    /// The route to take, or why there is none.
    pub decision: Result<Route<'a>, NoUpdate>,
    /// The candidates from best to worst. Paths that another one beats under any score are not
    /// among them.
    pub candidates: Vec<Candidate<'a>>,
    /// What became of each image, in the order of the index.
    pub images: Vec<ImageVerdict>,
    /// The device's percentage as used, and the version it was drawn for.
    pub phase: Option<(ImageVersion, Percentage)>,
}

/// Why there is no update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoUpdate {
    /// No image leads anywhere from the installed version.
    #[error("no image leads on from version {installed}")]
    NoCandidate {
        /// The version planned from.
        installed: ImageVersion,
    },
    /// Each candidate ends with an image that this device shall not have yet, or any more.
    #[error("every candidate is withdrawn or not yet offered to this device")]
    HeldBack,
    /// The chosen route begins beyond the highest version allowed.
    #[error("the chosen route {from} has no image up to version {cap}")]
    Capped {
        /// The route's first version.
        from: ImageVersion,
        /// The highest version allowed.
        cap: ImageVersion,
    },
}

/// A complete path with its score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Its images.
    pub route: Route<'a>,
    /// Its score; the lowest wins.
    pub score: u64,
    /// Why it was taken or not.
    pub verdict: RouteVerdict,
}

/// Why a candidate was taken or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteVerdict {
    /// It is the route.
    Chosen,
    /// Its last image is at 0 %.
    Withdrawn,
    /// Its last image is not yet offered to this device.
    Phased {
        /// The device's percentage.
        device: Percentage,
        /// The image's.
        image: Percentage,
    },
    /// A better one was taken.
    Costlier,
}

impl fmt::Display for RouteVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chosen => f.write_str("chosen"),
            Self::Withdrawn => f.write_str("its last image is withdrawn"),
            Self::Phased { device, image } => {
                write!(
                    f,
                    "its last image is offered to {image} %, this device is at {device} %"
                )
            }
            Self::Costlier => f.write_str("another one costs less"),
        }
    }
}

/// Why an image is part of candidates or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageVerdict {
    /// It may be part of a candidate.
    Usable,
    /// One with the same version and base stands before it in the index.
    Duplicate,
    /// The filter leaves its kind out.
    Filtered,
    /// A full image for devices that have at least this version.
    NeedsVersion(ImageVersion),
    /// A full image that is not newer than the installed version.
    NotNewer,
    /// A delta that leads down, or nowhere.
    NotUpward,
    /// A delta from a version that cannot be reached.
    Unreachable,
}

impl fmt::Display for ImageVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usable => f.write_str("usable"),
            Self::Duplicate => f.write_str("listed twice"),
            Self::Filtered => f.write_str("left out by the filter"),
            Self::NeedsVersion(version) => write!(f, "needs version {version} or newer installed"),
            Self::NotNewer => f.write_str("not newer than what is installed"),
            Self::NotUpward => f.write_str("a delta that does not lead to a newer version"),
            Self::Unreachable => f.write_str("its base cannot be reached"),
        }
    }
}

/// Plans the way from `request.installed` over the images of an index.
pub fn plan<'a>(outline: &'a Verified<Outline>, request: &Request) -> Plan<'a> {
    let images: &'a [ImageOutline] = &outline.images;
    let uses_patches =
        |image: &ImageOutline| image.uses_patches(request.installed, request.patch_memory);
    let graph = Graph::search(images, request.installed, request.filter, &uses_patches);
    let ranked = score::rank(graph.paths(request.filter), |at| images[at].version);
    let routes: Vec<_> = ranked
        .into_iter()
        .map(|(score, path)| {
            let images: Vec<_> = path.images.iter().map(|at| &images[*at]).collect();
            let is_patched = images.first().is_some_and(|image| uses_patches(image));
            (Route::new(images, is_patched), score)
        })
        .collect();
    let newest = routes.iter().map(|(route, _)| route.target()).max();
    let phase = newest.map(|newest| (newest, request.phase.percentage(newest)));

    let mut chosen = None;
    let candidates: Vec<_> = routes
        .into_iter()
        .map(|(route, score)| {
            let device = phase.map_or(Percentage::ALL, |(_, percentage)| percentage);
            let image = route.last().phased;
            let verdict = if image == Percentage::NONE {
                RouteVerdict::Withdrawn
            } else if device > image {
                RouteVerdict::Phased { device, image }
            } else if chosen.is_none() {
                chosen = Some(route.clone());
                RouteVerdict::Chosen
            } else {
                RouteVerdict::Costlier
            };
            Candidate {
                route,
                score,
                verdict,
            }
        })
        .collect();

    let decision = match (chosen, request.cap) {
        (None, _) if candidates.is_empty() => Err(NoUpdate::NoCandidate {
            installed: request.installed,
        }),
        (None, _) => Err(NoUpdate::HeldBack),
        (Some(route), None) => Ok(route),
        (Some(route), Some(cap)) => {
            let from = route.images()[0].version;
            route.capped(cap).ok_or(NoUpdate::Capped { from, cap })
        }
    };
    Plan {
        decision,
        candidates,
        images: graph.verdicts().to_vec(),
        phase,
    }
}
