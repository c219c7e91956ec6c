//! The rules of the board, one by one.

use super::*;

fn job(number: u8) -> JobId {
    JobId([number; 16])
}

fn terms() -> Terms {
    Terms { name: "task".into(), on: None, memory_bytes: 1 }
}

/// A board that runs nothing itself, so that only claims of others matter.
fn keeper() -> Board {
    Board::new(PeerId::random(), 0, 0)
}

fn published(actions: &[Action]) -> Vec<Notice> {
    let bulletins = actions.iter().filter_map(|action| match action {
        Action::Publish(bulletin) => Some(bulletin.notices.clone()),
        _ => None,
    });
    bulletins.flatten().collect()
}

fn claims(actions: &[Action]) -> Vec<JobId> {
    let claims = actions.iter().filter_map(|action| match action {
        Action::TryClaim { job, .. } => Some(*job),
        _ => None,
    });
    claims.collect()
}

#[test]
fn the_first_claim_gets_the_job_and_the_others_do_not() {
    let (mut board, first, second) = (keeper(), PeerId::random(), PeerId::random());
    board.submit(0, job(1), terms()).unwrap();
    assert_eq!(board.claim(1, job(1), first), Ok(1));
    assert_eq!(board.claim(1, job(1), second), Err(Refusal::Taken));
    assert_eq!(board.claim(1, job(1), first), Err(Refusal::Taken));
    assert_eq!(board.claim(1, job(2), first), Err(Refusal::Unknown));
}

#[test]
fn a_job_for_one_node_is_given_to_no_other() {
    let (mut board, chosen) = (keeper(), PeerId::random());
    board.submit(0, job(1), Terms { on: Some(chosen), ..terms() }).unwrap();
    assert_eq!(board.claim(1, job(1), PeerId::random()), Err(Refusal::NotYours));
    assert!(board.why_pending(1, &job(1)).unwrap().contains("not connected"));
    assert_eq!(board.claim(1, job(1), chosen), Ok(1));
}

#[test]
fn a_silent_node_loses_the_job_and_another_gets_it() {
    let (mut board, first, second) = (keeper(), PeerId::random(), PeerId::random());
    board.submit(0, job(1), terms()).unwrap();
    board.claim(0, job(1), first).unwrap();
    assert!(board.beat(LOST_AFTER - 1, &job(1), 1));
    assert!(!board.tick(LOST_AFTER).contains(&Action::Stop { job: job(1), attempt: 1 }));
    let actions = board.tick(2 * LOST_AFTER);
    assert!(actions.contains(&Action::Stop { job: job(1), attempt: 1 }), "{actions:?}");
    assert_eq!(board.claim(2 * LOST_AFTER, job(1), first), Err(Refusal::TooSoon));
    assert_eq!(board.claim(2 * LOST_AFTER, job(1), second), Ok(2));
    assert!(!board.beat(2 * LOST_AFTER, &job(1), 1), "the old attempt is no longer current");
}

#[test]
fn what_an_old_attempt_says_is_ignored() {
    let (mut board, first, second) = (keeper(), PeerId::random(), PeerId::random());
    board.submit(0, job(1), terms()).unwrap();
    board.claim(0, job(1), first).unwrap();
    board.peer_gone(1, first);
    board.claim(1, job(1), second).unwrap();
    let actions = board.attempt_ended(2, job(1), 1, AttemptEnd::Finished(Outcome::Exited(7)));
    assert!(actions.is_empty());
    board.attempt_ended(3, job(1), 2, AttemptEnd::Finished(Outcome::Exited(0)));
    let State::Ended { outcome, by, .. } = &board.job(&job(1)).unwrap().state else { panic!("not ended") };
    assert_eq!((outcome, by), (&Outcome::Exited(0), &Some(second)));
}

