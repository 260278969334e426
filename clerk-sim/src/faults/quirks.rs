//! Quirks: ways in which answers differ from Clerk's.

use serde::{Deserialize, Serialize};

/// The answer to a page after a user that was deleted. Clerk does not document it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeletedCursor {
    /// 404 `resource_not_found`. The default (a guess): Clerk gives this answer to unknown ids
    /// elsewhere.
    #[default]
    NotFound,
    /// 422 `form_param_value_invalid`.
    Unprocessable,
    /// An empty page, as if the walk had ended.
    EmptyPage,
    /// Page one again.
    Restart,
}

/// A count that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrongCount {
    /// The true count plus this, but at least 0.
    Offset(i64),
    /// Always this.
    Fixed(u64),
}

/// Read replicas that lag behind the primary. Clerk has such replicas (inferred: older states were
/// observed in lists).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replicas {
    /// The lag in milliseconds, at most ten minutes.
    pub lag_ms: u64,
    /// The share of reads that they answer, from 0 to 1. The primary answers the others.
    #[serde(default = "half")]
    pub share: f64,
}

fn half() -> f64 {
    0.5
}

impl Replicas {
    /// Says what is wrong. `place` is the path of these replicas in the JSON of the faults.
    pub(super) fn check(&self, place: &str) -> Result<(), String> {
        if (0.0..=1.0).contains(&self.share) {
            Ok(())
        } else {
            Err(format!(
                "{place}.replicas.share is {}, but must be from 0 to 1",
                self.share
            ))
        }
    }
}

/// What is in a different order at each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shuffle {
    /// Objects with the same value of the property that the list is ordered by.
    Ties,
    /// Whole lists.
    All,
}

/// The answer to requests about organizations while they are switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrganizationsOff {
    /// 403 `organization_not_enabled_in_instance` (documented, observed).
    Forbidden,
    /// 404 with this code (a guess).
    NotFound,
    /// 404 `resource_not_found`, as for any unknown path: emulators lack these endpoints (observed).
    Missing,
}

/// Ways in which answers differ from Clerk's. The default has none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quirks {
    /// `starting_after` is ignored: every page is the first.
    pub ignore_starting_after: bool,
    /// `created_at_before` and `created_at_after` are ignored.
    pub ignore_created_at: bool,
    /// `user_id` is ignored: all users, organizations or members are returned.
    pub ignore_user_id: bool,
    /// `organization_id` is ignored: all organizations or users are returned.
    pub ignore_organization_id: bool,
    /// `offset` is ignored.
    pub ignore_offset: bool,
    /// `order_by` is ignored: the order is always the default, newest first.
    pub ignore_order_by: bool,
    /// `order_by` with a literal `+` is unknown: the order is ascending by `updated_at` (observed
    /// in an emulator).
    pub unknown_plus: bool,
    /// Lists are shuffled at each request.
    pub shuffle: Option<Shuffle>,
    /// The answer to a page after a user that was deleted.
    pub deleted_cursor: DeletedCursor,
    /// Objects per page at most, whatever the limit of the request. At least one.
    pub max_page: Option<usize>,
    /// Pages are cut to a random length of at least one.
    pub random_pages: bool,
    /// Lists are empty although there are objects.
    pub empty_lists: bool,
    /// Lists and counts show the state of this number of milliseconds ago, at most ten minutes.
    /// Single reads show the present.
    pub stale_lists_ms: u64,
    /// Some lists, counts and single reads show an older state: see [`Replicas`]. If
    /// `stale_lists_ms` is set too, lists and counts show the older of the two states.
    pub replicas: Option<Replicas>,
    /// Counts are wrong.
    pub count: Option<WrongCount>,
    /// `/v1/instance` is a 404 (observed in emulators).
    pub missing_instance: bool,
    /// `/v1/users/count` is a 404.
    pub missing_count: bool,
    /// Lists of users are wrapped as `{"data":[…],"total_count":n}`, too (observed in an emulator).
    pub wrapped_lists: bool,
    /// Error codes are in upper case (observed in emulators).
    pub upper_case_codes: bool,
    /// Times are in seconds (observed in emulators). Filters are still read as milliseconds.
    pub times_in_seconds: bool,
    /// These objects exist but are left out of lists, also of lists by their ids. Counts include
    /// them.
    pub hidden_from_lists: Vec<String>,
    /// These objects exist but are a 404 when read by id.
    pub not_found_by_id: Vec<String>,
    /// Every 404 is an HTML page, as from a proxy.
    pub html_not_found: bool,
    /// Every request is a 401 `clerk_key_invalid`.
    pub unauthorized: bool,
    /// Ban, unban, lock and unlock move `updated_at`. Whether they do at Clerk is not known. By
    /// default they do not, which is the harder case for a client that asks for changes.
    pub bans_move_updated_at: bool,
    /// Organizations are switched off, whatever the options say.
    pub organizations_off: Option<OrganizationsOff>,
}

impl Quirks {
    /// Adds the other quirks. `other` wins if the two exclude each other.
    pub(super) fn merge(&mut self, other: &Quirks) {
        let Quirks {
            ignore_starting_after,
            ignore_created_at,
            ignore_user_id,
            ignore_organization_id,
            ignore_offset,
            ignore_order_by,
            unknown_plus,
            shuffle,
            deleted_cursor,
            max_page,
            random_pages,
            empty_lists,
            stale_lists_ms,
            replicas,
            count,
            missing_instance,
            missing_count,
            wrapped_lists,
            upper_case_codes,
            times_in_seconds,
            hidden_from_lists,
            not_found_by_id,
            html_not_found,
            unauthorized,
            bans_move_updated_at,
            organizations_off,
        } = other;
        self.ignore_starting_after |= ignore_starting_after;
        self.ignore_created_at |= ignore_created_at;
        self.ignore_user_id |= ignore_user_id;
        self.ignore_organization_id |= ignore_organization_id;
        self.ignore_offset |= ignore_offset;
        self.ignore_order_by |= ignore_order_by;
        self.unknown_plus |= unknown_plus;
        self.shuffle = shuffle.or(self.shuffle);
        if *deleted_cursor != DeletedCursor::default() {
            self.deleted_cursor = *deleted_cursor;
        }
        self.max_page = max_page.or(self.max_page);
        self.random_pages |= random_pages;
        self.empty_lists |= empty_lists;
        self.stale_lists_ms = self.stale_lists_ms.max(*stale_lists_ms);
        self.replicas = replicas.or(self.replicas);
        self.count = count.or(self.count);
        self.missing_instance |= missing_instance;
        self.missing_count |= missing_count;
        self.wrapped_lists |= wrapped_lists;
        self.upper_case_codes |= upper_case_codes;
        self.times_in_seconds |= times_in_seconds;
        self.hidden_from_lists.extend_from_slice(hidden_from_lists);
        self.not_found_by_id.extend_from_slice(not_found_by_id);
        self.html_not_found |= html_not_found;
        self.unauthorized |= unauthorized;
        self.bans_move_updated_at |= bans_move_updated_at;
        self.organizations_off = organizations_off.or(self.organizations_off);
    }
}
