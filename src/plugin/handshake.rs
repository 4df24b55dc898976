//! The line that a plugin writes when it listens.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::address::Address;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::transport::tls::{Certificate, Tls};

use super::identity::Identity;
use super::parts::{address, check_protocol, endpoint, quoted};

/// As long as a line of a Go `bufio.Scanner`, with which go-plugin reads it.
const MAX_LENGTH: usize = 64 * 1024;

/// What is no longer than this in the place of the certificate is none: older plugins write other things there.
const MAX_NO_CERTIFICATE: usize = 50;

/// What a plugin said of itself: the first line of its output, `core|app|network|address|protocol|certificate|multiplexed`.
///
/// It is read as in go-plugin's `client.go`. The first field must be `1`, and the protocol `grpc`: there are no fields for
/// them.
///
/// ```
/// use trunkline::plugin::Handshake;
///
/// # fn main() -> Result<(), trunkline::Error> {
/// let handshake = Handshake::parse("1|6|unix|/tmp/plugin4711|grpc|\n")?;
/// assert_eq!(handshake.protocol_version, 6);
/// assert_eq!(handshake.address.to_string(), "unix:/tmp/plugin4711");
/// assert_eq!(handshake.certificate, None);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Handshake {
    /// The version of the application's own protocol (`app`) that the plugin has chosen from `PLUGIN_PROTOCOL_VERSIONS`.
    /// Whether it is one of them is for the caller to check.
    pub protocol_version: u32,
    /// Where it listens.
    pub address: Address,
    /// The certificate that it will show, in DER. `None` if it speaks plaintext, or has certificates of its own.
    pub certificate: Option<Vec<u8>>,
    /// Whether it multiplexes its connection, for go-plugin's broker. It says so only when it was started with
    /// `PLUGIN_MULTIPLEX_GRPC`, and then all calls go through yamux, which is not spoken here: [`endpoint`](Self::endpoint)
    /// refuses it. Without that variable, the plain calls and the broker's own service work.
    pub multiplexed: bool,
}

impl Handshake {
    /// Reads the line, with or without its end.
    ///
    /// # Errors
    ///
    /// A configuration error that names the field, for everything that is no such line, and for plugins that speak
    /// something other than gRPC.
    pub fn parse(line: &str) -> Result<Self, Error> {
        let bad = |problem: String| Error::config("handshake", problem);
        if line.len() > MAX_LENGTH {
            return Err(bad(format!("it has more than {MAX_LENGTH} bytes")));
        }
        let line = line.trim();
        let fields: Vec<_> = line.split('|').collect();
        let &[core, version, network, place, ref rest @ ..] = fields.as_slice() else {
            let problem = format!(
                "{} is no core|app|network|address|protocol line, which must be the first that the plugin writes",
                quoted(line)
            );
            return Err(bad(problem));
        };
        if line.contains(['\n', '\r']) {
            return Err(bad("it is more than one line; give the first".to_owned()));
        }
        check_core(core)?;
        let protocol_version = version.parse().map_err(|_| {
            let problem = format!("{} is no version; it must be a number", quoted(version));
            Error::config("handshake.app", problem)
        })?;
        let address = address("handshake", network, place)?;
        check_protocol("handshake.protocol", rest.first().copied())?;
        Ok(Self {
            protocol_version,
            address,
            certificate: rest.get(1).map_or(Ok(None), |it| certificate(it))?,
            multiplexed: rest.get(2).map_or(Ok(false), |it| multiplexed(it))?,
        })
    }

    /// The plugin as an endpoint: see [`Endpoint::from_handshake`].
    ///
    /// # Errors
    ///
    /// A configuration error, if it is [`multiplexed`](Self::multiplexed).
    pub fn endpoint(&self) -> Result<Endpoint, Error> {
        self.secured_by(None)
    }