#[test]
fn a_job_that_loses_three_nodes_is_poison() {
    let mut board = keeper();
    board.submit(0, job(1), terms()).unwrap();
    for attempt in 1..=3 {
        assert_eq!(board.claim(0, job(1), PeerId::random()), Ok(attempt));
        board.attempt_ended(0, job(1), attempt, AttemptEnd::Lost("its worker died".into()));
    }
    let State::Ended { outcome: Outcome::Failed { reason }, .. } = &board.job(&job(1)).unwrap().state else {
        panic!("not failed")
    };
    assert!(reason.contains("3 nodes were lost") && reason.contains("its worker died"), "{reason}");
}

#[test]
fn declining_a_job_counts_for_nothing() {
    let mut board = keeper();
    board.submit(0, job(1), terms()).unwrap();
    for attempt in 1..=10 {
        board.claim(0, job(1), PeerId::random()).unwrap();
        board.attempt_ended(0, job(1), attempt, AttemptEnd::Declined("no such folder yet".into()));
    }
    assert!(board.why_pending(0, &job(1)).unwrap().contains("no such folder yet"));
}

#[test]
fn a_pending_job_is_announced_until_somebody_takes_it() {
    let mut board = keeper();
    assert_eq!(published(&board.submit(0, job(1), terms()).unwrap()).len(), 1);
    assert!(published(&board.tick(1)).is_empty());
    assert_eq!(published(&board.tick(ANNOUNCE_EVERY)).len(), 1);
    board.claim(ANNOUNCE_EVERY, job(1), PeerId::random()).unwrap();
    let news = published(&board.tick(ANNOUNCE_EVERY));
    assert!(matches!(news[..], [Notice { stage: Stage::Running { .. }, .. }]), "{news:?}");
}

#[test]
fn a_node_claims_only_what_it_can_run() {
    let mut board = Board::new(PeerId::random(), 1, 100);
    let keeper = PeerId::random();
    board.peer_connected(0, keeper);
    let notice = |number, memory_bytes, on| Notice {
        job: job(number),
        revision: 1,
        terms: Terms { on, memory_bytes, ..terms() },
        stage: Stage::Pending,
    };
    let capacity = Capacity { slots: 0, free: 0, memory_bytes: 0 };
    let notices =
        vec![notice(1, 101, None), notice(2, 1, Some(keeper)), notice(3, 100, None), notice(4, 100, None)];
    let actions = board.hear(0, keeper, Bulletin { capacity, notices: notices.clone() });
    assert_eq!(claims(&actions), [job(3)], "one slot, one claim");
    assert!(
        claims(&board.hear(0, keeper, Bulletin { capacity, notices })).is_empty(),
        "duplicates change nothing"
    );
    assert_eq!(claims(&board.claim_over(1, keeper, job(3), ClaimEnd::Unknown)), [job(4)]);
}

#[test]
fn old_news_does_not_replace_new() {
    let mut board = Board::new(PeerId::random(), 0, 0);
    let keeper = PeerId::random();
    board.peer_connected(0, keeper);
    let capacity = Capacity { slots: 0, free: 0, memory_bytes: 0 };
    for (revision, stage) in [(5, Stage::Ended { well: true }), (4, Stage::Pending)] {
        let notice = Notice { job: job(1), revision, terms: terms(), stage };
        board.hear(0, keeper, Bulletin { capacity, notices: vec![notice] });
    }
    let stages: Vec<_> = board.heard().map(|(_, heard)| heard.notice.stage).collect();
    assert_eq!(stages, [Stage::Ended { well: true }]);
}

#[test]
fn the_board_is_bounded() {
    let mut board = keeper();
    let id = |number: usize| JobId((number as u128).to_be_bytes());
    for number in 0..MAX_ACTIVE {
        board.submit(0, id(number), terms()).unwrap();
    }
    assert_eq!(board.submit(0, id(MAX_ACTIVE), terms()), Err(BoardFull));
    let mut forgotten = 0;
    for number in 0..MAX_ACTIVE {
        let actions = board.stop(1, id(number), Outcome::Killed);
        forgotten += actions.iter().filter(|action| matches!(action, Action::Forget { .. })).count();
    }
    assert_eq!(forgotten, MAX_ACTIVE - MAX_ENDED);
    assert_eq!(board.kept().count(), MAX_ENDED);
}
