//! A channel, as tower's balancers see it.

use crate::balance;
use crate::pool::State;

use super::Channel;

/// The calls that were given to its endpoints and have not ended, those that wait for a stream included; the highest
/// number while no endpoint can be called, so that balancers prefer other channels.
///
/// ```
/// use http::{Request, Response};
/// use tonic::body::Body;
/// use tower::balance::p2c::Balance;
/// use tower::discover::ServiceList;
/// use trunkline::{Channel, Connector};
///
/// # fn balance() -> Result<(), trunkline::Error> {
/// let channels = ["server1.internal:50051", "server2.internal:50051"]
///     .map(|address| Connector::tcp(address).connect_lazy());
/// let channels = channels.into_iter().collect::<Result<Vec<Channel>, _>>()?;
/// let balance = Balance::new(ServiceList::new::<Request<Body>>(channels));
/// # let _: Balance<_, Request<Body>> = balance;
/// # Ok(())
/// # }
/// ```
impl tower::load::Load for Channel {
    type Metric = u32;

    fn load(&self) -> u32 {
        let set = self.directory().set();
        match set.state() {
            State::TransientFailure | State::Shutdown => u32::MAX,
            State::Idle | State::Connecting | State::Ready => set.in_flight(),
        }
    }
}

/// Calls in flight.
impl tower::load::Load for balance::Load {
    type Metric = u32;

    fn load(&self) -> u32 {
        self.in_flight()
    }
}
