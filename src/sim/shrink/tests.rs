use super::*;
use crate::sim::{Size, draw};

/// A failure that needs one service and one crash of a machine after it, on three nodes.
fn fails(script: &Script) -> Option<Violation> {
    let created = script.entries.iter().find(|entry| {
        matches!(&entry.action, Action::Ask(Request::CreateService(spec)) if spec.name == "s1")
    })?;
    let crash = script.entries.iter().find(|entry| {
        let crash = |kind: &FaultKind| matches!(kind, FaultKind::CrashMachine(_));
        entry.at > created.at && matches!(&entry.action, Action::Break(fault) if crash(&fault.kind))
    })?;
    let at = crash.at;
    let seen = "it broke".to_owned();
    (script.nodes() >= 3).then(|| Violation { invariant: "X1".to_owned(), at, seen })
}

fn failing() -> (Script, Violation) {
    let all = (0..500).map(|seed| draw(seed, &Size::large()));
    let mut failing = all.filter_map(|script| Some((fails(&script)?, script)));
    let (found, script) = failing.next().expect("a drawn script has a service and a crash");
    (script, found)
}

#[test]
fn what_has_no_part_in_a_failure_is_taken_out() {
    let (script, found) = failing();
    let (small, seen) = shrink(&script, &found, TRIES, fails);
    assert_eq!(seen.invariant, "X1");
    assert_eq!(fails(&small), Some(seen));
    assert!(small.nodes() == 3 && small.entries.len() == 2, "not small:\n{small}");
    assert!(small.lost.is_empty() && small.heal_at < script.heal_at, "not small:\n{small}");
}

/// Another invariant's failure is not the same failure.
#[test]
fn another_failure_is_not_followed() {
    let (script, found) = failing();
    let other = |script: &Script| {
        let found = fails(script)?;
        let fewer = script.entries.len() < 10;
        Some(Violation { invariant: if fewer { "Y" } else { "X1" }.to_owned(), ..found })
    };
    let (small, seen) = shrink(&script, &found, TRIES, other);
    assert_eq!((seen.invariant.as_str(), small.entries.len()), ("X1", 10));
}

#[test]
fn the_number_of_plays_is_bounded() {
    let (script, found) = failing();
    let mut plays = 0;
    shrink(&script, &found, 20, |script| {
        plays += 1;
        fails(script)
    });
    assert_eq!(plays, 20);
}

/// A node that is gone takes its entries along; the others keep theirs under new numbers.
#[test]
fn nodes_move_up() {
    let text = "managers 1\nworkers 3\nheal 9s\nlost worker3\n
        1s pause worker1\n2s pause worker3\n3s partition worker1 worker2 worker3 for 1s\n
        4s docker node rm --force worker2\n5s cut worker1 to worker2";
    let small = without(&text.parse().unwrap(), 1);
    let expected = "managers 1\nworkers 2\nheal 9s\nlost worker2\n
        2s pause worker2\n3s partition worker1 worker2 for 1s\n
        4s docker node rm --force worker1";
    assert_eq!(small, expected.parse().unwrap());
}
