//! Organizations of a history, with their members and invitations.

use std::{ops::RangeInclusive, time::Duration};

use clerk_sim::{Kind, OrganizationOptions, PerOrganization};
use fastrand::Rng;

use crate::{
    play::History,
    replica::Replica,
    support::{
        organizations::{KINDS, is_in_sync},
        process::NEVER,
        wait::within,
    },
};

/// Records every object that leaves the mirror.
const AUDIT: &str = "
    CREATE TABLE IF NOT EXISTS public.departed (kind text NOT NULL, id text NOT NULL, is_told boolean NOT NULL DEFAULT false);
    CREATE OR REPLACE FUNCTION public.note_departed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO public.departed (kind, id) VALUES (TG_TABLE_NAME, OLD.id);
        RETURN NULL;
    END $$;";

/// Users of a few histories, all of them members of one organization.
const CROWD: usize = 20_000;

/// Lists of members that have several pages, and are read in turn within seconds.
const SEVERAL_PAGES: RangeInclusive<usize> = 501..=5_000;

/// One of so many members gets another role at once.
const PROMOTED: usize = 50;

/// Returns organizations, chosen by the seed alone, and the number of users that they need; none in half
/// of the histories.
pub fn chosen(users: usize, dice: &mut Rng) -> (OrganizationOptions, usize) {
    if dice.bool() {
        return (OrganizationOptions::default(), users);
    }
    let sizes = [0, 1, 2, 20, 300, 499, 500, 501, 700];
    let number = *dice.choice(&[0, 1, 3, 12]).unwrap();
    let mut members: Vec<usize> = (0..number)
        .map(|_| sizes[dice.usize(..sizes.len())].min(users))
        .collect();
    let is_crowded = dice.u32(0..12) == 0;
    members.extend(is_crowded.then_some(CROWD));
    let number = members.len();
    let organizations = OrganizationOptions {
        members: PerOrganization::Sizes(members),
        invitations: PerOrganization::Skewed { least: 0, most: 30 },
        ..OrganizationOptions::number(number)
    };
    (organizations, if is_crowded { CROWD } else { users })
}

impl History {
    /// Watches the tables of organizations.
    pub async fn has_organizations(&mut self) {
        self.fixture.db.execute(AUDIT).await;
        for (_, table, _) in KINDS {
            let sql = format!(
                "CREATE TRIGGER departs AFTER DELETE ON clerk.{table} FOR EACH ROW EXECUTE FUNCTION public.note_departed();
                 CREATE TRIGGER is_marked AFTER UPDATE ON clerk.{table} FOR EACH ROW
                 WHEN (OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL) EXECUTE FUNCTION public.note_departed()"
            );
            self.fixture.db.execute(&sql).await;
        }
        *self.tried.entry("histories with organizations").or_default() += 1;
    }

    /// Makes some changes of organizations at Clerk.
    pub fn organizations_act(&mut self, dice: &mut Rng) {
        let sim = &self.fixture.sim;
        let some = |kind: Kind, dice: &mut Rng| dice.choice(&sim.ids(kind)).cloned();
        for _ in 0..dice.u32(0..4) {
            let what = match dice.u32(0..10) {
                0..5 => sim.change_organizations_at_random().map(|_| "changes of organizations"),
                5 | 6 => some(Kind::OrganizationMemberships, dice)
                    .filter(|id| sim.delete_object(Kind::OrganizationMemberships, id))
                    .map(|_| "members who leave"),
                7 => some(Kind::Organizations, dice)
                    .filter(|_| dice.u32(0..4) == 0)
                    .filter(|id| sim.delete_organization(id))
                    .map(|_| "organizations deleted"),
                8 => some(Kind::OrganizationMemberships, dice)
                    .filter(|id| {
                        let role = *dice.choice(&["org:admin", "org:member"]).unwrap();
                        sim.update_object(Kind::OrganizationMemberships, id, |membership| {
                            membership["role"] = role.into();
                        })
                    })
                    .map(|_| "roles changed"),
                _ => {
                    let user = sim.user_ids().first().cloned();
                    let organization = sim.create_organization("New");
                    user.and_then(|user| sim.add_member(&organization, &user, "org:admin"));
                    Some("organizations created")
                }
            };
            if let Some(what) = what {
                *self.tried.entry(what).or_default() += 1;
            }
        }
    }

