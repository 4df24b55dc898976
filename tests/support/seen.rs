//! What a raw peer counted.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::frames::{Frame, flag, kind};
use super::journal::without;

/// Counts over all connections of one raw peer.
#[derive(Debug, Default)]
pub struct Seen {
    connections: AtomicU64,
    open: AtomicU64,
    requests: AtomicU64,
    pings: AtomicU64,
    goaways: AtomicU64,
    streams: AtomicU64,
    peak_streams: AtomicU64,
    over_limit: AtomicU64,
    panics: AtomicU64,
    resets: Mutex<BTreeMap<u32, u64>>,
    handled: Mutex<BTreeMap<u64, u64>>,
    leaves: Mutex<BTreeMap<u64, u64>>,
}

impl Seen {
    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(SeqCst)
    }

    /// Connections open now, at this side.
    pub fn open(&self) -> u64 {
        self.open.load(SeqCst)
    }

    /// Requests whose HEADERS came.
    pub fn requests(&self) -> u64 {
        self.requests.load(SeqCst)
    }

    /// PINGs received, acknowledgements not counted.
    pub fn pings(&self) -> u64 {
        self.pings.load(SeqCst)
    }

    /// GOAWAYs received.
    pub fn goaways(&self) -> u64 {
        self.goaways.load(SeqCst)
    }

    /// RST_STREAMs received with this code.
    pub fn resets(&self, code: u32) -> u64 {
        self.resets.lock().unwrap().get(&code).copied().unwrap_or(0)
    }

    /// Requests being answered now. Only counted while the peer answers by itself.
    pub fn streams(&self) -> u64 {
        self.streams.load(SeqCst)
    }

    /// The most requests that were ever being answered at once. Only counted while the peer answers by itself.
    pub fn peak_streams(&self) -> u64 {
        self.peak_streams.load(SeqCst)
    }

    /// Requests above the stream limit that the client had acknowledged. Only counted while the peer answers by itself.
    pub fn requests_over_limit(&self) -> u64 {
        self.over_limit.load(SeqCst)
    }

    /// For each id of the echo service's requests the number of times it was taken as processed, as a server might have
    /// before the reaction. Only counted while the peer answers by itself.
    pub fn handled(&self) -> BTreeMap<u64, u64> {
        self.handled.lock().unwrap().clone()
    }

    /// The same without those that were answered with UNAVAILABLE: with that answer a server gives leave to repeat the
    /// call.
    pub fn handled_for_good(&self) -> BTreeMap<u64, u64> {
        let leaves = self.leaves.lock().unwrap();
        without(self.handled(), &leaves)
    }

    /// Connections that a panic of the closure that decides has ended.
    pub fn panics(&self) -> u64 {
        self.panics.load(SeqCst)
    }

    /// Notes a connection and gives its number, from 0.
    pub(super) fn opened(&self) -> u64 {
        self.open.fetch_add(1, SeqCst);
        self.connections.fetch_add(1, SeqCst)
    }

    pub(super) fn closed(&self) {
        self.open.fetch_sub(1, SeqCst);
    }

    /// Notes a frame received.
    pub(super) fn frame(&self, frame: &Frame) {
        match frame.kind {
            kind::PING if !frame.has(flag::ACK) => drop(self.pings.fetch_add(1, SeqCst)),
            kind::GOAWAY => drop(self.goaways.fetch_add(1, SeqCst)),
            kind::RST_STREAM => {
                let mut resets = self.resets.lock().unwrap();
                *resets.entry(frame.number_at(0)).or_default() += 1;
            }
            _ => {}
        }
    }

    pub(super) fn request(&self) {
        self.requests.fetch_add(1, SeqCst);
    }

    pub(super) fn stream_opened(&self) {
        let now = self.streams.fetch_add(1, SeqCst) + 1;
        self.peak_streams.fetch_max(now, SeqCst);
    }

    pub(super) fn streams_closed(&self, streams: usize) {
        self.streams.fetch_sub(streams as u64, SeqCst);
    }

    pub(super) fn over_limit(&self) {
        self.over_limit.fetch_add(1, SeqCst);
    }

    pub(super) fn panicked(&self) {
        self.panics.fetch_add(1, SeqCst);
    }

    pub(super) fn processed(&self, id: u64) {
        *self.handled.lock().unwrap().entry(id).or_default() += 1;
    }

    pub(super) fn gave_leave(&self, id: u64) {
        *self.leaves.lock().unwrap().entry(id).or_default() += 1;
    }
}
