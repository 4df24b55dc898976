//! The echo service that Trunkline's examples, tests and benches call, as tonic generates it.

/// Turns messages into bytes and back, for peers that have no tonic.
pub use prost::Message;

tonic::include_proto!("trunkline.echo.v1");
