//! All downloads, and what is done with them. One task owns this; nothing here waits for anything.
//!
//! In: calls, news of transfers, changes of the network, ticks of a clock. Out: messages into the outbox,
//! transfers that are started and stopped, records in the database. What a call or news *means* is decided
//! in `job`; here it is carried out: first the database knows, then the bus.

use std::collections::{BTreeMap, HashMap, HashSet};

use camino::{Utf8Path, Utf8PathBuf};
use system_image_bus::Network;
use tokio::sync::mpsc::UnboundedSender;

use super::engine::Engine;
use super::holds::Holds;
use super::run::Run;
use crate::bus::interfaces::Interface;
use crate::bus::outbox::{Changed, Outbox};
use crate::job::admission::{Held, admit, is_lost};
use crate::job::download::{Download, Shape};
use crate::job::failure::Failure;
use crate::job::machine::{Act, Activity, Told};
use crate::job::names::Home;
use crate::job::queue::{Entry, Turn, turns};
use crate::job::{ids, names};
use crate::log;
use crate::records::Records;
use crate::transfer::finish::is_there;
use crate::transfer::{News, Which};

/// What the process is.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its user.
    pub user: u32,
    /// Whether it may do more than an ordinary process of that user: then it runs no commands.
    pub privileged: bool,
    /// Whether labels of callers are `AppArmor`'s.
    pub apparmor: bool,
    /// Whether callers may end it.
    pub stoppable: bool,
    /// Where files go.
    pub home: Home,
}

/// All downloads.
#[derive(Debug)]
pub struct Core {
    pub(super) host: Host,
    pub(super) downloads: BTreeMap<u64, Download>,
    pub(super) by_tail: HashMap<String, u64>,
    pub(super) runs: HashMap<u64, Run>,
    pub(super) holds: Holds,
    pub(super) records: Records,
    pub(super) outbox: Outbox,
    pub(super) engine: Engine,
    pub(super) news: UnboundedSender<(Which, News)>,
    pub(super) default_mobile_data: bool,
    pub(super) next_number: u64,
    pub(super) next_run: u64,
    /// Whether somebody has ended the process.
    pub(super) over: bool,
    network: Network,
}

impl Core {
    /// A core that takes over what the records hold.
    pub fn new(
        host: Host,
        records: Records,
        outbox: Outbox,
        engine: Engine,
        news: UnboundedSender<(Which, News)>,
        network: Network,
    ) -> Self {
        let next_number = records.next_number().unwrap_or_else(|error| {
            log_record(&error);
            1
        });
        let mut core = Self {
            host,
            downloads: BTreeMap::new(),
            by_tail: HashMap::new(),
            runs: HashMap::new(),
            holds: Holds::default(),
            records,
            outbox,
            engine,
            news,
            default_mobile_data: true,
            next_number,
            next_run: 0,
            over: false,
            network,
        };
        core.restore();
        core
    }

    /// A download by the part of its path that families share.
    pub fn find(&self, tail: &str) -> Option<&Download> {
        let found = self.downloads.get(self.by_tail.get(tail)?);
        found.filter(|download| !download.machine.state().is_over())
    }

    /// All that are not over, in the order of creation.
    pub fn downloads(&self) -> impl Iterator<Item = &Download> {
        let all = self.downloads.values();
        all.filter(|download| !download.machine.state().is_over())
    }

    /// Whether something runs, or would if it might.
    pub fn is_busy(&self) -> bool {
        let resting = |download: &Download| download.machine.activity() == Activity::Resting;
        !self.downloads.values().all(resting)
    }

    /// Stops everything, for the next process to go on with. Whether that takes a moment yet.
    pub fn wind_up(&mut self) -> bool {
        let running: Vec<u64> = self.runs.keys().copied().collect();
        for number in running {
            self.stop(number);
        }
        !self.holds.is_empty()
    }

    /// Whether nothing is left to do for anybody.
    pub fn is_empty(&self) -> bool {
        self.downloads.is_empty()
    }

    /// Whether somebody has ended the process.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The network is another one.
    pub fn set_network(&mut self, network: Network) {
        if self.network != network {
            self.network = network;
            self.take_turns();
        }
    }

    /// Adds a download that was made or restored.
    pub(super) fn insert(&mut self, download: Download) {
        self.by_tail.insert(download.tail(), download.number);
        self.downloads.insert(download.number, download);
    }

    /// The first name like this one that can be had: nothing is there, and no other download will be.
    pub(super) fn free(&self, wanted: &Utf8Path) -> Utf8PathBuf {
        self.free_unless(wanted, is_there)
    }

    /// The same for a name under which only the temporary file will be.
    pub(super) fn free_stage(&self, wanted: &Utf8Path) -> Utf8PathBuf {
        self.free_unless(wanted, |_| false)
    }

    fn free_unless(&self, wanted: &Utf8Path, taken: impl Fn(&Utf8Path) -> bool) -> Utf8PathBuf {
        let files = self.downloads.values().flat_map(|download| &download.files);
        let coming = files.filter(|file| !file.done);
        let reserved: HashSet<&Utf8Path> = coming
            .flat_map(|file| [file.destination.as_path(), &file.stage])
            .collect();
        names::free(wanted, |path| {
            taken(path) || is_there(&names::partial(path)) || reserved.contains(path)
        })
    }

    /// Tells a download something and carries out what follows.
    pub fn tell(&mut self, number: u64, told: Told) {
        self.tell_turn(number, told);
        self.take_turns();
    }

    /// A file of it has failed, and with it the download.
    pub(super) fn fail(&mut self, number: u64, place: usize, failure: Failure) {
        let Some(download) = self.downloads.get_mut(&number) else {
            return;
        };
        let acts = download.machine.told(Told::Failed);
        if acts.is_empty() {
            return;
        }
        let url = download.files.get(place).map(|file| file.url.clone());
        download.failure = Some((url.unwrap_or_default(), failure));
        self.stop(number);
        self.save_state(number);
        self.carry_out(number, acts);
        self.take_turns();
    }

