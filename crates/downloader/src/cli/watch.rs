//! `watch`: downloads while they go on, as bars on a terminal and lines elsewhere.

use std::io::{IsTerminal as _, Write as _, stdout};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use system_image_report::{bar, columns};
use tokio::time::sleep;

use super::list;
use super::service::{Heard, Service, Shown};

/// How often the service is asked.
const EVERY: Duration = Duration::from_millis(500);

/// Show downloads while they go on, until there are none or Ctrl-C
#[derive(Debug, clap::Args)]
pub(super) struct Watch {
    /// Only these: ids, or the beginnings of them
    #[arg(value_name = "ID")]
    ids: Vec<String>,
}

impl Watch {
    pub(super) async fn run(self, service: &Service, json: bool) -> anyhow::Result<()> {
        let mut screen = Screen::new(json);
        loop {
            let mut downloads = service.list().await?;
            if !self.ids.is_empty() {
                downloads.retain(|one| self.ids.iter().any(|id| one.id().starts_with(id)));
            }
            screen.show(&downloads);
            if downloads.is_empty() {
                return Ok(());
            }
            sleep(EVERY).await;
        }
    }
}

/// Shows one download until it is complete, and collects it.
pub(super) async fn until_complete(
    service: &Service,
    one: &Shown,
    heard: &Heard,
) -> anyhow::Result<ExitCode> {
    let mut screen = Screen::new(false);
    let id = one.id();
    let place = loop {
        let mut downloads = service.list().await?;
        downloads.retain(|shown| shown.id() == id);
        screen.show(&downloads);
        match downloads.first() {
            None => {
                let cause = heard.cause();
                let gone = anyhow!("the download was canceled");
                let failed = |cause| anyhow!("{cause}").context("the download has failed");
                return Err(cause.map_or(gone, failed));
            }
            Some(shown) if shown.text("Activity") == "complete" => {
                service.download(shown, "collected", &()).await?;
                break shown.text("Path");
            }
            Some(_) => sleep(EVERY).await,
        }
    };
    println!("{place}");
    Ok(ExitCode::SUCCESS)
}

/// Where downloads are shown.
struct Screen {
    json: bool,
    terminal: bool,
    /// Lines of the last time.
    lines: usize,
    /// What was said last, where there is no terminal.
    said: String,
    begun: Instant,
}

impl Screen {
    fn new(json: bool) -> Self {
        Self {
            json,
            terminal: stdout().is_terminal() && !json,
            lines: 0,
            said: String::new(),
            begun: Instant::now(),
        }
    }

    fn show(&mut self, downloads: &[Shown]) {
        let text = if self.json {
            list::document(downloads)
        } else if self.terminal {
            self.bars(downloads)
        } else {
            let lines: Vec<String> = downloads.iter().map(list::line).collect();
            lines.join("\n")
        };
        // A line that says the same again says nothing.
        if text != self.said && (self.terminal || !text.is_empty()) {
            println!("{text}");
            // Whoever has closed the other end does not watch any more.
            let _ = stdout().flush();
        }
        self.said = text;
    }

    /// Goes up over the lines of the last time, and draws them anew.
    fn bars(&mut self, downloads: &[Shown]) -> String {
        let mut text = if self.lines > 0 {
            format!("\x1b[{}A\x1b[J", self.lines)
        } else {
            String::new()
        };
        let bars: Vec<String> = downloads
            .iter()
            .map(|shown| match shown.text("Activity").as_str() {
                "running" => bar(
                    &shown.name(),
                    shown.number("Received"),
                    shown.number("Total"),
                    self.begun.elapsed(),
                    columns(),
                ),
                _ => list::line(shown),
            })
            .collect();
        text += &bars.join("\n");
        self.lines = bars.len().max(1);
        text
    }
}
