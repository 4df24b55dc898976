//! What handshake lines and reattach records have in common.

use crate::address::Address;
use crate::endpoint::Endpoint;
use crate::error::Error;

/// The name under which go-plugin's servers tell their health (`GRPCServiceName` in its `grpc_server.go`).
const HEALTH_SERVICE: &str = "plugin";

/// As Go's clients say, whatever the address: a socket's path is no authority, and servers refuse it (go-plugin, issue
/// 153).
const AUTHORITY: &str = "localhost";

/// # Errors
///
/// If it is anything but gRPC. What does not name its protocol speaks net/rpc.
pub(super) fn check_protocol(field: &str, protocol: Option<&str>) -> Result<(), Error> {
    let problem = match protocol {
        Some("grpc") => return Ok(()),
        None | Some("" | "netrpc") => {
            "it speaks net/rpc, which is Go's own; only grpc can be spoken here: serve the plugin with a GRPCServer"
                .to_owned()
        }
        Some(other) => format!("{} is unknown; only grpc can be spoken", quoted(other)),
    };
    Err(Error::config(field, problem))
}

/// # Errors
///
/// If the network is neither `unix` nor `tcp`, or the address is none of that network's.
pub(super) fn address(of: &str, network: &str, address: &str) -> Result<Address, Error> {
    let parsed = match network {
        "unix" => Address::unix(address),
        "tcp" => Address::tcp(address),
        other => {
            let problem = format!("{} is unknown; it must be unix or tcp", quoted(other));
            return Err(Error::config(&format!("{of}.network"), problem));
        }
    };
    parsed.map_err(|problem| {
        Error::config(&format!("{of}.address"), problem.to_string()).because(problem)
    })
}

pub(super) fn endpoint(address: Address) -> Endpoint {
    Endpoint::from(address)
        .authority(AUTHORITY)
        .health_service(HEALTH_SERVICE)
}

/// The beginning of a text from outside, as an error shows it.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    let start: String = text.chars().take(SHOWN).collect();
    let more = if start.len() < text.len() { "…" } else { "" };
    format!("{start:?}{more}")
}
