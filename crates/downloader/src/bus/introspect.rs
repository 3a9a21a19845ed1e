//! The text of introspection, which every reader of XML understands.

use std::fmt::Write as _;

use super::interfaces::{Arguments, Interface, Member};

const HEAD: &str = "<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection 1.0//EN\"\n \
    \"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">\n";

/// Describes an object with these interfaces, and the names of what is below it.
pub fn describe<'n>(
    interfaces: impl IntoIterator<Item = Interface>,
    below: impl IntoIterator<Item = &'n str>,
) -> String {
    let mut text = format!("{HEAD}<node>\n");
    for interface in interfaces {
        let _ = writeln!(text, "  <interface name=\"{}\">", interface.name());
        for member in interface.members() {
            describe_member(&mut text, member);
        }
        text.push_str("  </interface>\n");
    }
    for name in below {
        let _ = writeln!(text, "  <node name=\"{name}\"/>");
    }
    text.push_str("</node>\n");
    text
}

fn describe_member(text: &mut String, member: &Member) {
    let (kind, name) = match member {
        Member::Method(name, ..) => ("method", name),
        Member::Signal(name, _) => ("signal", name),
        Member::Property(name, of) => {
            let _ = writeln!(
                text,
                "    <property name=\"{name}\" type=\"{of}\" access=\"read\"/>"
            );
            return;
        }
    };
    let _ = writeln!(text, "    <{kind} name=\"{name}\">");
    match member {
        Member::Method(_, ins, outs) => {
            describe_arguments(text, ins, " direction=\"in\"");
            describe_arguments(text, outs, " direction=\"out\"");
        }
        Member::Signal(_, arguments) => describe_arguments(text, arguments, ""),
        Member::Property(..) => {}
    }
    let _ = writeln!(text, "    </{kind}>");
}

fn describe_arguments(text: &mut String, arguments: Arguments, direction: &str) {
    for (name, of) in arguments {
        let _ = writeln!(
            text,
            "      <arg name=\"{name}\" type=\"{of}\"{direction}/>"
        );
    }
}

/// The names right below `path` of these paths, each once, in order.
pub fn children<'p>(path: &str, paths: impl Iterator<Item = &'p str>) -> Vec<String> {
    let base = path.trim_end_matches('/');
    let mut names: Vec<String> = paths
        .filter_map(|one| {
            let rest = one.strip_prefix(base)?.strip_prefix('/')?;
            let name = rest.split('/').next().filter(|name| !name.is_empty())?;
            Some(name.to_owned())
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_below_a_path_are_listed_once() {
        let paths = ["/a/b/1", "/a/b/2", "/a/c", "/ab"];
        for (path, want) in [
            ("/", &["a", "ab"][..]),
            ("/a", &["b", "c"]),
            ("/a/b", &["1", "2"]),
            ("/a/c", &[]),
            ("/x", &[]),
        ] {
            assert_eq!(children(path, paths.into_iter()), want, "{path}");
        }
    }
}