    /// Does one thing after another. What deletes files or begins with them, and what comes after that,
    /// waits until nobody of an earlier run writes to them any more.
    pub(super) fn carry_out(&mut self, number: u64, acts: Vec<Act>) {
        let mut acts = acts.into_iter();
        while let Some(act) = acts.next() {
            if matches!(act, Act::Discard | Act::Run) && self.holds.any(number) {
                let rest = std::iter::once(act).chain(acts).collect();
                self.holds.park(number, rest);
                return;
            }
            match act {
                Act::Run => self.run(number),
                Act::Stop => self.stop(number),
                Act::Discard => self.discard(number),
                Act::Started(success) => self.signal(number, "started", success),
                Act::Paused(success) => self.signal(number, "paused", success),
                Act::Resumed(success) => self.signal(number, "resumed", success),
                Act::Canceled(success) => self.signal(number, "canceled", success),
                Act::Leave => self.leave(number),
            }
        }
    }

    /// A file of a download is touched by nobody any more.
    pub fn released(&mut self, number: u64) {
        if let Some(acts) = self.holds.release(number) {
            self.carry_out(number, acts);
            self.take_turns();
        }
    }

    fn signal(&self, number: u64, name: &str, success: bool) {
        if let Some(download) = self.downloads.get(&number) {
            self.outbox.tell(download, name, &success);
        }
    }

    pub(super) fn save_state(&mut self, number: u64) {
        if let Some(download) = self.downloads.get(&number)
            && let Err(error) = self.records.save_state(download)
        {
            log_record(&error);
        }
    }

    pub(super) fn save_file(&self, number: u64, place: usize) {
        if let Some(download) = self.downloads.get(&number)
            && let Err(error) = self.records.save_file(download, place)
        {
            log_record(&error);
        }
    }

    pub(super) fn leave(&mut self, number: u64) {
        self.runs.remove(&number);
        if let Some(mut download) = self.downloads.remove(&number) {
            self.by_tail.remove(&download.tail());
            if let Some((url, failure)) = download.failure.take() {
                self.outbox.failed(&download, &url, &failure);
            }
        }
    }

    /// Lets run whose turn it is and stops who may not go on, until nothing changes.
    pub(super) fn take_turns(&mut self) {
        loop {
            let entries: Vec<Entry<'_>> =
                self.downloads.values().map(|one| self.entry(one)).collect();
            let turns = turns(&entries);
            for turn in &turns {
                match *turn {
                    Turn::Grant(number) => self.tell_turn(number, Told::Granted),
                    Turn::Withhold(number) => self.tell_turn(number, Told::Withheld),
                }
            }
            if turns.is_empty() {
                break;
            }
        }
        self.tell_waits();
    }

    /// The same, whoever's turn it is then.
    fn tell_turn(&mut self, number: u64, told: Told) {
        let Some(download) = self.downloads.get_mut(&number) else {
            return;
        };
        let before = download.machine.clone();
        let acts = download.machine.told(told);
        download.ran |= acts.contains(&Act::Run);
        if download.machine != before {
            self.save_state(number);
        }
        self.carry_out(number, acts);
    }

    fn entry<'d>(&self, download: &'d Download) -> Entry<'d> {
        Entry {
            number: download.number,
            owner: &download.owner,
            activity: download.machine.activity(),
            admitted: self.admission(download).is_ok(),
            queued: download.shape != Shape::Message,
        }
    }

    fn admission(&self, download: &Download) -> Result<(), Held> {
        // It has found out that there is none; it goes on when there is.
        if download.held == Some(Held::Network) && is_lost(&self.network) {
            return Err(Held::Network);
        }
        admit(&self.network, download.mobile_data)
    }

    /// A transfer could not reach its server. Whether it waits for a network or has failed.
    pub(super) fn waits_for_network(&mut self, number: u64) -> bool {
        if !is_lost(&self.network) {
            return false;
        }
        match self.downloads.get_mut(&number) {
            Some(download) => download.held = Some(Held::Network),
            None => return false,
        }
        self.take_turns();
        true
    }

    /// Tells what each waiting download waits for, if that has changed.
    fn tell_waits(&mut self) {
        let now: Vec<(u64, Option<Held>)> = self
            .downloads
            .values()
            .map(|download| {
                let held = match download.machine.activity() {
                    Activity::Waiting => Some(self.admission(download).err().unwrap_or(Held::Turn)),
                    _ => None,
                };
                (download.number, held)
            })
            .collect();
        for (number, held) in now {
            let Some(download) = self.downloads.get_mut(&number) else {
                continue;
            };
            if download.held == held {
                continue;
            }
            download.held = held;
            self.outbox.waits(download);
            let word = held.map_or("", Held::word);
            let changed = Changed::from([
                ("Activity", super::show::activity(download).into()),
                ("WaitsFor", word.into()),
            ]);
            self.outbox
                .changed(download, |_| Interface::OurDownload, &changed);
        }
    }

    /// A new number, and the id that belongs to it unless the caller has chosen one.
    pub(super) fn number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// An id that nobody has.
    pub(super) fn free_id(&self, confined: Option<&str>) -> String {
        loop {
            let id = ids::random();
            if !self.by_tail.contains_key(&ids::tail(confined, &id)) {
                return id;
            }
        }
    }
}

/// The database does not take something: downloads go on, but may not survive the process.
pub(super) fn log_record(error: &rusqlite::Error) {
    log::say(format_args!(
        "the database of downloads cannot be used: {error}"
    ));
}
