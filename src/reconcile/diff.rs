//! Compares a page with the mirror's rows of the same range. A synchronous function over values: it
//! returns the plan of one page, which others apply, print or count.

use std::collections::{HashMap, HashSet};

use super::range::Range;
use crate::resource::Digest;

/// An object on a page.
#[derive(Debug, Clone, Copy)]
pub struct Fetched<'a> {
    /// Clerk's id.
    pub id: &'a str,
    /// Of the document's bytes.
    pub digest: Digest,
}

/// A row of the mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Clerk's id.
    pub id: String,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Of the bytes that were stored.
    pub digest: Digest,
    /// Whether it is marked as deleted.
    pub deleted: bool,
}

/// What a page means for the mirror. The numbers are positions on the page, in its order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Not in the mirror.
    pub create: Vec<usize>,
    /// In the mirror with another digest, or marked as deleted: to be decoded and compared by
    /// meaning.
    pub differ: Vec<usize>,
    /// How many are the same.
    pub unchanged: u64,
    /// Ids of rows in the range that are not on the page, in the mirror's order. Each is a
    /// question, not a deletion.
    pub missing: Vec<String>,
}

/// Compares `page` with `known`: the mirror's rows of the `judged` range and those of the page's
/// ids, in any order and possibly twice. `carried` are ids of the range that earlier pages showed.
pub fn compare(page: &[Fetched<'_>], known: &[Known], judged: Option<Range>, carried: &HashSet<String>) -> Comparison {
    let rows: HashMap<&str, &Known> = known.iter().map(|row| (row.id.as_str(), row)).collect();
    let mut comparison = Comparison::default();
    let mut met = HashSet::with_capacity(page.len());
    for (at, object) in page.iter().enumerate() {
        met.insert(object.id);
        match rows.get(object.id) {
            None => comparison.create.push(at),
            Some(row) if row.deleted || row.digest != object.digest => comparison.differ.push(at),
            Some(_) => comparison.unchanged += 1,
        }
    }
    let Some(judged) = judged else {
        return comparison;
    };
    for row in known {
        if !row.deleted && judged.contains(row.created_at) && !carried.contains(&row.id) && met.insert(&row.id) {
            comparison.missing.push(row.id.clone());
        }
    }
    comparison
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(n: u8) -> Digest {
        Digest([n; 16])
    }

    fn row(id: &str, created_at: i64, digest_of: u8, deleted: bool) -> Known {
        Known {
            id: id.to_owned(),
            created_at,
            digest: digest(digest_of),
            deleted,
        }
    }

    const ALL: Option<Range> = Some(Range {
        from: None,
        before: None,
    });

    #[test]
    fn each_case_by_name() {
        let page = [("a", 1), ("b", 2), ("c", 3), ("d", 4)].map(|(id, n)| Fetched { id, digest: digest(n) });
        let known = [
            row("b", 10, 2, false),
            row("c", 11, 9, false),
            row("d", 12, 4, true),
            row("gone", 13, 1, false),
            row("marked", 14, 1, true),
            row("carried", 15, 1, false),
            row("later", 20, 1, false),
        ];
        let judged = Some(Range {
            from: Some(10),
            before: Some(20),
        });
        assert_eq!(
            compare(&page, &known, judged, &HashSet::from(["carried".to_owned()])),
            Comparison {
                create: vec![0],
                differ: vec![2, 3],
                unchanged: 1,
                missing: vec!["gone".to_owned()],
            }
        );
    }

    prop_compose! {
        fn user()(id in 0u8..20, digest_of in 0u8..3, created_at in 0i64..10, deleted in any::<bool>())
            -> (String, u8, i64, bool) {
            (format!("user_{id}"), digest_of, created_at, deleted)
        }
    }

    proptest! {
        #[test]
        fn every_user_gets_one_verdict(
            page in prop::collection::vec(user(), 0..20),
            mirror in prop::collection::vec(user(), 0..20),
            from in prop::option::of(0i64..10), before in prop::option::of(0i64..10),
            carried in prop::collection::hash_set((0u8..20).prop_map(|id| format!("user_{id}")), 0..5),
        ) {
            let mut seen = HashSet::new();
            let page: Vec<_> = page.into_iter().filter(|user| seen.insert(user.0.clone())).collect();
            let mut seen = HashSet::new();
            let known: Vec<_> = mirror.into_iter().filter(|user| seen.insert(user.0.clone()))
                .map(|(id, n, at, deleted)| row(&id, at, n, deleted)).collect();
            let fetched: Vec<_> = page.iter().map(|(id, n, ..)| Fetched { id, digest: digest(*n) }).collect();
            let judged = Range { from, before };
            let result = compare(&fetched, &known, Some(judged), &carried);

            prop_assert_eq!(result.create.len() + result.differ.len() + result.unchanged as usize, page.len());
            for at in &result.create {
                prop_assert!(known.iter().all(|row| row.id != fetched[*at].id));
            }
            for at in &result.differ {
                let row = known.iter().find(|row| row.id == fetched[*at].id).unwrap();
                prop_assert!(row.deleted || row.digest != fetched[*at].digest);
            }
            for row in &known {
                let expected = !row.deleted && judged.contains(row.created_at) && !carried.contains(&row.id)
                    && fetched.iter().all(|user| user.id != row.id);
                prop_assert_eq!(result.missing.contains(&row.id), expected, "{}", row.id);
            }
            // Rows that occur twice, from the range and by id, change nothing.
            let twice: Vec<_> = known.iter().chain(&known).cloned().collect();
            prop_assert_eq!(compare(&fetched, &twice, Some(judged), &carried), result);
        }

        #[test]
        fn no_user_on_the_page_is_missing(page in prop::collection::vec(user(), 0..20), mirror in prop::collection::vec(user(), 0..20)) {
            let fetched: Vec<_> = page.iter().map(|(id, n, ..)| Fetched { id, digest: digest(*n) }).collect();
            let known: Vec<_> = mirror.iter().map(|(id, n, at, deleted)| row(id, *at, *n, *deleted)).collect();
            let result = compare(&fetched, &known, ALL, &HashSet::new());
            for user in &fetched {
                prop_assert!(!result.missing.iter().any(|id| id == user.id));
            }
        }
    }
}
