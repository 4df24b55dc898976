//! The clients that are put through failures. All make their calls as generated clients do.

use ::trunkline::Retry;

use crate::Failure;
use crate::options::words;
use crate::target::Target;
use crate::variants::{Job, ginepro, tonic, trunkline};

words!(
    FailureClient {
        /// With tonic's defaults.
        BalanceList = "balance-list",
        /// A PING every second, 1 s for its answer, 0.5 s to connect.
        BalanceListKeepalive = "balance-list-keepalive",
        /// With its defaults; its lookup always finds all three.
        Ginepro = "ginepro",
        /// With its defaults: no PINGs; calls that fail or have no answer tell.
        Trunkline = "trunkline",
        /// A PING after 100 ms without a byte, 200 ms for an answer; nothing is repeated that a server may have
        /// processed.
        TrunklineNoRetry = "trunkline-no-retry",
        /// The same, for calls that may be repeated.
        TrunklineRetry = "trunkline-retry",
    }
);

impl FailureClient {
    pub async fn connect<J: Job>(self, target: &Target, job: J) -> Result<J::Output, Failure> {
        Ok(match self {
            Self::BalanceList => job.run(tonic::balance_list(target)?).await,
            Self::BalanceListKeepalive => {
                job.run(tonic::balance_list_with_keepalive(target)?).await
            }
            Self::Ginepro => job.run(ginepro::connect(target).await?).await,
            Self::Trunkline => job.run(trunkline::generated(target).await?).await,
            Self::TrunklineNoRetry => {
                job.run(trunkline::watchful(target, Retry::none()).await?)
                    .await
            }
            Self::TrunklineRetry => {
                job.run(trunkline::watchful(target, Retry::exponential().idempotent(true)).await?)
                    .await
            }
        })
    }
}
