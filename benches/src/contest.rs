//! Runs two ways of doing a thing in turn, so that a busy machine hinders both alike.

use anyhow::Context;
use system_image_demo::measure::Cost;

/// Costs of the same step, a round each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Costs(Vec<Cost>);

impl Costs {
    /// How many rounds there were.
    pub(crate) fn rounds(&self) -> usize {
        self.0.len()
    }

    /// The middle one of the seconds by the wall, and of the processors' seconds; the largest
    /// memory.
    pub(crate) fn median(&self) -> Cost {
        Cost {
            seconds: median(self.0.iter().map(|cost| cost.seconds)),
            cpu: median(self.0.iter().map(|cost| cost.cpu)),
            memory: self.0.iter().map(|cost| cost.memory).max().unwrap_or(0),
        }
    }

    /// The fastest round's seconds by the wall.
    pub(crate) fn fastest(&self) -> f64 {
        let seconds = self.0.iter().map(|cost| cost.seconds);
        seconds.fold(f64::INFINITY, f64::min)
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    // Of an even number the slower one of the two in the middle.
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// One side: what it is called, and what it does each round.
pub(crate) struct Side<'a> {
    pub(crate) name: String,
    pub(crate) step: Box<dyn FnMut() -> anyhow::Result<Cost> + 'a>,
}

impl<'a> Side<'a> {
    pub(crate) fn new(
        name: impl Into<String>,
        step: impl FnMut() -> anyhow::Result<Cost> + 'a,
    ) -> Self {
        Self {
            name: name.into(),
            step: Box::new(step),
        }
    }
}

/// Runs each side once per round, in turn. Every other round begins with the other side: what
/// one leaves in the caches helps the other as often.
pub(crate) fn contest(
    what: &str,
    rounds: usize,
    sides: &mut [Side<'_>],
) -> anyhow::Result<Vec<Costs>> {
    let mut costs = vec![Costs::default(); sides.len()];
    for round in 0..rounds {
        eprintln!("{what}: round {} of {rounds}", round + 1);
        let mut order: Vec<_> = (0..sides.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let side = &mut sides[at];
            let cost = (side.step)().with_context(|| format!("{what}, {}", side.name))?;
            costs[at].0.push(cost);
        }
    }
    Ok(costs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_take_turns_and_the_middle_counts() {
        let order = std::cell::RefCell::new(String::new());
        let mut costs = [(9.0, 5), (1.0, 9), (2.0, 7)].into_iter();
        let mut sides = [
            Side::new("a", || {
                order.borrow_mut().push('a');
                let (seconds, memory) = costs.next().context("three rounds")?;
                Ok(Cost {
                    seconds,
                    cpu: -seconds,
                    memory,
                })
            }),
            Side::new("b", || {
                order.borrow_mut().push('b');
                Ok(Cost::default())
            }),
        ];
        let costs = contest("test", 3, &mut sides).unwrap();
        drop(sides);
        assert_eq!(order.into_inner(), "abbaab");
        let median = costs[0].median();
        assert_eq!((median.seconds, median.cpu, median.memory), (2.0, -2.0, 9));
        assert_eq!((costs[0].fastest(), costs[1].rounds()), (1.0, 3));
    }
}
