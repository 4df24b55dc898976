//! What tells endpoints apart.

use std::fmt::{self, Write as _};
use std::hash::{Hash, Hasher};

use http::uri::Authority;
use xxhash_rust::xxh64::Xxh64;

use crate::address::Address;
use crate::error::Error;
use crate::transport::dial::UnixOptions;
use crate::transport::security::Wanted;

use super::Endpoint;

/// An endpoint whose description is right. A new key is a new endpoint, with connections of its own: another address,
/// authority, encryption, or process and rules behind a Unix socket. Weight, metadata and the name of its health service
/// may change.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    address: Address,
    endpoint: Endpoint,
    /// A hash of all that counts.
    identity: u64,
    /// Its authority is not the one that follows from the address.
    own_authority: bool,
}

impl Endpoint {
    /// # Errors
    ///
    /// A configuration error if the address, the authority or the Unix options are wrong.
    pub(crate) fn key(&self) -> Result<Key, Error> {
        let described = self.described();
        let address = match &described.address {
            Ok(address) => address.clone(),
            Err(problem) => {
                let error = Error::config("endpoint", problem.to_string());
                return Err(error.because(problem.clone()));
            }
        };
        if let Some(Err((field, problem))) = described.unix.as_ref().map(|it| it.validate()) {
            return Err(Error::config(&format!("endpoint.unix.{field}"), problem));
        }
        let mut own_authority = false;
        if let Some(text) = &described.authority {
            if text.parse::<Authority>().is_err() || text.contains('@') {
                let problem =
                    format!("{address}: the authority must be a host name, with or without a port");
                return Err(Error::config("endpoint.authority", problem));
            }
            own_authority = !text.eq_ignore_ascii_case(&address.authority());
        }
        let mut key = Key {
            address,
            endpoint: self.clone(),
            identity: 0,
            own_authority,
        };
        key.identity = key.hashed();
        Ok(key)
    }
}

impl Key {
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// The same for the same key, in all processes.
    pub(crate) fn identity(&self) -> u64 {
        self.identity
    }

    pub(crate) fn security(&self) -> &Wanted {
        &self.endpoint.described().security
    }

    /// Made when it is needed: most of very many endpoints are never called.
    pub(super) fn authority(&self) -> Authority {
        let text = match &self.endpoint.described().authority {
            Some(text) => text.to_string(),
            None => self.address.authority(),
        };
        // Both have been checked: the one above, the other by the address.
        Authority::try_from(text).unwrap_or_else(|_| Authority::from_static("localhost"))
    }

    pub(super) fn unix(&self) -> Option<&UnixOptions> {
        let unix = self.endpoint.described().unix.as_deref();
        unix.filter(|_| self.address.is_unix())
    }

    /// The process that must be at the other end of a Unix socket, beside what the options ask for.
    pub(super) fn peer_pid(&self) -> Option<u32> {
        let pid = self.endpoint.described().peer_pid;
        pid.filter(|_| self.address.is_unix())
    }

    fn own_authority(&self) -> Option<&str> {
        let authority = self.endpoint.described().authority.as_deref();
        authority.filter(|_| self.own_authority)
    }

    /// XXH64 of the address, and of the authority if that does not follow from it: so all clients agree on it, and
    /// restarted ones too. What else there may be is rare; with it, the hash is the same in programs that were built alike.
    fn hashed(&self) -> u64 {
        let mut hasher = Xxh64::new(0);
        // A hasher takes all that it is given.
        let _ = write!(Text(&mut hasher), "{}", self.address);
        if let Some(authority) = self.own_authority() {
            hasher.update(b"\0");
            hasher.update(authority.to_ascii_lowercase().as_bytes());
        }
        let rest = (self.security(), self.unix(), self.peer_pid());
        if rest != (&Wanted::default(), None, None) {
            rest.hash(&mut hasher);
        }
        hasher.digest()
    }
}

