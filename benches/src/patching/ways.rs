//! Ways from an image to the next: ours first, then what others have, told to do their best within
//! minutes.

/// One way. Scripts are for `bash`: `$1` is the base, `$2` the target, `$3` where the patch goes, `$4`
/// a directory of its own, `$5` one with our programs and the scripts of [`SCRIPTS`].
pub(super) struct Way {
    pub(super) name: &'static str,
    /// A program that it needs; what has blanks is a command that must succeed.
    pub(super) program: &'static str,
    /// Whether only archives can be taken.
    pub(super) only_tar: bool,
    /// What is there before an update is made.
    pub(super) prepare: &'static str,
    /// Makes the patch. What cannot be made as a file is one of the length that was computed.
    pub(super) make: &'static str,
    /// Makes the target again; what is sent counts, not what is made of it. Empty if there is no
    /// program for it.
    pub(super) apply: &'static str,
}

impl Way {
    /// Whether it is one of ours.
    pub(super) fn is_ours(&self) -> bool {
        self.program == WAY.program
    }
}

/// Scripts that ways use, by their names.
pub(super) const SCRIPTS: [(&str, &str); 3] = [
    ("classic_delta.py", include_str!("../classic_delta.py")),
    ("bsdiff_files.py", include_str!("bsdiff_files.py")),
    ("new_blocks.py", include_str!("new_blocks.py")),
];

const WAY: Way = Way {
    name: "",
    program: "true",
    only_tar: false,
    prepare: "",
    make: "",
    apply: "",
};

/// As publishing makes it.
const PUBLISHED: Way = Way {
    only_tar: true,
    prepare: "mkdir -p \"$4/tree/system\" && \
              tar --extract --file \"$1\" --directory \"$4/tree/system\"",
    apply: "\"$5/system-image-server\" patch apply \"$4/tree/system\" \"$3\" \"$4/delta.tar\" && \
            tar --extract --file \"$4/delta.tar\" --directory \"$4/tree\"",
    ..WAY
};

