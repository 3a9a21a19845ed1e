//! Whose turn it is (specification, section 14).
//!
//! In: every download that is not over. Out: who begins to transfer and who stops. One download or
//! group runs per owner, and owners do not wait for each other; within one owner the first in the order
//! of creation runs, and keeps its place until it ends, rests, or may not use the network any more.

use super::machine::Activity;

/// What the queue must know of a download.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its number in the order of creation.
    pub number: u64,
    /// Whose it is.
    pub owner: &'a str,
    /// What it does.
    pub activity: Activity,
    /// Whether it may use the network as it is now.
    pub admitted: bool,
    /// Whether it waits for others of its owner at all.
    pub queued: bool,
}

/// What changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// This one's turn has come.
    Grant(u64),
    /// This one may not go on.
    Withhold(u64),
}

/// Says what changes, those who stop first. `entries` are in the order of creation.
pub fn turns(entries: &[Entry<'_>]) -> Vec<Turn> {
    let mut turns = Vec::new();
    // Whose place is taken.
    let mut busy: Vec<&str> = Vec::new();
    for entry in entries {
        match entry.activity {
            Activity::Running if !entry.admitted => turns.push(Turn::Withhold(entry.number)),
            Activity::Running | Activity::Finishing if entry.queued => busy.push(entry.owner),
            _ => {}
        }
    }
    for entry in entries {
        if entry.activity != Activity::Waiting || !entry.admitted {
            continue;
        }
        if entry.queued {
            if busy.contains(&entry.owner) {
                continue;
            }
            busy.push(entry.owner);
        }
        turns.push(Turn::Grant(entry.number));
    }
    turns
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::job::machine::Activity::{Finishing, Resting, Running, Waiting};

    fn entry(number: u64, owner: &str, activity: Activity, admitted: bool) -> Entry<'_> {
        Entry {
            number,
            owner,
            activity,
            admitted,
            queued: true,
        }
    }

    #[test]
    fn one_runs_per_owner_in_the_order_of_creation() {
        use Turn::{Grant, Withhold};
        type Case<'a> = (&'a str, Vec<Entry<'a>>, &'a [Turn]);
        let cases: [Case<'_>; 7] = [
            ("nobody wants to", vec![entry(1, "", Resting, true)], &[]),
            (
                "the first of each owner",
                vec![
                    entry(1, "a", Waiting, true),
                    entry(2, "a", Waiting, true),
                    entry(3, "b", Waiting, true),
                ],
                &[Grant(1), Grant(3)],
            ),
            (
                "who runs keeps the place although an older one wants it",
                vec![entry(1, "a", Waiting, true), entry(2, "a", Running, true)],
                &[],
            ),
            (
                "so does who is being finished, whatever the network",
                vec![
                    entry(1, "a", Waiting, true),
                    entry(2, "a", Finishing, false),
                ],
                &[],
            ),
            (
                "who may not use the network is passed by",
                vec![entry(1, "a", Waiting, false), entry(2, "a", Waiting, true)],
                &[Grant(2)],
            ),
            (
                "and loses the place in mid-flight",
                vec![entry(1, "a", Running, false), entry(2, "a", Waiting, true)],
                &[Withhold(1), Grant(2)],
            ),
            (
                "a message waits for nobody, and nobody for it",
                vec![
                    entry(1, "", Running, true),
                    Entry {
                        queued: false,
                        ..entry(2, "", Waiting, true)
                    },
                ],
                &[Grant(2)],
            ),
        ];
        for (what, entries, want) in cases {
            assert_eq!(turns(&entries), want, "{what}");
        }
    }

    fn any_entry() -> impl Strategy<Value = (usize, usize, bool, bool)> {
        (0..3_usize, 0..4_usize, any::<bool>(), any::<bool>())
    }

    proptest! {
        #[test]
        fn after_its_turns_nothing_changes(all in prop::collection::vec(any_entry(), 0..12)) {
            const OWNERS: [&str; 3] = ["", "a", "b"];
            const ACTIVITIES: [Activity; 4] = [Resting, Waiting, Running, Finishing];
            let mut entries: Vec<Entry<'_>> = (1_u64..)
                .zip(&all)
                .map(|(number, (owner, activity, admitted, queued))| Entry {
                    number,
                    owner: OWNERS[*owner],
                    activity: ACTIVITIES[*activity],
                    admitted: *admitted,
                    queued: *queued,
                })
                .collect();
            for turn in turns(&entries) {
                let (number, activity) = match turn {
                    Turn::Grant(number) => (number, Running),
                    Turn::Withhold(number) => (number, Waiting),
                };
                let place = usize::try_from(number - 1).unwrap();
                entries[place].activity = activity;
            }
            prop_assert_eq!(turns(&entries), []);
            prop_assert!(entries.iter().all(|entry| entry.admitted || entry.activity != Running));
        }
    }
}
