use std::os::fd::AsFd;
use std::thread::{JoinHandle, spawn};
use std::time::Instant;

use plimsoll_protocol::control::VERSION;
use plimsoll_protocol::wire::Wire;
use plimsoll_units::{FrameNo, PageNo};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::*;
use crate::domains::Known;

fn domain() -> DomainId {
    DomainId(1)
}

/// A VMM that says hello, names its domain, and sends `holds` up to `most` times. Returns the
/// daemon's end, and how often it has sent that at last.
fn vmm(holds: FromVmm, most: u32) -> (Link, JoinHandle<u32>) {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::empty(), None).unwrap();
    rustix::io::ioctl_fionbio(&ours, true).unwrap();
    let theirs = Wire::new(theirs);
    let says = spawn(move || {
        let pool = std::fs::File::open("/dev/null").unwrap();
        theirs.send(&FromVmm::Hello { version: VERSION, facts: Facts::default() }, &[]).unwrap();
        theirs.send(&FromVmm::Pool(domain()), &[pool.as_fd()]).unwrap();
        // The daemon may have had enough.
        let sent = |_: &u32| theirs.send(&holds, &[]).is_ok();
        (0..most).take_while(sent).fold(0, |sent, _| sent + 1)
    });
    (Link::new(Wire::new(ours)).unwrap(), says)
}

async fn greeted(link: &Link) -> anyhow::Result<Greeting> {
    let record = RunRecord::example(vec![Known { id: domain(), name: None }]);
    greet(link, &mut Intake::new(Talkers::default()), &record).await
}

#[tokio::test]
async fn a_greeting_without_end_is_refused() {
    let (link, says) = vmm(FromVmm::Holds { pages: Vec::new(), last: false }, 100_000);
    let error = format!("{:#}", greeted(&link).await.err().unwrap());
    assert!(error.contains("names none"), "{error}");
    drop(link);
    says.join().unwrap();
}

#[tokio::test]
async fn a_long_greeting_is_read_at_the_pace_of_all_messages() {
    let one = FromVmm::Holds { pages: vec![(PageNo(0), FrameNo(0))], last: false };
    let begin = Instant::now();
    let (link, says) = vmm(one, 100_000);
    tokio::select! {
        biased;
        greeting = greeted(&link) => panic!("{:?}", greeting.err()),
        () = sleep(Duration::from_millis(300)) => {}
    }
    drop(link);
    let windows = u32::try_from(begin.elapsed().as_millis() / 100).unwrap() + 1;
    // A thousand in each window, and what the socket holds.
    let (sent, most) = (says.join().unwrap(), 1000 * windows + 1000);
    assert!((1..=most).contains(&sent), "{sent} of {most}");
}
