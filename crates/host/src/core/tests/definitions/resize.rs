//! Disks that grow.

use plimsoll_protocol::control::DeviceOrder;
use plimsoll_protocol::definition::ImageFormat;
use plimsoll_protocol::status::DiskSize;
use serde_json::json;

use super::*;
use crate::images::{KnownFile, KnownImage};

fn with_disks() -> VmDefinition {
    let disks = "[[disk]]\npath = '/a'\n[[disk]]\npath = '/b'\nread_only = true\n";
    let text = format!("name = 'a'\nsize = '256MiB'\n[boot]\nmodel = true\n{disks}");
    VmDefinition::from_toml(&text, Path::new("/")).unwrap()
}

fn resize(disk: &str, size: Option<u64>) -> Request {
    Request::ResizeDisk(name("a"), serde_json::from_value(json!({"disk": disk, "size": size})).unwrap())
}

/// Asks, and returns what the daemon is to grow.
fn growing(world: &mut World, request: Request) -> Growing {
    world.requests += 1;
    let effects =
        world.core.handle(world.clock, Input::Request(RequestId(world.requests), Box::new(request)));
    match &effects[..] {
        [Effect::Grow(growing)] => (**growing).clone(),
        other => panic!("{other:?}"),
    }
}

fn grown(world: &mut World, growing: &Growing, size: u64) {
    world.input(Input::Grown(Box::new(growing.clone()), Ok(Bytes(size))));
}

fn answer_of(world: &mut World, growing: &Growing) -> Option<Result<Answer, Failure>> {
    world.answers.remove(&growing.request.0)
}

#[test]
fn a_guest_is_told_once_the_file_has_grown_and_the_request_is_answered_after_that() {
    let mut world = World::new(640);
    let run = world.up(with_disks());
    let asked = growing(&mut world, resize("vda", Some(1 << 30)));
    assert_eq!(
        (asked.run, asked.disk.path.to_str(), asked.size),
        (Some(run), Some("/a"), Some(Bytes(1 << 30)))
    );
    assert!(world.told.is_empty(), "{:?}", world.told);
    // An answer without a question is ignored.
    world.say(run, FromVmm::Resized { disk: 0, outcome: Ok(Bytes(7)) });
    grown(&mut world, &asked, 1 << 30);
    let order = DeviceOrder::DiskSize { disk: 0, size: Bytes(1 << 30) };
    assert_eq!(world.told, [(run, ToVmm::Device(order))]);
    assert_eq!(answer_of(&mut world, &asked), None);
    world.say(run, FromVmm::Resized { disk: 1, outcome: Ok(Bytes(7)) });
    assert_eq!(answer_of(&mut world, &asked), None, "that is another disk");
    // A VMM that lies of the size is not believed.
    world.say(run, FromVmm::Resized { disk: 0, outcome: Ok(Bytes(7 << 30)) });
    let size = DiskSize { disk: "vda".parse().unwrap(), size: Bytes(1 << 30) };
    assert_eq!(answer_of(&mut world, &asked), Some(Ok(Answer::DiskSize(size))));
}

#[test]
fn what_fails_is_answered_and_the_next_one_may_be_asked() {
    let mut world = World::new(640);
    let run = world.up(with_disks());
    let asked = growing(&mut world, resize("vda", Some(1 << 30)));
    let again = world.answer(resize("vda", Some(1 << 30))).unwrap_err();
    assert!(again.kind == FailureKind::Conflict && again.text.contains("is being resized"), "{}", again.text);
    let failure = Failure::new(FailureKind::Unfit, "no space");
    world.input(Input::Grown(Box::new(asked.clone()), Err(failure)));
    let refused = answer_of(&mut world, &asked).unwrap().unwrap_err();
    assert_eq!(refused, Failure::new(FailureKind::Unfit, "disk vda of VM a: no space"));
    let asked = growing(&mut world, resize("vda", None));
    grown(&mut world, &asked, 1 << 30);
    world.say(run, FromVmm::Resized { disk: 0, outcome: Err("its tables\nare full".to_owned()) });
    let refused = answer_of(&mut world, &asked).unwrap().unwrap_err();
    assert!(refused.text.ends_with("its tables are full"), "{}", refused.text);
}

#[test]
fn a_request_does_not_wait_for_ever_nor_for_a_vm_that_has_ended() {
    let mut world = World::new(640);
    let run = world.up(with_disks());
    let asked = growing(&mut world, resize("vda", Some(1 << 30)));
    grown(&mut world, &asked, 1 << 30);
    world.pass(REQUEST_TIMEOUT + SECOND);
    assert!(answer_of(&mut world, &asked).unwrap().unwrap_err().text.contains("no answer yet"));
    // What comes after that is for nobody.
    world.say(run, FromVmm::Resized { disk: 0, outcome: Ok(Bytes(1 << 30)) });
    let asked = growing(&mut world, resize("vda", Some(2 << 30)));
    world.input(Input::Exited(run, "gone".to_owned()));
    assert!(answer_of(&mut world, &asked).unwrap().unwrap_err().text.contains("its VM has ended"));
    grown(&mut world, &asked, 2 << 30);
    assert_eq!(answer_of(&mut world, &asked), None);
}

