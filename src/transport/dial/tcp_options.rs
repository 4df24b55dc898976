//! Options of TCP sockets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpSocket;

/// What Linux takes for TCP_KEEPIDLE and TCP_KEEPINTVL.
const KEEPALIVE_TIMES: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(32_767);
/// What Linux takes for TCP_KEEPCNT.
const KEEPALIVE_RETRIES: RangeInclusive<u32> = 1..=127;
const USER_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(24 * 60 * 60);
const BUFFER_SIZES: RangeInclusive<usize> = 4 * 1024..=1024 * 1024 * 1024;

/// Options of TCP sockets.
///
/// The setters take any value; [`validate`](Self::validate) finds those that make no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct TcpOptions {
    nodelay: bool,
    keepalive_time: Option<Duration>,
    keepalive_interval: Duration,
    keepalive_retries: u32,
    user_timeout: Option<Duration>,
    send_buffer_size: Option<usize>,
    receive_buffer_size: Option<usize>,
    local_address: Option<IpAddr>,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            nodelay: true,
            keepalive_time: Some(Duration::from_secs(30)),
            keepalive_interval: Duration::from_secs(10),
            keepalive_retries: 3,
            user_timeout: None,
            send_buffer_size: None,
            receive_buffer_size: None,
            local_address: None,
        }
    }
}

