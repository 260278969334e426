//! Syncs the resources other than users. Clerk's lists of them have no order by update: see
//! [`list_changes`](super::list_changes).
//!
//! Each resource is synced by itself, after the users, so that none of them keeps the others from
//! being in sync.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tracing::{debug, warn};

use super::{
    AskError, Carryover, DeleteMode, Outcome, PlanLine, Printer, Report, SyncContext, SyncOutcome, Syncer,
    context::Start,
};
use crate::{
    clerk,
    failure::{Cause, Failure},
    mirror::SyncKind,
    resource::{self, Confirm, MAX_PAGE, Resource},
};

/// How long a resource that is switched off is left alone.
const SWITCHED_OFF: Duration = Duration::from_hours(1);

/// A daemon reads longer lists with a part of its budget.
const LONG: u64 = 5 * MAX_PAGE as u64;

/// What became of one resource.
enum ListOutcome {
    /// There was nothing to do, or another process does it.
    Nothing,
    Synced(Box<Report>),
    /// The newest page cannot be read. The walk over the whole list steps over the cause.
    Unreadable,
    /// Clerk has switched it off for this instance.
    SwitchedOff,
}

impl Syncer {
    /// The syncer of another resource.
    #[must_use]
    pub fn of(&self, resource: &'static Resource) -> Self {
        Self {
            mirror: self.mirror.of(resource),
            resource,
            others: Vec::new(),
            ..self.clone()
        }
    }

    /// The same syncer with a client in place of its own and that of all other resources.
    #[must_use]
    pub fn with_client(mut self, clerk: &clerk::Client) -> Self {
        self.others = self.others.into_iter().map(|other| other.with_client(clerk)).collect();
        self.clerk = clerk.clone();
        self
    }

    /// Whether an id belongs to the syncer's resource.
    pub(super) fn has_id(&self, id: &str) -> bool {
        resource::of_id(id).name == self.resource.name
    }

    /// Syncs all resources other than users. Returns the reports of those that were synced, and of
    /// those that failed.
    ///
    /// # Errors
    /// The sync is stopped.
    pub(super) async fn sync_others(
        &self,
        kind: SyncKind,
        carryover: &mut Carryover,
    ) -> Result<Vec<(&'static Resource, Report)>, Failure> {
        let mut reports = Vec::new();
        let mut is_switched_off = false;
        let mut has_changed = std::mem::take(&mut carryover.has_changed);
        for other in &self.others {
            let name = other.resource.name;
            let mut own = carryover.others.remove(name).unwrap_or_default();
            own.inherit(carryover);
            own.retries_rows |= has_changed;
            if kind != SyncKind::Full && own.waits() {
                carryover.others.insert(name, own);
                continue;
            }
            let result = match is_switched_off {
                // All of them belong to organizations.
                true => Ok(ListOutcome::SwitchedOff),
                false => other.sync_other(kind, &mut own).await,
            };
            carryover.learn_instance(&own);
            has_changed |= std::mem::take(&mut own.has_changed);
            if let Some(why) = own.take_full_sync_reason() {
                debug!(resource = name, why, "a full sync is due");
                own.is_full_due = true;
            }
            match result {
                Ok(ListOutcome::Synced(report)) => {
                    log(kind, other.resource, &report, own.goes_on);
                    if own.goes_on {
                        // It must not wait for a schedule: there may be none of incremental syncs.
                        self.due.incremental();
                    }
                    reports.push((other.resource, *report));
                }
                Ok(ListOutcome::Nothing | ListOutcome::Unreadable) => {}
                Ok(ListOutcome::SwitchedOff) => {
                    is_switched_off = true;
                    if kind == SyncKind::Full {
                        other.mirror.runs().note_nothing_to_import().await?;
                    }
                    own.switched_off.get_or_insert_with(Instant::now);
                    debug!(
                        resource = name,
                        "organizations are switched off at Clerk for this instance"
                    );
                }
                Err(failure) if failure.cause == Cause::Stopped => return Err(failure),
                Err(failure) => {
                    own.is_full_due |= kind == SyncKind::Full;
                    own.failed_again();
                    if own.is_new_failure(failure.cause) {
                        warn!(resource = name, error = %failure, hint = failure.hint, "this resource cannot be synced; the next sync tries again");
                    }
                    reports.push((other.resource, Report::failed(&failure)));
                }
            }
            carryover.others.insert(name, own);
        }
        Ok(reports)
    }

