//! The echo service that Trunkline's examples, tests and benches call, and the services of tests alone, as tonic generates
//! them.

/// Turns messages into bytes and back, for peers that have no tonic.
pub use prost::Message;

tonic::include_proto!("trunkline.echo.v1");

/// What servers in other processes tell the tests.
pub mod foreign {
    tonic::include_proto!("trunkline.foreign.v1");
}

/// The service of gRPC's interoperability tests.
pub mod testing {
    tonic::include_proto!("grpc.testing");
}
