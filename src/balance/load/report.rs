//! What a server says of its load with an answer.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;

use crate::protobuf::{Value, take_field};

/// A server's load, as reported in the trailers of a call: of `xds.data.orca.v3.OrcaLoadReport` (ORCA, gRFC A51) what
/// weights follow from.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct LoadReport {
    /// How busy it is; 1 is all that it can do, and it may do more. Above 0, or unknown.
    utilization: f64,
    /// Calls per second.
    rate: f64,
    /// Of these, how many fail.
    errors: f64,
}

const TRAILER: &str = "endpoint-load-metrics-bin";

/// Both forms are allowed in gRPC's metadata.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl LoadReport {
    /// `None` if there is none, or it can't be read.
    pub(crate) fn from_trailers(trailers: &HeaderMap) -> Option<Self> {
        let text = trailers.get(TRAILER)?;
        Self::read(&BASE64.decode(text).ok()?)
    }

    fn read(mut message: &[u8]) -> Option<Self> {
        let (mut application, mut cpu) = (0.0, 0.0);
        let mut report = Self::default();
        while !message.is_empty() {
            let (number, value) = take_field(&mut message)?;
            let Value::Fixed64(bytes) = value else {
                continue;
            };
            // What is not a number, or none that a load can be, is as good as missing.
            let value = Some(f64::from_le_bytes(bytes)).filter(|it| it.is_finite() && *it >= 0.0);
            let value = value.unwrap_or_default();
            match number {
                1 => cpu = value,
                6 => report.rate = value,
                7 => report.errors = value,
                9 => application = value,
                _ => {}
            }
        }
        report.utilization = if application > 0.0 { application } else { cpu };
        Some(report)
    }

    /// How many calls per second it could take, if a failed one counts as so much utilization (gRFC A58). `None` if the report
    /// does not say enough.
    pub(super) fn weight(&self, error_penalty: f64) -> Option<f64> {
        let known = self.utilization > 0.0 && self.rate > 0.0;
        let weight = self.rate / (self.utilization + self.errors / self.rate * error_penalty);
        Some(weight).filter(|weight| known && weight.is_finite() && *weight > 0.0)
    }
}

#[cfg(test)]
impl LoadReport {
    pub(in crate::balance) fn of(rate: f64, utilization: f64) -> Self {
        Self {
            utilization,
            rate,
            errors: 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn double(number: u8, value: f64) -> Vec<u8> {
        let mut field = vec![number << 3 | 1];
        field.extend(value.to_le_bytes());
        field
    }

    fn trailers(text: impl AsRef<[u8]>) -> HeaderMap {
        let value = HeaderValue::from_bytes(text.as_ref()).unwrap();
        HeaderMap::from_iter([(http::HeaderName::from_static(TRAILER), value)])
    }

    fn weight(fields: &[(u8, f64)]) -> Option<f64> {
        let fields: Vec<_> = fields.iter().flat_map(|(n, v)| double(*n, *v)).collect();
        LoadReport::read(&fields)?.weight(1.0)
    }

    #[test]
    fn weights_follow_from_rate_utilization_and_errors() {
        assert_eq!(weight(&[(1, 0.5), (6, 100.0)]), Some(200.0));
        assert_eq!(weight(&[(1, 0.5), (6, 100.0), (9, 0.25)]), Some(400.0));
        assert_eq!(weight(&[(9, 0.25), (6, 100.0), (7, 25.0)]), Some(200.0));
        for incomplete in [
            &[][..],
            &[(1, 0.5)],
            &[(6, 100.0)],
            &[(1, 0.0), (6, 100.0)],
            &[(1, -0.5), (6, 100.0)],
            &[(1, f64::NAN), (6, 100.0)],
            &[(1, 0.5), (6, f64::INFINITY)],
            &[(1, 1e-300), (6, 1e300)],
        ] {
            assert_eq!(weight(incomplete), None, "{incomplete:?}");
        }
    }

    #[test]
    fn other_fields_are_skipped_and_both_forms_of_base64_read() {
        let mut message = vec![
            3 << 3,
            0x96,
            1,
            4 << 3 | 2,
            3,
            9,
            9,
            9,
            10 << 3 | 5,
            1,
            2,
            3,
            4,
        ];
        message.extend([double(1, 0.5), double(6, 8.0)].concat());
        let read = LoadReport::read(&message).unwrap();
        assert_eq!((read.utilization, read.rate, read.errors), (0.5, 8.0, 0.0));
        for text in [STANDARD.encode(&message), STANDARD_NO_PAD.encode(&message)] {
            assert_eq!(LoadReport::from_trailers(&trailers(text)), Some(read));
        }
    }

    #[test]
    fn what_is_no_report_is_none() {
        assert_eq!(LoadReport::from_trailers(&HeaderMap::new()), None);
        for garbage in ["*", "A", "\u{ff}", &STANDARD.encode([9, 1, 2]), "/////w=="] {
            assert_eq!(
                LoadReport::from_trailers(&trailers(garbage)),
                None,
                "{garbage}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, text in "[ -~]{0,80}") {
            let read = LoadReport::from_trailers(&trailers(STANDARD.encode(&bytes)));
            prop_assert_eq!(read, LoadReport::read(&bytes));
            LoadReport::from_trailers(&trailers(text));
        }
    }
}
