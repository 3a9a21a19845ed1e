//! `system-image.ini(5)`: the client's configuration and settings, from the tables that the client
//! itself reads by.

use roff::{Inline, Roff, bold, italic, roman};
use system_image_client::settings;
use system_image_formats::config::keys::{Key, SECTIONS, VALUES};

/// The page's name, without its section.
pub const NAME: &str = "system-image.ini";

/// The page's section: file formats.
pub const SECTION: &str = "5";

const FILES: [&str; 3] = [
    "The files of the directory (or of the one that is given with -C) whose names are a number, an \
     underscore and anything else, and end with .ini, are read in the order of their numbers, and \
     among equal numbers of their names. The last one that sets a key counts. Other files are \
     ignored, and so are sections and keys that are not listed here. On a device 00_default.ini is \
     the integrator's, and 01_channel.ini comes with each image.",
    "A file has sections in brackets and lines of KEY: VALUE or KEY = VALUE. Keys are the same in \
     any case of letters. Lines that begin with # or ; are comments, indented ones go on with the \
     value before. Keys of the section [DEFAULT] stand in every section. %(KEY)s stands for the \
     value of another key of the section, and %% for a percent sign. A key or section that is given \
     twice in one file is an error.",
    "The service reads the configuration again at each call, unless it is at work.",
];

const UNASKED: [&str; 3] = [
    "system-image-cli --automatic, which a timer runs about once an hour, checks, and prints one line \
     that says what it did or why not. It goes on only where nothing is in the way: the setting hold; \
     defer; the setting auto_download together with the network; apply; window; and the setting \
     min_battery. Each reason is no failure: the exit status is 0, nothing is remembered but when the \
     version was seen first, and the timer asks again within two hours, for an hour is spread at \
     random over all devices.",
    "A network is held when it costs: mobile data, one that NetworkManager calls metered, and one of \
     an unknown kind. With auto_download at 1 an update that was found is not downloaded there, and \
     the line says so; the next run that meets a cable or Wi-Fi downloads it. Nothing waits in \
     between, and nothing has to be started by hand.",
    "A download that a lost network interrupts is a failure: the exit status is 1, what was received \
     is kept, and the next run goes on from there.",
];

const ENVIRONMENT: [(&str, &str); 3] = [
    (
        "SYSTEMIMAGE_PYCURL",
        "1, yes or true: payloads come without a download manager, whatever downloader says. \
         Anything else: with it.",
    ),
    (
        "SYSTEMIMAGE_REACTOR_TIMEOUT",
        "After so many seconds without a sign from the download manager a download has failed. \
         Default: 600.",
    ),
    (
        "XDG_CACHE_HOME",
        "Holds settings and log of somebody who may not write the configured ones. Default: ~/.cache.",
    ),
];

const EXAMPLE: [&str; 9] = [
    "[service]",
    "base: images.example.net",
    "channel: 24.04/stable",
    "device: tango",
    "",
    "[automatic]",
    "apply: yes",
    "window: 02:00-05:00",
    "defer: 2d",
];

/// The page.
pub fn page() -> Roff {
    let mut page = Roff::new();
    page.control("TH", [NAME, SECTION]);
    heading(&mut page, "NAME");
    text(
        &mut page,
        "system-image.ini - configuration of the client of system-image",
    );
    heading(&mut page, "SYNOPSIS");
    text(&mut page, "/etc/system-image/config.d/NUMBER_NAME.ini");
    heading(&mut page, "DESCRIPTION");
    paragraphs(&mut page, FILES);
    heading(&mut page, "SECTIONS AND KEYS");
    for section in SECTIONS {
        page.control("SS", [format!("[{}]", section.name).as_str()]);
        text(&mut page, section.about);
        for key in section.keys {
            let heading = [bold(key.name), roman(": "), italic(key.takes)];
            item(&mut page, heading, &about(key));
        }
    }
    heading(&mut page, "VALUES");
    for (name, about) in VALUES {
        item(&mut page, [italic(name)], about);
    }
    heading(&mut page, "SETTINGS");
    text(
        &mut page,
        "Users and other programs change these, by system-image-cli --set KEY=VALUE and by \
         SetSetting on the bus. They are in the database of settings_db.",
    );
    for setting in settings::KNOWN {
        let about = match setting.default {
            "" => setting.about.to_owned(),
            default => format!("{} Default: {default}.", setting.about),
        };
        item(&mut page, [bold(setting.key)], &about);
    }
    heading(&mut page, "WHAT IS DONE UNASKED");
    paragraphs(&mut page, UNASKED);
    heading(&mut page, "ENVIRONMENT");
    for (name, about) in ENVIRONMENT {
        item(&mut page, [bold(name)], about);
    }
    heading(&mut page, "EXAMPLE");
    page.control("nf", []);
    for line in EXAMPLE {
        text(&mut page, line);
    }
    page.control("fi", []);
    heading(&mut page, "SEE ALSO");
    text(
        &mut page,
        "system-image-cli(1), system-image-dbus(8), system-image-upgrader(1)",
    );
    page
}

fn about(key: &Key) -> String {
    match key.default {
        Some(default) => format!("{} Default: {default}.", key.about),
        None => key.about.to_owned(),
    }
}

fn heading(page: &mut Roff, name: &str) {
    page.control("SH", [name]);
}

fn text(page: &mut Roff, text: &str) {
    page.text([roman(text)]);
}

fn paragraphs<const N: usize>(page: &mut Roff, texts: [&str; N]) {
    for paragraph in texts {
        page.control("PP", []);
        text(page, paragraph);
    }
}

fn item(page: &mut Roff, heading: impl Into<Vec<Inline>>, about: &str) {
    page.control("TP", []);
    page.text(heading);
    text(page, about);
}
