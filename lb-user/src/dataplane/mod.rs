//! Everything that touches the kernel's BPF side.

pub mod probe;