impl TcpOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether small writes are sent at once (TCP_NODELAY) rather than held until the last one is acknowledged.
    ///
    /// Default: yes. Without it calls wait for delayed acknowledgements, 40 ms and more.
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// How long a connection may be silent before the kernel asks the peer's kernel whether it is still there
    /// (SO_KEEPALIVE, TCP_KEEPIDLE); `None` never asks.
    ///
    /// Default: 30 s. Range: 1 s to 32,767 s, rounded down to seconds. It costs a packet each way and finds idle
    /// connections whose peer or path is gone; an application that hangs is not found, because its kernel answers.
    pub fn keepalive_time(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.keepalive_time = time.into();
        self
    }

    /// How long the kernel waits for the answer before it asks again (TCP_KEEPINTVL).
    ///
    /// Default: 10 s. Range: 1 s to 32,767 s, rounded down to seconds. Without effect on systems that cannot set it.
    pub fn keepalive_interval(mut self, interval: Duration) -> Self {
        self.keepalive_interval = interval;
        self
    }

    /// After how many questions without an answer the connection is closed (TCP_KEEPCNT).
    ///
    /// Default: 3. Range: 1 to 127. Without effect on systems that cannot set it.
    pub fn keepalive_retries(mut self, retries: u32) -> Self {
        self.keepalive_retries = retries;
        self
    }

    /// How long sent bytes may stay unacknowledged before the connection is closed (TCP_USER_TIMEOUT); `None` leaves it to
    /// the kernel, which gives up after about 15 minutes.
    ///
    /// Default: none. Range: 1 ms to 24 h. Linux only; elsewhere without effect. Gives up on slow readers too: bytes that
    /// a full receive window keeps back count as unacknowledged. It takes precedence over `keepalive_retries`.
    pub fn user_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.user_timeout = timeout.into();
        self
    }

    /// The size of the kernel's send buffer in bytes (SO_SNDBUF); `None` lets the kernel adapt it.
    ///
    /// Default: none. Range: 4 KiB to 1 GiB. The kernel may take less (on Linux: `net.core.wmem_max`).
    pub fn send_buffer_size(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.send_buffer_size = bytes.into();
        self
    }

    /// The size of the kernel's receive buffer in bytes (SO_RCVBUF); `None` lets the kernel adapt it.
    ///
    /// Default: none. Range: 4 KiB to 1 GiB. The kernel may take less (on Linux: `net.core.rmem_max`).
    pub fn receive_buffer_size(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.receive_buffer_size = bytes.into();
        self
    }

    /// The local address that connections come from; `None` lets the kernel choose.
    ///
    /// Default: none. Peer addresses of the other family are not tried.
    pub fn local_address(mut self, address: impl Into<Option<IpAddr>>) -> Self {
        self.local_address = address.into();
        self
    }

    /// Checks the ranges.
    ///
    /// # Errors
    ///
    /// The name of the first option that is out of range, and what it must be.
    pub fn validate(&self) -> Result<(), (&'static str, &'static str)> {
        let in_range = |size: Option<usize>| size.is_none_or(|size| BUFFER_SIZES.contains(&size));
        if !self
            .keepalive_time
            .is_none_or(|time| KEEPALIVE_TIMES.contains(&time))
        {
            return Err(("keepalive_time", "must be from 1 s to 32,767 s, or none"));
        }
        if !KEEPALIVE_TIMES.contains(&self.keepalive_interval) {
            return Err(("keepalive_interval", "must be from 1 s to 32,767 s"));
        }
        if !KEEPALIVE_RETRIES.contains(&self.keepalive_retries) {
            return Err(("keepalive_retries", "must be from 1 to 127"));
        }
        if !self
            .user_timeout
            .is_none_or(|timeout| USER_TIMEOUTS.contains(&timeout))
        {
            return Err(("user_timeout", "must be from 1 ms to 24 h, or none"));
        }
        if !in_range(self.send_buffer_size) {
            return Err(("send_buffer_size", "must be from 4 KiB to 1 GiB, or none"));
        }
        if !in_range(self.receive_buffer_size) {
            return Err((
                "receive_buffer_size",
                "must be from 4 KiB to 1 GiB, or none",
            ));
        }
        if self
            .local_address
            .is_some_and(|ip| ip.is_multicast() || ip.is_unspecified())
        {
            return Err((
                "local_address",
                "must be an address of this machine, or none",
            ));
        }
        Ok(())
    }

    /// Whether the local address, if one is set, can reach `peer` by its family.
    pub(super) fn can_reach(&self, peer: &SocketAddr) -> bool {
        self.local_address
            .is_none_or(|local| local.is_ipv4() == peer.is_ipv4())
    }

    /// Sets the options on a socket that is not yet connected: buffer sizes decide the window scale of the handshake.
    pub(super) fn apply(&self, socket: &TcpSocket) -> io::Result<()> {
        let options = SockRef::from(socket);
        options.set_tcp_nodelay(self.nodelay)?;
        if let Some(time) = self.keepalive_time {
            options.set_tcp_keepalive(&self.keepalive(time))?;
        }
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if self.user_timeout.is_some() {
            options.set_tcp_user_timeout(self.user_timeout)?;
        }
        if let Some(size) = self.send_buffer_size {
            options.set_send_buffer_size(size)?;
        }
        if let Some(size) = self.receive_buffer_size {
            options.set_recv_buffer_size(size)?;
        }
        if let Some(ip) = self.local_address {
            socket.bind(SocketAddr::new(ip, 0)).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("the local address {ip} cannot be used: {error}"),
                )
            })?;
        }
        Ok(())
    }

    fn keepalive(&self, time: Duration) -> TcpKeepalive {
        let keepalive = TcpKeepalive::new().with_time(time);
        #[cfg(any(
            target_os = "linux",
            target_os = "android",
            target_os = "freebsd",
            target_os = "macos",
            target_os = "ios",
            target_os = "windows",
        ))]
        let keepalive = keepalive
            .with_interval(self.keepalive_interval)
            .with_retries(self.keepalive_retries);
        keepalive
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_defaults_and_the_limits_are_valid() {
        let valid = [
            TcpOptions::new(),
            TcpOptions::new()
                .keepalive_time(None)
                .user_timeout(None)
                .send_buffer_size(None)
                .receive_buffer_size(None),
            TcpOptions::new()
                .keepalive_time(SECOND)
                .keepalive_interval(SECOND)
                .keepalive_retries(1),
            TcpOptions::new()
                .keepalive_time(32_767 * SECOND)
                .keepalive_interval(32_767 * SECOND)
                .keepalive_retries(127),
            TcpOptions::new().user_timeout(SECOND / 1_000),
            TcpOptions::new()
                .send_buffer_size(4_096)
                .receive_buffer_size(1 << 30),
            TcpOptions::new().local_address(IpAddr::from(Ipv4Addr::LOCALHOST)),
        ];
        for options in valid {
            assert_eq!(options.validate(), Ok(()), "{options:?}");
        }
    }

    #[test]
    fn what_is_out_of_range_is_refused_by_name() {
        let invalid = [
            (
                TcpOptions::new().keepalive_time(Duration::ZERO),
                "keepalive_time",
            ),
            (
                TcpOptions::new().keepalive_time(SECOND / 2),
                "keepalive_time",
            ),
            (
                TcpOptions::new().keepalive_time(Duration::MAX),
                "keepalive_time",
            ),
            (
                TcpOptions::new().keepalive_interval(Duration::ZERO),
                "keepalive_interval",
            ),
            (
                TcpOptions::new().keepalive_interval(32_768 * SECOND),
                "keepalive_interval",
            ),
            (TcpOptions::new().keepalive_retries(0), "keepalive_retries"),
            (
                TcpOptions::new().keepalive_retries(128),
                "keepalive_retries",
            ),
            (
                TcpOptions::new().user_timeout(Duration::ZERO),
                "user_timeout",
            ),
            (
                TcpOptions::new().user_timeout(Duration::MAX),
                "user_timeout",
            ),
            (TcpOptions::new().send_buffer_size(0), "send_buffer_size"),
            (
                TcpOptions::new().send_buffer_size(usize::MAX),
                "send_buffer_size",
            ),
            (
                TcpOptions::new().receive_buffer_size(0),
                "receive_buffer_size",
            ),
            (
                TcpOptions::new().receive_buffer_size(4_095),
                "receive_buffer_size",
            ),
            (
                TcpOptions::new().local_address(IpAddr::from(Ipv4Addr::new(224, 0, 0, 1))),
                "local_address",
            ),
            (
                TcpOptions::new().local_address(IpAddr::from(Ipv6Addr::UNSPECIFIED)),
                "local_address",
            ),
        ];
        for (options, field) in invalid {
            assert_eq!(
                options.validate().map_err(|(name, _)| name),
                Err(field),
                "{options:?}"
            );
        }
    }

    #[tokio::test]
    async fn every_option_reaches_the_socket() {
        let options = TcpOptions::new()
            .nodelay(false)
            .keepalive_time(7 * SECOND)
            .keepalive_interval(5 * SECOND)
            .keepalive_retries(4)
            .user_timeout(SECOND)
            .send_buffer_size(64 * 1024)
            .receive_buffer_size(32 * 1024)
            .local_address(IpAddr::from(Ipv4Addr::new(127, 0, 0, 1)));
        let socket = TcpSocket::new_v4().unwrap();
        options.apply(&socket).unwrap();

        let set = SockRef::from(&socket);
        assert!(!set.tcp_nodelay().unwrap());
        assert!(set.keepalive().unwrap());
        assert_eq!(set.tcp_keepalive_time().unwrap(), 7 * SECOND);
        assert_eq!(set.tcp_keepalive_interval().unwrap(), 5 * SECOND);
        assert_eq!(set.tcp_keepalive_retries().unwrap(), 4);
        #[cfg(target_os = "linux")]
        assert_eq!(set.tcp_user_timeout().unwrap(), Some(SECOND));
        // Linux doubles the sizes for its own bookkeeping.
        assert!((64 * 1024..=128 * 1024).contains(&set.send_buffer_size().unwrap()));
        assert!((32 * 1024..=64 * 1024).contains(&set.recv_buffer_size().unwrap()));
        assert_eq!(
            socket.local_addr().unwrap().ip(),
            Ipv4Addr::new(127, 0, 0, 1)
        );
    }

    #[tokio::test]
    async fn what_is_not_set_is_left_to_the_system() {
        let (set, untouched) = (TcpSocket::new_v6().unwrap(), TcpSocket::new_v6().unwrap());
        TcpOptions::new().keepalive_time(None).apply(&set).unwrap();

        let (set, untouched) = (SockRef::from(&set), SockRef::from(&untouched));
        assert!(set.tcp_nodelay().unwrap());
        assert!(!set.keepalive().unwrap());
        assert_eq!(
            set.send_buffer_size().unwrap(),
            untouched.send_buffer_size().unwrap()
        );
        assert_eq!(
            set.recv_buffer_size().unwrap(),
            untouched.recv_buffer_size().unwrap()
        );
    }
}
