//! The worked examples of the client's specification, section 12, and what it calls quirks.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

use proptest::prelude::*;
use system_image_formats::index::{FileEntry, Image, ImageKind, Index, Patch};
use system_image_formats::outline::Outline;
use system_image_formats::time::GeneratedAt;
use system_image_formats::version::{ImageVersion, Percentage};
use system_image_planner::{
    Filter, ImageVerdict, NoUpdate, PhaseSource, Plan, Request, RouteVerdict, plan,
};
use system_image_trust::Verified;

const MIB: u64 = 1 << 20;

/// Reads the specification's short notation: `F10(400)`, `D10>11(30)`, inside the parentheses
/// also `bootme`, `phased 20`, `minversion 35`.
fn index(text: &str) -> Verified<Outline> {
    let mut index = Index::empty(GeneratedAt::from_unix(0));
    for item in text.split_inclusive(')') {
        let (name, notes) = item.trim().trim_end_matches(')').split_once('(').unwrap();
        let mut notes = notes.split(", ");
        let size: u64 = notes.next().unwrap().parse().unwrap();
        let (mut bootme, mut phased, mut minversion) = (false, Percentage::ALL, 0);
        for note in notes {
            match note.split_once(' ') {
                None => bootme = true,
                Some(("phased", percentage)) => phased = percentage.parse().unwrap(),
                Some((_, version)) => minversion = version.parse().unwrap(),
            }
        }
        let (kind, version) = match name[1..].split_once('>') {
            None => (
                ImageKind::Full {
                    minversion: ImageVersion::new(minversion),
                },
                name[1..].parse().unwrap(),
            ),
            Some((base, version)) => (
                ImageKind::Delta {
                    base: base.parse().unwrap(),
                },
                version.parse().unwrap(),
            ),
        };
        let path = format!("/pool/{}.tar.xz", name.replace('>', "-"));
        index.images.push(Image {
            kind,
            version,
            description: None,
            version_detail: Default::default(),
            files: vec![file(&path, 0, size * MIB)],
            bootme,
            phased,
            extra: Default::default(),
        });
    }
    Verified::trust_unsigned_for_testing(Outline::from(&index))
}

fn file(path: &str, order: u32, size: u64) -> FileEntry {
    FileEntry {
        order,
        signature: format!("{path}.asc").parse().unwrap(),
        path: path.parse().unwrap(),
        checksum: [0; 32].into(),
        size,
        extra: Default::default(),
    }
}

fn request(installed: u32, phase: i64) -> Request {
    Request {
        installed: ImageVersion::new(installed),
        filter: None,
        cap: None,
        phase: PhaseSource::Override(Percentage::clamped(phase)),
        patch_memory: 0,
    }
}

fn winner(plan: &Plan) -> String {
    plan.decision
        .as_ref()
        .map_or_else(|_| "none".into(), ToString::to_string)
}

const A: &str = "F10(400) D10>11(30) D11>12(40) F12(410) D12>13(50)";
const B: &str = "F20(300, bootme) D20>21(10) F21(380)";
const C: &str = "F20(300) F21(380, phased 20) D20>21(15, phased 20)";
const D: &str = "F30(300) D30>31(15, phased 0) F31(300, phased 0)";
const E: &str = "F40(300, minversion 35) D30>40(20) D40>41(20)";
const I: &str = "F10(400) D10>11(30) F11(410) D9>11(3)";
const L: &str = "F60(100) F61(100, phased 10)";

#[test]
fn worked_examples_have_the_specified_winners() {
    for (name, images, installed, phase, want) in [
        ("A", A, 10, 0, "11:12:13"),
        ("A", A, 11, 0, "12:13"),
        ("A", A, 0, 0, "12:13"),
        ("A", A, 7, 0, "12:13"),
        ("A", A, 13, 0, "none"),
        ("B", B, 0, 0, "21"),
        ("C", C, 20, 20, "21"),
        ("C", C, 20, 21, "none"),
        ("C", C, 10, 50, "none"),
        ("C", C, 10, 20, "20:21"),
        ("D", D, 0, 0, "none"),
        ("E", E, 30, 0, "40:41"),
        ("E", E, 34, 0, "none"),
        ("E", E, 35, 0, "40:41"),
        (
            "F",
            "F1(100) D1>2(10) D1>3(10) D2>4(10) D3>4(10)",
            1,
            0,
            "2:4",
        ),
        ("G", "F5(100) D3>5(100)", 3, 0, "5"),
        ("H", "F51(100, bootme) D51>52(100, bootme)", 50, 0, "51:52"),
        ("I", I, 9, 0, "11"),
        ("L", L, 5, 50, "60"),
        ("L", L, 5, 10, "61"),
    ] {
        let index = index(images);
        let plan = plan(&index, &request(installed, phase));
        assert_eq!(winner(&plan), want, "{name} from {installed} at {phase} %");
    }
}

