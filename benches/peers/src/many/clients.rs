//! The clients that are given thousands of endpoints.

use crate::Failure;
use crate::options::words;
use crate::target::Target;
use crate::variants::{Job, Variant, tonic};

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
        Trunkline = "trunkline",
    }
);

impl ManyClient {
    pub async fn connect<J: Job>(self, target: Target, job: J) -> Result<J::Output, Failure> {
        let variant = match self {
            Self::Channels => return Ok(job.run(tonic::in_turn(&target).await?).await),
            Self::H2 => Variant::H2,
            Self::Hyper => Variant::Hyper,
            Self::BalanceList => Variant::BalanceList,
            Self::Ginepro => Variant::Ginepro,
            Self::Trunkline => Variant::Trunkline,
        };
        variant.connect(&target, job).await
    }
}
