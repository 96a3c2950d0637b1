//! Where a dashboard listens: on this machine only.

use std::{
    fmt::{self, Display},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

/// The port that is tried where none is asked for.
const PORT: u16 = 7070;

/// An address on loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(SocketAddr);

/// Why an address is none that a dashboard may listen on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It cannot be understood.
    #[error("an address is HOST:PORT on this machine, such as 127.0.0.1:{PORT}, got {0}")]
    Form(String),
    /// Others could reach it, and nothing would ask them who they are.
    #[error(
        "a dashboard listens on loopback only, such as 127.0.0.1:{PORT}, got {0}; from another machine, use ssh -L \
         {PORT}:127.0.0.1:{PORT}"
    )]
    NotLoopback(String),
}

impl Address {
    /// Returns where a dashboard listens if nobody says: first the usual port, then any that is free.
    pub(super) fn usual() -> [Self; 2] {
        [PORT, 0].map(|port| Self((Ipv4Addr::LOCALHOST, port).into()))
    }

    pub(super) fn socket(self) -> SocketAddr {
        self.0
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Reads `127.0.0.1:7070`, `localhost:7070`, `[::1]:7070`, or a port alone. Port 0 takes any that is free.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let numeric = match text.strip_prefix("localhost:") {
            Some(port) => format!("{}:{port}", Ipv4Addr::LOCALHOST),
            None if text.parse::<u16>().is_ok() => format!("{}:{text}", Ipv4Addr::LOCALHOST),
            None => text.to_owned(),
        };
        let socket: SocketAddr =
            numeric.parse().map_err(|_| AddressError::Form(format!("{text:?}")))?;
        match socket.ip().is_loopback() {
            true => Ok(Self(socket)),
            false => Err(AddressError::NotLoopback(text.to_owned())),
        }
    }
}

impl Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Says whether a request's `Host` names this machine. A page of another site that has its name point here (DNS rebinding)
/// is told apart by it. The port may be another's: that of a tunnel.
pub(super) fn is_loopback_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (host, ""),
    };
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    let is_loopback = address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    (name.eq_ignore_ascii_case("localhost") || is_loopback)
        && port.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_are_read_and_others_refused() {
        let read = |text: &str| text.parse::<Address>().map(|address| address.to_string());
        for (text, is) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("localhost:81", "127.0.0.1:81"),
            ("8082", "127.0.0.1:8082"),
            ("[::1]:0", "[::1]:0"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(is));
        }
        for text in ["0.0.0.0:80", "[::]:80", "192.168.1.2:80"] {
            assert_eq!(read(text), Err(AddressError::NotLoopback(text.to_owned())));
        }
        for text in ["", "host", "127.0.0.1", "localhost:x", "127.0.0.1:70000"] {
            assert_eq!(read(text), Err(AddressError::Form(format!("{text:?}"))));
        }
    }

    #[test]
    fn only_names_of_this_machine_are_hosts() {
        for host in
            ["localhost", "LocalHost:9", "127.0.0.1:7070", "127.1.2.3", "[::1]:7070", "[::1]"]
        {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in [
            "",
            "evil.example:7070",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "localhost:x",
        ] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }
}
