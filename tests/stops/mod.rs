//! The places on a call's way where it may have to wait, each under the test's control.
//!
//! | file | role |
//! |---|---|
//! | `stop` | one such place: lets pass, fails, or holds until it is opened |
//! | `dial` | a dialler with stops before, during and after the dial, and on every write |
//! | `peer` | an HTTP/2 server with stops in its answer |
//! | `table` | the places, what may happen there, and what is to come of it |
//! | `world` | all of them around one channel, and what must be so once a call is over |

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "as in `support`"
)]

pub mod dial;
pub mod peer;
pub mod stop;
pub mod table;
pub mod world;
