//! How hard to try to make a patch small.

/// How much work goes into making a patch smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effort {
    /// As little as makes a good patch, for builds that are tried out at once.
    Fast,
    /// As much as pays where many devices fetch a patch.
    #[default]
    Default,
}
