//! TCP addresses: a host name or IP address, and a port.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::invalid::Fault;

/// Where a TCP server listens: a host name or IP address, and a port from 1 to 65535.
///
/// Displays as `name:port`, `1.2.3.4:port` or `[::1]:port`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TcpAddress {
    host: OwnedHost,
    port: u16,
}

/// A host name, which a dial resolves, or an IP address, which needs no resolving.
///
/// Displays as in a URI: an IPv6 address stands in brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Host<'a> {
    /// A name in lower case: labels of letters, digits, `-` and `_`, perhaps with a dot at the end.
    Name(&'a str),
    /// An address.
    Ip(IpAddr),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum OwnedHost {
    Name(Arc<str>),
    Ip(IpAddr),
}

impl TcpAddress {
    /// The host name or IP address.
    pub fn host(&self) -> Host<'_> {
        match &self.host {
            OwnedHost::Name(name) => Host::Name(name),
            OwnedHost::Ip(ip) => Host::Ip(*ip),
        }
    }

    /// The port, never 0.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is this machine itself: a loopback address, or `localhost`. Not a name below that: some resolvers ask
    /// the network for those.
    #[cfg(feature = "consul")]
    pub(crate) fn is_loopback(&self) -> bool {
        match &self.host {
            OwnedHost::Name(name) => **name == *"localhost",
            OwnedHost::Ip(ip) => ip.is_loopback(),
        }
    }

    /// Reads `host:port`, or `host` alone if there is a default port.
    pub(super) fn parse(text: &str, default_port: Option<u16>) -> Result<Self, Fault> {
        reject_foreign_parts(text)?;
        let (host, port) = split(text)?;
        let port = match (port, default_port) {
            (Some(port), _) => parse_port(port)?,
            (None, Some(port)) => port,
            (None, None) => {
                return Err(Fault::new(
                    "it has no port",
                    "append one, as in server:50051",
                ));
            }
        };
        Ok(Self {
            host: parse_host(host)?,
            port,
        })
    }
}

impl fmt::Display for TcpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            OwnedHost::Ip(IpAddr::V4(ip)) => write_v4(f, ip, self.port),
            _ => write!(f, "{}:{}", self.host(), self.port),
        }
    }
}

/// By hand: ten thousand endpoints are told apart by a hash of this text, before the first call, and with `write!` that
/// takes twice as long.
fn write_v4(f: &mut fmt::Formatter<'_>, ip: Ipv4Addr, port: u16) -> fmt::Result {
    let mut text = [0; "255.255.255.255:65535".len()];
    let mut len = 0;
    let mut put = |byte| {
        text[len] = byte;
        len += 1;
    };
    for (octet, after) in ip.octets().into_iter().zip(*b"...:") {
        digits(octet.into(), &mut put);
        put(after);
    }
    digits(port, &mut put);
    // It is ASCII.
    f.write_str(std::str::from_utf8(&text[..len]).unwrap_or_default())
}

