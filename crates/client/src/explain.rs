//! Why this update and no other: each candidate and each image, with the rule that decided.

use serde::Serialize;
use system_image_formats::outline::Outline;
use system_image_formats::version::{ImageVersion, Percentage};
use system_image_planner::{Plan, Start};

/// Everything that led to a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The version that was planned from.
    pub from: ImageVersion,
    /// Why it is not the installed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switch: Option<String>,
    /// The decision in words.
    pub decision: String,
    /// The device's place in rollouts, as used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Percentage>,
    /// The candidates from best to worst.
    pub candidates: Vec<Candidate>,
    /// The images in the order of the index.
    pub images: Vec<Image>,
}

/// A path that leads to an end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// Its versions joined with `:`.
    pub route: String,
    /// Its score; the lowest wins.
    pub score: u64,
    /// Bytes of all its files.
    pub size: u64,
    /// What became of it.
    pub verdict: String,
}

/// An image of the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Image {
    /// Its version.
    pub version: ImageVersion,
    /// For a delta: the version that it starts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<ImageVersion>,
    /// Bytes of its files.
    pub size: u64,
    /// The share of the devices that it is offered to.
    pub phased: Percentage,
    /// What became of it.
    pub verdict: String,
}

impl Explanation {
    /// Of a plan over this outline.
    pub fn new(plan: &Plan<'_>, start: &Start, outline: &Outline) -> Self {
        let candidates = plan.candidates.iter().map(|candidate| Candidate {
            route: candidate.route.to_string(),
            score: candidate.score,
            size: candidate.route.size(),
            verdict: candidate.verdict.to_string(),
        });
        let images = outline.images.iter().zip(&plan.images);
        let images = images.map(|(image, verdict)| Image {
            version: image.version,
            base: image.kind.base(),
            size: image.size,
            phased: image.phased,
            verdict: verdict.to_string(),
        });
        Self {
            from: start.version,
            switch: (start.switch.as_ref()).map(|(old, new)| {
                format!("the channel led to {old} and leads to {new} now: a full image is needed")
            }),
            decision: match &plan.decision {
                Ok(route) => format!("take {route}"),
                Err(why) => format!("take none: {why}"),
            },
            phase: plan.phase.map(|(_, percentage)| percentage),
            candidates: candidates.collect(),
            images: images.collect(),
        }
    }

    /// For people: a line for each candidate and image.
    pub fn to_text(&self) -> String {
        let mut text = format!("from version {}: {}\n", self.from, self.decision);
        if let Some(switch) = &self.switch {
            text += &format!("{switch}\n");
        }
        if let Some(phase) = self.phase {
            text += &format!("this device is at {phase} % of rollouts\n");
        }
        text += "candidates, best first:\n";
        for candidate in &self.candidates {
            text += &format!(
                "    {}: score {}, {}: {}\n",
                candidate.route,
                candidate.score,
                system_image_report::Size(candidate.size),
                candidate.verdict
            );
        }
        text += "images:\n";
        for image in &self.images {
            let kind = match image.base {
                None => format!("full {}", image.version),
                Some(base) => format!("delta {base}>{}", image.version),
            };
            text += &format!(
                "    {kind}: {}, offered to {} %: {}\n",
                system_image_report::Size(image.size),
                image.phased,
                image.verdict
            );
        }
        text
    }
}
