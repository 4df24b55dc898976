//! One of a rig's channels.

use trunkline::{Channel, Connector, State};

use crate::support::wait::wait_until;

use super::dials::Dials;
use super::rig::{LIMIT, settings};

/// A channel, and the dialler that notes its dials.
pub struct Side {
    pub channel: Channel,
    pub dials: Dials,
}

impl Side {
    /// A channel with the rows' settings that is connected to at least one endpoint.
    pub async fn start(connector: Connector) -> Self {
        Self::start_with(connector, |it| it).await
    }

    /// The same, with other settings.
    pub async fn start_with(
        connector: Connector,
        adjust: impl FnOnce(Connector) -> Connector,
    ) -> Self {
        let side = Self::lazy_with(connector, adjust);
        let state = || side.channel.status().state;
        wait_until(LIMIT, || state() == State::Ready).await;
        side
    }

    /// One that connects while it is used.
    pub fn start_lazy(connector: Connector) -> Self {
        Self::lazy_with(connector, |it| it)
    }

    fn lazy_with(connector: Connector, adjust: impl FnOnce(Connector) -> Connector) -> Self {
        let dials = Dials::default();
        let connector = adjust(settings(connector)).dialer(dials.clone());
        Self {
            channel: connector.connect_lazy().unwrap(),
            dials,
        }
    }
}
