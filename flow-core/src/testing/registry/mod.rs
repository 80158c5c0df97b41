//! The one list of this crate's bijectors.
//!
//! Adding a bijector means adding a line here: a test compares the list with the source and fails
//! when one is missing. Each type appears in several sizes, odd and degenerate ones among them,
//! because that is where masks and splits go wrong.

use super::Case;

mod autoregressive;
mod basic;
mod bumps;
mod constraints;
mod continuous;
mod couplings;
mod linear;

/// Every bijector of the crate, at least once each.
pub fn all() -> Vec<Case> {
    let groups = [
        autoregressive::cases(),
        basic::cases(),
        bumps::cases(),
        constraints::cases(),
        continuous::cases(),
        couplings::cases(),
        linear::cases(),
    ];
    groups.into_iter().flatten().collect()
}
