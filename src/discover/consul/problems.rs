//! What is wrong with parts of an answer.

use std::fmt;

/// How many are told of.
const TOLD: usize = 8;

/// A count, and the first of what was counted: an answer may have thousands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Problems {
    count: usize,
    first: Vec<String>,
}

impl Problems {
    pub(super) fn add(&mut self, problem: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < TOLD {
            self.first.push(problem());
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.first.join("; "))?;
        match self.count - self.first.len() {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}