    /// Asserts that nothing left the mirror that exists at Clerk.
    pub async fn no_organization_was_deleted_wrongly(&self) {
        let sql = "UPDATE public.departed SET is_told = true WHERE NOT is_told RETURNING kind, id";
        for row in self.fixture.db.client.query(sql, &[]).await.unwrap() {
            let (table, id): (String, String) = (row.get(0), row.get(1));
            let (kind, ..) = KINDS.into_iter().find(|(_, of, _)| **of == table).unwrap();
            assert!(
                self.fixture.sim.object(kind, &id).is_none(),
                "seed {}: {id} has left {table}, but exists at Clerk",
                self.seed
            );
        }
    }

    /// Waits until everything equals Clerk. What is held is approved.
    pub async fn organizations_agree(&mut self, patience: Duration) {
        for (kind, table, _) in KINDS {
            let fixture = &self.fixture;
            let what = format!("seed {}: {table} equals Clerk", self.seed);
            within(patience, &what, async || {
                if is_in_sync(fixture, kind).await {
                    return true;
                }
                let status = fixture.run(&["--format", "json", "status"]).await.json();
                let resources = status["resources"].as_array().cloned().unwrap_or_default();
                for plan in resources.iter().filter_map(|resource| resource["plan"].as_str()) {
                    fixture.run(&["approve", plan]).await;
                }
                fixture.db.execute("NOTIFY clerk2pg, 'full'").await;
                tokio::time::sleep(Duration::from_millis(500)).await;
                false
            })
            .await;
        }
        self.no_organization_was_deleted_wrongly().await;
    }

    /// Runs the program without full syncs, and changes members all over a long list. Incremental syncs
    /// read one page after the other, so that each change is stored.
    pub async fn long_lists_are_read_in_turn(&mut self, patience: Duration) {
        let (seed, kind) = (self.seed, Kind::OrganizationMemberships);
        let ids = self.fixture.sim.ids(kind);
        if !SEVERAL_PAGES.contains(&ids.len()) {
            return;
        }
        for replica in &mut self.replicas {
            replica.ends().await;
        }
        let (never, value) = NEVER;
        let mut settings = self.settings.clone();
        settings.retain(|(name, _)| *name != never);
        settings.push((never, value.to_owned()));
        let last = "SELECT coalesce(max(id), 0) FROM clerk.sync_runs";
        let last = self.fixture.db.number(last).await;
        let name = format!("replica{}", self.replicas.len());
        let replica = Replica::start(&self.fixture, name, settings, self.config());
        self.replicas.push(replica);
        let full = format!("resource = 'organization_memberships' AND kind = 'full' AND id > {last}");
        // A process begins with a full sync.
        let ended = format!("{full} AND outcome IN ('in_sync', 'changed')");
        within(patience, &format!("seed {seed}: the members are read"), async || {
            self.fixture.runs(&ended).await > 0
        })
        .await;
        let before = self.fixture.runs(&full).await;
        for id in ids.iter().step_by(PROMOTED) {
            self.fixture.sim.update_object(kind, id, |membership| {
                let is_admin = membership["role"] == "org:admin";
                membership["role"] = if is_admin { "org:member" } else { "org:admin" }.into();
            });
        }
        let what = format!("seed {seed}: incremental syncs see all members in turn");
        within(patience, &what, async || is_in_sync(&self.fixture, kind).await).await;
        let is_in_turn = self.fixture.runs(&full).await == before;
        *self.tried.entry("long lists read in turn").or_default() += u64::from(is_in_turn);
    }
}
