//! What a source's word is worth.

use crate::error::Error;

/// What happens to an endpoint when a source of health says that it is not well.
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

    pub(crate) fn is_veto(self) -> bool {
        self == Self::Veto
    }
}
