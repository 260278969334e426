//! `clerk2pg check` reports each of the application's tables.

use serde_json::Value;

use crate::support::{
    app_table::{AppTable, USER_MAPPING, USER_TABLE},
    check::NAMES,
    fixture::Fixture,
    program::ProgramOutput,
    summary::Exit,
};

/// The findings on tables, of a check in which nothing else fails.
#[derive(Debug)]
struct TableFindings {
    ran: ProgramOutput,
    tables: Vec<Value>,
}

impl TableFindings {
    /// Asserts the status of the first table, and a part of its message.
    #[track_caller]
    fn assert_table(&self, status: &str, says: &str) -> &Self {
        let table = &self.tables[0];
        assert_eq!(table["status"], status, "{table:#?}");
        let message = table["message"].as_str().unwrap();
        assert!(message.contains(says), "the message does not say {says:?}: {message}");
        self
    }

    /// Asserts a part of the hint on the first table.
    #[track_caller]
    fn assert_hint(&self, says: &str) -> &Self {
        let hint = self.tables[0]["hint"].as_str().unwrap_or_default();
        assert!(hint.contains(says), "the hint does not say {says:?}: {hint}");
        self
    }
}

/// Runs `check`, and asserts that it writes nothing.
async fn check(app: &AppTable) -> TableFindings {
    let before = app.fixture.db.snapshot().await;
    let ran = app.run(&["check", "--format", "json"]).await;
    assert_eq!(app.fixture.db.snapshot().await, before, "{ran:#?}");
    let json = ran.json();
    let (others, tables) = json["checks"].as_array().unwrap().split_at(NAMES.len());
    assert!(others.iter().all(|finding| finding["status"] != "failed"), "{ran:#?}");
    assert!(tables.iter().all(|finding| finding["name"] == "table"), "{ran:#?}");
    let mut failed = tables.iter().filter(|finding| finding["status"] == "failed");
    assert!(failed.clone().all(|finding| finding["hint"].is_string()), "{ran:#?}");
    let has_failed = failed.next().is_some();
    assert_eq!(json["ok"], !has_failed, "{ran:#?}");
    ran.assert_exit(if has_failed { Exit::Failed } else { Exit::Ok });
    TableFindings {
        tables: tables.to_vec(),
        ran,
    }
}

/// A table that is to be reported, and the report: its status, and parts of its message and hint.
struct Case<'c> {
    sql: &'c str,
    mapping: &'c str,
    status: &'c str,
    says: &'c str,
    hint: &'c str,
}

