//! What one run of one variant showed.

use std::fmt;
use std::str::FromStr;

use crate::Failure;

/// The columns, in the order of a sample's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Calls per second.
    Rate,
    /// Microseconds of the client's CPU per call.
    Cpu,
    Allocations,
    AllocatedBytes,
    Writes,
    /// KiB.
    Rss,
    /// Microseconds.
    P50,
    P99,
    P999,
}

pub const FIGURES: usize = 9;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample(pub [f64; FIGURES]);

impl Sample {
    pub fn of(&self, figure: Figure) -> f64 {
        self.0[figure as usize]
    }
}

/// How a client process hands it to the process that started it: one line.
impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sample")?;
        self.0.iter().try_for_each(|number| write!(f, " {number}"))
    }
}

impl FromStr for Sample {
    type Err = Failure;

    fn from_str(line: &str) -> Result<Self, Failure> {
        let numbers = line.trim().strip_prefix("sample ").ok_or("not a sample")?;
        let numbers: Result<Vec<f64>, _> = numbers.split(' ').map(str::parse).collect();
        let numbers = numbers?.try_into();
        Ok(Self(numbers.map_err(|_| "a sample has nine numbers")?))
    }
}

/// Of the middle of all values, or between the two in the middle.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}
