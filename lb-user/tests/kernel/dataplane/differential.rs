//! To be written.
use super::Plane;
pub fn segments(_: &Plane) {}