pub(super) const WAYS: [Way; 17] = [
    Way {
        name: "patch",
        make: "\"$5/system-image-server\" patch make \"$1\" \"$2\" \"$3\"",
        apply: "\"$5/system-image-server\" patch apply \"$1\" \"$3\" \"$4/out\"",
        ..WAY
    },
    Way {
        name: "patch --fast",
        make: "\"$5/system-image-server\" patch make --fast \"$1\" \"$2\" \"$3\"",
        apply: "\"$5/system-image-server\" patch apply \"$1\" \"$3\" \"$4/out\"",
        ..WAY
    },
    Way {
        name: "patch --max-apply-memory 24MiB",
        make: "\"$5/system-image-server\" patch make --max-apply-memory 24MiB \"$1\" \"$2\" \"$3\"",
        apply: "\"$5/system-image-server\" patch apply \"$1\" \"$3\" \"$4/out\"",
        ..WAY
    },
    Way {
        name: "patch --tree, and tar",
        make: "\"$5/system-image-server\" patch make --tree \"$1\" \"$2\" \"$3\"",
        ..PUBLISHED
    },
    Way {
        name: "patch --tree --max-apply-memory 16MiB, and tar",
        make: "\"$5/system-image-server\" patch make --tree --max-apply-memory 16MiB \"$1\" \"$2\" \"$3\"",
        ..PUBLISHED
    },
    Way {
        name: "the whole, xz -6",
        program: "xz",
        make: "xz -6 -T0 -c \"$2\" > \"$3\"",
        apply: "xz -dc \"$3\" > \"$4/out\"",
        ..WAY
    },
    Way {
        name: "the classic delta (Python), xz -6, and tar",
        program: "python3",
        only_tar: true,
        prepare: "mkdir \"$4/tree\" && tar --extract --file \"$1\" --directory \"$4/tree\"",
        make: "python3 \"$5/classic_delta.py\" \"$1\" \"$2\" \"$4/delta.tar\" && \
               xz -6 -T0 -c \"$4/delta.tar\" > \"$3\"",
        apply: "xz -dc \"$3\" | tar --extract --file - --directory \"$4/tree\"",
    },
    Way {
        name: "blocks of 4 KiB that are new (RAUC's index), xz -6, computed",
        program: "python3",
        make: "python3 \"$5/new_blocks.py\" \"$1\" \"$2\" | xz -6 -T0 -c > \"$3\"",
        ..WAY
    },
    Way {
        name: "casync, chunks that are new",
        program: "casync",
        prepare: "casync make --store=\"$4/store\" \"$4/base.caibx\" \"$1\" > \"$4/log\"",
        make: "touch \"$4/before\" && sleep 0.01 && \
               casync make --store=\"$4/store\" \"$4/target.caibx\" \"$2\" > \"$4/log\" && \
               find \"$4/store\" -type f -newer \"$4/before\" -exec cat {} + > \"$3\" && \
               cat \"$4/target.caibx\" >> \"$3\"",
        apply: "casync extract --store=\"$4/store\" --seed=\"$1\" \"$4/target.caibx\" \"$4/out\"",
        ..WAY
    },
    Way {
        name: "zchunk, chunks that are new, computed",
        program: "zck_delta_size",
        prepare: "zck -o \"$4/base.zck\" \"$1\"",
        make: "zck -o \"$4/target.zck\" \"$2\" && truncate --size=$(zck_delta_size \
               \"$4/base.zck\" \"$4/target.zck\" | awk '/Would download/ { print $3 }') \"$3\"",
        ..WAY
    },
    Way {
        name: "zstd -3 --patch-from",
        program: "zstd",
        make: "zstd -qf -3 --long=31 --patch-from=\"$1\" \"$2\" -o \"$3\"",
        apply: "zstd -dqf --long=31 --patch-from=\"$1\" \"$3\" -o \"$4/out\"",
        ..WAY
    },
    Way {
        name: "zstd -12 --patch-from",
        program: "zstd",
        make: "zstd -qf -12 --long=31 --patch-from=\"$1\" \"$2\" -o \"$3\"",
        apply: "zstd -dqf --long=31 --patch-from=\"$1\" \"$3\" -o \"$4/out\"",
        ..WAY
    },
    Way {
        name: "xdelta3",
        program: "xdelta3",
        make: "xdelta3 -efs \"$1\" \"$2\" \"$3\"",
        apply: "xdelta3 -dfs \"$1\" \"$3\" \"$4/out\"",
        ..WAY
    },
    Way {
        name: "xdelta3 -9, lzma, window of 1 GiB",
        program: "xdelta3",
        make: "xdelta3 -ef -9 -S lzma -B 1073741824 -W 16777216 -s \"$1\" \"$2\" \"$3\"",
        apply: "xdelta3 -df -B 1073741824 -s \"$1\" \"$3\" \"$4/out\"",
        ..WAY
    },
    Way {
        name: "HDiffPatch (hdiffpatch of PyPI), LZMA2",
        program: "python3 -c 'import hdiffpatch'",
        make: "python3 -c 'import sys, hdiffpatch as h; b, t, o = sys.argv[1:]; \
               open(o, \"wb\").write(h.diff(open(b, \"rb\").read(), open(t, \"rb\").read(), \
               compression=h.COMPRESSION_LZMA2))' \"$1\" \"$2\" \"$3\"",
        apply: "python3 -c 'import sys, hdiffpatch as h; b, p, o = sys.argv[1:]; \
                open(o, \"wb\").write(h.apply(open(b, \"rb\").read(), open(p, \"rb\").read()))' \
                \"$1\" \"$3\" \"$4/out\"",
        ..WAY
    },
    Way {
        name: "bsdiff of each file, packed with xz -6",
        program: "bsdiff",
        only_tar: true,
        prepare: "mkdir \"$4/old\" \"$4/new\" && \
                  tar --extract --file \"$1\" --directory \"$4/old\" && \
                  tar --extract --file \"$2\" --directory \"$4/new\"",
        make: "python3 \"$5/bsdiff_files.py\" make \"$4/old\" \"$4/new\" \"$4/patches\" && \
               tar --create --directory \"$4/patches\" . | xz -6 -T0 > \"$3\"",
        apply: "mkdir \"$4/unpacked\" && xz -dc \"$3\" | tar --extract --directory \"$4/unpacked\" && \
                python3 \"$5/bsdiff_files.py\" apply \"$4/old\" \"$4/unpacked\" \"$4/made\"",
    },
    Way {
        name: "ostree static-delta (bsdiff), and checkout",
        program: "ostree",
        only_tar: true,
        prepare: "ostree init --mode=archive --repo=\"$4/server\" && \
                  ostree init --mode=bare --repo=\"$4/device\" && \
                  ostree commit --repo=\"$4/server\" -b base --tree=tar=\"$1\" > \"$4/base\" && \
                  ostree commit --repo=\"$4/server\" -b target --tree=tar=\"$2\" > \"$4/target\" && \
                  ostree pull-local --repo=\"$4/device\" \"$4/server\" base > \"$4/log\"",
        make: "ostree static-delta generate --repo=\"$4/server\" --from=$(cat \"$4/base\") \
               --to=$(cat \"$4/target\") --inline --min-fallback-size=0 --max-chunk-size=4096 \
               --filename=\"$3\" > \"$4/log\"",
        apply: "ostree static-delta apply-offline --repo=\"$4/device\" \"$3\" && \
                ostree checkout --repo=\"$4/device\" -H --union $(cat \"$4/target\") \"$4/tree\"",
    },
];