    /// Stores objects of other resources by id. One whose place is not known yet is found by a sync of
    /// its list. Returns whether another process was syncing, so that some are not stored.
    ///
    /// # Errors
    /// The sync could not be completed.
    pub(super) async fn sync_others_on_demand(
        &self,
        ids: &[String],
        carryover: &mut Carryover,
    ) -> Result<bool, Failure> {
        let mut is_standby = false;
        for other in &self.others {
            let own_ids = ids.iter().filter(|id| other.has_id(id));
            let own_ids: Vec<String> = own_ids.cloned().collect();
            if own_ids.is_empty() {
                continue;
            }
            let name = other.resource.name;
            let mut own = carryover.others.remove(name).unwrap_or_default();
            own.inherit(carryover);
            let result = other.sync_ids(&own_ids, &mut own).await;
            carryover.learn_instance(&own);
            carryover.others.insert(name, own);
            match result? {
                SyncOutcome::Synced(report) => log(SyncKind::OnDemand, other.resource, &report, false),
                SyncOutcome::Standby => is_standby = true,
                SyncOutcome::Nothing | SyncOutcome::NeedsFull => {}
            }
        }
        Ok(is_standby)
    }

    /// Prints what a full sync would do with the resources other than users.
    pub(super) async fn plan_others(
        &self,
        has_schema: bool,
        instance: &str,
        print: Printer<'_>,
    ) -> Result<BTreeMap<&'static str, Report>, Failure> {
        let mut reports = BTreeMap::new();
        for other in &self.others {
            let name = other.resource.name;
            match self.ask(self.clerk.recent(other.resource, 0, 1)).await {
                Ok(_) => {}
                // All of them belong to organizations.
                Err(AskError::Clerk(error)) if error.is_switched_off() => break,
                Err(error @ AskError::Stopped) => return Err(error.into()),
                Err(error) => {
                    reports.insert(name, Report::failed(&error.into()));
                    continue;
                }
            }
            let mut has_header = false;
            let mut print = |line: PlanLine<'_>| {
                if !std::mem::replace(&mut has_header, true) {
                    print(PlanLine::Resource(name));
                }
                print(line);
            };
            let start = Start::now(self, SyncKind::Full);
            let report = other.plan_resource(start, has_schema, instance, &mut print).await?;
            reports.insert(name, report);
        }
        Ok(reports)
    }

    async fn sync_ids(&self, ids: &[String], carryover: &mut Carryover) -> Result<SyncOutcome, Failure> {
        carryover.turn_began = Some(Instant::now());
        let known = self
            .mirror
            .rows()
            .by_ids(&ids.iter().map(String::as_str).collect::<Vec<_>>())
            .await?;
        let is_findable = matches!(self.resource.confirm, Confirm::ById { .. }) || known.len() == ids.len();
        if !is_findable {
            self.sync_other(SyncKind::Incremental, carryover).await?;
        }
        self.store_by_ids(ids, carryover).await
    }

    async fn sync_other(&self, kind: SyncKind, carryover: &mut Carryover) -> Result<ListOutcome, Failure> {
        if kind != SyncKind::Full && self.resource.is_rarely_changed && !carryover.is_full_due {
            return Ok(ListOutcome::Nothing);
        }
        if carryover.switched_off.is_some_and(|at| at.elapsed() < SWITCHED_OFF) {
            return Ok(match kind {
                SyncKind::Full => ListOutcome::SwitchedOff,
                SyncKind::Incremental | SyncKind::OnDemand => ListOutcome::Nothing,
            });
        }
        carryover.turn_began = Some(Instant::now());
        if kind != SyncKind::Full && carryover.goes_on {
            // What is new does not wait for the end of the walk.
            if let ListOutcome::Synced(report) = self.sync_list_changes(carryover).await? {
                log(kind, self.resource, &report, false);
            }
        }
        let outcome = match kind {
            _ if kind == SyncKind::Full || carryover.is_full_due => self.sync_whole_list(carryover).await?,
            _ => match self.sync_list_changes(carryover).await? {
                // It has found out that it cannot see the changes.
                ListOutcome::Nothing if carryover.is_full_due => self.sync_whole_list(carryover).await?,
                ListOutcome::Unreadable => {
                    let outcome = self.sync_whole_list(carryover).await?;
                    carryover.failed_again();
                    return Ok(outcome);
                }
                outcome => outcome,
            },
        };
        carryover.succeeded();
        if !matches!(outcome, ListOutcome::SwitchedOff) {
            carryover.switched_off = None;
        }
        Ok(outcome)
    }

    /// Reads the whole list, as a full sync of users does.
    async fn sync_whole_list(&self, carryover: &mut Carryover) -> Result<ListOutcome, Failure> {
        let start = Start::now(self, SyncKind::Full);
        let mut objects = None;
        match self.ask(self.clerk.recent(self.resource, 0, 1)).await {
            Ok(page) => objects = page.total,
            Err(AskError::Clerk(error)) if error.is_switched_off() => {
                carryover.switched_off = Some(Instant::now());
                return Ok(ListOutcome::SwitchedOff);
            }
            // One object cannot be read. The walk finds out.
            Err(AskError::Clerk(error)) if self.is_about_request(&error).await? => {}
            Err(error) => return Err(self.recorded(error.into(), start, carryover).await),
        }
        let is_long = objects.is_some_and(|objects| objects > LONG);
        let can_wait = is_long && !self.is_single_run() && self.mirror.runs().state().await?.is_imported;
        let clerk = match can_wait {
            true => self.clerk.in_background(),
            false => self.clerk.clone(),
        };
        let syncer = self.clone().with_client(&clerk);
        let lease = self.acquire_lease().await?;
        let mut has_given_way = false;
        let work = async |sync: &mut SyncContext<'_>| {
            sync.sync_all().await?;
            has_given_way = sync.has_given_way;
            Ok(())
        };
        let report = syncer.under_lease(&lease, start, carryover, work).await?;
        (carryover.rolling, carryover.is_full_due, carryover.goes_on) = (None, has_given_way, has_given_way);
        Ok(ListOutcome::Synced(Box::new(report)))
    }

    /// Lists a failure once, and returns it.
    async fn recorded(&self, failure: Failure, start: Start, carryover: &mut Carryover) -> Failure {
        if !carryover.has_failed(failure.cause) {
            self.record_failure(&failure, start).await;
        }
        failure
    }

    async fn sync_list_changes(&self, carryover: &mut Carryover) -> Result<ListOutcome, Failure> {
        let start = Start::now(self, SyncKind::Incremental);
        // What fails is asked for again by the next sync: the users do not wait for it.
        let clerk = self.clerk.clone().asking_once();
        match self
            .ask(clerk.recent(self.resource, 0, self.resource.list.max_page))
            .await
        {
            Ok(newest) => {
                let outcome = self.sync_newest(start, newest, carryover).await?;
                Ok(match outcome {
                    SyncOutcome::Synced(report) => ListOutcome::Synced(report),
                    SyncOutcome::NeedsFull => {
                        carryover.is_full_due = true;
                        ListOutcome::Nothing
                    }
                    SyncOutcome::Nothing | SyncOutcome::Standby => ListOutcome::Nothing,
                })
            }
            Err(AskError::Clerk(error)) if error.is_switched_off() => {
                carryover.switched_off = Some(Instant::now());
                Ok(ListOutcome::SwitchedOff)
            }
            Err(AskError::Clerk(error)) if carryover.has_failed_lately() && self.is_about_page(&error).await? => {
                debug!(resource = self.resource.name, %error, "the newest page cannot be read; reading the whole list");
                Ok(ListOutcome::Unreadable)
            }
            Err(error) => Err(self.recorded(error.into(), start, carryover).await),
        }
    }

    /// Whether an error is about the newest page, and not about Clerk being away. Asks at most once, as
    /// the users wait.
    async fn is_about_page(&self, error: &clerk::Error) -> Result<bool, AskError> {
        match error {
            clerk::Error::KeyRefused(_) | clerk::Error::RateLimited { .. } => Ok(false),
            clerk::Error::Unavailable { .. } => self.lists_users().await,
            _ => Ok(true),
        }
    }

    /// Whether syncs look for missing objects.
    pub(super) fn looks_for_missing(&self) -> bool {
        self.options.delete_mode != DeleteMode::Keep
    }
}

/// Logs what a sync did with a resource, if it did anything.
fn log(kind: SyncKind, resource: &Resource, report: &Report, goes_on: bool) {
    if report.outcome != Outcome::InSync || report.unchanged > 0 {
        report.log(&format!("{} sync", kind.name()), Some(resource.name), goes_on);
    }
}
