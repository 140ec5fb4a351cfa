//! Where the data plane is pinned, so that it outlives the daemon.
//!
//! Below the instance's directory: `sockets` (the one map that every version shares), `abi-N/` (the maps of version N), `programs/`,
//! `links/` (`xdp-IFINDEX`, `tc-IFINDEX`, `socket_state`).

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use lb_common::abi::ABI_VERSION;
use rustix::fs::statfs;

use super::{Error, sys};

/// The magic number of the BPF file system (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// The name of the socket array, as a map and as a pin.
pub const SOCKETS: &str = "SOCKETS";

/// The paths of one instance's pins.
#[derive(Debug, Clone)]
pub struct Pins {
    instance: PathBuf,
}

impl Pins {
    /// The pins below a directory, which need not exist.
    #[must_use]
    pub fn at(instance: PathBuf) -> Self {
        Self { instance }
    }

    /// Makes the directories, and mounts the BPF file system where it belongs if it is not mounted.
    pub fn create(&self) -> Result<(), Error> {
        let root = self.instance.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        if !is_bpf_fs(root) {
            mount(&self.instance)?;
        }
        for directory in [self.instance.join("programs"), self.instance.join("links"), self.version(ABI_VERSION)] {
            fs::create_dir_all(&directory).map_err(|source| Error::Pins { path: directory, source })?;
        }
        Ok(())
    }

    /// The directory that holds the pins of all instances.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.instance.parent().unwrap_or(&self.instance)
    }

    /// Whether anything is pinned.
    #[must_use]
    pub fn exist(&self) -> bool {
        self.instance.join("links").is_dir()
    }

    /// The pin of a map of this daemon's version.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.map_of(ABI_VERSION, name)
    }

    /// The pin of a map of a version.
    #[must_use]
    pub fn map_of(&self, version: u32, name: &str) -> PathBuf {
        if name == SOCKETS { self.instance.join("sockets") } else { self.version(version).join(name) }
    }

    /// The pin of a program.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.instance.join("programs").join(name)
    }

    /// The pin of a link.
    #[must_use]
    pub fn link(&self, name: &str) -> PathBuf {
        self.instance.join("links").join(name)
    }

    /// The pin of the XDP program's link to an interface.
    #[must_use]
    pub fn xdp_link(&self, interface: u32) -> PathBuf {
        self.link(&format!("xdp-{interface}"))
    }

    /// The pin of the tc program's link to an interface.
    #[must_use]
    pub fn tc_link(&self, interface: u32) -> PathBuf {
        self.link(&format!("tc-{interface}"))
    }

    /// The interfaces that have a link of the XDP program pinned.
    #[must_use]
    pub fn linked_interfaces(&self) -> Vec<u32> {
        self.linked("xdp-")
    }

    /// The interfaces that have a link of the tc program pinned.
    #[must_use]
    pub fn tc_interfaces(&self) -> Vec<u32> {
        self.linked("tc-")
    }

    fn linked(&self, prefix: &str) -> Vec<u32> {
        names(&self.instance.join("links")).iter().filter_map(|name| name.strip_prefix(prefix)?.parse().ok()).collect()
    }

    /// The versions whose maps are pinned, lowest first.
    #[must_use]
    pub fn versions(&self) -> Vec<u32> {
        let mut versions: Vec<u32> = names(&self.instance).iter().filter_map(|name| name.strip_prefix("abi-")?.parse().ok()).collect();
        versions.sort_unstable();
        versions
    }

    /// Removes the maps of a version.
    pub fn remove_version(&self, version: u32) -> io::Result<()> {
        remove(&self.version(version))
    }

    /// Detaches all links and removes all pins.
    pub fn remove_all(&self) -> Result<(), Error> {
        for name in names(&self.instance.join("links")) {
            let path = self.link(&name);
            if let Some(link) = sys::open_pin(&path).map_err(|source| Error::Pins { path: path.clone(), source })? {
                // A tracepoint's link cannot be detached by force (EOPNOTSUPP): it ends when its last holder, the pin, is gone. And an
                // interface that is gone has taken its attachment along (ENOLINK).
                let _ = sys::detach_link(&link);
            }
        }
        remove(&self.instance).map_err(|source| Error::Pins { path: self.instance.clone(), source })
    }

    fn version(&self, version: u32) -> PathBuf {
        self.instance.join(format!("abi-{version}"))
    }
}

fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn is_bpf_fs(path: &Path) -> bool {
    #[expect(clippy::cast_sign_loss, reason = "a magic number")]
    statfs(path).is_ok_and(|facts| facts.f_type as u64 == BPF_FS_MAGIC)
}

/// Mounts the BPF file system at /sys/fs/bpf, where systemd would have: nothing else is a place to mount on unasked.
fn mount(instance: &Path) -> Result<(), Error> {
    let usual = Path::new("/sys/fs/bpf");
    let refused = |source| Error::NoBpfFs { path: instance.to_owned(), source };
    if !instance.starts_with(usual) {
        return Err(refused(io::Error::other("weir mounts one at /sys/fs/bpf alone")));
    }
    rustix::mount::mount(c"bpf", usual, c"bpf", rustix::mount::MountFlags::empty(), c"mode=0700").map_err(|error| refused(error.into()))?;
    tracing::info!("mounted the BPF file system at {}", usual.display());
    Ok(())
}
