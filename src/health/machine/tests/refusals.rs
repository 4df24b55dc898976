//! Calls that are refused because the endpoint has too much to do.

use super::*;

#[test]
fn refused_calls_lower_the_share_and_time_raises_it() {
    let now = Instant::now();
    let mut patient = Patient::new(&Arc::new(Rules::default()), now);
    let at = |seconds| now + Duration::from_secs(seconds);
    let totals = |calls, faults| Totals { calls, faults };
    assert!(!patient.machine.weighs());
    patient.meet(now, Event::Refuse, 0.0);
    // It is looked at from here on, each second, while others need not hear of it.
    assert!(patient.machine.weighs());
    assert_eq!(patient.machine.next(), Some(at(1)));
    let share = |patient: &Patient| {
        let standing = patient.machine.standing();
        assert!(standing.is_well() && standing.usable);
        (standing.share * 100.0).round() as u64
    };
    assert_eq!(share(&patient), 100);
    patient.machine.weigh(at(1), totals(20, 10));
    assert_eq!(share(&patient), 50);
    patient.machine.weigh(at(2), totals(100, 98));
    assert_eq!(share(&patient), 10, "no less than that");
    // As many calls again, and none of them is refused.
    patient.machine.weigh(at(3), totals(200, 98));
    assert_eq!(share(&patient), 51);
    for second in 4..=14 {
        patient.machine.weigh(at(second), totals(200, 98));
    }
    assert_eq!(share(&patient), 100);
    assert!(!patient.machine.weighs());
    assert_eq!(patient.machine.next(), None);
}
