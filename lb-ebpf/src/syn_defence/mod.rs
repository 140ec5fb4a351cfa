//! The defence against SYN floods.

pub mod restore;