/// Checks each case with a mirror of a few users.
async fn check_cases(cases: &[Case<'_>]) {
    let app = AppTable::new(5, "", "").await;
    app.once().await.assert_exit(Exit::Ok);
    for Case {
        sql,
        mapping,
        status,
        says,
        hint,
    } in cases
    {
        app.fixture
            .db
            .execute(&format!(
                "DROP SCHEMA IF EXISTS app CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public; {sql}"
            ))
            .await;
        app.set_mapping(mapping);
        check(&app).await.assert_table(status, says).assert_hint(hint);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_fits_is_ok() {
    let app = AppTable::with(Fixture::new(5).await, USER_TABLE, USER_MAPPING).await;
    check(&app).await.assert_table(
        "skipped",
        r#"public."User": the mapping fits the table; there is no mirror yet"#,
    );
    app.once().await.assert_exit(Exit::Ok);
    check(&app)
        .await
        .assert_table("ok", r#"public."User": 5 columns from users, tried on 5 users"#);
    app.set_mapping(&format!(
        "{USER_MAPPING}{}",
        USER_MAPPING.replace("\"User\"", "\"Account\"")
    ));
    let checked = check(&app).await;
    assert_eq!(checked.tables.len(), 2, "{checked:#?}");
    app.set_mapping("");
    assert_eq!(check(&app).await.tables.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_is_checked_before_there_is_a_mirror() {
    let app = AppTable::new(5, USER_TABLE, &USER_MAPPING.replace("email =", "mail =")).await;
    check(&app)
        .await
        .assert_table("failed", r#"there is no column "mail", which [tables.set] names"#)
        .assert_hint(r#"did you mean "email"?"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_kept_in_sync_says_what_mends_it() {
    let with = |from: &str, to: &str| USER_TABLE.replace(from, to);
    let mapped = |from: &str, to: &str| USER_MAPPING.replace(from, to);
    let case = |sql, mapping, says, hint| Case {
        sql,
        mapping,
        status: "failed",
        says,
        hint,
    };
    let in_schema = format!("CREATE SCHEMA app; SET search_path = app; {USER_TABLE}; RESET search_path");
    let view = with("\"User\" (", "\"User\" (") + r#" ALTER TABLE "User" RENAME TO u; CREATE VIEW "User" AS TABLE u"#;
    let not_unique = with("UNIQUE NOT NULL", "NOT NULL");
    let partial = format!(r#"{not_unique} CREATE UNIQUE INDEX ON "User" ("clerkId") WHERE email <> ''"#);
    let generated = with(
        "email text NOT NULL",
        "email text GENERATED ALWAYS AS (lower(id)) STORED",
    );
    let number = with(r#""clerkId" text"#, r#""clerkId" bigint"#);
    let unfilled = with("role \"Role\"", "plan text NOT NULL, role \"Role\"");
    let index = r#"CREATE UNIQUE INDEX ON "public"."User" ("clerkId");"#;
    check_cases(&[
        case("", USER_MAPPING, "there is no such table", ""),
        case(
            USER_TABLE,
            &mapped("\"User\"", "\"user\""),
            "there is no such table",
            r#"did you mean name = "User"?"#,
        ),
        case(
            &in_schema,
            USER_MAPPING,
            "there is no such table",
            r#"set schema = "app" and name = "User""#,
        ),
        case(&view, USER_MAPPING, "it is a view", "the table behind it"),
        case(
            USER_TABLE,
            &mapped("clerkId", "clerk_id"),
            r#"no column "clerk_id", which key names"#,
            r#""clerkId""#,
        ),
        case(
            &not_unique,
            USER_MAPPING,
            r#"no unique index is on the key "clerkId" alone"#,
            index,
        ),
        case(&partial, USER_MAPPING, "no unique index", index),
        case(
            &generated,
            USER_MAPPING,
            r#"only the database writes "email""#,
            r#"remove "email""#,
        ),
        case(
            &number,
            USER_MAPPING,
            r#"the key "clerkId" is bigint"#,
            "text or varchar",
        ),
        case(
            &unfilled,
            USER_MAPPING,
            r#"nothing fills "plan""#,
            r#"add "plan" to [tables.insert]"#,
        ),
        case(
            USER_TABLE,
            &mapped("u.full_name", "u.fullname"),
            r#""name" in [tables.set] fails: Postgres: column u.fullname does not exist"#,
            r#"correct "name" in [tables.set]"#,
        ),
        case(
            USER_TABLE,
            &mapped("clerk.cuid()", "cuid_of_mine()"),
            r#""id" in [tables.insert] fails"#,
            "write names outside of pg_catalog with their schema, also those of clerk",
        ),
        case(
            USER_TABLE,
            &mapped("'USER'", "'user'"),
            r#""role" in [tables.insert] fails"#,
            "correct",
        ),
        case(
            USER_TABLE,
            &mapped("\"now()\"", "\"u.banned\""),
            r#""updatedAt" in [tables.touch] fails"#,
            "correct",
        ),
        case(
            USER_TABLE,
            &mapped("[tables.set]", "where = \"u.nothing\"\n[tables.set]"),
            "where fails",
            "correct where",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_deserves_a_look_is_a_warning() {
    let mapped = |from: &str, to: &str| USER_MAPPING.replace(from, to);
    let case = |sql, mapping, says, hint| Case {
        sql,
        mapping,
        status: "warn",
        says,
        hint,
    };
    let filled = USER_TABLE.replace("role \"Role\"", "plan text NOT NULL, role \"Role\"");
    let trigger = format!(
        r#"{filled} CREATE OR REPLACE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.plan = 'free'; RETURN NEW; END $$;
           CREATE TRIGGER fill BEFORE INSERT ON "User" FOR EACH ROW EXECUTE FUNCTION fill()"#
    );
    let nullable = USER_TABLE.replace("UNIQUE NOT NULL", "UNIQUE");
    let soft = USER_TABLE.replace("role \"Role\"", "\"deletedAt\" timestamptz, role \"Role\"");
    let linked = mapped("[tables.set]", "link = \"email\"\n[tables.set]");
    let removed =
        mapped("[tables.set]", "delete = \"update\"\n[tables.set]") + "[tables.deleted]\ndeletedAt = \"now()\"\n";
    check_cases(&[
        case(
            &trigger,
            USER_MAPPING,
            r#"nothing fills "plan""#,
            "ignore this if a trigger fills",
        ),
        case(
            &nullable,
            &linked,
            r#"no index helps to find rows by link = "email""#,
            r#"CREATE INDEX ON "public"."User" (lower("email")) WHERE "clerkId" IS NULL;"#,
        ),
        case(USER_TABLE, &linked, r#"link = "email" has no effect"#, "remove link"),
        case(
            &soft,
            &removed,
            r#"if a user returns, "deletedAt" stays"#,
            r#"deletedAt = "NULL""#,
        ),
        case(
            USER_TABLE,
            &mapped("coalesce(u.primary_email, '')", "NULL"),
            r#""email" in [tables.set] is NULL for 5 users"#,
            "coalesce",
        ),
        case(
            USER_TABLE,
            &mapped("coalesce(u.full_name, u.username, '')", "repeat('x', 65)"),
            r#""name" in [tables.set] is too long for character varying(64) for 5 users"#,
            "left(",
        ),
    ])
    .await;
    // The suggested index is the one that helps.
    let app = AppTable::new(5, &nullable, &linked).await;
    app.once().await.assert_exit(Exit::Ok);
    let checked = check(&app).await;
    let hint = checked.tables[0]["hint"].as_str().unwrap().to_owned();
    app.fixture.db.execute(&hint).await;
    check(&app).await.assert_table("ok", "");
    app.fixture
        .db
        .execute(r#"DROP INDEX "User_lower_idx"; CREATE INDEX ON "User" (lower(email))"#)
        .await;
    check(&app).await.assert_table("ok", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_configurations_that_disagree_are_a_warning() {
    let app = AppTable::new(5, USER_TABLE, USER_MAPPING).await;
    app.once().await.assert_exit(Exit::Ok);
    check(&app).await.assert_table("ok", "");
    let other = USER_MAPPING.replace("'USER'", "'ADMIN'");
    app.set_mapping(&other);
    check(&app)
        .await
        .assert_table("warn", "agrees with another mapping")
        .assert_hint("use one for both");
    app.set_mapping(USER_MAPPING);
    check(&app).await.assert_table("ok", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_that_fails_on_some_users_names_the_first() {
    let mapping = USER_MAPPING.replace("'USER'", "upper(u.public_metadata->>'role')");
    let app = AppTable::new(40, USER_TABLE, "").await;
    let mut ids = app.fixture.sim.user_ids();
    ids.sort();
    for id in &ids {
        let role = if [&ids[29], &ids[17]].contains(&id) {
            "guest"
        } else {
            "user"
        };
        app.fixture
            .sim
            .update(id, |user| user["public_metadata"] = serde_json::json!({ "role": role }));
    }
    app.once().await.assert_exit(Exit::Ok);
    app.set_mapping(&mapping);
    let first = app
        .fixture
        .db
        .text("SELECT min(id) FROM clerk.users WHERE public_metadata->>'role' = 'guest'")
        .await
        .unwrap();
    let checked = check(&app).await;
    checked
        .assert_table("failed", &format!(r#""role" in [tables.insert] fails on {first}"#))
        .assert_table("failed", "invalid input value for enum")
        .assert_hint(&format!("WHERE id = '{first}'"));
    assert!(!checked.ran.stdout.contains("GUEST"), "{checked:#?}");
    // Users that have no row are not tried.
    app.set_mapping(&mapping.replace(
        "[tables.set]",
        "where = \"u.public_metadata->>'role' = 'user'\"\n[tables.set]",
    ));
    check(&app).await.assert_table("ok", "tried on 38 users");
    app.set_mapping(&mapping.replace(
        "[tables.set]",
        "where = \"1 / strpos(u.public_metadata->>'role', 'user') = 1\"\n[tables.set]",
    ));
    check(&app)
        .await
        .assert_table("failed", &format!("where fails on {first}"))
        .assert_table("failed", "division by zero");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_that_writes_is_left_to_the_sync() {
    let sql = format!("{USER_TABLE} CREATE SEQUENCE numbers");
    let mapping = USER_MAPPING.replace("clerk.cuid()", "nextval('public.numbers')");
    let app = AppTable::new(5, &sql, &mapping).await;
    app.once().await.assert_exit(Exit::Ok);
    check(&app).await.assert_table("ok", "tried on 5 users");
    let called = app.fixture.db.number("SELECT last_value FROM numbers").await;
    assert_eq!(called, 5, "once per row, and never by a check");
}
