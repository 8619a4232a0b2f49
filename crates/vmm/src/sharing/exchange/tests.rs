//! The exchange with a daemon played by the test.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use plimsoll_protocol::control::FromVmm;
use plimsoll_protocol::sharing::{DomainId, Found, MAX_BATCH};
use plimsoll_units::{FrameNo, PageDigest, PageNo, ReturnReason};

use super::{Answer, Exchange, HeldReferences, NoAnswer};
use crate::mailbox::Mailbox;

const DOMAIN: DomainId = DomainId(7);
const PAGE: (PageNo, FrameNo) = (PageNo(3), FrameNo(9));

fn exchange() -> Arc<Exchange> {
    Arc::new(Exchange::new(Arc::new(Mailbox::new().unwrap())))
}

fn connect(exchange: &Exchange) {
    assert!(exchange.suspend());
    exchange.connected();
    exchange.resume();
}

fn connected() -> Arc<Exchange> {
    let exchange = exchange();
    connect(&exchange);
    exchange.open(DOMAIN, exchange.connection());
    exchange
}

/// Asks about [`PAGE`] on a thread of its own.
fn ask(exchange: &Arc<Exchange>) -> thread::JoinHandle<Result<Answer, NoAnswer>> {
    let exchange = Arc::clone(exchange);
    thread::spawn(move || {
        let slot = exchange.request_slot(DOMAIN).ok_or(NoAnswer::Unasked)?;
        let message = FromVmm::LookUp { domain: DOMAIN, id: slot.id, pages: vec![(PAGE.0, PageDigest(1))] };
        slot.ask(message, vec![PAGE.0])
    })
}

/// The next message, sent.
fn next(exchange: &Exchange) -> FromVmm {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(message) = exchange.next() {
            exchange.sent(&message);
            return message;
        }
        assert!(Instant::now() < deadline, "nothing is said");
        thread::yield_now();
    }
}

fn next_question(exchange: &Exchange) -> u32 {
    match next(exchange) {
        FromVmm::LookUp { id, .. } => id,
        other => panic!("{other:?}"),
    }
}

fn given_back(pages: Vec<(PageNo, FrameNo)>) -> FromVmm {
    FromVmm::GiveBack { domain: DOMAIN, pages, mismatched: false }
}

fn named() -> Answer {
    Answer::Found(vec![Found::Frame(PAGE.1)])
}

#[test]
fn a_question_is_answered_and_the_next_one_asked() {
    let exchange = connected();
    for _ in 0..3 {
        let asking = ask(&exchange);
        let id = next_question(&exchange);
        exchange.answer(id.wrapping_add(1), named());
        exchange.answer(id, Answer::Found(vec![Found::New, Found::New]));
        exchange.answer(id, named());
        assert_eq!(asking.join().unwrap(), Ok(named()));
    }
    assert_eq!(exchange.next(), None);
}

#[test]
fn two_who_ask_take_turns() {
    let exchange = connected();
    let asking = [ask(&exchange), ask(&exchange)];
    for _ in 0..2 {
        let id = next_question(&exchange);
        assert_eq!(exchange.next(), None, "one question at a time");
        exchange.answer(id, named());
    }
    assert!(asking.into_iter().all(|asking| asking.join().unwrap() == Ok(named())));
}

#[test]
fn an_answer_that_comes_too_late_is_given_back() {
    let exchange = connected();
    let asking = ask(&exchange);
    let id = next_question(&exchange);
    assert_eq!(asking.join().unwrap(), Err(NoAnswer::Lost));
    assert_eq!(ask(&exchange).join().unwrap(), Err(NoAnswer::Unasked), "no thread waits a second time");
    exchange.answer(id, named());
    assert_eq!(next(&exchange), given_back(vec![PAGE]));
    let asking = ask(&exchange);
    let id = next_question(&exchange);
    exchange.answer(id, named());
    assert_eq!(asking.join().unwrap(), Ok(named()));
}