/// Hashes the text that is written to it.
struct Text<'a>(&'a mut Xxh64);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let authorities = match (self.own_authority(), other.own_authority()) {
            (Some(one), Some(other)) => one.eq_ignore_ascii_case(other),
            (None, None) => true,
            _ => false,
        };
        self.identity == other.identity
            && authorities
            && self.address == other.address
            && self.security() == other.security()
            && self.unix() == other.unix()
            && self.peer_pid() == other.peer_pid()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(endpoint: &Endpoint) -> Key {
        endpoint.key().unwrap()
    }

    #[test]
    fn what_calls_do_not_depend_on_makes_no_other_endpoint() {
        let plain = Endpoint::tcp("server.test:1");
        for same in [
            plain.clone().weight(7).metadata("zone", "a"),
            plain.clone().health_service("echo"),
            plain.clone().authority("Server.test:1"),
            plain.clone().peer_pid(7),
            plain.clone().unix_options(UnixOptions::strict()),
        ] {
            assert_eq!(key(&same), key(&plain));
            assert_eq!(key(&same).identity(), key(&plain).identity());
        }
    }

    #[test]
    fn identities_are_the_same_in_all_processes_and_versions() {
        let server = Endpoint::tcp("server1.internal:50051");
        let text = b"server1.internal:50051";
        assert_eq!(key(&server).identity(), xxhash_rust::xxh64::xxh64(text, 0));
        let socket = Endpoint::unix("/run/app/plugin.sock");
        let text = b"unix:/run/app/plugin.sock";
        assert_eq!(key(&socket).identity(), xxhash_rust::xxh64::xxh64(text, 0));
    }

    #[test]
    fn what_they_do_depend_on_makes_another() {
        let tcp = Endpoint::tcp("server.test:1");
        let unix = Endpoint::unix("/run/a.sock");
        let all = [
            tcp.clone(),
            Endpoint::tcp("server.test:2"),
            tcp.clone().authority("other.test"),
            unix.clone(),
            unix.clone().peer_pid(7),
            unix.clone().unix_options(UnixOptions::strict()),
        ];
        for (index, one) in all.iter().enumerate() {
            for other in &all[..index] {
                assert_ne!(key(one), key(other));
                assert_ne!(key(one).identity(), key(other).identity());
            }
        }
        let other = tcp.clone().authority("Other.test");
        assert_eq!(key(&other), key(&tcp.authority("other.test")));
        assert_eq!(key(&other).authority(), "other.test");
    }

    #[cfg(feature = "__tls")]
    #[test]
    fn so_does_whom_they_trust_and_who_they_are() {
        use crate::transport::tls::Tls;

        let with = |tls: Tls| key(&Endpoint::tcp("server.test:1").tls(tls));
        let all = [
            with(Tls::new()),
            with(Tls::new().ca_pem("one")),
            with(Tls::new().ca_pem("two")),
            with(Tls::new().ca_file("one")),
            with(Tls::new().crl_pem("one")),
            with(Tls::new().identity_pem("one", "key")),
            with(Tls::new().identity_pem("two", "key")),
        ];
        for (index, one) in all.iter().enumerate() {
            for other in &all[..index] {
                assert_ne!(one.identity(), other.identity());
            }
        }
    }

    /// Ten thousand of them are known to some clients, most of which are never called.
    #[test]
    fn an_endpoint_is_small() {
        let bytes = [
            size_of::<super::super::description::Description>(),
            size_of::<Key>(),
            size_of::<super::super::Member>(),
        ];
        assert!(bytes.iter().sum::<usize>() <= 300, "{bytes:?}");
    }

    #[test]
    fn authorities_follow_from_addresses() {
        for (endpoint, authority) in [
            (Endpoint::tcp("server_1.test:1"), "server_1.test:1"),
            (Endpoint::tcp("[::1]:2"), "[::1]:2"),
            (Endpoint::tcp("10.0.0.1:3"), "10.0.0.1:3"),
            (Endpoint::unix("/run/a b%.sock"), "localhost"),
        ] {
            assert_eq!(key(&endpoint).authority(), authority);
        }
    }
}
