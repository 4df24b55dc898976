//! Calls as tonic's generated clients make them: `tonic::client::Grpc` over any transport.
//!
//! The codec passes bytes through, so that no variant pays for protobuf. Everything is there twice, because
//! ginepro is built on tonic 0.13 while the others use 0.14: the same text, compiled against both.

macro_rules! calls_through {
    ($tonic:ident, $module:ident) => {
        pub mod $module {
            use bytes::{Buf, BufMut, Bytes};
            use http::uri::PathAndQuery;
            use $tonic::body::Body;
            use $tonic::client::{Grpc, GrpcService};
            use $tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
            use $tonic::{Request, Status};

            use crate::Failure;
            use crate::target::{PATH, Target};
            use crate::variants::Calls;

            /// Messages as they are.
            #[derive(Clone, Copy, Debug, Default)]
            pub struct BytesCodec;

            impl Codec for BytesCodec {
                type Encode = Bytes;
                type Decode = Bytes;
                type Encoder = Self;
                type Decoder = Self;

                fn encoder(&mut self) -> Self {
                    Self
                }

                fn decoder(&mut self) -> Self {
                    Self
                }
            }

            impl Encoder for BytesCodec {
                type Item = Bytes;
                type Error = Status;

                fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
                    to.put(item);
                    Ok(())
                }
            }

            impl Decoder for BytesCodec {
                type Item = Bytes;
                type Error = Status;

                fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
                    Ok(Some(from.copy_to_bytes(from.remaining())))
                }
            }

            /// A generated client's inside.
            #[derive(Clone)]
            pub struct GrpcCalls<T> {
                grpc: Grpc<T>,
                path: PathAndQuery,
                target: Target,
            }

            impl<T> GrpcCalls<T> {
                pub fn new(transport: T, target: &Target) -> Self {
                    Self {
                        grpc: Grpc::new(transport),
                        path: PathAndQuery::from_static(PATH),
                        target: target.clone(),
                    }
                }
            }

            impl<T> Calls for GrpcCalls<T>
            where
                T: GrpcService<Body> + Clone + Send + Sync + 'static,
                T::Future: Send,
                T::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
                <T::ResponseBody as http_body::Body>::Error: Into<Failure> + Send,
            {
                async fn call(&mut self) -> Result<(), Failure> {
                    let mut request = Request::new(self.target.message.clone());
                    if let Some(timeout) = self.target.timeout {
                        request.set_timeout(timeout);
                    }
                    let ready = self.grpc.ready().await;
                    ready.map_err(|error| Status::unavailable(error.into().to_string()))?;
                    let path = self.path.clone();
                    let mut bytes = 0;
                    if self.target.replies == 1 {
                        let reply = self.grpc.unary(request, path, BytesCodec).await?;
                        bytes += reply.into_inner().len();
                    } else {
                        let replies = self.grpc.server_streaming(request, path, BytesCodec);
                        let mut replies = replies.await?.into_inner();
                        while let Some(reply) = replies.message().await? {
                            bytes += reply.len();
                        }
                    }
                    self.target.check(bytes, 0)
                }
            }
        }
    };
}

calls_through!(tonic, v14);
calls_through!(tonic013, v13);
