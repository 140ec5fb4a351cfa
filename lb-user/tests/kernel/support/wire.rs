//! Frames put on a device as they are, and the addresses they need.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use nix::ifaddrs::getifaddrs;

use super::netns::Entrance;

/// The MAC address of a device.
pub fn mac(entrance: &Entrance, device: &str) -> [u8; 6] {
    let find = || {
        let mut found = getifaddrs().expect("list the addresses").filter(|found| found.interface_name == device);
        found.find_map(|found| found.address?.as_link_addr()?.addr())
    };
    entrance.run(find).unwrap_or_else(|| panic!("{device} has no MAC address"))
}

/// Sends a frame out of a device, past the stack (AF_PACKET).
pub fn send_frame(entrance: &Entrance, device: &str, frame: &[u8]) {
    entrance.run(|| {
        let index = nix::net::if_::if_nametoindex(device).expect("the device's index");
        // SAFETY: a system call without addresses.
        let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
        assert!(socket >= 0, "open a packet socket: {}", io::Error::last_os_error());
        // SAFETY: the kernel has just made this descriptor for us.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        // SAFETY: a structure of plain numbers.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = u16::try_from(libc::AF_PACKET).expect("17");
        to.sll_ifindex = i32::try_from(index).expect("an index");
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).expect("20");
        // SAFETY: both buffers are as long as is said.
        let sent = unsafe { libc::sendto(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, (&raw const to).cast(), length) };
        assert_eq!(usize::try_from(sent).ok(), Some(frame.len()), "send a frame: {}", io::Error::last_os_error());
    });
}
