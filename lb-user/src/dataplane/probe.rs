//! What this kernel's BPF side can do, found out by trying: tiny programs are loaded and maps made, and all are gone at once. Nothing is
//! attached.

pub(super) mod syscall;

use std::{fs, io, path::Path, time::SystemTime};

use aya::{
    maps::MapType,
    programs::{ProgramError, ProgramInfo, ProgramType, loaded_programs},
    sys::{BpfHelper, SyscallError, is_helper_supported, is_map_supported},
};

pub use super::btf::{Kind, Types};
use syscall::{AttachType, Load};

/// Something that Weir uses, or will.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Feature {
    /// An XDP program that declares that it copes with packets in fragments, and asks for their whole length (5.18).
    XdpFragments,
    /// A sk_reuseport program that also chooses for connections whose listener closed (5.14).
    SelectOrMigrate,
    /// A REUSEPORT_SOCKARRAY (4.20).
    ReuseportArray,
    /// An array in a map of maps whose members have different sizes (5.10).
    InnerMaps,
    /// Values that a socket carries (5.2).
    SocketStorage,
    /// A ring buffer (5.8).
    RingBuffer,
    /// A program on the tracepoint at which a TCP socket changes its state, with typed arguments.
    SocketStateTracepoint,
    /// An iterator over the files of processes (5.8).
    FileIterator,
    /// An iterator over the sockets that carry a value (5.9).
    SocketIterator,
    /// A program on the tracepoint at which packets are dropped, with the reason (5.17).
    DropTracepoint,
    /// A program at the exit of the kernel's function that accepts a connection (5.5).
    AcceptExit,
    /// `bpf_tcp_gen_syncookie` in XDP (5.3).
    GenSyncookie,
    /// `bpf_tcp_raw_gen_syncookie_ipv4` and `_ipv6` in XDP (6.0).
    RawGenSyncookie,
    /// `bpf_tcp_raw_check_syncookie_ipv4` and `_ipv6` in XDP (6.0).
    RawCheckSyncookie,
    /// The kernel function `bpf_sk_assign_tcp_reqsk`, called by a tc program (6.9).
    AssignRequest,
}

impl Feature {
    /// Every feature, those first that Weir cannot do without.
    pub const ALL: [Self; 15] = [
        Self::XdpFragments,
        Self::SelectOrMigrate,
        Self::ReuseportArray,
        Self::InnerMaps,
        Self::SocketStorage,
        Self::RingBuffer,
        Self::SocketStateTracepoint,
        Self::FileIterator,
        Self::SocketIterator,
        Self::DropTracepoint,
        Self::AcceptExit,
        Self::GenSyncookie,
        Self::RawGenSyncookie,
        Self::RawCheckSyncookie,
        Self::AssignRequest,
    ];
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Support {
    /// It works.
    Yes,
    /// This kernel does not have it.
    No,
    /// The kernel may have it, but this process is not let: a missing capability, or a policy of the machine.
    Refused,
    /// The probe failed in another way, with this error.
    Unclear(String),
}

/// Tries one feature. `types` are the running kernel's; without them what is found by a type's name counts as missing.
#[must_use]
pub fn probe(feature: Feature, types: Option<&Types>) -> Support {
    let named = |name, kind| types.and_then(|types| types.id(name, kind)).ok_or(());
    let on_type = |name, kind, attach| named(name, kind).map(|id| load(&Load::tracing(attach, id)));
    let missing = |()| Support::No;
    match feature {
        Feature::XdpFragments => load(&Load::xdp_with_fragments()).and(|| helpers(&[BpfHelper::BPF_FUNC_xdp_get_buff_len])),
        Feature::SelectOrMigrate => load(&Load::select_or_migrate()),
        Feature::ReuseportArray => map(MapType::ReuseportSockArray),
        Feature::InnerMaps => from_io(syscall::inner_maps()),
        Feature::SocketStorage => map(MapType::SkStorage),
        Feature::RingBuffer => map(MapType::RingBuf),
        Feature::SocketStateTracepoint => {
            on_type("btf_trace_inet_sock_set_state", Kind::Typedef, AttachType::RawTracepoint).unwrap_or_else(missing)
        }
        Feature::FileIterator => on_type("bpf_iter_task_file", Kind::Function, AttachType::Iterator).unwrap_or_else(missing),
        Feature::SocketIterator => on_type("bpf_iter_bpf_sk_storage_map", Kind::Function, AttachType::Iterator).unwrap_or_else(missing),
        Feature::DropTracepoint if types.and_then(|types| types.arguments_of_tracepoint("kfree_skb")).is_none_or(|count| count < 3) => {
            Support::No
        }
        Feature::DropTracepoint => on_type("btf_trace_kfree_skb", Kind::Typedef, AttachType::RawTracepoint).unwrap_or_else(missing),
        Feature::AcceptExit => on_type("inet_csk_accept", Kind::Function, AttachType::FunctionExit).unwrap_or_else(missing),
        Feature::GenSyncookie => helpers(&[BpfHelper::BPF_FUNC_tcp_gen_syncookie]),
        Feature::RawGenSyncookie => {
            helpers(&[BpfHelper::BPF_FUNC_tcp_raw_gen_syncookie_ipv4, BpfHelper::BPF_FUNC_tcp_raw_gen_syncookie_ipv6])
        }
        Feature::RawCheckSyncookie => {
            helpers(&[BpfHelper::BPF_FUNC_tcp_raw_check_syncookie_ipv4, BpfHelper::BPF_FUNC_tcp_raw_check_syncookie_ipv6])
        }
        Feature::AssignRequest => named("bpf_sk_assign_tcp_reqsk", Kind::Function).map_or_else(missing, |id| load(&Load::assigning(id))),
    }
}

impl Support {
    /// The first that is not "yes".
    fn and(self, next: impl FnOnce() -> Self) -> Self {
        if self == Self::Yes { next() } else { self }
    }
}

/// Whether programs are compiled to machine code. None if no program can be loaded.
#[must_use]
pub fn is_compiled() -> Option<bool> {
    let program = syscall::load(&Load::xdp_with_fragments()).or_else(|_| syscall::load(&Load::select_or_migrate())).ok()?;
    syscall::compiled_bytes(&program).ok().map(|bytes| bytes > 0)
}

/// A loaded program, as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its id.
    pub id: u32,
    /// Its name, cut to 15 bytes by the kernel. Empty if it has none.
    pub name: String,
    /// When it was loaded.
    pub at: Option<SystemTime>,
}

