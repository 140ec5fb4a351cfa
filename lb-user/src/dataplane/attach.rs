//! The programs on the interfaces: XDP's, and the tc program that completes what it began. Both by links that are pinned.

use std::{fs, io, os::fd::OwnedFd, path::Path};

use super::{
    Dataplane, Error,
    load::{KERNEL_COOKIES, lack},
    sys::{self, XdpMode},
};
use crate::config::Mode;

/// How an interface was attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// For the first time, in this mode.
    New(XdpMode),
    /// The link was there; its program was replaced, or was this one already.
    Adopted,
}

impl Dataplane {
    /// Attaches the programs to an interface, or replaces those that its pinned links hold.
    ///
    /// The tc program comes first: XDP opens no connection that nobody completes.
    pub fn attach(&mut self, interface: u32, name: &str, mode: Mode) -> Result<Attached, Error> {
        self.attach_restore(interface, name)?;
        let attached = self.attach_ingress(interface, name, mode);
        if attached.is_err() && !self.pins.xdp_link(interface).exists() {
            // The first error is the one to tell.
            let _ = self.detach_restore(interface);
        }
        attached
    }

    /// Whether a connection that was opened by a cookie of Weir's own is completed on every interface that has the XDP program.
    #[must_use]
    pub fn restores(&self) -> bool {
        self.programs.restore.is_some() && self.without_restore.is_empty()
    }

    /// Takes the programs off the interfaces that are not in the list.
    pub fn detach_others(&mut self, interfaces: &[u32]) -> Result<(), Error> {
        let [by_xdp, by_tc] = [self.pins.linked_interfaces(), self.pins.tc_interfaces()]
            .map(|linked| linked.into_iter().filter(|linked| !interfaces.contains(linked)).collect::<Vec<_>>());
        by_xdp.into_iter().try_for_each(|interface| self.detach(interface))?;
        by_tc.into_iter().try_for_each(|interface| self.detach_restore(interface))
    }

    /// Takes the programs off an interface that has them by its pinned links.
    pub fn detach(&mut self, interface: u32) -> Result<(), Error> {
        detach(&self.pins.xdp_link(interface))?;
        self.detach_restore(interface)
    }

    fn attach_ingress(&self, interface: u32, name: &str, mode: Mode) -> Result<Attached, Error> {
        let path = self.pins.xdp_link(interface);
        if adopt(&path, &self.programs.ingress)? {
            return Ok(Attached::Adopted);
        }
        let (link, mode) = self.link_ingress(interface, name, mode)?;
        sys::pin(&link, &path).map_err(pin_error(&path))?;
        Ok(Attached::New(mode))
    }

    fn link_ingress(&self, interface: u32, name: &str, mode: Mode) -> Result<(OwnedFd, XdpMode), Error> {
        let try_mode = |mode| sys::link_xdp(&self.programs.ingress, interface, mode).map(|link| (link, mode));
        let occupied = |source: io::Error| match source.raw_os_error() {
            Some(libc::EBUSY | libc::EEXIST) => Error::Occupied { interface: name.to_owned(), occupant: None },
            _ => Error::call(format!("attach to {name}"))(source),
        };
        if mode == Mode::Generic {
            return try_mode(XdpMode::Generic).map_err(occupied);
        }
        match try_mode(XdpMode::Native) {
            Ok(done) => Ok(done),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST)) => Err(occupied(error)),
            Err(source) if mode == Mode::Native => Err(Error::NotNative { interface: name.to_owned(), source }),
            Err(_) => try_mode(XdpMode::Generic).map_err(occupied),
        }
    }

    /// Without the tc program Weir balances as well, and its defence has the kernel's cookies: that it cannot be attached is no error.
    fn attach_restore(&mut self, interface: u32, name: &str) -> Result<(), Error> {
        let Some(program) = &self.programs.restore else { return self.detach_restore(interface) };
        let path = self.pins.tc_link(interface);
        if adopt(&path, program)? {
            return Ok(());
        }
        let linked = sys::link_tcx(program, interface).and_then(|link| sys::pin(&link, &path));
        match linked {
            Ok(()) => drop(self.without_restore.remove(&interface)),
            Err(error) => {
                let why = format!("cannot attach `restore_request` to {name} ({error})");
                if self.without_restore.insert(interface) {
                    tracing::warn!("{why}: {KERNEL_COOKIES}");
                }
                lack(&mut self.lacking, &why, KERNEL_COOKIES);
            }
        }
        Ok(())
    }

    fn detach_restore(&mut self, interface: u32) -> Result<(), Error> {
        self.without_restore.remove(&interface);
        let path = self.pins.tc_link(interface);
        if path.exists() { detach(&path) } else { Ok(()) }
    }
}

/// Replaces the program of a pinned link. Answers whether there is such a link, and it still is one to its interface.
fn adopt(path: &Path, program: &OwnedFd) -> Result<bool, Error> {
    let Some(link) = sys::open_pin(path).map_err(pin_error(path))? else { return Ok(false) };
    if sys::update_link(&link, program).is_ok() {
        return Ok(true);
    }
    // The interface that the link was for is gone, and another has its index: ENOLINK.
    fs::remove_file(path).map_err(pin_error(path)).map(|()| false)
}

/// Detaches a pinned link, and removes the pin.
fn detach(path: &Path) -> Result<(), Error> {
    if let Ok(Some(link)) = sys::open_pin(path) {
        // The link of an interface that is gone cannot be detached, and need not be.
        let _ = sys::detach_link(&link);
    }
    fs::remove_file(path).map_err(pin_error(path))
}

fn pin_error(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Pins { path: path.to_owned(), source }
}
