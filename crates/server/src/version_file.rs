//! The version file: the small tarball that tells the installed system what it is (server spec,
//! section 8.1).

use std::io;

use system_image_delta::{Header, Kind, Mtime};
use system_image_delta_build::Writer;
use system_image_formats::channel_ini::ChannelIni;

/// The uncompressed tarball for `ini`, its members dated `now` (Unix seconds).
pub fn tarball(ini: &ChannelIni, now: i64) -> Vec<u8> {
    let number = format!("{}\n", ini.build_number);
    let config = ini.to_bytes();
    let file = |len: usize| Kind::File { size: len as u64 };
    let link = |target: &str| Kind::Symlink {
        target: target.into(),
    };
    let base = "system/etc/system-image";
    let members: [(String, Kind, u32, &[u8]); 5] = [
        (
            "system/etc/ubuntu-build".into(),
            file(number.len()),
            0o644,
            number.as_bytes(),
        ),
        (
            format!("{base}/channel.ini"),
            file(config.len()),
            0o644,
            &config,
        ),
        (format!("{base}/config.d"), Kind::Directory, 0o775, &[]),
        (
            format!("{base}/config.d/00_default.ini"),
            link("../client.ini"),
            0o644,
            &[],
        ),
        (
            format!("{base}/config.d/01_channel.ini"),
            link("../channel.ini"),
            0o644,
            &[],
        ),
    ];
    write(members, now).expect("writing to memory does not fail")
}

fn write(members: [(String, Kind, u32, &[u8]); 5], now: i64) -> io::Result<Vec<u8>> {
    let mut writer = Writer::new(Vec::new());
    for (path, kind, mode, mut content) in members {
        let header = Header {
            path: path.into_bytes(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: Mtime {
                seconds: now,
                nanos: 0,
            },
            xattrs: Vec::new(),
            acl: false,
        };
        writer.member(&header, &mut content)?;
    }
    Ok(writer.finish()?.0)
}