    /// The same for a plugin that was given this identity: see [`Endpoint::from_handshake_with`].
    ///
    /// # Errors
    ///
    /// A configuration error, if it is [`multiplexed`](Self::multiplexed) or has sent no certificate.
    pub fn endpoint_with(&self, identity: &Identity) -> Result<Endpoint, Error> {
        if self.certificate.is_none() {
            let problem = "the plugin has sent none, so it does no AutoMTLS, and the identity has no effect; is \
                           PLUGIN_CLIENT_CERT in its environment? If it is to speak plaintext, give no identity";
            return Err(Error::config("handshake.certificate", problem));
        }
        self.secured_by(Some(identity))
    }

    fn secured_by(&self, identity: Option<&Identity>) -> Result<Endpoint, Error> {
        if self.multiplexed {
            let problem = "the plugin multiplexes its connection with yamux, which is not spoken here; start it without \
                           PLUGIN_MULTIPLEX_GRPC in its environment";
            return Err(Error::config("handshake.multiplexed", problem));
        }
        let endpoint = endpoint(self.address.clone());
        let Some(pinned) = &self.certificate else {
            return Ok(endpoint);
        };
        let tls = Tls::new()
            .pin_certificate(&**pinned)
            .server_name("localhost");
        Ok(endpoint.tls(match identity {
            Some(identity) => identity.shown_by(tls),
            None => tls,
        }))
    }
}

impl Endpoint {
    /// The plugin that has written this line (see [`Handshake`]), with the authority and the health service that plugins
    /// have.
    ///
    /// If the line has a certificate, the endpoint has its own [`Tls`]: the plugin must show that certificate, and hold its
    /// key. Otherwise it is as other endpoints are: in plaintext, unless the channel has a `Tls`.
    ///
    /// Replies of more than 4 MiB need a setting of the generated client, see
    /// [`MAX_MESSAGE_SIZE`](crate::plugin::MAX_MESSAGE_SIZE).
    ///
    /// # Errors
    ///
    /// A configuration error that names the field, for everything that is no such line, and for plugins that speak
    /// something other than gRPC, or multiplex.
    pub fn from_handshake(line: &str) -> Result<Self, Error> {
        Handshake::parse(line)?.endpoint()
    }

    /// The same for a plugin that was started with the certificate of this identity in `PLUGIN_CLIENT_CERT` (`AutoMTLS`):
    /// both sides are who they were when it was started, or no connection comes about.
    ///
    /// # Errors
    ///
    /// As for [`from_handshake`](Self::from_handshake); and if the line has no certificate. It is never talked to in
    /// plaintext instead.
    pub fn from_handshake_with(line: &str, identity: &Identity) -> Result<Self, Error> {
        Handshake::parse(line)?.endpoint_with(identity)
    }
}

fn check_core(field: &str) -> Result<(), Error> {
    let problem = match field.parse::<u32>() {
        Ok(1) => return Ok(()),
        Ok(other) => {
            format!("version {other} is unknown; it must be 1: rebuild the plugin with go-plugin 1")
        }
        Err(_) => format!(
            "{} is no version; the line must be the first that the plugin writes, and begin with 1|",
            quoted(field)
        ),
    };
    Err(Error::config("handshake.core", problem))
}

fn certificate(field: &str) -> Result<Option<Vec<u8>>, Error> {
    if field.len() <= MAX_NO_CERTIFICATE {
        return Ok(None);
    }
    let bad = |problem| Error::config("handshake.certificate", problem);
    let der = STANDARD_NO_PAD.decode(field).map_err(|error| {
        bad("it must be DER in standard base64, without padding").because(error)
    })?;
    match Certificate::from_der(&der) {
        Some(_) => Ok(Some(der)),
        None => Err(bad("what it has in base64 is no certificate in DER")),
    }
}

/// As Go's `strconv.ParseBool`.
fn multiplexed(field: &str) -> Result<bool, Error> {
    match field {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => {
            let problem = format!("{} must be true or false", quoted(other));
            Err(Error::config("handshake.multiplexed", problem))
        }
    }
}