/// The scores of the table's second column, from best to worst.
#[test]
fn worked_examples_have_the_specified_scores() {
    for (images, installed, want) in [
        (A, 10, &[("11:12:13", 0), ("12:13", 340)][..]),
        (A, 11, &[("12:13", 0), ("12:13", 370)]),
        (A, 0, &[("12:13", 0), ("10:11:12:13", 60)]),
        (B, 0, &[("21", 70), ("20:21", 100)]),
        (C, 10, &[("20:21", 0), ("21", 65)]),
        (D, 0, &[("31", 0), ("30:31", 15)]),
        (I, 9, &[("11", 0), ("11", 407), ("10:11", 427)]),
        (L, 5, &[("61", 0), ("60", 9001)]),
        (
            "F51(100, bootme) D51>52(100, bootme)",
            50,
            &[("51:52", 200)],
        ),
    ] {
        let index = index(images);
        let plan = plan(&index, &request(installed, 0));
        let found: Vec<_> = plan
            .candidates
            .iter()
            .map(|c| (c.route.to_string(), c.score))
            .collect();
        // Paths that another beats under any score are not listed.
        let want: Vec<_> = want
            .iter()
            .map(|(route, score)| ((*route).to_owned(), *score))
            .collect();
        for candidate in &found {
            assert!(
                want.contains(candidate),
                "{images} from {installed}: {found:?}"
            );
        }
        assert_eq!(found[0], want[0], "{images} from {installed}");
    }
}

#[test]
fn g_takes_the_full_image_and_i_the_delta() {
    let g = index("F5(100) D3>5(100)");
    assert!(
        plan(&g, &request(3, 0))
            .decision
            .unwrap()
            .starts_from_nothing()
    );
    let i = index(I);
    assert!(
        !plan(&i, &request(9, 0))
            .decision
            .unwrap()
            .starts_from_nothing()
    );
}

#[test]
fn h_downloads_only_up_to_the_image_that_must_be_booted() {
    let index = index("F51(100, bootme) D51>52(100, bootme)");
    let route = plan(&index, &request(50, 0)).decision.unwrap();
    assert_eq!((route.now(), route.images().len()), (1, 2));
    assert!(route.starts_from_nothing());
}

#[test]
fn files_are_applied_by_image_then_order_then_path_and_once() {
    let image = |files: &[(&str, u32)]| Image {
        kind: ImageKind::FULL,
        version: ImageVersion::new(1),
        description: None,
        version_detail: Default::default(),
        files: files.iter().map(|(path, at)| file(path, *at, 1)).collect(),
        bootme: false,
        phased: Percentage::ALL,
        extra: Default::default(),
    };
    let first = image(&[("/z", 2), ("/shared", 1), ("/b", 0), ("/a", 1)]);
    let second = image(&[("/y", 1), ("/shared", 0)]);
    let files = system_image_planner::files(vec![first, second]);
    let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["/b", "/a", "/shared", "/z", "/y"]);
}

