//! What is refused when a download is made, and how it is changed before it starts (specification,
//! sections 2, 5, 10 and 13).

use std::fs;

use system_image_testkit::Bus;

use crate::support::{Daemon, NAME, Place, local_path, path_of};

const NONE: &str = "@a{sv} {}";

#[test]
fn a_request_that_makes_no_sense_makes_nothing() {
    let (bus, place) = (Bus::start(), Place::new());
    let daemon = Daemon::start(&bus, &place);
    let there = place.file("there");
    fs::write(&there, "x").unwrap();
    let exists = local_path(&there);
    for (url, hash, algorithm, metadata, text) in [
        ("", "", "", NONE, "Invalid URL: ''"),
        ("no url", "", "", NONE, "Invalid URL: ''"),
        (
            "http://h/x",
            "00",
            "crc",
            NONE,
            "Invalid hash algorithm: 'crc'",
        ),
        (
            "http://h/x",
            "00",
            "md5",
            "{'deflate': <true>}",
            "Downloads that are set to be deflated cannot have a hash: '00'",
        ),
        (
            "http://h/x",
            "",
            "",
            &exists,
            &format!("File already exists at: '{there}'"),
        ),
        (
            "http://h/x",
            "",
            "",
            "{'objectpath': <'a-b'>}",
            "'a-b' cannot be part",
        ),
    ] {
        let request = format!("('{url}', '{hash}', '{algorithm}', {metadata}, @a{{ss}} {{}})");
        let method = "com.lomiri.applications.DownloadManager.createDownload";
        let refused = daemon.refused("/", method, &[&request]);
        assert!(
            refused.contains("InvalidArgs") && refused.contains(text),
            "{refused}"
        );
    }
    assert_eq!(
        daemon.manager("getAllDownloads", &["", "false"]),
        "(@ao [],)"
    );
    daemon.create("http://h/x", "", "crc", NONE);
}

#[test]
fn an_id_may_be_chosen_once() {
    let (bus, place) = (Bus::start(), Place::new());
    let daemon = Daemon::start(&bus, &place);
    let chosen = "{'objectpath': <'mine_1'>}";
    let path = daemon.create("http://h/x", "", "", chosen);
    assert_eq!(path, "/com/lomiri/applications/download/mine_1");
    let request = format!("('http://h/x', '', '', {chosen}, @a{{ss}} {{}})");
    let method = "com.lomiri.applications.DownloadManager.createDownload";
    let refused = daemon.refused("/", method, &[&request]);
    assert!(refused.contains("'mine_1' is in use"), "{refused}");
}

#[test]
fn names_that_are_taken_are_numbered() {
    let (bus, place) = (Bus::start(), Place::new());
    let daemon = Daemon::start(&bus, &place);
    fs::create_dir_all(place.downloads()).unwrap();
    fs::write(place.downloads().join("col.tar.gz"), "x").unwrap();
    for name in ["col (1).tar.gz", "col (2).tar.gz"] {
        let path = daemon.create("http://h/col.tar.gz", "", "", NONE);
        let file = place.downloads().join(name);
        assert_eq!(daemon.call(&path, "filePath", &[]), format!("('{file}',)"));
    }
}

#[test]
fn an_idle_download_can_be_changed_and_a_started_one_cannot() {
    let (bus, place) = (Bus::start(), Place::new());
    let daemon = Daemon::start(&bus, &place);
    let path = daemon.create("http://127.0.0.1:1/x", "", "", "{'title': <'one'>}");
    let set = "com.lomiri.applications.Download.setDestinationDir";
    for (directory, text) in [
        ("relative", "must be an absolute path"),
        ("/no/such/place", "must be already present"),
        ("/etc/hostname", "must be a dir and a file was found"),
    ] {
        let refused = daemon.refused(&path, set, &[directory]);
        assert!(
            refused.contains("InvalidArgs") && refused.contains(text),
            "{refused}"
        );
    }
    daemon.call(&path, "setDestinationDir", &[place.path().as_str()]);
    let file = place.file("x");
    assert_eq!(daemon.call(&path, "filePath", &[]), format!("('{file}',)"));
    daemon.call(&path, "setHeaders", &["{'Cookie': 'a=b'}"]);
    assert_eq!(daemon.call(&path, "headers", &[]), "({'Cookie': 'a=b'},)");
    daemon.call(&path, "setThrottle", &["7"]);
    assert_eq!(daemon.call(&path, "throttle", &[]), "(uint64 7,)");

    let new = "{'title': <'two'>, 'indicator-shown': <true>, 'n': <uint32 5>}";
    daemon.call(&path, "setMetadata", &[new]);
    let line = daemon.line_with(&format!(
        "{path}: org.freedesktop.DBus.Properties.PropertiesChanged"
    ));
    for part in [
        "'com.lomiri.applications.Download'",
        "'Title': <'two'>",
        "'ShowInIndicator': <true>",
    ] {
        assert!(line.contains(part), "{line}");
    }
    assert!(
        daemon
            .call(&path, "metadata", &[])
            .contains("'n': <uint32 5>")
    );
    let found = daemon.manager("getAllDownloadsWithMetadata", &["n", "5"]);
    assert_eq!(path_of(&found), path);
    let title = daemon.bus.call(
        NAME,
        &path,
        "org.freedesktop.DBus.Properties.Get",
        &["com.lomiri.applications.Download", "Title"],
    );
    assert_eq!(title, "(<'two'>,)");

    daemon.call(&path, "pause", &[]);
    for (method, argument) in [("setDestinationDir", "/tmp"), ("setHeaders", "@a{ss} {}")] {
        let method = format!("com.lomiri.applications.Download.{method}");
        let refused = daemon.refused(&path, &method, &[argument]);
        let text = "The path cannot be changed in a started download.";
        assert!(
            refused.contains("NotSupported") && refused.contains(text),
            "{refused}"
        );
    }
}

#[test]
fn defaults_are_for_what_is_there_and_what_comes() {
    let (bus, place) = (Bus::start(), Place::new());
    let daemon = Daemon::start(&bus, &place);
    assert_eq!(daemon.manager("defaultThrottle", &[]), "(uint64 0,)");
    assert_eq!(daemon.manager("isGSMDownloadAllowed", &[]), "(true,)");
    let before = daemon.create("http://h/x", "", "", NONE);
    daemon.manager("setDefaultThrottle", &["1000"]);
    daemon.manager("allowGSMDownload", &["false"]);
    let after = daemon.create("http://h/x", "", "", NONE);
    for path in [before, after] {
        assert_eq!(daemon.call(&path, "throttle", &[]), "(uint64 1000,)");
        assert_eq!(daemon.call(&path, "isGSMDownloadAllowed", &[]), "(false,)");
    }
    assert_eq!(daemon.manager("defaultThrottle", &[]), "(uint64 1000,)");
}
