//! `consul://[token@]host:port/service?…` as text.

use std::collections::HashSet;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::{Consistency, Consul};

/// What is wrong, and what to do about it. Shows no value: it may be a secret.
type Problem = String;

impl Consul {
    /// The service that a text names:
    ///
    /// ```text
    /// consul://[token@][host[:port]]/service[?parameter=value&…]
    /// ```
    ///
    /// The port is 8500 unless given; without a host it is the agent that [`agent`](Self::agent) describes. Values have
    /// their special characters written as `%` codes.
    ///
    /// | parameter | same as |
    /// |---|---|
    /// | `tag`, `dc` (any number of each) | [`tag`](Self::tag), [`datacenter`](Self::datacenter) |
    /// | `passing` | [`passing_only`](Self::passing_only) |
    /// | `near`, `filter`, `ns` | [`near`](Self::near), [`filter`](Self::filter), [`namespace`](Self::namespace) |
    /// | `stale`, `consistent` | [`consistency`](Self::consistency) |
    /// | `wait` (`90s`, `5m`) | [`wait`](Self::wait) |
    /// | `address` | [`tagged_address`](Self::tagged_address) |
    /// | `agent` (`unix:/run/consul.sock`) | [`agent`](Self::agent), in place of host and port |
    /// | `tls` | TLS, as an agent with `https` has it; `false`: none, whatever `CONSUL_HTTP_SSL` says |
    /// | `token_file`, `cache` | [`token_file`](Self::token_file), [`cache`](Self::cache) |
    ///
    /// `passing`, `stale`, `consistent` and `tls` stand alone or have the value `true` or `false`. A mistake is reported by the
    /// connector's `connect`.
    ///
    /// ```
    /// # use trunkline::Consul;
    /// let payments = Consul::target("consul://127.0.0.1:8500/payments?tag=v2&dc=dc1&dc=dc2&passing");
    /// ```
    pub fn target(text: impl AsRef<str>) -> Self {
        parse(text.as_ref()).unwrap_or_else(|problem| Self {
            invalid: Some(("target", format!("consul://…: {problem}"))),
            ..Self::service("")
        })
    }
}

/// Whether [`Consul::target`] is to read it.
pub(crate) fn is_target(text: &str) -> bool {
    scheme(text.trim()).is_some()
}

fn scheme(text: &str) -> Option<&str> {
    const SCHEME: &str = "consul://";
    let head = text.get(..SCHEME.len())?;
    head.eq_ignore_ascii_case(SCHEME)
        .then(|| &text[SCHEME.len()..])
}

fn parse(text: &str) -> Result<Consul, Problem> {
    let rest = scheme(text.trim()).ok_or("it must begin with consul://")?;
    if rest.contains('#') {
        return Err("it has a fragment; write # in a value as %23".to_owned());
    }
    let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, service) = place
        .split_once('/')
        .ok_or("it names no service; write consul://host:port/service")?;
    let service = service.strip_suffix('/').unwrap_or(service);
    if service.contains('@') {
        // Likelier a token with a slash in it than a service.
        return Err(
            "there is an @ in the service; write @ as %40, and / in a token as %2F".to_owned(),
        );
    }
    let mut consul = Consul::service(decode("the service", service)?);
    let (userinfo, host) = match authority.rsplit_once('@') {
        Some((userinfo, host)) => (Some(userinfo), host),
        None => (None, authority),
    };
    if let Some(token) = userinfo {
        if token.contains(':') {
            return Err("there is a colon before the @; write only the token there".to_owned());
        }
        consul = consul.token(decode("the token", token)?);
    }
    if !host.is_empty() {
        consul = consul.agent(with_port(host));
    }
    let mut seen = HashSet::new();
    let (mut https, mut plaintext) = (false, false);
    for parameter in parameters.split('&').filter(|it| !it.is_empty()) {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name, Some(decode(name, value)?)),
            None => (parameter, None),
        };
        if !seen.insert(name) && !matches!(name, "tag" | "dc") {
            return Err(format!("{name} is given twice"));
        }
        consul = apply(consul, name, value)?;
        https |= name == "agent" && consul.encrypted == Some(true);
        plaintext |= name == "tls" && consul.encrypted == Some(false);
    }
    if https && plaintext {
        return Err("the agent is https, and tls is false; leave one of them out".to_owned());
    }
    if seen.contains("stale") && seen.contains("consistent") {
        return Err("stale and consistent exclude each other".to_owned());
    }
    if seen.contains("agent") && !host.is_empty() {
        return Err("the agent is given twice; leave out host and port".to_owned());
    }
    Ok(consul)
}

fn apply(consul: Consul, name: &str, value: Option<String>) -> Result<Consul, Problem> {
    if let "passing" | "stale" | "consistent" | "tls" = name {
        let yes = match value.as_deref() {
            None | Some("" | "true" | "1") => true,
            Some("false" | "0") => false,
            Some(_) => return Err(format!("{name} must be true or false")),
        };
        return Ok(match (name, yes) {
            ("passing", yes) => consul.passing_only(yes),
            ("stale", true) => consul.consistency(Consistency::Stale),
            #[cfg(feature = "__tls")]
            ("tls", true) => consul.encrypted(true),
            ("tls", false) => consul.encrypted(false),
            #[cfg(not(feature = "__tls"))]
            ("tls", true) => return Err("tls needs the feature tls of this crate".to_owned()),
            ("consistent", true) => consul.consistency(Consistency::Consistent),
            _ => consul,
        });
    }
    let known = matches!(
        name,
        "tag"
            | "dc"
            | "near"
            | "filter"
            | "ns"
            | "wait"
            | "address"
            | "agent"
            | "token_file"
            | "cache"
    );
    match (known, value) {
        (false, _) if name == "token" => Err(
            "a token does not belong among the parameters; write it before the host, as token@host"
                .to_owned(),
        ),
        (false, _) => Err(format!(
            "{} is unknown; there are tag, dc, passing, near, filter, ns, stale, consistent, tls, wait, \
             address, agent, token_file and cache",
            shown(name)
        )),
        (true, None) => Err(format!("{name} has no value; write {name}=…")),
        (true, Some(value)) => Ok(match name {
            "tag" => consul.tag(value),
            "dc" => consul.datacenter(value),
            "near" => consul.near(value),
            "filter" => consul.filter(value),
            "ns" => consul.namespace(value),
            "address" => consul.tagged_address(value),
            "agent" => consul.agent(value),
            "token_file" => consul.token_file(value),
            "cache" => consul.cache(value),
            _ => consul.wait(
                duration(&value).ok_or("wait must be a number with a unit, as in 90s or 5m")?,
            ),
        }),
    }
}

/// A parameter's name, unless it looks like a secret that got there by mistake.
fn shown(name: &str) -> String {
    let plain = name.len() <= 16 && name.chars().all(|it| it.is_ascii_lowercase() || it == '_');
    if plain {
        format!("the parameter {name:?}")
    } else {
        "a parameter".to_owned()
    }
}

fn decode(what: &str, text: &str) -> Result<String, Problem> {
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded =
        decoded.map_err(|_| format!("{what} is no UTF-8 once its % codes are decoded"))?;
    Ok(decoded.into_owned())
}

/// Host and port. Consul's is added to a host alone.
fn with_port(host: &str) -> String {
    let after_brackets = host.rsplit_once(']').map_or(host, |(_, after)| after);
    if after_brackets.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:8500")
    }
}

fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|it: char| !it.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(millis)?))
}

#[cfg(test)]
mod tests;
