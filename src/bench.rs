//! Doors for `benches/`; not part of the public interface.
#![allow(missing_docs, missing_debug_implementations)]

use std::sync::Arc;
use std::time::Duration;

use crate::retry::{self, BudgetLimits};

pub struct Budget(Arc<retry::Budget>);

impl Budget {
    pub fn new(limits: BudgetLimits) -> Self {
        Self(Arc::new(retry::Budget::new(limits)))
    }

    pub fn deposit(&self, now: Duration) {
        self.0.deposit(now);
    }

    pub fn spend(&self, now: Duration) -> bool {
        self.0
            .try_withdraw(now)
            .map(retry::Withdrawal::spend)
            .is_some()
    }

    pub fn withdraw_and_give_back(&self, now: Duration) -> bool {
        self.0.try_withdraw(now).is_some()
    }
}