/// The loaded program of an id; none if it is gone, or this process may not ask.
#[must_use]
pub fn program(id: u32) -> Option<Loaded> {
    let found = loaded_programs().map_while(Result::ok).find(|program| program.id() == id)?;
    Some(Loaded { id, name: String::from_utf8_lossy(found.name()).into_owned(), at: found.loaded_at() })
}

/// The instance among those pinned below `pin_root` that a program belongs to.
#[must_use]
pub fn instance_of(id: u32, pin_root: &Path) -> Option<String> {
    let instances = fs::read_dir(pin_root).ok()?;
    let owns = |directory: &Path| {
        let mut pins = fs::read_dir(directory.join("programs")).into_iter().flatten().map_while(Result::ok);
        pins.any(|pin| ProgramInfo::from_pin(pin.path()).is_ok_and(|program| program.id() == id))
    };
    let owner = instances.map_while(Result::ok).find(|instance| owns(&instance.path()))?;
    owner.file_name().into_string().ok()
}

fn load(program: &Load) -> Support {
    from_io(syscall::load(program).map(drop))
}

fn helpers(wanted: &[BpfHelper]) -> Support {
    let each = wanted.iter().map(|helper| match is_helper_supported(ProgramType::Xdp, *helper) {
        Ok(true) => Support::Yes,
        Ok(false) => Support::No,
        Err(ProgramError::SyscallError(SyscallError { io_error, .. })) => from_io(Err(io_error)),
        Err(error) => Support::Unclear(error.to_string()),
    });
    each.fold(Support::Yes, |all, next| all.and(|| next))
}

fn map(kind: MapType) -> Support {
    match is_map_supported(kind) {
        Ok(true) => Support::Yes,
        Ok(false) => Support::No,
        Err(SyscallError { io_error, .. }) => from_io(Err(io_error)),
    }
}

/// EINVAL and E2BIG: the kernel does not know a type, flag or field. ENOTSUPP is the kernel's own 524.
fn from_io(result: io::Result<()>) -> Support {
    const ENOTSUPP: i32 = 524;
    let Err(error) = result else { return Support::Yes };
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Support::Refused,
        Some(libc::EINVAL | libc::E2BIG | libc::EOPNOTSUPP | libc::ENOSYS | ENOTSUPP) => Support::No,
        _ => Support::Unclear(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_from_a_lack_and_a_refusal() {
        let outcome = |code| from_io(Err(io::Error::from_raw_os_error(code)));
        assert_eq!(from_io(Ok(())), Support::Yes);
        assert_eq!(outcome(libc::EINVAL), Support::No);
        assert_eq!(outcome(524), Support::No);
        assert_eq!(outcome(libc::EPERM), Support::Refused);
        assert!(matches!(outcome(libc::ENOMEM), Support::Unclear(_)));
    }

    #[test]
    fn the_first_lack_decides() {
        assert_eq!(Support::Yes.and(|| Support::No), Support::No);
        assert_eq!(Support::Refused.and(|| unreachable!("asked though refused")), Support::Refused);
    }

    #[test]
    fn without_types_what_is_found_by_name_is_missing() {
        assert_eq!(probe(Feature::AssignRequest, None), Support::No);
        assert_eq!(probe(Feature::SocketStateTracepoint, None), Support::No);
    }
}
