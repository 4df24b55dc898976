//! Closing a channel that looks after files and certificates: nothing of that is waited for.

use std::time::Duration;

use trunkline::{Connector, Tls};

use crate::client::calls::unary;
use crate::support::leak::LeakCheck;
use crate::support::scratch::Scratch;
use crate::support::wait::within;
use crate::tls::authority::Authority;
use crate::tls::server::TlsServer;

use super::connected::{LIMIT, connected};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn no_grace_is_used_up_where_no_call_runs() {
    let leaks = LeakCheck::start().await;
    let folder = Scratch::new();
    let authority = Authority::new("root");
    std::fs::write(folder.path("ca.pem"), authority.pem()).unwrap();
    let server = TlsServer::tcp("a", &authority.issue().loopback().finish());
    let seldom = Tls::new()
        .ca_file(folder.path("ca.pem"))
        .reload_interval(HOUR);
    for tls in [Tls::new().ca_pem(authority.pem()), seldom] {
        let channel = connected(Connector::target(server.uri()).tls(tls)).await;
        unary(&channel, 1).await.unwrap();
        within(LIMIT, "closing", channel.close(HOUR)).await;
    }
    drop(server);
    leaks.finish().await;
}
