//! Types of a kernel and of a module, as BTF has them, in the order in which it happens that they come.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::aarch64::{Linked, aarch64, with_types};
use crate::tree::Tree;

/// How many types stay together in whatever order they come.
const TOGETHER: usize = 12;

/// What a type is, and what it tells of by number: of the kernel's, then of the module's own.
struct Type {
    kind: u32,
    name: String,
    /// Its size, or what it is about.
    third: Third,
    members: Vec<Member>,
}

enum Third {
    Size(u32),
    About(usize),
}

enum Member {
    Word(u32),
    /// A name.
    Named(String),
    About(usize),
}

use Member::{About, Named, Word};

/// The types of a kernel with so many structures, and of a module that is built against it.
fn btf(structures: usize, extra: usize, build: u64) -> [Vec<u8>; 2] {
    let kernel = types("kernel", structures, extra, 0);
    // The module tells of the kernel's types, too.
    let module = types("module", structures / 10, extra / 10, kernel.len());
    let shared = Written::new(&kernel, build, None);
    let own = Written::new(&module, build, Some((&shared, kernel.len())));
    [shared.bytes, own.bytes]
}

/// A tree with a kernel and a module whose types are in an order that depends on `build`; `extra` structures
/// have a member more.
pub fn kernel_tree(extra: usize, build: u64) -> Tree {
    let [kernel, module] = btf(2500, extra, build);
    // As long as a kernel is.
    let mut image = aarch64(40, 0, Linked::Kernel);
    image.resize(4 << 20, 0);
    let program = aarch64(10, 0, Linked::Not);
    let tree = Tree::new().file("kernel", with_types(&image, &kernel));
    tree.file("module.ko", with_types(&program, &module))
}

/// Structures that tell of pointers to each other, and functions that take these; `shared` other types stand
/// before them.
fn types(what: &str, structures: usize, extra: usize, shared: usize) -> Vec<Type> {
    let mut types = vec![Type {
        kind: 1,
        name: format!("{what}_int"),
        third: Third::Size(4),
        members: vec![Word(32)],
    }];
    for i in 0..structures {
        let own = shared + 1 + 5 * i;
        // A pointer to one that comes elsewhere, maybe one that is shared.
        let other = 5 * (i.wrapping_mul(7919) % structures);
        let other = if i % 3 == 0 {
            2 + other
        } else {
            shared + 2 + other
        };
        let member = |name: &str, about: usize, at: usize| {
            let at = Word(u32::try_from(at).unwrap_or(0));
            [Named(format!("{what}{i}_{name}")), About(about), at]
        };
        let mut members = Vec::new();
        members.extend(member("first", other, 0));
        if i * extra / structures != (i + 1) * extra / structures {
            members.extend(member("more", shared, 64));
        }
        members.extend(member("second", own + 2, members.len() * 32));
        members.extend(member("last", shared, members.len() * 32));
        let array = vec![About(own + 1), About(shared), Word(3)];
        let arguments = vec![Named("it".into()), About(own + 1)];
        let named = |kind, name, third, members| Type {
            kind,
            name,
            third,
            members,
        };
        let none = String::new;
        types.extend([
            named(4, format!("{what}{i}"), Third::Size(48), members),
            named(2, none(), Third::About(own), Vec::new()),
            named(3, none(), Third::Size(0), array),
            named(13, none(), Third::About(shared), arguments),
            named(
                12,
                format!("{what}{i}_do"),
                Third::About(own + 3),
                Vec::new(),
            ),
        ]);
    }
    types
}

/// Types with their numbers.
struct Written {
    bytes: Vec<u8>,
    /// The number of each.
    numbers: Vec<u32>,
    /// Where each string is.
    places: HashMap<String, u32>,
    strings: Vec<u8>,
}

impl Written {
    /// In the order of a build, behind those that are shared, of which there are so many.
    fn new(types: &[Type], build: u64, shared: Option<(&Self, usize)>) -> Self {
        let (before, count) = shared.unzip();
        let count = count.unwrap_or(0);
        let of_strings = before.map_or(0, |before| before.strings.len());
        let mut order: Vec<usize> = (0..types.len()).collect();
        order.sort_by_key(|at| {
            let mut hasher = DefaultHasher::new();
            (build, at / TOGETHER).hash(&mut hasher);
            hasher.finish()
        });
        let number = |number: usize| u32::try_from(number).expect("there are few");
        let mut numbers = vec![0; types.len()];
        for (i, &at) in order.iter().enumerate() {
            numbers[at] = number(count + i + 1);
        }
        let mut written = Self {
            bytes: Vec::new(),
            numbers,
            places: before.map_or_else(HashMap::new, |before| before.places.clone()),
            strings: if before.is_some() {
                Vec::new()
            } else {
                vec![0]
            },
        };
        let mut records = Vec::new();
        for &at in &order {
            let Type {
                kind,
                name,
                third,
                members,
            } = &types[at];
            let width = match kind {
                4 => 3,
                13 => 2,
                _ => members.len().max(1),
            };
            let counted = if matches!(kind, 4 | 13) {
                members.len() / width
            } else {
                0
            };
            let about = |written: &Self, about: usize| match before {
                Some(before) if about < count => before.numbers[about],
                _ => written.numbers[about - count],
            };
            records.push(written.place(name, of_strings));
            records.push(kind << 24 | number(counted));
            records.push(match third {
                Third::Size(size) => *size,
                Third::About(other) => about(&written, *other),
            });
            for member in members {
                records.push(match member {
                    Word(word) => *word,
                    Named(name) => written.place(name, of_strings),
                    About(other) => about(&written, *other),
                });
            }
        }
        let len = 4 * records.len();
        let strings = written.strings.len();
        let words = [0, number(len), number(len), number(strings)];
        written.bytes = vec![0x9f, 0xeb, 1, 0, 24, 0, 0, 0];
        let words = words.iter().chain(&records);
        written
            .bytes
            .extend(words.flat_map(|word| word.to_le_bytes()));
        written.bytes.extend(&written.strings);
        written
    }

    /// Where a string is, behind so many bytes of those that are shared.
    fn place(&mut self, string: &str, shared: usize) -> u32 {
        if string.is_empty() {
            return 0;
        }
        if let Some(&place) = self.places.get(string) {
            return place;
        }
        let place = u32::try_from(shared + self.strings.len()).expect("there are few");
        self.strings.extend(string.bytes().chain([0]));
        self.places.insert(string.into(), place);
        place
    }
}
