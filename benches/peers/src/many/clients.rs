//! The clients that are given thousands of endpoints.

use ::trunkline::{Connector, Subset};

use crate::Failure;
use crate::options::words;
use crate::target::Target;
use crate::variants::{Job, Variant, tonic, trunkline};

/// Trunkline's default.
const SUBSET: usize = 500;

words!(
    ManyClient {
        /// A connection each, dialled one after the other.
        H2 = "h2",
        /// A connection each, dialled one after the other.
        Hyper = "hyper",
        /// A `Channel` each, connected one after the other and called in turn.
        Channels = "channels",
        BalanceList = "balance-list",
        Ginepro = "ginepro",
        /// With its defaults: a subset.
        Trunkline = "trunkline",
        /// With a connection to one of them: what the others cost is what unconnected endpoints do.
        TrunklineOne = "trunkline-one",
        /// A connection to each.
        TrunklineAll = "trunkline-all",
    }
);

impl ManyClient {
    pub async fn connect<J: Job>(self, target: Target, job: J) -> Result<J::Output, Failure> {
        let variant = match self {
            Self::Channels => return Ok(job.run(tonic::in_turn(&target).await?).await),
            Self::Trunkline => return Ok(job.run(trunkline::lazy(&target, |it| it)?).await),
            Self::TrunklineOne => {
                let one = |it: Connector| it.subset(Subset::of(1));
                return Ok(job.run(trunkline::lazy(&target, one)?).await);
            }
            Self::TrunklineAll => {
                let client = trunkline::lazy(&target, Connector::no_subset)?;
                return Ok(job.run(client).await);
            }
            Self::H2 => Variant::H2,
            Self::Hyper => Variant::Hyper,
            Self::BalanceList => Variant::BalanceList,
            Self::Ginepro => Variant::Ginepro,
        };
        variant.connect(&target, job).await
    }

    /// How many of so many endpoints it connects to.
    pub fn connects_to(self, endpoints: usize) -> usize {
        match self {
            Self::Trunkline => endpoints.min(SUBSET),
            Self::TrunklineOne => 1,
            _ => endpoints,
        }
    }
}
