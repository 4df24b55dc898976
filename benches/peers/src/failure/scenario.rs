//! The faults.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::time::sleep;

use crate::Failure;
use crate::options::words;
use crate::servers::ServerProcess;

words!(
    Scenario {
        /// SIGKILL for one of three. It stays dead.
        Kill = "kill",
        /// SIGSTOP for one of three: its sockets stay open, and the kernel goes on accepting for it.
        Freeze = "freeze",
        /// One after the other: SIGKILL, a pause, a new process at the same address.
        RollingKill = "rolling-kill",
        /// One after the other: SIGTERM, which sends GOAWAY and ends when the calls have, a pause, a new process.
        RollingGoaway = "rolling-goaway",
    }
);

/// A restarting server's absence, and the time until the next one's turn.
struct Rolling {
    down: Duration,
    up: Duration,
}

/// How long a server may take to finish its calls after SIGTERM.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

impl Scenario {
    /// Brings the fault about, and returns when there is nothing more to see.
    pub async fn happen(self, servers: &mut [ServerProcess], quick: bool) -> Result<(), Failure> {
        let seconds = Duration::from_secs_f64;
        let rolling = Rolling {
            down: seconds(if quick { 0.2 } else { 0.5 }),
            up: seconds(if quick { 0.4 } else { 1.0 }),
        };
        match self {
            Self::Kill => {
                servers[0].signal(Signal::SIGKILL)?;
                sleep(seconds(if quick { 1.5 } else { 4.0 })).await;
            }
            Self::Freeze => {
                servers[0].signal(Signal::SIGSTOP)?;
                sleep(seconds(if quick { 2.5 } else { 8.0 })).await;
            }
            Self::RollingKill => {
                for server in servers {
                    server.signal(Signal::SIGKILL)?;
                    server.ended(DRAIN_LIMIT).await?;
                    rolling.restart(server).await?;
                }
            }
            Self::RollingGoaway => {
                for server in servers {
                    server.signal(Signal::SIGTERM)?;
                    server.ended(DRAIN_LIMIT).await?;
                    rolling.restart(server).await?;
                }
            }
        }
        Ok(())
    }

    /// Whether there is one fault, which clients get over at some time.
    pub fn is_lasting(self) -> bool {
        matches!(self, Self::Kill | Self::Freeze)
    }
}

impl Rolling {
    async fn restart(&self, server: &mut ServerProcess) -> Result<(), Failure> {
        sleep(self.down).await;
        server.restart()?;
        sleep(self.up).await;
        Ok(())
    }
}

impl ServerProcess {
    /// Waits for its end, and brings it about after the limit.
    async fn ended(&mut self, limit: Duration) -> Result<(), Failure> {
        let start = Instant::now();
        while !self.has_ended()? {
            if start.elapsed() > limit {
                self.signal(Signal::SIGKILL)?;
            }
            sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }
}
