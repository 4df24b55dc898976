//! The echo service that Trunkline's examples, tests and benches call, as tonic generates it.

tonic::include_proto!("trunkline.echo.v1");
