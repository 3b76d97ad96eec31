//! Runs one random sequence of operations on kernel overlayfs and on the subject, in lockstep, and
//! compares every answer and, time and again, the whole trees.
#[path = "../kit/mod.rs"]
mod kit;
#[test]
fn smoke() {
    use kit::*;
    let mut lab = Lab::new().lower("f a hello user.x=1\nd d mode=0700\nl l a\nw gone").lower("f gone x\np fifo").upper("").mount_as(&Subject::Kernel);
    println!("{:#?}", lab.tree());
    lab.expect_paths("a d l fifo");
    fails!(sys::unlink(lab.at("gone")), ENOENT);
    lab.expect_same_after_remount();
}
