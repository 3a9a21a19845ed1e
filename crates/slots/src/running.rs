//! The slot that runs, as the boot loader told the kernel.

use system_image_formats::name::SlotName;

/// The parameter that our boot scripts give to the kernel.
const OURS: &str = "system_image.slot=";

/// The one that Android boot loaders give; its value begins with an underscore.
const ANDROID: &str = "androidboot.slot_suffix=_";

/// The slot that runs, from the kernel's command line (`/proc/cmdline`).
///
/// Ours, `system_image.slot=b`, goes before Android's, `androidboot.slot_suffix=_b`; of several the
/// last one counts, as in the kernel. `None` if neither is there, or its value is no name of a slot.
pub fn running(cmdline: &str) -> Option<SlotName> {
    let value = |prefix| {
        parameters(cmdline)
            .filter_map(|parameter| parameter.strip_prefix(prefix))
            .last()
    };
    value(OURS)
        .or_else(|| value(ANDROID))?
        .trim_matches('"')
        .parse()
        .ok()
}

/// The parameters: divided by blanks, except where these stand between double quotes. What follows
/// `--` is for init, not for the kernel.
fn parameters(cmdline: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    cmdline
        .split(move |c: char| {
            quoted ^= c == '"';
            c.is_ascii_whitespace() && !quoted
        })
        .filter(|parameter| !parameter.is_empty())
        .take_while(|parameter| *parameter != "--")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_slot_is_what_the_boot_loader_told_the_kernel() {
        for (cmdline, slot) in [
            ("root=/dev/sda2 system_image.slot=b quiet\n", Some("b")),
            ("system_image.slot=a system_image.slot=b", Some("b")),
            ("system_image.slot=\"b\"", Some("b")),
            ("androidboot.slot_suffix=_b", Some("b")),
            ("androidboot.slot_suffix=_b system_image.slot=a", Some("a")),
            ("x.system_image.slot=b", None),
            ("note=\"x system_image.slot=b y\" quiet", None),
            ("quiet -- system_image.slot=b", None),
            ("system_image.slot=", None),
            ("system_image.slot=../b", None),
            ("androidboot.slot_suffix=b", None),
            ("", None),
        ] {
            let found = running(cmdline);
            assert_eq!(found.as_ref().map(SlotName::as_str), slot, "{cmdline:?}");
        }
    }
}