#[test]
fn a_daemon_that_goes_leaves_nobody_waiting_and_nothing_to_say() {
    let exchange = connected();
    let asking = ask(&exchange);
    let id = next_question(&exchange);
    exchange.give_back(DOMAIN, &[PAGE], ReturnReason::Unused);
    exchange.disconnected();
    assert_eq!(asking.join().unwrap(), Err(NoAnswer::Lost));
    exchange.answer(id, named());
    exchange.give_back(DOMAIN, &[PAGE], ReturnReason::Unused);
    assert_eq!(exchange.next(), None, "the next daemon hears what is held");
    assert_eq!(ask(&exchange).join().unwrap(), Err(NoAnswer::Unasked));
    // And the next one is not asked before it has spoken of the domain.
    let before = exchange.connection();
    connect(&exchange);
    exchange.open(DOMAIN, before);
    assert!(exchange.request_slot(DOMAIN).is_none());
    exchange.open(DOMAIN, exchange.connection());
    assert!(exchange.request_slot(DOMAIN).is_some() && exchange.request_slot(DomainId(8)).is_none());
}

#[test]
fn a_new_daemon_hears_what_is_held_before_all_else() {
    let exchange = exchange();
    assert!(exchange.suspend());
    exchange.connected();
    exchange.give_back(DOMAIN, &[PAGE], ReturnReason::Unused);
    let holds: Vec<_> = (0..1025).map(|n| (PageNo(n), FrameNo(n))).collect();
    let pool: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    exchange.announce(HeldReferences { domain: DOMAIN, pool: Arc::new(pool), holds: holds.clone() });
    exchange.resume();
    assert!(exchange.is_announcing() && exchange.pool().is_some());
    assert_eq!(next(&exchange), FromVmm::Pool(DOMAIN));
    for (batch, last) in [(&holds[..512], false), (&holds[512..1024], false), (&holds[1024..], true)] {
        assert!(exchange.is_announcing());
        assert_eq!(next(&exchange), FromVmm::Holds { pages: batch.to_vec(), last });
    }
    assert!(!exchange.is_announcing());
    assert_eq!(next(&exchange), given_back(vec![PAGE]));
    assert_eq!(exchange.next(), None);
}

#[test]
fn what_is_given_back_goes_in_batches_and_before_questions() {
    let exchange = connected();
    let asking = ask(&exchange);
    let page = |n| (PageNo(n), FrameNo(n));
    for n in 0..600 {
        exchange.give_back(DOMAIN, &[page(n)], ReturnReason::Unused);
    }
    exchange.give_back(DOMAIN, &[page(600)], ReturnReason::Mismatch);
    // What comes while a message is on its way is not taken for sent.
    let first = exchange.next().unwrap();
    assert_eq!(first, given_back((0..512).map(page).collect()));
    exchange.sent(&first);
    let second = exchange.next().unwrap();
    exchange.give_back(DOMAIN, &[page(601)], ReturnReason::Mismatch);
    exchange.sent(&second);
    assert_eq!(second, given_back((512..600).map(page).collect()));
    let pages = vec![page(600), page(601)];
    assert_eq!(next(&exchange), FromVmm::GiveBack { domain: DOMAIN, pages, mismatched: true });
    let id = next_question(&exchange);
    exchange.answer(id, named());
    assert_eq!(asking.join().unwrap(), Ok(named()));
    const { assert!(MAX_BATCH == 512) };
}

#[test]
fn no_reference_is_taken_while_held_ones_are_listed() {
    let exchange = exchange();
    let permit = exchange.permit_references();
    assert!(!exchange.suspend(), "a thread may be about to use some");
    let late = thread::spawn({
        let exchange = Arc::clone(&exchange);
        move || {
            drop(exchange.permit_references());
            exchange.connection()
        }
    });
    drop(permit);
    assert!(exchange.suspend());
    exchange.connected();
    exchange.resume();
    assert_eq!(late.join().unwrap(), 1, "it began after the list was made");
}
