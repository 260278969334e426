//! Tables of the application that are kept in sync, with names that mean something else in SQL if they
//! are not quoted.

use std::time::Duration;

use fastrand::Rng;

use crate::{
    faults::{locked, one_after_the_other, patient},
    play::History,
    support::wait::within,
};

/// A table that is kept in sync.
pub struct AppTable {
    /// Its name in SQL.
    name: &'static str,
    /// Its columns in SQL.
    columns: &'static str,
    /// Its entry of `[[tables]]`.
    entry: &'static str,
    /// Joins it as `t` with the mirror's table `u`, and says whether both agree.
    mirror: &'static str,
}

const USERS: AppTable = AppTable {
    name: r#"public."User ""List""""#,
    columns: r#"
        "order" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        "Clerk's Id" text NOT NULL UNIQUE,
        "E-Mail" text,
        "select" text"#,
    entry: r#"
[[tables]]
name = 'User "List"'
key = "Clerk's Id"
max_change_percent = 100.0
[tables.set]
"E-Mail" = "u.primary_email"
"select" = "u.public_metadata::text"
"#,
    mirror: r#"
        (SELECT * FROM clerk.users WHERE deleted_at IS NULL) AS u ON t."Clerk's Id" = u.id
        WHERE u.id IS NULL OR t."Clerk's Id" IS NULL
           OR (t."E-Mail", t."select") IS DISTINCT FROM (u.primary_email, u.public_metadata::text)"#,
};

const MEMBERS: AppTable = AppTable {
    name: r#"public."member; --""#,
    columns: r#""Id" text PRIMARY KEY, "Role" text, "group" text, "user" text"#,
    entry: r#"
[[tables]]
name = "member; --"
from = "organization_memberships"
key = "Id"
max_change_percent = 100.0
[tables.set]
"Role" = "u.role"
"group" = "u.organization_id"
"user" = "u.user_id"
"#,
    mirror: r#"
        (SELECT * FROM clerk.organization_memberships WHERE deleted_at IS NULL) AS u ON t."Id" = u.id
        WHERE u.id IS NULL OR t."Id" IS NULL
           OR (t."Role", t."group", t."user") IS DISTINCT FROM (u.role, u.organization_id, u.user_id)"#,
};

/// Records the transactions in which users change and those in which their rows change, and the users
/// whose rows may differ from them: rows that Postgres refused or that the application changed, and all
/// (`*`) if the mapping was not applied.
const AUDIT: &str = r#"
    CREATE TABLE public.mirrored (transaction xid8 NOT NULL, user_id text NOT NULL);
    CREATE TABLE public.projected (transaction xid8 NOT NULL, user_id text NOT NULL);
    CREATE TABLE public.unprojected (user_id text NOT NULL);
    CREATE FUNCTION public.note_mirrored() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO public.mirrored VALUES (pg_current_xact_id(), coalesce(NEW.id, OLD.id));
        INSERT INTO public.unprojected SELECT '*' WHERE NOT EXISTS (
            SELECT FROM clerk.projections WHERE resource = 'users' AND mapping IS NOT NULL);
        RETURN NULL;
    END $$;
    CREATE FUNCTION public.note_projected() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO public.projected VALUES (pg_current_xact_id(), coalesce(NEW."Clerk's Id", OLD."Clerk's Id"));
        IF current_setting('application_name') NOT LIKE 'replica%' THEN
            INSERT INTO public.unprojected VALUES (coalesce(NEW."Clerk's Id", OLD."Clerk's Id"));
        END IF;
        RETURN NULL;
    END $$;
    CREATE FUNCTION public.note_rejected() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO public.unprojected VALUES (NEW.object_id);
        RETURN NULL;
    END $$;
    CREATE TRIGGER mirrored_new AFTER INSERT ON clerk.users FOR EACH ROW EXECUTE FUNCTION public.note_mirrored();
    CREATE TRIGGER mirrored_changed AFTER UPDATE ON clerk.users FOR EACH ROW
        WHEN ((OLD.deleted_at IS NULL OR NEW.deleted_at IS NULL)
          AND (OLD.primary_email, OLD.public_metadata, OLD.deleted_at IS NULL)
              IS DISTINCT FROM (NEW.primary_email, NEW.public_metadata, NEW.deleted_at IS NULL))
        EXECUTE FUNCTION public.note_mirrored();
    CREATE TRIGGER mirrored_gone AFTER DELETE ON clerk.users FOR EACH ROW
        WHEN (OLD.deleted_at IS NULL) EXECUTE FUNCTION public.note_mirrored();
    CREATE TRIGGER projected AFTER INSERT OR UPDATE OR DELETE ON public."User ""List""" FOR EACH ROW
        EXECUTE FUNCTION public.note_projected();
    CREATE TRIGGER rejected AFTER INSERT OR UPDATE ON clerk.rejected_rows FOR EACH ROW
        EXECUTE FUNCTION public.note_rejected()"#;

