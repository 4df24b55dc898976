//! What a raw connection sends, and how it ends.

use std::io;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use super::frames::Frame;
use super::raw_conn::{LIMIT, RawConn};
use super::response;
use super::wait::within;

impl RawConn {
    pub async fn send_settings(&mut self, settings: &[(u16, u32)]) {
        self.unacked.push_back(settings.to_vec());
        self.send(&Frame::settings(settings)).await;
    }

    /// The same, and leaves it to the caller whether the client is still there.
    pub(super) async fn try_send_settings(&mut self, settings: &[(u16, u32)]) -> io::Result<()> {
        self.unacked.push_back(settings.to_vec());
        self.try_send(&Frame::settings(settings)).await
    }

    pub async fn send_settings_ack(&mut self) {
        self.send(&Frame::settings_ack()).await;
    }

    /// Headers, one message with this payload, the status OK. The payload is not checked against the client's window.
    pub async fn respond_ok(&mut self, stream: u32, payload: &[u8]) {
        for frame in response::ok(stream, payload) {
            self.send(&frame).await;
        }
    }

    /// A gRPC status in place of response headers.
    pub async fn respond_trailers_only(&mut self, stream: u32, code: i32, message: &str) {
        self.send(&response::trailers_only(stream, code, message))
            .await;
    }

    /// Any header fields, pseudo headers first.
    pub async fn send_headers(&mut self, stream: u32, fields: &[(&str, &str)], end: bool) {
        let block = response::header_block(fields);
        self.send(&Frame::headers(stream, block, end)).await;
    }

    /// Bytes of a body, without the prefix of a gRPC message.
    pub async fn send_data(&mut self, stream: u32, bytes: impl Into<Bytes>, end: bool) {
        self.send(&Frame::data(stream, bytes, end)).await;
    }

    /// One gRPC message.
    pub async fn send_message(&mut self, stream: u32, payload: &[u8]) {
        self.send(&response::data(stream, payload)).await;
    }

    /// The gRPC status that ends a response.
    pub async fn send_trailers(&mut self, stream: u32, code: i32, message: &str) {
        self.send(&response::trailers(stream, code, message)).await;
    }

    pub async fn goaway(&mut self, last_stream: u32, code: u32, debug: &str) {
        self.send(&Frame::goaway(last_stream, code, debug)).await;
    }

    pub async fn rst(&mut self, stream: u32, code: u32) {
        self.send(&Frame::rst(stream, code)).await;
    }

    pub async fn ping(&mut self, data: [u8; 8]) {
        self.send(&Frame::ping(data)).await;
    }

    pub async fn pong(&mut self, data: impl Into<Bytes>) {
        self.send(&Frame::pong(data)).await;
    }

    pub async fn window_update(&mut self, stream: u32, increment: u32) {
        self.send(&Frame::window_update(stream, increment)).await;
    }

    /// Any frame.
    pub async fn send(&mut self, frame: &Frame) {
        self.send_raw(&frame.encode()).await;
    }

    /// Any bytes.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        let write = self.io.write_all(bytes);
        let written = within(LIMIT, "sending", write).await;
        written.expect("the client is connected");
    }

    /// Sends, and leaves it to the caller whether the client is still there.
    pub async fn try_send(&mut self, frame: &Frame) -> io::Result<()> {
        self.io.write_all(&frame.encode()).await
    }

    /// Ends the sending direction with FIN and goes on reading.
    pub async fn finish_sending(&mut self) {
        let _ = self.io.shutdown().await;
    }

    /// Closes with FIN, without GOAWAY.
    pub async fn close(self) {
        self.io.close().await;
    }

    /// Closes with a TCP RST.
    pub fn abort(self) {
        self.io.abort();
    }
}
