//! What a source's word is worth.

use crate::error::Error;

/// What happens to an endpoint when a source of health says that it is not well.
///
/// | source | default | set with |
/// |---|---|---|
/// | no connection | veto | always: there is nothing to send a call on |
/// | health check | veto | [`HealthCheck::influence`](crate::HealthCheck::influence) |
/// | breaker | veto | [`Breaker::influence`](crate::Breaker::influence) |
/// | outlier detection | veto | [`OutlierDetection::influence`](crate::OutlierDetection::influence) |
/// | refused calls | weight | [`Connector::overload_influence`](crate::Connector::overload_influence) |
/// | discovery | hint | [`Connector::discovery_influence`](crate::Connector::discovery_influence) |
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Influence {
    /// It gets no calls, within the [limits](crate::EjectionLimits). The default.
    #[default]
    Veto,
    /// It gets this share of the calls that it would get: more than 0, at most 1. Policies that do not look at weights
    /// ignore it.
    Weight(f64),
    /// It gets its calls; the status shows what the source says.
    Hint,
    /// It gets its calls; the status shows what would have been done, and the log says so once. For trying settings out.
    Observe,
}

impl Influence {
    /// # Errors
    ///
    /// A configuration error that names `field`.
    pub(crate) fn validate(self, field: &str) -> Result<(), Error> {
        match self {
            Self::Weight(share) if !(share > 0.0 && share <= 1.0) => {
                let problem = format!("the share {share} must be more than 0 and at most 1");
                Err(Error::config(&format!("{field}.influence"), problem))
            }
            _ => Ok(()),
        }
    }

    /// The same of a source that can't forbid calls.
    ///
    /// # Errors
    ///
    /// A configuration error that names `field`.
    pub(crate) fn validate_mild(self, field: &str) -> Result<(), Error> {
        if self.is_veto() {
            let problem = "must be a weight, a hint or observed: an endpoint that refuses some calls is to get fewer, not none";
            return Err(Error::config(&format!("{field}.influence"), problem));
        }
        self.validate(field)
    }

    pub(crate) fn is_veto(self) -> bool {
        self == Self::Veto
    }
}
