use super::*;

type Outer = Lock<u32, CHUNK>;
type Inner = Lock<u32, ACCOUNT>;

#[test]
fn locks_may_be_taken_downwards_and_released_in_any_order() {
    let (outer, inner) = (Outer::new(1), Inner::new(2));
    let first = outer.lock();
    let second = inner.lock();
    assert_eq!(*first + *second, 3);
    drop(first);
    drop(second);
    drop(inner.lock());
    drop(outer.lock());
}

#[test]
#[should_panic(expected = "a lock of rank 3 is taken while one of rank 15 is held")]
fn a_chunk_must_not_be_locked_with_the_account_held() {
    let (outer, inner) = (Outer::new(1), Inner::new(2));
    let _inner = inner.lock();
    drop(outer.lock());
}

#[test]
#[should_panic(expected = "a lock of rank 3 is taken while one of rank 3 is held")]
fn two_chunks_must_not_be_locked_one_by_one() {
    let (one, other) = (Outer::new(1), Outer::new(2));
    let _one = one.lock();
    drop(other.try_lock());
}

#[test]
fn all_locks_of_a_rank_may_be_taken_at_once() {
    let locks = [Outer::new(1), Outer::new(2)];
    let guards = Lock::lock_all(&locks);
    assert_eq!(guards.iter().map(|guard| **guard).sum::<u32>(), 3);
    assert!(locks[1].0.try_lock().is_err());
}

#[test]
fn a_rank_that_was_waited_with_is_held_afterwards() {
    let lock = Outer::new(1);
    let guard = lock.lock().wait_timeout_while(&Condvar::new(), Duration::ZERO, |_| true);
    let nested = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(lock.try_lock())));
    assert!(nested.is_err());
    drop(guard);
    assert!(lock.try_lock().is_some());
}
