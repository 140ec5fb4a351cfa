//! The commands of `weir`, one file each.

pub mod doctor;
