//! What a watcher has seen, to find out what changed while it could not watch.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::follow::{Change, Entry};

/// The keys that a consumer has been told of, without their values.
#[derive(Debug, Default)]
pub(super) struct Known {
    seen: Option<BTreeMap<String, Seen>>,
}

/// A version of a key. The revision alone is not enough: an etcd restored from a backup gives the
/// same revisions to other values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    mod_revision: i64,
    value: u64,
}

impl Seen {
    fn of(entry: &Entry) -> Self {
        let mut hasher = DefaultHasher::new();
        entry.value.hash(&mut hasher);
        Self { mod_revision: entry.mod_revision, value: hasher.finish() }
    }
}

impl Known {
    /// Takes a whole reading of the range at `revision` and gives what to tell the consumer: a
    /// snapshot the first time, then the difference.
    pub(super) fn list(&mut self, entries: BTreeMap<String, Entry>, revision: i64) -> Vec<Change> {
        let current = entries.iter().map(|(key, entry)| (key.clone(), Seen::of(entry))).collect();
        let Some(told) = self.seen.replace(current) else {
            return vec![Change::Snapshot(entries)];
        };
        let gone = told.keys().filter(|key| !entries.contains_key(*key));
        let mut changes: Vec<_> =
            gone.map(|key| Change::Delete { key: key.clone(), mod_revision: revision }).collect();
        let puts = entries.into_iter().filter(|(key, entry)| told.get(key) != Some(&Seen::of(entry)));
        changes.extend(puts.map(|(key, entry)| Change::Put { key, entry }));
        changes
    }

    /// Was the range told?
    pub(super) fn is_any(&self) -> bool {
        self.seen.is_some()
    }

    /// Does a reading hold what cannot be, if every change up to this revision was told? Then it is of another
    /// history: of a backup.
    pub(super) fn is_contradicted_by(&self, entries: &BTreeMap<String, Entry>, told_up_to: i64) -> bool {
        let Some(told) = &self.seen else { return false };
        let mut past = entries.iter().filter(|(_, entry)| entry.mod_revision <= told_up_to);
        past.any(|(key, entry)| told.get(key) != Some(&Seen::of(entry)))
    }

    /// Takes one change of the watch.
    pub(super) fn take(&mut self, change: &Change) {
        let Some(seen) = &mut self.seen else { return };
        match change {
            Change::Snapshot(_) => {}
            Change::Put { key, entry } => {
                seen.insert(key.clone(), Seen::of(entry));
            }
            Change::Delete { key, .. } => {
                seen.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(list: &[(&str, &str, i64)]) -> BTreeMap<String, Entry> {
        let entry = |value: &str, mod_revision| Entry { value: value.into(), mod_revision };
        list.iter().map(|(key, value, revision)| ((*key).to_owned(), entry(value, *revision))).collect()
    }

    #[test]
    fn the_first_list_is_a_snapshot_and_the_next_a_difference() {
        let mut known = Known::default();
        let first = entries(&[("a", "1", 1), ("b", "1", 2)]);
        assert_eq!(known.list(first.clone(), 2), [Change::Snapshot(first)]);
        let put = Change::Put { key: "c".into(), entry: Entry { value: "1".into(), mod_revision: 3 } };
        known.take(&put);
        known.take(&Change::Delete { key: "b".into(), mod_revision: 4 });
        assert_eq!(known.list(entries(&[("a", "1", 1), ("c", "1", 3)]), 4), []);
        let changes = known.list(entries(&[("a", "2", 7), ("d", "1", 6)]), 9);
        assert_eq!(
            changes,
            [
                Change::Delete { key: "c".into(), mod_revision: 9 },
                Change::Put { key: "a".into(), entry: Entry { value: "2".into(), mod_revision: 7 } },
                Change::Put { key: "d".into(), entry: Entry { value: "1".into(), mod_revision: 6 } },
            ]
        );
    }

    #[test]
    fn another_value_at_the_same_revision_is_a_change() {
        let mut known = Known::default();
        known.list(entries(&[("a", "1", 5)]), 5);
        assert_eq!(known.list(entries(&[("a", "other", 5)]), 5).len(), 1, "restored from a backup");
    }

    #[test]
    fn a_backup_is_known_by_what_is_older_than_what_was_told() {
        let mut known = Known::default();
        let contradicted = |known: &Known, list| known.is_contradicted_by(&entries(list), 9);
        assert!(!contradicted(&known, &[("a", "1", 5)]), "nothing was told");
        known.list(entries(&[("a", "1", 5), ("b", "1", 9)]), 9);
        assert!(!contradicted(&known, &[("a", "1", 5)]), "b was deleted since");
        assert!(!contradicted(&known, &[("a", "2", 10), ("b", "1", 9), ("c", "1", 11)]));
        assert!(contradicted(&known, &[("a", "1", 4)]), "an older version");
        assert!(contradicted(&known, &[("a", "2", 5)]), "another value");
        assert!(contradicted(&known, &[("c", "1", 9)]), "deleted before 9, or never written");
    }
}
