//! The rule that makes pickers, and what it may know of an endpoint.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use super::{Load, Picker, ReportRules};

/// Builds a [`Picker`] for each set of endpoints.
///
/// Implement it for a rule of your own and pass it to [`Balance::custom`](super::Balance::custom):
///
/// ```
/// use std::hash::{DefaultHasher, Hash, Hasher};
/// use trunkline::balance::{Balance, Candidate, Pick, PickRequest, Picker, Policy};
///
/// /// Each tenant has an endpoint of its own, and keeps it while the endpoint is there.
/// #[derive(Debug)]
/// struct ByTenant;
///
/// #[derive(Debug)]
/// struct Tenants(Vec<u64>);
///
/// impl Policy for ByTenant {
///     fn name(&self) -> &str {
///         "by_tenant"
///     }
///
///     fn build(&self, candidates: &[Candidate]) -> Box<dyn Picker> {
///         Box::new(Tenants(candidates.iter().map(Candidate::identity).collect()))
///     }
/// }
///
/// impl Picker for Tenants {
///     fn pick(&self, request: &PickRequest<'_>) -> Pick {
///         let Some(tenant) = request.headers().get("tenant") else {
///             return Pick::Drop("a request without tenant".into());
///         };
///         let score = |index: &usize| {
///             let mut hasher = DefaultHasher::new();
///             (tenant, self.0[*index]).hash(&mut hasher);
///             hasher.finish()
///         };
///         (0..self.0.len()).max_by_key(score).map_or(Pick::Wait, Pick::Endpoint)
///     }
/// }
///
/// let balance = Balance::custom(ByTenant);
/// # let (mut headers, extensions) = (http::HeaderMap::new(), http::Extensions::new());
/// # let pick = |order: [u64; 3], headers: &http::HeaderMap| {
/// #     let picker = balance.build(&order.map(|identity| Candidate::new(identity, 1)));
/// #     picker.pick(&PickRequest::new("/", headers, &extensions))
/// # };
/// # assert!(matches!(pick([7, 8, 9], &headers), Pick::Drop(_)));
/// # headers.insert("tenant", http::HeaderValue::from_static("acme"));
/// # let Pick::Endpoint(one) = pick([7, 8, 9], &headers) else { panic!() };
/// # assert_eq!(pick([9, 8, 7], &headers), Pick::Endpoint(2 - one));
/// ```
pub trait Policy: Send + Sync + Debug + 'static {
    /// The policy's name, as status reports and logs show it: lower case, words joined by `_`.
    fn name(&self) -> &str;

    /// Builds the picker of one set of endpoints.
    ///
    /// Called once for each change of the set (endpoints come and go, weights change, health
    /// flips), never with an empty slice and never on the path of a call. The picker's indexes are
    /// indexes into `candidates`; the next set may order its endpoints differently, so state that
    /// must outlive a set is kept in the policy, by [`Candidate::identity`].
    fn build(&self, candidates: &[Candidate]) -> Box<dyn Picker>;

    /// The same, with what else is known: the endpoints that get no calls now, because they are not connected or not well.
    /// For rules that must know how much of a group is missing.
    ///
    /// Default: [`build`](Self::build), without a look at them.
    fn build_among(&self, candidates: &[Candidate], unavailable: &[Candidate]) -> Box<dyn Picker> {
        let _ = unavailable;
        self.build(candidates)
    }

    /// Whether the pickers look at [`Candidate::weight`]; configured weights that nobody reads are
    /// worth a warning.
    ///
    /// Default: `false`.
    fn uses_weights(&self) -> bool {
        false
    }

    /// Whether the pickers make no sense without weights, so that a channel whose endpoints all lack one is a mistake.
    ///
    /// Default: `false`.
    fn needs_weights(&self) -> bool {
        false
    }

    /// How often the picker of a set that has not changed is built anew, for rules whose candidates change by time alone.
    /// Shorter intervals than 100 ms count as that, longer ones than a day as a day.
    ///
    /// It makes no new set: calls that wait for one, because the picker said [`Pick::Wait`](super::Pick::Wait), go on
    /// waiting.
    ///
    /// Default: never.
    fn refresh_interval(&self) -> Option<Duration> {
        None
    }

    /// Whether an endpoint that is left out of a client's subset changes what calls lead to, as with hashing. Then there is
    /// no subset unless one is asked for.
    ///
    /// Default: `false`.
    fn needs_all(&self) -> bool {
        false
    }

    /// Which load reports [`Candidate::reported_weight`] follows from, if that is looked at. Only then are reports read.
    ///
    /// Default: none.
    fn load_reports(&self) -> Option<ReportRules> {
        None
    }

    /// Whether the pickers look at latencies. Only then are they measured: it costs each attempt two looks at the clock.
    ///
    /// Default: `false`.
    fn uses_latency(&self) -> bool {
        false
    }
}