#[test]
fn patches_are_counted_where_they_lead_from_what_is_installed() {
    let mut index = Index::empty(GeneratedAt::from_unix(0));
    let image = |version, base: Option<u32>, size: u64, patch: Option<(u64, u64)>| {
        let mut entry = file("/pool/a.tar.xz", 0, size << 20);
        if let Some((size, memory)) = patch {
            entry.set_patch(Patch {
                file: file("/pool/a.patch", 0, size << 20),
                memory: memory << 20,
            });
        }
        Image {
            kind: base.map_or(ImageKind::FULL, |base| ImageKind::Delta {
                base: ImageVersion::new(base),
            }),
            version: ImageVersion::new(version),
            description: None,
            version_detail: Default::default(),
            files: vec![entry],
            bootme: false,
            phased: Percentage::ALL,
            extra: Default::default(),
        }
    };
    // Direct, the delta is larger than two small ones; its patch is smaller.
    index.push(image(2, Some(1), 10, Some((9, 90))));
    index.push(image(3, Some(2), 10, Some((1, 90))));
    index.push(image(3, Some(1), 30, Some((15, 60))));
    let outline = Verified::trust_unsigned_for_testing(Outline::from(&index));
    for (memory, want, size, is_patched) in [
        (0, "2:3", 20, false),
        (59, "2:3", 20, false),
        (60, "3", 15, true),
        (96, "3", 15, true),
    ] {
        let request = Request {
            patch_memory: memory << 20,
            ..request(1, 0)
        };
        let plan = plan(&outline, &request);
        let route = plan.decision.unwrap();
        assert_eq!(route.to_string(), want, "{memory} MiB");
        assert_eq!(route.size(), size << 20, "{memory} MiB");
        assert_eq!(route.is_patched(), is_patched, "{memory} MiB");
    }
    let (patched, memory) = index.images[1].patched().unwrap();
    assert_eq!((patched.size(), memory), (1 << 20, 90 << 20));
    assert_eq!(patched.files[0].path.as_str(), "/pool/a.patch");
    let named: Vec<_> = index.images[1].named().collect();
    assert_eq!(named.len(), 2);
    assert!(index.images[1].patched().unwrap().0.patched().is_none());
}

#[test]
fn filters_cut_the_paths() {
    let index = index(I);
    let full = plan(
        &index,
        &Request {
            filter: Some(Filter::Full),
            ..request(0, 0)
        },
    );
    assert_eq!(winner(&full), "11");
    let routes: Vec<_> = full
        .candidates
        .iter()
        .map(|c| (c.route.to_string(), c.score))
        .collect();
    assert_eq!(routes, [("11".into(), 10), ("10".into(), 9001)]);
    let delta = plan(
        &index,
        &Request {
            filter: Some(Filter::Delta),
            ..request(0, 0)
        },
    );
    assert_eq!(
        delta.decision,
        Err(NoUpdate::NoCandidate {
            installed: ImageVersion::NONE
        })
    );
    let delta = plan(
        &index,
        &Request {
            filter: Some(Filter::Delta),
            ..request(10, 0)
        },
    );
    assert_eq!(winner(&delta), "11");
    assert_eq!(delta.images[0], ImageVerdict::Filtered);
}

#[test]
fn the_cap_cuts_the_chosen_route_even_to_nothing() {
    let index = index(I);
    let cap = Some(ImageVersion::new(10));
    let plan = plan(
        &index,
        &Request {
            cap,
            ..request(10, 0)
        },
    );
    assert_eq!(
        plan.decision,
        Err(NoUpdate::Capped {
            from: ImageVersion::new(11),
            cap: ImageVersion::new(10)
        })
    );
    let index = self::index(A);
    let capped = system_image_planner::plan(
        &index,
        &Request {
            cap: Some(ImageVersion::new(12)),
            ..request(10, 0)
        },
    );
    assert_eq!(winner(&capped), "11:12");
}

#[test]
fn every_no_has_its_reason() {
    let c = index(C);
    let held = plan(&c, &request(20, 21));
    assert_eq!(held.decision, Err(NoUpdate::HeldBack));
    let image = Percentage::clamped(20);
    let device = Percentage::clamped(21);
    assert_eq!(
        held.candidates[0].verdict,
        RouteVerdict::Phased { device, image }
    );
    assert_eq!(held.phase, Some((ImageVersion::new(21), device)));
    let d = index(D);
    assert_eq!(
        plan(&d, &request(0, 0)).candidates[0].verdict,
        RouteVerdict::Withdrawn
    );
    let odd = index("F5(1) F5(2) F9(1, minversion 8) D7>7(1) D8>6(1) D20>21(1) D6>8(1)");
    assert_eq!(
        plan(&odd, &request(6, 0)).images,
        [
            ImageVerdict::NotNewer,
            ImageVerdict::Duplicate,
            ImageVerdict::NeedsVersion(ImageVersion::new(8)),
            ImageVerdict::NotUpward,
            ImageVerdict::NotUpward,
            ImageVerdict::Unreachable,
            ImageVerdict::Usable,
        ]
    );
}

