//! Which copies out of a packed member are worth going there. An applier keeps a few pages of what a member
//! holds; for any other it unpacks the member up to there.

use std::collections::VecDeque;

use system_image_delta::patch::PAGE;

use super::steps::{Step, without};

/// Copied bytes that are worth another page: where few are kept, it is soon needed again.
const WORTH_A_PAGE: usize = 512;
const WORTH_ONE_OF_FEW: usize = 4 << 10;

/// So many pages are few.
const FEW: usize = 16;

/// The pages that are near, where copies are taken in order.
pub(crate) struct Reach {
    /// Where the old bytes begin in what the member holds.
    start: usize,
    /// How many pages are kept.
    most: usize,
    /// Copied bytes that are worth another.
    worth: usize,
    /// The one that was used last stands last.
    pages: VecDeque<usize>,
}

impl Reach {
    /// Of old bytes that begin at `start` of a member, of which `most` pages are kept.
    pub(crate) fn new(start: usize, most: usize) -> Self {
        Self {
            start,
            most: most.max(1),
            worth: if most < FEW {
                WORTH_ONE_OF_FEW
            } else {
                WORTH_A_PAGE
            },
            pages: VecDeque::new(),
        }
    }

    /// Whether the next copy is worth it.
    pub(crate) fn takes(&mut self, old: usize, len: usize) -> bool {
        if len == 0 {
            return true;
        }
        let (first, last) = (
            (self.start + old) / PAGE,
            (self.start + old + len - 1) / PAGE,
        );
        let mut needed = first..=last;
        if len < self.worth && !needed.all(|page| self.pages.contains(&page)) {
            return false;
        }
        for page in first..=last {
            self.pages.retain(|&kept| kept != page);
            self.pages.push_back(page);
            if self.pages.len() > self.most {
                self.pages.pop_front();
            }
        }
        true
    }

    /// Steps without the copies that are not.
    pub(crate) fn steps(mut self, steps: Vec<Step>) -> Vec<Step> {
        without(steps, |step, _| self.takes(step.old, step.copy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_copies_are_taken_from_near_pages_only() {
        assert!(Reach::new(0, FEW).takes(3 * PAGE, WORTH_A_PAGE));
        let mut reach = Reach::new(0, 2);
        assert!(!reach.takes(3 * PAGE, WORTH_ONE_OF_FEW - 1));
        assert!(reach.takes(3 * PAGE, WORTH_ONE_OF_FEW));
        assert!(reach.takes(3 * PAGE + 5, 20));
        assert!(
            !reach.takes(4 * PAGE - 10, 20),
            "it goes over to another page"
        );
        assert!(reach.takes(5 * PAGE, 5000));
        assert!(reach.takes(3 * PAGE, 20));
        assert!(reach.takes(7 * PAGE, 5000));
        assert!(!reach.takes(5 * PAGE, 20), "it was used least recently");
        assert!(reach.takes(0, 0));
    }

    #[test]
    fn what_is_not_copied_is_told() {
        let step = |literal, old, copy| Step { literal, old, copy };
        let steps = vec![
            step(3, 0, 5000),
            step(1, 9 * PAGE, 30),
            step(2, 5010, 40),
            step(5, 9 * PAGE, 31),
        ];
        let kept = Reach::new(0, 1).steps(steps);
        assert_eq!(kept, [step(3, 0, 5000), step(33, 5010, 40), step(36, 0, 0)]);
    }
}
