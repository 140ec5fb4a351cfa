//! Questions to a generic netlink family: one request, one reply.
//!
//! Layout: `struct genlmsghdr` (command, version, two zero bytes) after the netlink header, then attributes; numbers in host byte order
//! (`include/uapi/linux/genetlink.h`).

use netlink_packet_core::{NLA_F_NESTED, NLM_F_REQUEST, NetlinkBuffer, NlasIterator};
use netlink_sys::{Socket, protocols::NETLINK_GENERIC};

use super::{
    Error,
    exchange::{self, HEADER_BYTES},
};

/// `sizeof(struct genlmsghdr)`.
const GENERIC_HEADER_BYTES: usize = 4;

/// The family that knows the others, and has a fixed number.
const CONTROLLER: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// A generic netlink family of the running kernel. Its answers are those for the network namespace in which it was opened.
#[derive(Debug)]
pub struct Family {
    socket: Socket,
    name: &'static str,
    number: u16,
}

impl Family {
    /// Looks the family up; none if the kernel does not have it.
    pub fn open(name: &'static str) -> Result<Option<Self>, Error> {
        let mut family = Self { socket: exchange::open(NETLINK_GENERIC)?, name, number: CONTROLLER };
        let mut text = name.as_bytes().to_vec();
        text.push(0);
        let reply = match family.ask(CTRL_CMD_GETFAMILY, &attribute(CTRL_ATTR_FAMILY_NAME, &text)) {
            Err(Error::Refused { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            other => other?,
        };
        let number = find(&reply, CTRL_ATTR_FAMILY_ID).and_then(|value| value.try_into().ok()).map(u16::from_ne_bytes);
        family.number = number.ok_or(Error::Malformed { family: name })?;
        Ok(Some(family))
    }

    /// Sends one command with its attributes and returns the attributes of the reply.
    pub fn ask(&self, command: u8, attributes: &[u8]) -> Result<Vec<u8>, Error> {
        let malformed = || Error::Malformed { family: self.name };
        let length = HEADER_BYTES + GENERIC_HEADER_BYTES + attributes.len();
        let mut message = vec![0; HEADER_BYTES];
        let mut header = NetlinkBuffer::new(&mut message);
        header.set_length(u32::try_from(length).map_err(|_| malformed())?);
        header.set_message_type(self.number);
        header.set_flags(NLM_F_REQUEST);
        // Version 1 is the only one of each family that is asked here.
        message.extend([command, 1, 0, 0]);
        message.extend(attributes);
        let payload = exchange::exchange(&self.socket, &message, self.name)?;
        Ok(payload.get(GENERIC_HEADER_BYTES..).ok_or_else(malformed)?.to_vec())
    }
}

/// One attribute: its length and kind, the value, zeros up to a multiple of four.
#[must_use]
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    // A value that is longer than an attribute can say does not come from this program: all are shorter than 100 bytes.
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut made = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    made.extend(value);
    made.resize(made.len().next_multiple_of(4), 0);
    made
}

/// An attribute that holds others.
#[must_use]
pub fn nested(kind: u16, attributes: &[u8]) -> Vec<u8> {
    attribute(kind | NLA_F_NESTED, attributes)
}

/// The values of all attributes of one kind, in order. What cannot be read as an attribute ends the walk.
pub fn all(attributes: &[u8], kind: u16) -> impl Iterator<Item = &[u8]> {
    let read = NlasIterator::new(attributes).map_while(Result::ok);
    read.filter(move |attribute| attribute.kind() == kind).map(|attribute| {
        let end = usize::from(attribute.length());
        attribute.into_inner().get(4..end).unwrap_or_default()
    })
}

/// The value of the first attribute of a kind.
#[must_use]
pub fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    all(attributes, kind).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_found_again() {
        let inner = [attribute(1, &[7]), attribute(2, b"name\0"), attribute(1, &8_u32.to_ne_bytes())].concat();
        assert_eq!(inner.len(), 8 + 12 + 8);
        let outer = nested(5, &inner);
        let found = find(&outer, 5).unwrap();
        assert_eq!(found, inner, "the nested flag is no part of the kind");
        assert_eq!(all(found, 1).collect::<Vec<_>>(), [&[7][..], &8_u32.to_ne_bytes()]);
        assert_eq!(find(found, 2), Some(&b"name\0"[..]));
        assert_eq!(find(found, 3), None);
    }

    #[test]
    fn attributes_that_are_cut_off_are_none() {
        let whole = attribute(3, &[1, 2, 3, 4]);
        for length in 0..whole.len() {
            assert_eq!(find(&whole[..length], 3), None, "{length} bytes");
        }
        assert_eq!(find(&[2, 0, 3, 0], 3), None, "a length below that of the header");
    }

    #[test]
    fn the_controller_is_a_family_and_an_invented_one_is_none() {
        let controller = Family::open("nlctrl").unwrap().expect("every kernel has it");
        assert_eq!(controller.number, CONTROLLER);
        assert!(Family::open("no-such-family").unwrap().is_none());
        let refused = controller.ask(CTRL_CMD_GETFAMILY, &attribute(CTRL_ATTR_FAMILY_NAME, b"none\0"));
        assert!(matches!(refused, Err(Error::Refused { family: "nlctrl", .. })), "{refused:?}");
    }
}