/// Changes of users without a change of their rows in the same transaction.
const APART: &str = "
    SELECT string_agg(concat(user_id, ' in ', transaction), ', ') FROM (
        SELECT transaction, user_id FROM (TABLE public.mirrored EXCEPT TABLE public.projected) AS m
        WHERE NOT EXISTS (SELECT FROM public.unprojected AS x WHERE x.user_id IN (m.user_id, '*')) LIMIT 20) AS apart";

impl AppTable {
    pub fn entry(&self) -> &'static str {
        self.entry
    }

    /// Counts the rows that are not what the mirror says.
    fn difference(&self) -> String {
        format!("SELECT count(*) FROM {} AS t FULL JOIN {}", self.name, self.mirror)
    }
}

impl History {
    /// Makes a table of users, and with organizations one of members, and configures that they are kept in
    /// sync.
    pub async fn has_tables(&mut self, has_organizations: bool) {
        self.tables = vec![USERS];
        self.tables.extend(has_organizations.then_some(MEMBERS));
        for AppTable { name, columns, .. } in &self.tables {
            self.fixture
                .db
                .execute(&format!("CREATE TABLE {name} ({columns})"))
                .await;
        }
        self.fixture.db.execute(AUDIT).await;
        self.configures("");
        *self.tried.entry("histories with tables").or_default() += 1;
    }

    /// The application changes, deletes or locks rows of its table, or locks the table.
    pub async fn tables_act(&mut self, dice: &mut Rng) {
        let table = match self.tables.first() {
            Some(table) if dice.u32(0..100) < 8 => table.name,
            _ => return,
        };
        let some = format!(
            r#""order" IN (SELECT "order" FROM {table} ORDER BY random() LIMIT {})"#,
            dice.u32(1..5)
        );
        let pause = Duration::from_millis(dice.u64(200..3_000));
        let client = patient(&self.fixture.db.url).await;
        let what = match dice.u32(0..8) {
            0..2 => {
                let sql = format!(r#"SET lock_timeout = '1s'; UPDATE {table} SET "select" = 'ours' WHERE {some}"#);
                // It may lose a deadlock, or meet a lock.
                let _ = client.batch_execute(&sql).await;
                "rows of a table changed by the application"
            }
            2 => {
                let sql = format!("SET lock_timeout = '1s'; DELETE FROM {table} WHERE {some}");
                let _ = client.batch_execute(&sql).await;
                "rows of a table deleted by the application"
            }
            3..7 => {
                let sql = format!("SELECT FROM {table} WHERE {some} FOR UPDATE");
                self.meanwhile.spawn(one_after_the_other(client, vec![sql], pause));
                "rows of a table locked by the application"
            }
            _ => {
                self.meanwhile
                    .spawn(one_after_the_other(client, vec![locked(table)], pause));
                "a table that is kept in sync locked by the application"
            }
        };
        *self.tried.entry(what).or_default() += 1;
    }

    /// Waits until the tables equal the mirror. What is held is approved.
    pub async fn tables_agree(&mut self, patience: Duration) {
        for table in &self.tables {
            let (fixture, difference) = (&self.fixture, table.difference());
            let what = format!("seed {}: {} equals the mirror", self.seed, table.name);
            within(patience, &what, async || {
                if fixture.db.number(&difference).await == 0 {
                    return true;
                }
                let status = fixture.run(&["--format", "json", "status"]).await.json();
                let tables = status["tables"].as_array().cloned().unwrap_or_default();
                let plans = tables.iter().flat_map(|table| [&table["plan"], &table["mapping_plan"]]);
                for plan in plans.filter_map(|plan| plan.as_str()) {
                    fixture.run(&["approve", plan]).await;
                }
                fixture.db.execute("NOTIFY clerk2pg, 'full'").await;
                tokio::time::sleep(Duration::from_millis(500)).await;
                false
            })
            .await;
        }
    }

    /// Asserts that each row of the application's users was written in the transaction that wrote its user.
    pub async fn rows_were_written_with_their_users(&mut self) {
        if self.tables.is_empty() {
            return;
        }
        let apart = self.fixture.db.text(APART).await;
        assert_eq!(
            apart, None,
            "seed {}: users were written without their rows of the application",
            self.seed
        );
        let unapplied = "SELECT count(*) FROM public.unprojected WHERE user_id = '*'";
        let is_checked = self.fixture.db.number(unapplied).await == 0;
        *self
            .tried
            .entry("histories in which each user and its row were written together")
            .or_default() += u64::from(is_checked);
    }
}
