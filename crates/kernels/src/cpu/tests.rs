//! Every kernel against plain arithmetic in f64.

mod matrices;
mod steps;

use super::selftest;

#[test]
fn results_are_those_of_every_target() {
    selftest::check().expect("the hashes that are written down");
}
