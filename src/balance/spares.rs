//! How many endpoints of a subset's order are used, when some of them are down.

use std::time::Duration;

use crate::time::Instant;

use super::Subset;

/// The length of the order's used part. It grows at once, and becomes shorter only after that has been enough for a while.
#[derive(Debug)]
pub(crate) struct Spares {
    size: usize,
    hold: Duration,
    used: usize,
    /// Fewer have been enough since, and until then.
    fewer: Option<Fewer>,
}

#[derive(Debug)]
struct Fewer {
    /// The most that were needed meanwhile.
    needed: usize,
    until: Instant,
}

impl Spares {
    pub(crate) fn new(subset: &Subset) -> Self {
        Self {
            size: subset.size(),
            hold: subset.hold(),
            used: subset.size(),
            fewer: None,
        }
    }

    /// There is no order, because all are used.
    pub(crate) fn forget(&mut self) {
        self.used = self.size;
        self.fewer = None;
    }

    /// How many of the order are used.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// When fewer may do, if nothing changes.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.fewer.as_ref().map(|it| it.until)
    }

    /// Looks at the used ones, in their order: which of them are down? There are `known` endpoints in all. Says whether
    /// another number of them is to be used now.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        known: usize,
        down: impl IntoIterator<Item = bool>,
    ) -> bool {
        let needed = self.needed(down).min(known.max(self.size));
        let before = self.used;
        if needed >= self.used {
            self.used = needed;
            self.fewer = None;
            return self.used != before;
        }
        let fewer = self.fewer.get_or_insert(Fewer {
            needed,
            until: now + self.hold,
        });
        fewer.needed = fewer.needed.max(needed);
        if fewer.until <= now {
            self.used = fewer.needed;
            self.fewer = (needed < self.used).then(|| Fewer {
                needed,
                until: now + self.hold,
            });
        }
        self.used != before
    }

    /// The shortest part of the order that has enough that are not down: at most twice the size. Those after the used ones
    /// count as well until they are tried.
    fn needed(&self, down: impl IntoIterator<Item = bool>) -> usize {
        let (mut seen, mut well) = (0, 0);
        for is_down in down {
            seen += 1;
            well += usize::from(!is_down);
            if well == self.size {
                break;
            }
        }
        (seen + self.size - well).min(self.size.saturating_mul(2))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Ten endpoints, a subset of three, and a clock.
    struct World {
        spares: Spares,
        now: Instant,
        down: [bool; 10],
    }

    impl World {
        fn new() -> Self {
            Self {
                spares: Spares::new(&Subset::of(3).hold_spares(10 * SECOND)),
                now: Instant::now(),
                down: [false; 10],
            }
        }

        /// How many are used after that many seconds.
        fn after(&mut self, seconds: u32) -> usize {
            self.now += seconds * SECOND;
            let used = self.spares.used();
            self.spares.look(self.now, 10, self.down[..used].to_vec());
            self.spares.used()
        }
    }

    #[test]
    fn one_more_for_each_that_is_down_and_twice_as_many_at_most() {
        let mut world = World::new();
        assert_eq!(world.after(0), 3);
        world.down[1] = true;
        assert_eq!(world.after(0), 4);
        // A spare that is down, too.
        world.down[3] = true;
        assert_eq!(world.after(0), 5);
        world.down = [true; 10];
        assert_eq!(world.after(0), 6);
        assert_eq!(world.after(1_000), 6);
    }

    #[test]
    fn no_more_are_asked_for_than_there_are() {
        let mut spares = Spares::new(&Subset::of(3));
        let now = Instant::now();
        assert!(!spares.look(now, 2, [true, true]));
        assert!(spares.look(now, 4, [true, true, true]));
        assert_eq!(spares.used(), 4);
    }

    #[test]
    fn spares_go_after_they_have_not_been_needed_for_a_while() {
        let mut world = World::new();
        world.down[0] = true;
        assert_eq!(world.after(0), 4);
        world.down[0] = false;
        assert_eq!(world.after(1), 4);
        assert_eq!(world.spares.next(), Some(world.now + 10 * SECOND));
        assert_eq!(world.after(9), 4);
        // It goes down again: the time begins anew.
        world.down[0] = true;
        assert_eq!(world.after(0), 4);
        assert_eq!(world.spares.next(), None);
        world.down[0] = false;
        assert_eq!(world.after(5), 4);
        assert_eq!(world.after(10), 3);
        assert_eq!(world.spares.next(), None);
    }

    #[test]
    fn as_many_stay_as_were_needed_meanwhile() {
        let mut world = World::new();
        world.down[..3].fill(true);
        assert_eq!(world.after(0), 6);
        world.down[..3].fill(false);
        assert_eq!(world.after(0), 6);
        world.down[0] = true;
        assert_eq!(world.after(5), 6);
        world.down[0] = false;
        assert_eq!(world.after(5), 4, "one was needed five seconds ago");
        assert_eq!(world.after(10), 3);
    }

    proptest! {
        #[test]
        fn enough_are_used_whatever_happens(
            steps in proptest::collection::vec((0_usize..10, any::<bool>(), 0_u32..20), 1..100),
        ) {
            let mut world = World::new();
            for (index, is_down, seconds) in steps {
                world.down[index] = is_down;
                let mut used = world.after(seconds);
                // What is taken into use may turn out to be down.
                for _ in 0..3 {
                    used = world.after(0);
                }
                prop_assert!((3..=6).contains(&used));
                let well = world.down[..used].iter().filter(|it| !**it).count();
                prop_assert!(well >= 3 || used == 6);
            }
        }
    }
}