#[test]
fn no_other_growth_begins_before_one_that_takes_long_has_ended() {
    let mut world = World::new(640);
    let run = world.up(with_disks());
    let conflicts = |world: &mut World| {
        let again = world.answer(resize("vda", Some(2 << 30))).unwrap_err();
        assert!(again.kind == FailureKind::Conflict && again.text.contains("is being resized"), "{again:?}");
    };
    let asked = growing(&mut world, resize("vda", Some(1 << 30)));
    world.pass(REQUEST_TIMEOUT + SECOND);
    let refused = answer_of(&mut world, &asked).unwrap().unwrap_err();
    assert!(refused.text.contains("its file has not grown yet"), "{}", refused.text);
    conflicts(&mut world);
    grown(&mut world, &asked, 1 << 30);
    let order = DeviceOrder::DiskSize { disk: 0, size: Bytes(1 << 30) };
    assert_eq!(world.told, [(run, ToVmm::Device(order))], "its guest is told all the same");
    conflicts(&mut world);
    world.say(run, FromVmm::Resized { disk: 0, outcome: Ok(Bytes(1 << 30)) });
    assert_eq!(answer_of(&mut world, &asked), None, "it was answered");
    let asked = growing(&mut world, resize("vda", Some(2 << 30)));
    let failure = Failure::new(FailureKind::Unfit, "no space");
    world.pass(REQUEST_TIMEOUT + SECOND);
    assert!(answer_of(&mut world, &asked).unwrap().is_err());
    world.input(Input::Grown(Box::new(asked), Err(failure)));
    growing(&mut world, resize("vda", Some(2 << 30)));
}

#[test]
fn the_late_answer_to_one_growth_is_not_taken_for_that_to_another() {
    let mut world = World::new(640);
    let run = world.up(with_disks());
    let size = |gib: u64| Bytes(gib << 30);
    let asked = growing(&mut world, resize("vda", Some(2 << 30)));
    grown(&mut world, &asked, 2 << 30);
    // Of a growth that an earlier daemon has asked for.
    world.say(run, FromVmm::Resized { disk: 0, outcome: Ok(size(1)) });
    assert_eq!(answer_of(&mut world, &asked), None);
    world.pass(REQUEST_TIMEOUT + SECOND);
    assert!(answer_of(&mut world, &asked).unwrap().is_err());
    let refused = world.answer(resize("vda", Some(3 << 30))).unwrap_err();
    assert_eq!(refused.kind, FailureKind::Conflict);
    // Its own, late.
    world.say(run, FromVmm::Resized { disk: 0, outcome: Err("its tables are full".to_owned()) });
    let asked = growing(&mut world, resize("vda", Some(3 << 30)));
    grown(&mut world, &asked, 3 << 30);
    assert_eq!(answer_of(&mut world, &asked), None);
    world.say(run, FromVmm::Resized { disk: 0, outcome: Ok(size(3)) });
    let answer = answer_of(&mut world, &asked);
    assert!(
        matches!(&answer, Some(Ok(Answer::DiskSize(DiskSize { size, .. }))) if size.0 == 3 << 30),
        "{answer:?}"
    );
}

/// An image of this many bytes, as it was found.
fn image(size: u64) -> KnownImage {
    let base = KnownFile { path: "/images/base".into(), format: ImageFormat::Raw };
    KnownImage { path: "/a".into(), size: Bytes(size), backing: vec![base] }
}

fn with_image() -> VmDefinition {
    let disk = "[[disk]]\npath = '/a'\nformat = 'qcow2'\n";
    let text = format!("name = 'a'\nsize = '256MiB'\n[boot]\nmodel = true\n{disk}");
    VmDefinition::from_toml(&text, Path::new("/")).unwrap()
}

/// Starts VM a, whose image is found as it is `now`. Returns its run, and what was known before.
fn started(world: &mut World, now: &KnownImage) -> (RunId, Vec<KnownImage>) {
    let known = world.core.vms[&name("a")].record.images.clone();
    world.ask(Request::Start(name("a")));
    let run = RunId(world.core.last_run);
    let started = Started { images: vec![now.clone()], ..Started::example() };
    world.input(Input::Launched(run, Ok(started)));
    world.say(run, FromVmm::Running { missing_jail: vec![] });
    (run, known)
}

