//! Picks for attempts after the first.

use super::{Pick, PickRequest, Picker};

/// Asks the picker for one of `endpoints` endpoints that was not `tried` yet.
///
/// The picker is asked up to 4 times, so that its shares hold among the endpoints left as far as
/// may be (Finagle too picks again up to 4 times before it takes what it gets). If all its answers
/// were tried, the next endpoint by index that was not is taken, and if all were, the last answer.
/// Every answer but an endpoint is final. An index outside of the set, a mistake that only a policy
/// of somebody's own makes, becomes [`Pick::Fail`].
///
/// For a first attempt `tried` is false throughout, and the picker is asked once.
pub(crate) fn pick_avoiding<P: Picker + ?Sized>(
    picker: &P,
    endpoints: usize,
    request: &PickRequest<'_>,
    tried: impl Fn(usize) -> bool,
) -> Pick {
    const ASKED: u32 = 4;
    let mut picked = 0;
    for asked in 0..ASKED {
        match picker.pick(&request.with_asked(asked)) {
            Pick::Endpoint(index) if index >= endpoints => {
                return Pick::Fail(
                    "the balancing policy picked an endpoint outside of the set".into(),
                );
            }
            Pick::Endpoint(index) if tried(index) => picked = index,
            answer => return answer,
        }
    }
    let left = (picked + 1..endpoints)
        .chain(0..picked)
        .find(|&index| !tried(index));
    Pick::Endpoint(left.unwrap_or(picked))
}

#[cfg(test)]
mod tests {
    use super::super::distribution::{candidates, with_request};
    use super::super::{Policy, RoundRobin};
    use super::*;
    use std::sync::Mutex;

    /// Gives the answers it was made with, the last one first.
    #[derive(Debug)]
    struct Script(Mutex<Vec<Pick>>);

    impl Picker for Script {
        fn pick(&self, _: &PickRequest<'_>) -> Pick {
            self.0.lock().unwrap().pop().unwrap()
        }
    }

    /// The pick, and how many answers were left unasked.
    fn avoiding(answers: &[Pick], endpoints: usize, tried: &[usize]) -> (Pick, usize) {
        let script = Script(Mutex::new(answers.iter().rev().cloned().collect()));
        let pick = with_request(|request| {
            pick_avoiding(&script, endpoints, request, |index| tried.contains(&index))
        });
        let left = script.0.lock().unwrap().len();
        (pick, left)
    }

    fn endpoints(indexes: &[usize]) -> Vec<Pick> {
        indexes.iter().copied().map(Pick::Endpoint).collect()
    }

    #[test]
    fn the_first_untried_answer_is_taken() {
        assert_eq!(
            avoiding(&endpoints(&[2, 1]), 3, &[]),
            (Pick::Endpoint(2), 1)
        );
        assert_eq!(
            avoiding(&endpoints(&[2, 2, 0]), 3, &[2]),
            (Pick::Endpoint(0), 0)
        );
    }

    #[test]
    fn after_four_tried_answers_the_next_untried_index_is_taken() {
        assert_eq!(
            avoiding(&endpoints(&[1, 1, 1, 1, 0]), 4, &[1, 2]),
            (Pick::Endpoint(3), 1)
        );
        assert_eq!(
            avoiding(&endpoints(&[3, 3, 3, 2]), 4, &[2, 3]),
            (Pick::Endpoint(0), 0)
        );
        assert_eq!(
            avoiding(&endpoints(&[3, 3, 3, 3]), 4, &[0, 2, 3]),
            (Pick::Endpoint(1), 0)
        );
    }

    #[test]
    fn when_all_were_tried_the_last_answer_is_taken() {
        assert_eq!(
            avoiding(&endpoints(&[0, 0, 0, 1]), 2, &[0, 1]),
            (Pick::Endpoint(1), 0)
        );
        assert_eq!(
            avoiding(&endpoints(&[0; 4]), 1, &[0]),
            (Pick::Endpoint(0), 0)
        );
    }

    #[test]
    fn other_answers_are_final() {
        for answer in [
            Pick::Wait,
            Pick::Fail("no".into()),
            Pick::Drop("too much".into()),
        ] {
            assert_eq!(
                avoiding(&[answer.clone(), Pick::Endpoint(0)], 2, &[]),
                (answer.clone(), 1)
            );
            assert_eq!(
                avoiding(&[Pick::Endpoint(1), answer.clone()], 2, &[1]),
                (answer, 0)
            );
        }
    }

    #[test]
    fn an_index_outside_of_the_set_fails() {
        assert!(matches!(
            avoiding(&endpoints(&[2]), 2, &[]),
            (Pick::Fail(_), 0)
        ));
        assert!(matches!(
            avoiding(&endpoints(&[usize::MAX]), 2, &[0, 1]),
            (Pick::Fail(_), 0)
        ));
    }

    #[test]
    fn turns_go_on_past_the_tried_ones() {
        let picker = RoundRobin::with_seed(1).build(&candidates(&[1; 4]));
        let pick =
            || with_request(|request| pick_avoiding(&*picker, 4, request, |index| index % 2 == 0));
        for _ in 0..4 {
            assert_ne!(pick(), pick(), "both untried endpoints take their turn");
        }
    }
}