/// One endpoint, as a policy sees it.
#[derive(Clone, Debug)]
pub struct Candidate {
    identity: u64,
    weight: u32,
    share: f64,
    reported_weight: Option<f64>,
    metadata: Option<Arc<BTreeMap<String, String>>>,
    load: Option<Arc<Load>>,
}

impl Candidate {
    /// An endpoint without metadata. The crate makes these itself; the constructor is for tests of
    /// your own policies.
    pub fn new(identity: u64, weight: u32) -> Self {
        Self {
            identity,
            weight,
            share: 1.0,
            reported_weight: None,
            metadata: None,
            load: None,
        }
    }

    /// The same endpoint with what discovery said about it.
    pub fn with_metadata(mut self, metadata: Arc<BTreeMap<String, String>>) -> Self {
        self.metadata = Some(metadata);
        self
    }

    /// The same endpoint, which gets this part of its calls: above 0, at most 1; what is not is brought there.
    pub fn with_share(mut self, share: f64) -> Self {
        self.share = if share > 0.0 {
            share.min(1.0)
        } else {
            f64::MIN_POSITIVE
        };
        self
    }

    /// The same endpoint with the weight that follows from its load reports.
    pub fn with_reported_weight(mut self, weight: Option<f64>) -> Self {
        self.reported_weight = weight;
        self
    }

    /// The weight that follows from the endpoint's own load reports when the set is built: calls per second that it could
    /// do. `None` if there are none, or none that may be relied on.
    pub fn reported_weight(&self) -> Option<f64> {
        self.reported_weight
    }

    /// The same endpoint with what it is doing.
    pub fn with_load(mut self, load: Arc<Load>) -> Self {
        self.load = Some(load);
        self
    }

    /// What the endpoint is doing. The same value in all sets; of a candidate that was made without one, it stays
    /// empty.
    pub fn load(&self) -> Arc<Load> {
        self.load.clone().unwrap_or_default()
    }

    /// A number that stays with the endpoint through all sets, whatever its index: a hash of its key.
    ///
    /// It follows from address and authority alone (XXH64), so that all clients agree on it, in all versions. For endpoints
    /// that are told apart by more (TLS or Unix options of their own, an `https` scheme, a process id) it is the same
    /// in programs that were built alike.
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// The endpoint's share of the calls, relative to the other weights. 0 means drained: it is not
    /// to be picked.
    ///
    /// Drained endpoints are left out of the set before [`Policy::build`], so that a policy may
    /// ignore the case.
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// What it is to get of the calls that are its due, for a while: less than 1 while it starts (slow start), recovers, or
    /// turns calls away. Above 0, at most 1.
    ///
    /// It counts with every policy here, those that ignore weights included.
    pub fn share(&self) -> f64 {
        self.share
    }

    /// What discovery said about the endpoint under `key`, for example its zone or version.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.as_ref()?.get(key).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_looked_up_by_key() {
        let bare = Candidate::new(1, 2);
        let zone = Arc::new(BTreeMap::from([("zone".to_owned(), "eu-1".to_owned())]));
        let full = bare.clone().with_metadata(zone);
        assert_eq!((full.identity(), full.weight()), (1, 2));
        assert_eq!(bare.metadata("zone"), None);
        assert_eq!(full.metadata("zone"), Some("eu-1"));
        assert_eq!(full.metadata("version"), None);
    }
}
