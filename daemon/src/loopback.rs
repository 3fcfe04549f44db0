//! Addresses on which the API may be served.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
};

use serde::Deserialize;

/// A loopback address with a port; port 0 means any free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct LoopbackAddress(SocketAddr);

/// Why an address cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("{0:?} is not an address to listen on: write it as 127.0.0.1:8793, [::1]:8793 or localhost:8793")]
    Invalid(String),
    #[error(
        "{0} can be reached from other machines, and the API is for this one alone: listen on 127.0.0.1, [::1] or \
         localhost, and let SSH forward the port, or a proxy that authenticates, to whoever else needs it"
    )]
    NotLoopback(SocketAddr),
}

impl LoopbackAddress {
    pub fn get(self) -> SocketAddr {
        self.0
    }
}

impl TryFrom<SocketAddr> for LoopbackAddress {
    type Error = AddressError;

    fn try_from(address: SocketAddr) -> Result<Self, AddressError> {
        if address.ip().is_loopback() { Ok(Self(address)) } else { Err(AddressError::NotLoopback(address)) }
    }
}

impl FromStr for LoopbackAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        // `localhost` is not resolved: it always means this machine.
        let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
        let address = match local {
            Some(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            None => text.parse().map_err(|_| AddressError::Invalid(text.to_owned()))?,
        };
        address.try_into()
    }
}

impl TryFrom<String> for LoopbackAddress {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl fmt::Display for LoopbackAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_are_accepted() {
        for good in ["127.0.0.1:0", "127.8.9.1:80", "[::1]:8793", "localhost:8793"] {
            assert!(good.parse::<LoopbackAddress>().is_ok(), "{good}");
        }
        for open in ["0.0.0.0:80", "[::]:80", "192.168.1.2:80", "[::ffff:127.0.0.1]:80", "[fe80::1]:80", "8.8.8.8:0"] {
            assert!(matches!(open.parse::<LoopbackAddress>(), Err(AddressError::NotLoopback(_))), "{open}");
        }
        for bad in ["", "8793", ":8793", "127.0.0.1", "localhost", "localhost:x", "example.org:80", "localhost.:80"] {
            assert!(matches!(bad.parse::<LoopbackAddress>(), Err(AddressError::Invalid(_))), "{bad}");
        }
    }
}
