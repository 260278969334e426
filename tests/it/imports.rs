//! Imports of several pages. The database refuses one of the users, or has policies.

use crate::support::{
    fixture::Fixture,
    roles::Role,
    summary::{Exit, changed},
};

/// More than one page.
const USERS: usize = 700;

/// Once nothing refuses the user any more, the next sync stores it.
async fn stores_the_last_user(fixture: &Fixture, allow: &str) {
    fixture.db.execute(allow).await;
    let ran = fixture.once().await;
    ran.assert(Exit::Ok, changed().created(1).unchanged(USERS - 1));
    fixture.assert_in_sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_a_trigger_leaves_out_of_an_import_is_rejected() {
    let fixture = Fixture::migrated_with(USERS).await;
    let left_out = &fixture.sim.user_ids()[USERS / 2];
    fixture
        .db
        .execute(&format!(
            "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
             CREATE TRIGGER skip BEFORE INSERT ON clerk.users FOR EACH ROW WHEN (NEW.id = '{left_out}') EXECUTE FUNCTION skip()"
        ))
        .await;
    let ran = fixture.once().await;
    ran.assert(Exit::Ok, changed().created(USERS - 1).rejected(1));
    let rejected = "SELECT user_id || ': ' || reason FROM clerk.rejected_users";
    assert_eq!(
        fixture.db.text(rejected).await.unwrap(),
        format!("{left_out}: a trigger of the application skipped the row without an error")
    );
    stores_the_last_user(&fixture, "DROP TRIGGER skip ON clerk.users").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_an_import_cannot_store_costs_one_user() {
    let fixture = Fixture::migrated_with(USERS).await;
    let refused = &fixture.sim.user_ids()[USERS / 3];
    let check = format!("ALTER TABLE clerk.users ADD CONSTRAINT refused CHECK (id <> '{refused}')");
    fixture.db.execute(&check).await;
    let ran = fixture.once().await;
    ran.assert(Exit::Ok, changed().created(USERS - 1).rejected(1));
    stores_the_last_user(&fixture, "ALTER TABLE clerk.users DROP CONSTRAINT refused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_works_with_row_level_security() {
    let fixture = Fixture::migrated_with(USERS).await;
    let role = Role::new(&fixture).await;
    let name = &role.name;
    fixture
        .db
        .execute(&format!(
            "GRANT USAGE ON SCHEMA clerk TO {name};
             GRANT ALL ON ALL TABLES IN SCHEMA clerk TO {name};
             GRANT ALL ON ALL SEQUENCES IN SCHEMA clerk TO {name};
             GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA clerk TO {name};
             ALTER TABLE clerk.users ENABLE ROW LEVEL SECURITY;
             CREATE POLICY everything ON clerk.users TO {name} USING (true) WITH CHECK (true)"
        ))
        .await;
    let ran = role.run(&fixture, &["--once", "--format", "json"]).await;
    ran.assert(Exit::Ok, changed().created(USERS));
    fixture.assert_in_sync().await;
    role.end(&fixture).await;
}
