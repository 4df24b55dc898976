//! Trunkline.

mod error;

pub use error::Stage;
