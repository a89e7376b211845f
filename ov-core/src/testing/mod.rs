//! Help for the tests of this crate and of device crates (feature `testing`).

pub mod conformance;
pub mod sim;
pub mod template_device;
pub mod tolerance;

pub use tolerance::{Difference, compare};