#[test]
fn what_an_image_said_first_counts_until_an_operator_takes_it_as_it_is() {
    let mut world = World::new(640);
    world.answer(Request::Define(Box::new(with_image()))).unwrap();
    let (run, known) = started(&mut world, &image(1 << 30));
    assert_eq!(known, [], "it is taken as it is found");
    assert_eq!(world.saved.last().unwrap().images, [image(1 << 30)]);
    // Its VMM makes it longer than that only where it was asked for.
    let asked = growing(&mut world, resize("vda", Some(2 << 30)));
    grown(&mut world, &asked, 2 << 30);
    assert_eq!(world.saved.last().unwrap().images, [image(2 << 30)]);
    world.input(Input::Exited(run, "gone".to_owned()));
    let (run, known) = started(&mut world, &image(1 << 30));
    assert_eq!(known, [image(2 << 30)]);
    world.input(Input::Exited(run, "gone".to_owned()));
    assert_eq!(world.saved.last().unwrap().images, [image(2 << 30)], "what was found then does not count");
    // Another definition of the same image changes nothing.
    let edited = VmDefinition { vcpus: 2, ..with_image() };
    world.answer(Request::Redefine(name("a"), Box::new(edited.clone()), None)).unwrap();
    assert_eq!(world.saved.last().unwrap().images, [image(2 << 30)]);
    world.answer(Request::Rename(name("a"), name("b"))).unwrap();
    world.answer(Request::Rename(name("b"), name("a"))).unwrap();
    assert_eq!(world.saved.last().unwrap().images, [image(2 << 30)]);
    // An operator says that it is as it is to be.
    let asked = growing(&mut world, resize("vda", None));
    assert_eq!(asked.run, None);
    grown(&mut world, &asked, 3 << 30);
    assert!(matches!(answer_of(&mut world, &asked), Some(Ok(Answer::DiskSize(_)))));
    assert_eq!(world.saved.last().unwrap().images, []);
    let (run, known) = started(&mut world, &image(3 << 30));
    assert_eq!((known, &world.saved.last().unwrap().images[..]), (vec![], &[image(3 << 30)][..]));
    world.input(Input::Exited(run, "gone".to_owned()));
    // An image that is only read may be taken as it is, too, and not grow.
    let mut read_only = with_image();
    read_only.disks[0].read_only = true;
    world.answer(Request::Redefine(name("a"), Box::new(read_only), None)).unwrap();
    assert_eq!(world.answer(resize("vda", Some(4 << 30))).unwrap_err().kind, FailureKind::Conflict);
    let asked = growing(&mut world, resize("vda", None));
    grown(&mut world, &asked, 3 << 30);
    assert_eq!(world.saved.last().unwrap().images, []);
    let (run, _) = started(&mut world, &image(3 << 30));
    world.input(Input::Exited(run, "gone".to_owned()));
    let without = VmDefinition { disks: vec![], ..with_image() };
    world.answer(Request::Redefine(name("a"), Box::new(without), None)).unwrap();
    assert_eq!(world.saved.last().unwrap().images, []);
}

#[test]
fn a_guest_is_told_of_a_longer_image_once_that_is_on_disk() {
    let mut world = World::new(640);
    world.answer(Request::Define(Box::new(with_image()))).unwrap();
    let (run, _) = started(&mut world, &image(1 << 30));
    let asked = growing(&mut world, resize("vda", Some(2 << 30)));
    grown(&mut world, &asked, 2 << 30);
    assert_eq!(world.saved.last().unwrap().images, [image(2 << 30)]);
    let failure = Failure::new(FailureKind::Unfit, "no space");
    world.input(Input::Kept(Box::new(asked.clone()), Err(failure)));
    assert!(world.told.is_empty(), "{:?}", world.told);
    let refused = answer_of(&mut world, &asked).unwrap().unwrap_err();
    assert_eq!(refused.text, "disk vda of VM a: no space");
    let asked = growing(&mut world, resize("vda", Some(2 << 30)));
    grown(&mut world, &asked, 2 << 30);
    assert!(world.told.is_empty(), "{:?}", world.told);
    world.input(Input::Kept(Box::new(asked.clone()), Ok(Bytes(2 << 30))));
    let order = DeviceOrder::DiskSize { disk: 0, size: Bytes(2 << 30) };
    assert_eq!(world.told, [(run, ToVmm::Device(order))]);
    world.say(run, FromVmm::Resized { disk: 0, outcome: Ok(Bytes(2 << 30)) });
    assert!(matches!(answer_of(&mut world, &asked), Some(Ok(Answer::DiskSize(_)))));
}

#[test]
fn the_disk_of_a_vm_that_is_off_has_grown_with_its_file() {
    let mut world = World::new(640);
    world.answer(Request::Define(Box::new(with_disks()))).unwrap();
    let asked = growing(&mut world, resize("vda", Some(1 << 30)));
    assert_eq!(asked.run, None);
    grown(&mut world, &asked, 1 << 30);
    assert!(matches!(answer_of(&mut world, &asked), Some(Ok(Answer::DiskSize(_)))));
    assert!(world.told.is_empty());
}

#[test]
fn what_is_no_disk_to_grow_is_refused() {
    let mut world = World::new(640);
    world.up(with_disks());
    for (request, kind, what) in [
        (resize("vdb", Some(1 << 30)), FailureKind::Conflict, "read-only"),
        (resize("vdc", Some(1 << 30)), FailureKind::Invalid, "there is no disk vdc"),
        (resize("vda", Some(1000)), FailureKind::Invalid, "multiple of 512"),
        (resize("vda", Some(0)), FailureKind::Invalid, "multiple of 512"),
    ] {
        let refused = world.answer(request).unwrap_err();
        assert_eq!(refused.kind, kind);
        assert!(refused.text.contains(what), "{}", refused.text);
    }
}
