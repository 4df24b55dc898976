//! Events counted per slot of time.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// How many slots are remembered.
pub(super) const SLOTS: u32 = 32;

/// One event in a cell: the count is in the upper half, the number of its slot in the lower.
const ONE: u64 = 1 << 32;

/// Counts of the last [`SLOTS`] slots; a cell is reused every `SLOTS` slots.
///
/// Slot numbers come from clocks that several threads read at about the same time, so one may be a little
/// behind another. They wrap after 2³².
#[derive(Debug, Default)]
pub(super) struct Ring {
    cells: [AtomicU64; SLOTS as usize],
}

impl Ring {
    /// Counts one event and says under which slot: the given one, or the newer one that took its cell.
    pub(super) fn add(&self, slot: u32) -> u32 {
        let cell = self.cell(slot);
        let mut seen = cell.load(SeqCst);
        while !is_newer_or_same(number(seen), slot) {
            match cell.compare_exchange_weak(seen, ONE | u64::from(slot), SeqCst, SeqCst) {
                Ok(_) => return slot,
                Err(now) => seen = now,
            }
        }
        // Should the cell be reused before this line runs, the event counts for the newer slot.
        number(cell.fetch_add(ONE, SeqCst))
    }

    /// Takes back an event that `add` counted under `slot`, unless the slot is forgotten already.
    pub(super) fn remove(&self, slot: u32) {
        let _ = self.cell(slot).fetch_update(SeqCst, SeqCst, |seen| {
            (number(seen) == slot).then(|| seen.checked_sub(ONE))?
        });
    }

    /// The events of the `span` slots that end with `newest`, and of newer ones if there are any.
    pub(super) fn sum(&self, newest: u32, span: u32) -> u64 {
        let counted = |slot| newest.wrapping_sub(slot) < span || is_newer_or_same(slot, newest);
        let cells = self.cells.iter().map(|cell| cell.load(SeqCst));
        cells
            .filter(|&seen| counted(number(seen)))
            .map(|seen| seen >> 32)
            .sum()
    }

    fn cell(&self, slot: u32) -> &AtomicU64 {
        &self.cells[(slot % SLOTS) as usize]
    }
}

fn number(cell: u64) -> u32 {
    (cell & u64::from(u32::MAX)) as u32
}

/// Only clocks read at about the same time are compared: far ahead means far behind, before a wrap.
fn is_newer_or_same(slot: u32, than: u32) -> bool {
    slot.wrapping_sub(than) <= SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_slots_drop_out_one_by_one() {
        let ring = Ring::default();
        for slot in 0..100 {
            assert_eq!(ring.add(slot), slot);
        }
        assert_eq!(ring.sum(99, SLOTS), 32);
        assert_eq!(ring.sum(99, 10), 10);
        assert_eq!(ring.sum(110, SLOTS), 21);
        assert_eq!(ring.sum(99 + SLOTS, SLOTS), 0);
    }

    #[test]
    fn a_late_caller_does_not_erase_what_is_newer() {
        let ring = Ring::default();
        ring.add(40);
        assert_eq!(ring.add(8), 40, "the cell of slot 8 belongs to slot 40 now");
        assert_eq!(ring.add(39), 39);
        assert_eq!(ring.sum(40, SLOTS), 3);
        assert_eq!(ring.sum(39, 1), 3, "newer slots are counted too");
    }

    #[test]
    fn remove_takes_back_what_is_still_remembered() {
        let ring = Ring::default();
        ring.add(3);
        ring.add(3);
        ring.remove(3);
        assert_eq!(ring.sum(3, SLOTS), 1);
        ring.remove(3);
        ring.remove(3);
        assert_eq!(ring.sum(3, SLOTS), 0, "never below zero");
        ring.add(3);
        ring.add(3 + SLOTS);
        ring.remove(3);
        assert_eq!(
            ring.sum(3 + SLOTS, SLOTS),
            1,
            "the reused cell is left alone"
        );
    }

    #[test]
    fn slot_numbers_may_wrap() {
        let ring = Ring::default();
        let start = u32::MAX - 9;
        for step in 0..20 {
            ring.add(start.wrapping_add(step));
        }
        assert_eq!(ring.sum(start.wrapping_add(19), SLOTS), 20);
        assert_eq!(ring.sum(start.wrapping_add(19), 5), 5);
    }

    #[test]
    fn a_cell_untouched_for_years_is_reused() {
        let ring = Ring::default();
        ring.add(64);
        let later = 64 + (1 << 31);
        assert_eq!(ring.add(later), later);
        assert_eq!(ring.sum(later, SLOTS), 1);
    }
}
