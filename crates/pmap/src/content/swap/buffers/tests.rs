use rustix::event::{PollFd, PollFlags, poll};

use super::*;

fn is_signalled(event: &Event) -> bool {
    poll(&mut [PollFd::new(event, PollFlags::IN)], Some(&rustix::time::Timespec::default())).unwrap() == 1
}

#[test]
fn buffers_are_aligned_distinct_and_come_back() {
    let notify = Event::new().unwrap();
    let pool = BufferPool::new(3, &notify).unwrap();
    let mut taken: Vec<Buffer> = std::iter::from_fn(|| pool.take()).collect();
    assert_eq!(taken.len(), 3);
    for (value, buffer) in (1..).zip(&mut taken) {
        assert!(buffer.as_ptr().addr().is_multiple_of(PAGE));
        buffer.fill(value);
    }
    assert!((1..).zip(&taken).all(|(value, buffer)| buffer.iter().all(|&byte| byte == value)));
    assert!(!pool.wait(1, Duration::ZERO));
    taken.pop();
    assert!(pool.wait(1, Duration::ZERO) && pool.wait(2, Duration::ZERO), "one is better than none");
    assert!(!is_signalled(&notify), "no notice was asked for");
    drop((pool.take_or_notify(), pool.take_or_notify()));
    assert_eq!(pool.free_buffers(), 1);
    let last = pool.take_or_notify().unwrap();
    assert!(pool.take_or_notify().is_none());
    drop(last);
    assert!(is_signalled(&notify));
}
