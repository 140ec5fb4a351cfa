//! Prefixes as people write them: `192.0.2.0/24`, `2001:db8::/32`, or an address alone.
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// A network: every address that begins as `address` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    /// The network's address: its bits beyond `length` are zero. Never an IPv4 address written as an IPv6 one.
    pub address: IpAddr,
    /// How many bits count: at most 32 of an IPv4 address, 128 of an IPv6 one.
    pub length: u8,
}

impl Prefix {
    /// How many bits an address of this family has.
    const fn bits(address: IpAddr) -> u8 {
        if address.is_ipv4() { 32 } else { 128 }
    }

    /// The network of this length that the address is in.
    fn around(address: IpAddr, length: u8) -> Self {
        let beyond = u32::from(Self::bits(address).saturating_sub(length));
        let address = match address {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & u32::MAX.checked_shl(beyond).unwrap_or(0))),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & u128::MAX.checked_shl(beyond).unwrap_or(0))),
        };
        Self { address, length }
    }
}

/// The error is the remedy.
impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let address: IpAddr = address.parse().map_err(|_| match address.split_once('%') {
            Some((address, _)) => format!("write \"{address}\" without the device: a prefix is the same on all of them"),
            None => "write an address or a network, not a name, as in \"192.0.2.0/24\", \"2001:db8::/32\" or \"192.0.2.7\"".to_owned(),
        })?;
        let bits = Self::bits(address);
        let length = match length {
            None => bits,
            Some(length) => {
                let number = length.parse::<u8>().ok().filter(|_| length.bytes().all(|byte| byte.is_ascii_digit()));
                let number = number.filter(|number| *number <= bits);
                number.ok_or_else(|| format!("write the prefix's length after the `/`, a number from 0 to {bits}"))?
            }
        };
        let prefix = Self::around(address, length);
        if prefix.address != address {
            return Err(format!("the network is \"{prefix}\": write that, or \"{address}\" for this address alone"));
        }
        match address.to_canonical() {
            v4 @ IpAddr::V4(_) if address.is_ipv6() => {
                Err(format!("write \"{}\": Weir holds both for the same", Self::around(v4, length.saturating_sub(96))))
            }
            _ => Ok(prefix),
        }
    }
}

/// An address alone is written alone.
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, length } = self;
        if *length == Self::bits(*address) { address.fmt(f) } else { write!(f, "{address}/{length}") }
    }
}

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn networks_and_addresses_are_read() {
        for (text, address, length) in [
            ("192.0.2.0/24", "192.0.2.0", 24),
            ("192.0.2.7", "192.0.2.7", 32),
            ("192.0.2.7/32", "192.0.2.7", 32),
            ("0.0.0.0/0", "0.0.0.0", 0),
            ("2001:db8::/32", "2001:db8::", 32),
            ("2001:DB8::7", "2001:db8::7", 128),
            ("::/0", "::", 0),
            ("fe80::/10", "fe80::", 10),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(text.parse(), Ok(Prefix { address, length }), "{text}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused_with_what_would_be_one() {
        for (text, remedy) in [
            ("192.0.2.7/24", "the network is \"192.0.2.0/24\": write that, or \"192.0.2.7\""),
            ("2001:db8::7/32", "\"2001:db8::/32\""),
            ("128.0.0.0/0", "\"0.0.0.0/0\""),
            ("192.0.2.0/33", "from 0 to 32"),
            ("2001:db8::/129", "from 0 to 128"),
            ("192.0.2.0/255.255.255.0", "from 0 to 32"),
            ("192.0.2.0/+24", "from 0 to 32"),
            ("192.0.2.0/", "from 0 to 32"),
            ("192.0.2", "not a name"),
            ("example.org", "not a name"),
            ("", "not a name"),
            ("fe80::1%eth0", "write \"fe80::1\" without the device"),
            ("::ffff:192.0.2.0/120", "write \"192.0.2.0/24\""),
            ("::ffff:192.0.2.7", "write \"192.0.2.7\""),
        ] {
            let refused = text.parse::<Prefix>().unwrap_err();
            assert!(refused.contains(remedy), "{text}: {refused}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(address: IpAddr, length in 0..=128u8) {
            let prefix = Prefix::around(address, length.min(Prefix::bits(address)));
            prop_assume!(prefix.address.to_canonical() == prefix.address);
            prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
            let json = serde_json::to_string(&prefix).unwrap();
            prop_assert_eq!(serde_json::from_str::<Prefix>(&json).unwrap(), prefix);
        }
    }
}
