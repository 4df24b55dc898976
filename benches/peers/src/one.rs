//! `peers one`: a number of calls by one variant, for profilers and tracers.

use crate::Failure;
use crate::client::Client;
use crate::options::{Kind, Net, Options, ServerKind};
use crate::servers::{Placement, ServerOptions, ServerProcess, SocketDirectory};
use crate::target::Target;
use crate::tls::ClientTls;

pub fn run(options: &Options) -> Result<(), Failure> {
    let [variant] = options.variants[..] else {
        return Err("name one --variant".into());
    };
    let first = |list: &[usize], otherwise| list.first().copied().unwrap_or(otherwise);
    let kind = options.kinds.first().copied().unwrap_or(Kind::Unary);
    let endpoints = first(&options.endpoints, 1);
    let placement = Placement::of(options.workers)?;
    let sockets = SocketDirectory::create()?;
    let credentials = match options.tls {
        true => Some(sockets.credentials()?),
        false => options.credentials.clone(),
    };
    let mut addresses = options.at.clone();
    let mut server = None;
    if addresses.is_empty() {
        let net = options.nets.first().copied().unwrap_or(Net::Tcp);
        let kind_of_server = options.servers.first().copied().unwrap_or(ServerKind::Sink);
        let started = ServerProcess::start(&ServerOptions {
            listen: sockets.addresses(net, endpoints)?,
            delay: options.serve.delay,
            cpu: placement.server,
            credentials: credentials.clone(),
            ..ServerOptions::new(kind_of_server, kind.replies())
        })?;
        addresses.clone_from(&started.addresses);
        server = Some(started);
    }
    let tls = ClientTls::of(credentials.as_deref())?;
    let target = Target::new(addresses, first(&options.payloads, 100), kind.replies());
    let client = Client {
        variant,
        target: target.with_tls(tls),
        callers: first(&options.callers, 16),
        workers: options.workers,
        cpu: placement.client,
    };
    let took = client.count(options.calls)?;
    drop(server);
    let rate = options.calls as f64 / took.as_secs_f64();
    eprintln!(
        "{variant}: {} calls in {took:.3?}, {rate:.0}/s",
        options.calls
    );
    Ok(())
}
