//! Calls of downloads and groups (specification, sections 4.2, 4.3 and 6).

use std::collections::BTreeMap;

use zbus::message::{Body, Header};

use super::{Answer, Object, argument, no_method};
use crate::daemon::core::Core;
use crate::job::download::Download;
use crate::job::failure::Refusal;
use crate::job::machine::{Activity, Told};

impl Core {
    pub(super) fn download_call(
        &mut self,
        object: Object,
        member: &str,
        header: &Header<'_>,
        body: &Body,
    ) -> Answer {
        let (number, download) = self.download_of(object)?;
        let Some(file) = download.files.first() else {
            return Err(no_method(member));
        };
        match member {
            "start" => {
                if download.machine.activity() == Activity::Resting
                    && !download.ran
                    && Self::prepare(file).is_err()
                {
                    let refusal = Refusal::not_writable(&file.destination);
                    self.vanish(number);
                    return Err(refusal);
                }
                self.order(header, number, Told::Start);
            }
            "collected" => self.order(header, number, Told::Collected),
            "state" => {
                let state = download.machine.state().number();
                self.outbox.reply(header, &state);
            }
            "progress" => self.outbox.reply(header, &download.received()),
            "filePath" => self.outbox.reply(header, &file.destination.as_str()),
            "setMetadata" => {
                let (confined, metadata) = (download.confined.is_some(), argument(body)?);
                let metadata = Self::metadata(confined, metadata)?;
                self.set_metadata(number, metadata);
                self.outbox.reply(header, &());
            }
            "headers" => self.outbox.reply(header, &download.headers),
            "setHeaders" => {
                let headers: BTreeMap<String, String> = argument(body)?;
                self.set_headers(number, headers)?;
                self.outbox.reply(header, &());
            }
            "setDestinationDir" => {
                let directory: String = argument(body)?;
                self.set_directory(number, directory.as_ref())?;
                self.outbox.reply(header, &());
            }
            _ => return self.common_call(number, member, header, body),
        }
        Ok(())
    }

    pub(super) fn group_call(
        &mut self,
        object: Object,
        member: &str,
        header: &Header<'_>,
        body: &Body,
    ) -> Answer {
        let (number, download) = self.download_of(object)?;
        match member {
            "start" => self.order(header, number, Told::Start),
            "progress" => {
                let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
                let all = count(download.files.len());
                let done = count(download.files.iter().filter(|file| file.done).count());
                let running = match download.machine.activity() {
                    Activity::Running | Activity::Finishing => all - done,
                    _ => 0,
                };
                let reply = (all, running, all - done - running, done);
                self.outbox.reply(header, &reply);
            }
            _ => return self.common_call(number, member, header, body),
        }
        Ok(())
    }

    /// What downloads and groups have in common.
    fn common_call(
        &mut self,
        number: u64,
        member: &str,
        header: &Header<'_>,
        body: &Body,
    ) -> Answer {
        let Some(download) = self.downloads.get(&number) else {
            return Err(no_method(member));
        };
        match member {
            "pause" => self.order(header, number, Told::Pause),
            "resume" => self.order(header, number, Told::Resume),
            "cancel" => self.order(header, number, Told::Cancel),
            "totalSize" => self.outbox.reply(header, &download.total()),
            "metadata" => self.outbox.reply(header, download.metadata.map()),
            "throttle" => self.outbox.reply(header, &download.throttle),
            "setThrottle" => {
                let speed: u64 = argument(body)?;
                self.set_throttle(number, speed);
                self.outbox.reply(header, &());
            }
            "isGSMDownloadAllowed" => self.outbox.reply(header, &download.mobile_data),
            "allowGSMDownload" => {
                let allowed: bool = argument(body)?;
                self.set_mobile_data(number, allowed);
                self.outbox.reply(header, &());
            }
            _ => return Err(no_method(member)),
        }
        Ok(())
    }

    /// Answers at once; what comes of it are signals.
    fn order(&mut self, header: &Header<'_>, number: u64, told: Told) {
        self.outbox.reply(header, &());
        self.tell(number, told);
    }

    fn download_of(&self, object: Object) -> Result<(u64, &Download), Refusal> {
        let found = match object {
            Object::Download(number, _) => self.downloads.get(&number),
            Object::Manager | Object::Nothing => None,
        };
        let found = found.ok_or_else(|| Refusal::NoObject("/".to_owned()))?;
        Ok((found.number, found))
    }
}