fn digits(number: u16, mut put: impl FnMut(u8)) {
    for power in [10_000, 1_000, 100, 10, 1] {
        if number >= power || power == 1 {
            put(b'0' + (number / power % 10) as u8);
        }
    }
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

/// Finds what a URI may hold and an address may not, so that the error can name it.
fn reject_foreign_parts(text: &str) -> Result<(), Fault> {
    if text.is_empty() {
        return Err(Fault::new(
            "it names no host",
            "write one with its port, as in server:50051",
        ));
    }
    for character in text.chars() {
        return Err(match character {
            '\0' => Fault::new("it contains a NUL character", "remove it"),
            '\r' | '\n' => Fault::new("it contains a line break", "remove it"),
            _ if character.is_whitespace() => Fault::new("it contains a space", "remove it"),
            _ if character.is_control() => {
                Fault::new("it contains a control character", "remove it")
            }
            '@' => Fault::new(
                "it contains user information",
                "remove it and pass credentials with the calls",
            ),
            '?' => Fault::new(
                "it has a query",
                "remove it: an address is only host and port",
            ),
            '#' => Fault::new(
                "it has a fragment",
                "remove it: an address is only host and port",
            ),
            '/' => Fault::new(
                "it has a path",
                "write host:port, or a URI such as http://host:port",
            ),
            _ if !character.is_ascii() => Fault::new(
                "the host name has characters outside ASCII",
                "write an international name in its xn-- form",
            ),
            _ => continue,
        });
    }
    Ok(())
}

/// Splits host and port. The brackets around an IPv6 address stay.
fn split(text: &str) -> Result<(&str, Option<&str>), Fault> {
    const NO_HOST: Fault = Fault::new(
        "it has no host before the port",
        "write one, as in server:50051",
    );
    let port_at = match text.rfind(']') {
        Some(bracket) if text.len() == bracket + 1 => None,
        Some(bracket) if text[bracket + 1..].starts_with(':') => Some(bracket + 1),
        Some(_) => {
            return Err(Fault::new(
                "text follows the ']'",
                "write only a port there, as in [::1]:80",
            ));
        }
        None => text.rfind(':'),
    };
    match port_at {
        Some(0) => Err(NO_HOST),
        Some(at) => Ok((&text[..at], Some(&text[at + 1..]))),
        None => Ok((text, None)),
    }
}

fn parse_port(text: &str) -> Result<u16, Fault> {
    const RANGE: &str = "use one from 1 to 65535";
    if text.is_empty() {
        return Err(Fault::new("the port is empty", RANGE));
    }
    // The integer parser would take a sign.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Fault::new("the port is not a number", RANGE));
    }
    match text.parse() {
        Ok(0) => Err(Fault::new("port 0 cannot be connected to", RANGE)),
        Ok(port) => Ok(port),
        Err(_) => Err(Fault::new("the port is too large", RANGE)),
    }
}

fn parse_host(text: &str) -> Result<OwnedHost, Fault> {
    if let Some(open) = text.strip_prefix('[') {
        return parse_ipv6(open).map(|ip| OwnedHost::Ip(ip.into()));
    }
    if text.contains(':') {
        return Err(Fault::new(
            "it has more than one ':'",
            "put an IPv6 address in brackets, as in [::1]:80, and write only one port",
        ));
    }
    if let Ok(ip) = text.parse::<Ipv4Addr>() {
        return Ok(OwnedHost::Ip(ip.into()));
    }
    check_name(text)?;
    Ok(OwnedHost::Name(text.to_ascii_lowercase().into()))
}

fn parse_ipv6(after_bracket: &str) -> Result<Ipv6Addr, Fault> {
    let Some(text) = after_bracket.strip_suffix(']') else {
        return Err(Fault::new(
            "the '[' is not closed",
            "close it after the address, as in [::1]:80",
        ));
    };
    if text.contains('%') {
        return Err(Fault::new(
            "it has an IPv6 zone",
            "remove the part from '%' on: zones have a meaning on one machine only",
        ));
    }
    text.parse().map_err(|_| {
        Fault::new(
            "there is no IPv6 address in the brackets",
            "write one, as in [::1]:80",
        )
    })
}

/// RFC 1123 host names, and underscores, which container networks use.
fn check_name(name: &str) -> Result<(), Fault> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.len() > 253 {
        return Err(Fault::new(
            "the host name is longer than 253 bytes",
            "use a shorter one",
        ));
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err(Fault::new(
                "the host name has an empty label",
                "write one dot between labels and none before",
            ));
        }
        if label.len() > 63 {
            return Err(Fault::new(
                "the host name has a label of more than 63 bytes",
                "use a shorter one",
            ));
        }
        if !label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        {
            return Err(Fault::new(
                "the host name has a character that host names cannot have",
                "use letters, digits, '-', '_' and dots",
            ));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(Fault::new(
                "the host name has a label that starts or ends with '-'",
                "remove the '-'",
            ));
        }
    }
    // Resolvers read "127.1" and "0x7f.1" as addresses (inet_aton), each in its own way.
    if name.rsplit('.').next().is_some_and(is_number) {
        return Err(Fault::new(
            "the host ends in a number but is no IPv4 address",
            "write four numbers from 0 to 255",
        ));
    }
    Ok(())
}

fn is_number(label: &str) -> bool {
    match label
        .strip_prefix("0x")
        .or_else(|| label.strip_prefix("0X"))
    {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}
