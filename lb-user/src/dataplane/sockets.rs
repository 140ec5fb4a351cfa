//! Sockets in the data plane: into their slots, and the selector onto their groups.

use std::{collections::HashMap, io::Read as _, os::fd::AsFd};

use lb_common::abi::{SocketFacts, SocketTag};
use zerocopy::FromBytes as _;

use super::{Dataplane, Error, Pins, maps::Plain, sys};

impl Dataplane {
    /// The cookies of the sockets that the socket array holds, by slot.
    pub fn slots(&self) -> Result<Vec<(u32, u64)>, Error> {
        let slots = 0..self.maps.countable_backends();
        slots.filter_map(|slot| self.cookie(slot).map(|cookie| Some((slot, cookie?))).transpose()).collect()
    }

    /// The cookie of the socket in a slot. The array is one of sockets: aya sets its values but does not read them.
    fn cookie(&self, slot: u32) -> Result<Option<u64>, Error> {
        sys::lookup(self.maps.sockets.fd(), slot).map_err(Error::call("read the socket array"))
    }

    /// The generations of all slots that were ever used.
    pub fn generations(&self) -> Result<Vec<(u32, u32)>, Error> {
        let slots = 0..self.maps.countable_backends();
        let states = slots.map(|slot| Ok((slot, self.maps.backend(slot)?.generation)));
        states.filter(|state| !matches!(state, Ok((_, 0)))).collect()
    }

    /// Puts a socket into its slot, unless it is there already. The slot's state has been written before.
    pub fn fill(&mut self, service: u32, slot: u32, generation: u32, cookie: u64, socket: impl AsFd) -> Result<(), Error> {
        let present = self.cookie(slot)? == Some(cookie);
        if !present {
            self.maps.clear_backend(slot)?;
        }
        // Of another service: what stands there is not of this socket. (A daemon before this one may have known nothing of times.)
        if !present || self.maps.watch.backend_times(slot)?.service != service {
            self.maps.watch.clear_backend(slot, service)?;
        }
        self.maps.watch.watch(&socket)?;
        let tag = Plain(SocketTag { slot, generation });
        self.maps.socket_tags.insert(&socket.as_fd(), tag, 0).map_err(Error::map("SOCKET_TAGS"))?;
        if present {
            return Ok(());
        }
        sys::set_descriptor(self.maps.sockets.fd(), slot, &socket).map_err(Error::call(format!("put a socket into slot {slot}")))
    }

    /// Empties a slot if it still holds that socket: one that lives but is a backend no more.
    pub fn empty(&mut self, slot: u32, cookie: u64) -> Result<(), Error> {
        if self.cookie(slot)? != Some(cookie) {
            return Ok(());
        }
        sys::delete(self.maps.sockets.fd(), slot).map_err(Error::call(format!("empty slot {slot}")))
    }

    /// Whether listeners are announced by event.
    #[must_use]
    pub fn has_events(&self) -> bool {
        self.programs.socket_state.is_some()
    }

    /// Gives the group of a socket the selector.
    pub fn attach_selector(&self, socket: impl AsFd) -> Result<(), Error> {
        sys::attach_selector(socket, &self.programs.selector).map_err(Error::call("attach the selector to a SO_REUSEPORT group"))
    }

    /// Leaves the group of a socket to the kernel's own hash.
    pub fn detach_selector(&self, socket: impl AsFd) -> Result<(), Error> {
        sys::detach_selector(socket).map_err(Error::call("detach the selector from a SO_REUSEPORT group"))
    }

    /// Leaves a group to the kernel's own hash when there is no daemon, if it has the selector that is pinned.
    pub fn release_group(pins: &Pins, socket: impl AsFd) -> Result<(), Error> {
        // Without the iterator loaded it cannot be told whose program the group has: who calls `weir stop` wants it gone.
        if !pins.program("select_socket").exists() {
            return Ok(());
        }
        sys::detach_selector(socket).map_err(Error::call("detach the selector from a SO_REUSEPORT group"))
    }

    /// Which of this process's sockets are in a group that another program than Weir's selects for, by cookie.
    ///
    /// The caller holds the sockets it asks about. Without the iterator nothing is known, and the answer is empty.
    pub fn steered_by_another(&self) -> Result<HashMap<u64, bool>, Error> {
        let Some(program) = &self.programs.socket_facts else { return Ok(HashMap::new()) };
        let fail = || Error::call("look at sockets");
        let mut bytes = Vec::new();
        sys::iterate_files(program, std::process::id()).map_err(fail())?.read_to_end(&mut bytes).map_err(fail())?;
        let facts = bytes.chunks_exact(size_of::<SocketFacts>()).filter_map(|chunk| SocketFacts::read_from_bytes(chunk).ok());
        Ok(facts.map(|facts| (facts.cookie, facts.has_program != 0 && !self.programs.own_selectors.contains(&facts.program))).collect())
    }
}
