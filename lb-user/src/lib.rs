//! Weir's daemon and command line.
#![warn(missing_docs)]