#[test]
fn a_cycle_of_deltas_terminates() {
    let index = index("D10>11(1) D11>10(1) D11>12(1) D12>11(1)");
    assert_eq!(winner(&plan(&index, &request(10, 0))), "11:12");
    assert_eq!(winner(&plan(&index, &request(12, 0))), "none");
}

#[test]
fn two_deltas_a_version_are_no_exponential_matter() {
    let text: String = (2..200)
        .map(|v| format!("D{}>{v}(3)D{}>{v}(4)", v - 1, v - 2))
        .collect();
    let index = index(&text);
    // The original lists every path: from 70 versions on it needs hours. This ends at once.
    let plan = plan(&index, &request(1, 0));
    assert_eq!(plan.decision.unwrap().target(), ImageVersion::new(199));
}

/// Lists every complete path as the original does, scores them, and takes the best.
fn brute_force(index: &Verified<Outline>, installed: u32) -> Option<(u64, u32)> {
    let images = &index.images;
    let mut queue: Vec<Vec<usize>> = Vec::new();
    for (at, image) in images.iter().enumerate() {
        match image.kind {
            ImageKind::Full { minversion } => {
                if minversion.get() <= installed && image.version.get() > installed {
                    queue.push(vec![at]);
                }
            }
            ImageKind::Delta { base } if base.get() == installed => queue.push(vec![at]),
            ImageKind::Delta { .. } => {}
        }
    }
    let mut complete = Vec::new();
    while let Some(path) = queue.pop() {
        let end = images[*path.last().unwrap()].version;
        let next: Vec<_> = (0..images.len())
            .filter(|at| images[*at].kind.base() == Some(end))
            .collect();
        if next.is_empty() {
            complete.push(path);
        } else {
            queue.extend(next.into_iter().map(|at| [path.clone(), vec![at]].concat()));
        }
    }
    let end = |path: &Vec<usize>| u64::from(images[*path.last().unwrap()].version.get());
    let size = |path: &Vec<usize>| path.iter().map(|at| images[*at].size).sum::<u64>();
    let newest = complete.iter().map(end).max()?;
    let smallest = complete.iter().map(size).min()?;
    let phase = PhaseSource::Override(Percentage::clamped(50)).percentage(ImageVersion::NONE);
    complete
        .iter()
        .filter(|path| {
            let phased = images[*path.last().unwrap()].phased;
            phased > Percentage::NONE && phase <= phased
        })
        .map(|path| {
            let reboots = path.iter().filter(|at| images[**at].bootme).count() as u64;
            let score = 100 * reboots + (size(path) - smallest) / MIB + 9001 * (newest - end(path));
            (score, u32::try_from(end(path)).unwrap())
        })
        .min()
}

fn any_index() -> impl Strategy<Value = String> {
    let image = (
        any::<bool>(),
        1u32..9,
        1u32..5,
        1u64..300,
        0u32..6,
        any::<bool>(),
    )
        .prop_map(|(full, base, up, size, phased, bootme)| {
            let phased = [100, 100, 100, 60, 30, 0][phased as usize];
            let bootme = if bootme { ", bootme" } else { "" };
            let name = if full {
                format!("F{base}")
            } else {
                format!("D{base}>{}", base + up)
            };
            (
                name.clone(),
                format!("{name}({size}, phased {phased}{bootme})"),
            )
        });
    proptest::collection::vec(image, 1..14).prop_map(|images| {
        let unique: std::collections::BTreeMap<_, _> = images.into_iter().collect();
        unique.into_values().collect()
    })
}

proptest! {
    #[test]
    fn the_search_finds_what_listing_every_path_finds(text in any_index(), installed in 0u32..6) {
        let index = index(&text);
        let plan = plan(&index, &request(installed, 50));
        let found = plan.candidates.iter()
            .find(|candidate| candidate.verdict == RouteVerdict::Chosen)
            .map(|candidate| (candidate.score, candidate.route.target().get()));
        // Equal scores at different versions cannot be: a version short costs more than all sizes.
        prop_assert_eq!(found, brute_force(&index, installed), "{}", text);
    }
}
