//! What a transaction compares and writes.

use super::*;

#[test]
fn every_write_is_fenced_and_a_raw_key_is_guarded_by_its_claim() {
    let claim = Claim { cluster: "demo".into(), uid: "u".into() };
    let dead = Claim { cluster: "demo".into(), uid: "gone".into() };
    let ops = [
        StoreOp::Put("p".into(), "1".into()),
        StoreOp::Delete("d".into()),
        StoreOp::Claim("new".into(), "1".into()),
        StoreOp::PutRaw("own".into(), "2".into()),
        StoreOp::Release("old".into()),
        StoreOp::TakeOver("dead".into(), "3".into(), dead.clone()),
        StoreOp::Reap("left".into(), dead),
    ];
    let (compares, writes) = txn("/epoch", Fence(7), &claim, &ops);
    let mine = r#"{"cluster":"demo","uid":"u"}"#;
    let wanted = [
        Compare::mod_revision("/epoch", CompareOp::Equal, 7),
        Compare::create_revision("new", CompareOp::Equal, 0),
        Compare::create_revision("/fusebox/v1/claims/raw/new", CompareOp::Equal, 0),
        Compare::value("/fusebox/v1/claims/raw/own", CompareOp::Equal, mine),
        Compare::value("/fusebox/v1/claims/raw/old", CompareOp::Equal, mine),
        Compare::value("/fusebox/v1/claims/raw/dead", CompareOp::Equal, r#"{"cluster":"demo","uid":"gone"}"#),
        Compare::value("/fusebox/v1/claims/raw/left", CompareOp::Equal, r#"{"cluster":"demo","uid":"gone"}"#),
    ];
    assert_eq!(format!("{compares:?}"), format!("{wanted:?}"));
    assert_eq!(writes.len(), ops.iter().map(StoreOp::weight).sum::<usize>());
}
