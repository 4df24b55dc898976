//! The clients whose tails are measured: Trunkline under each policy, and its peer.

use ::trunkline::Balance;

use crate::Failure;
use crate::options::words;
use crate::target::Target;
use crate::variants::{Job, tonic, trunkline};

words!(
    /// A policy that is added here, and to the list below, is measured.
    TailClient {
        /// tonic's.
        BalanceList = "balance-list",
        RoundRobin = "round-robin",
        Random = "random",
        Weighted = "weighted",
        WeightedRandom = "weighted-random",
        LeastRequest = "least-request",
        PeakEwma = "peak-ewma",
    }
);

impl TailClient {
    pub async fn connect<J: Job>(self, target: &Target, job: J) -> Result<J::Output, Failure> {
        let balance = match self {
            Self::BalanceList => return Ok(job.run(tonic::balance_list(target)?).await),
            Self::RoundRobin => Balance::round_robin(),
            Self::Random => Balance::random(),
            Self::Weighted => Balance::weighted(),
            Self::WeightedRandom => Balance::weighted_random(),
            Self::LeastRequest => Balance::least_request(),
            Self::PeakEwma => Balance::peak_ewma(),
        };
        Ok(job.run(trunkline::balanced(target, balance).await?).await)
    }
}
