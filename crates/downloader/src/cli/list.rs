//! `list`: all downloads that are not over.

use serde_json::{Value, json};
use system_image_report::Size;

use super::service::{Service, Shown};

/// Show the downloads
#[derive(Debug, clap::Args)]
pub(super) struct List {}

impl List {
    pub(super) async fn run(self, service: &Service, json: bool) -> anyhow::Result<()> {
        let downloads = service.list().await?;
        if json {
            println!("{}", document(&downloads));
            return Ok(());
        }
        for shown in &downloads {
            println!("{}", line(shown));
        }
        Ok(())
    }
}

/// All of them for machines: an object with the number of its schema.
pub(super) fn document(downloads: &[Shown]) -> String {
    let downloads: Vec<Value> = downloads.iter().map(object).collect();
    format!("{:#}", json!({ "schema": 1, "downloads": downloads }))
}

fn object(shown: &Shown) -> Value {
    let eta = shown.seconds("Eta");
    json!({
        "id": shown.id(),
        "object": shown.text("Object"),
        "title": shown.text("Title"),
        "owner": shown.text("Owner"),
        "activity": shown.text("Activity"),
        "waits_for": shown.text("WaitsFor"),
        "urls": shown.words("Urls"),
        "path": shown.text("Path"),
        "received": shown.number("Received"),
        "total": shown.number("Total"),
        "speed": shown.number("Speed"),
        "eta": (eta >= 0.0).then_some(eta),
        "throttle": shown.number("Throttle"),
        "group": shown.truth("Group"),
    })
}

/// One of them for people.
pub(super) fn line(shown: &Shown) -> String {
    let mut id = shown.id();
    id.truncate(8);
    let (received, total) = (shown.number("Received"), shown.number("Total"));
    let bytes = if total > 0 {
        format!("{} of {}", Size(received), Size(total))
    } else {
        Size(received).to_string()
    };
    let what = activity(shown);
    format!("{id}  {what:<28}  {bytes:<22}  {}", shown.name())
}

/// What it does, in words.
pub(super) fn activity(shown: &Shown) -> String {
    let activity = shown.text("Activity");
    match (activity.as_str(), shown.text("WaitsFor").as_str()) {
        ("running", _) => format!("running, {}/s", Size(shown.number("Speed"))),
        (_, "turn") => "waits for its turn".to_owned(),
        (_, "wifi") => "waits for Wi-Fi or a cable".to_owned(),
        (_, "network") => "waits for a network".to_owned(),
        _ => activity,
    }
}
