//! The system's allocator, counting while it is told to.
//!
//! Off, it costs a load and a branch that is always the same: timings are taken with it off.
#![allow(unsafe_code)] // The trait is unsafe to implement. This file does nothing but count and pass on.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

pub struct Counting;

static ON: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);
static HELD: AtomicI64 = AtomicI64::new(0);

/// Starts or stops counting.
pub fn count(yes: bool) {
    ON.store(yes, Relaxed);
}

/// Allocations, and bytes asked for, while counting was on. A reallocation counts as one, with its new size.
pub fn counted() -> (u64, u64) {
    (ALLOCATIONS.load(Relaxed), BYTES.load(Relaxed))
}

/// Bytes allocated and not given back, while counting was on.
pub fn held() -> i64 {
    HELD.load(Relaxed)
}

/// So many bytes in place of so many.
fn add(bytes: usize, instead_of: usize) {
    if ON.load(Relaxed) {
        ALLOCATIONS.fetch_add(1, Relaxed);
        BYTES.fetch_add(bytes as u64, Relaxed);
        HELD.fetch_add(bytes as i64 - instead_of as i64, Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size(), 0);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size(), 0);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(size, layout.size());
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if ON.load(Relaxed) {
            HELD.fetch_sub(layout.size() as i64, Relaxed);
        }
        unsafe { System.dealloc(pointer, layout) }
    }
}
