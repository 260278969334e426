//! Tables of a role with an unusual search path, whose triggers rely on it, and columns whose values
//! ignore case.

use crate::support::{
    app_table::AppTable, changes::set_address, fixture::Fixture, program::ProgramOutput, roles::Role, summary::Exit,
};

/// Two schemas: one has a comma in its name. The triggers and a default use names without a schema.
/// A table with the name of the mapped one comes first in `public`.
const SCHEMAS: &str = r#"
    CREATE SCHEMA app;
    CREATE SCHEMA "app, other";
    CREATE TABLE public.accounts (clerk_id text PRIMARY KEY, email text, name text, place text);
    CREATE FUNCTION "app, other".place() RETURNS text LANGUAGE sql AS $$ SELECT 'here' $$;
    CREATE TABLE "app, other".audit (event text, clerk_id text);
    CREATE TABLE app.accounts (clerk_id text PRIMARY KEY, email EMAIL UNIQUE, name text, place text);
    CREATE FUNCTION app.watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO audit VALUES (TG_OP, coalesce(NEW.clerk_id, OLD.clerk_id));
        IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
        NEW.place := place();
        RETURN NEW;
    END $$;
    CREATE TRIGGER watch BEFORE INSERT OR UPDATE OR DELETE ON app.accounts FOR EACH ROW EXECUTE FUNCTION app.watch();
    CREATE FUNCTION app.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO audit VALUES (TG_OP || ' ' || TG_WHEN);
        RETURN NULL;
    END $$;
    CREATE TRIGGER note_before BEFORE INSERT OR UPDATE OR DELETE ON app.accounts EXECUTE FUNCTION app.note();
    CREATE TRIGGER note_after AFTER INSERT OR UPDATE OR DELETE ON app.accounts EXECUTE FUNCTION app.note();"#;

const MAPPING: &str = "
    [[tables]]
    schema = 'app'
    name = 'accounts'
    key = 'clerk_id'
    [tables.set]
    email = 'u.primary_email'
    name = 'u.first_name'";

async fn once(app: &AppTable, role: &Role) -> ProgramOutput {
    let config = app.config();
    let arguments = ["--config", config.to_str().unwrap(), "--once", "--format", "json"];
    role.run(&app.fixture, &arguments).await
}

/// Keeps a table in sync as a role with this search path.
async fn check(path: &str) {
    let fixture = Fixture::new(6).await;
    let role = Role::new(&fixture).await;
    let database = fixture.db.text("SELECT current_database()").await.unwrap();
    let grants = format!(
        r#"{schemas}
        ALTER ROLE {name} IN DATABASE {database} SET search_path = {path};
        GRANT CREATE ON DATABASE {database} TO {name};
        GRANT USAGE ON SCHEMA app, "app, other" TO {name};
        GRANT ALL ON app.accounts, "app, other".audit TO {name};"#,
        schemas = SCHEMAS.replace("email EMAIL", "email text"),
        name = role.name
    );
    let app = AppTable::with(fixture, &grants, MAPPING).await;
    let db = &app.fixture.db;
    let ids = app.fixture.sim.user_ids();
    once(&app, &role).await.assert_exit(Exit::Ok);
    let right = "SELECT count(*) FROM clerk.users u JOIN app.accounts a ON a.clerk_id = u.id
        WHERE a.place = 'here' AND a.name IS NOT DISTINCT FROM u.first_name AND a.email IS NOT DISTINCT FROM u.primary_email";
    assert_eq!(db.number(right).await, 6, "{path}");

    app.fixture.age_rows().await;
    app.fixture.rename(&ids[0], "Ada");
    // Two rows exchange a unique value behind savepoints.
    set_address(&app.fixture, &ids[1], "a@x.test");
    set_address(&app.fixture, &ids[2], "b@x.test");
    once(&app, &role).await.assert_exit(Exit::Ok);
    set_address(&app.fixture, &ids[1], "b@x.test");
    set_address(&app.fixture, &ids[2], "a@x.test");
    app.fixture.sim.delete(&ids[3]);
    once(&app, &role).await.assert_exit(Exit::Ok);
    assert_eq!(db.number(right).await, 5, "{path}");
    let events =
        "SELECT string_agg(DISTINCT event, ' ' ORDER BY event) FROM \"app, other\".audit WHERE clerk_id IS NOT NULL";
    assert_eq!(db.text(events).await.as_deref(), Some("DELETE INSERT UPDATE"), "{path}");
    let statements = "SELECT count(DISTINCT event) FROM \"app, other\".audit WHERE clerk_id IS NULL";
    assert_eq!(db.number(statements).await, 6, "{path}");
    assert_eq!(db.number("SELECT count(*) FROM clerk.rejected_rows").await, 0, "{path}");
    assert_eq!(db.number("SELECT count(*) FROM public.accounts").await, 0, "{path}");
    role.end(&app.fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn triggers_find_names_in_the_search_path_of_the_role() {
    check(r#"app, "app, other""#).await;
    check("'app, other'").await;
}

/// The type of a column that ignores case: of the extension if the server has it, else a domain.
async fn insensitive(app: &Fixture) -> &'static str {
    let has_it = "SELECT count(*) FROM pg_available_extensions WHERE name = 'citext'";
    match app.db.number(has_it).await {
        0 => "CREATE DOMAIN public.email AS text CHECK (VALUE <> '');",
        _ => "CREATE EXTENSION citext SCHEMA public; CREATE DOMAIN public.email AS public.citext;",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_ignore_case_are_compared_linked_and_exchanged() {
    let fixture = Fixture::new(4).await;
    let kind = insensitive(&fixture).await;
    let ignores_case = kind.contains("citext");
    let column = if ignores_case { "public.citext" } else { "public.email" };
    let table = format!(
        "{kind} CREATE SCHEMA app; CREATE TABLE app.accounts (clerk_id text UNIQUE, email {column} UNIQUE NOT NULL, name text)"
    );
    let mapping = MAPPING.replace("key = 'clerk_id'", "key = 'clerk_id'\n    link = 'email'");
    let app = AppTable::with(fixture, &table, &mapping).await;
    let ids = app.fixture.sim.user_ids();
    for (id, letter) in ids.iter().zip(["A", "B", "C", "D"]) {
        set_address(&app.fixture, id, &format!("{letter}@x.test"));
    }
    let db = &app.fixture.db;
    app.once().await.assert_exit(Exit::Ok);
    db.execute("INSERT INTO app.accounts (email) VALUES ('Invited@X.test')")
        .await;
    let invited = app.fixture.sim.create_random();
    set_address(&app.fixture, &invited, "invited@x.test");
    set_address(&app.fixture, &ids[0], "B@x.test");
    set_address(&app.fixture, &ids[1], "A@x.test");
    app.once().await.assert_exit(Exit::Ok);
    let right = "SELECT count(*) FROM clerk.users u JOIN app.accounts a ON a.clerk_id = u.id
        AND lower(a.email::text) = lower(u.primary_email)";
    assert_eq!(db.number(right).await, 5);
    assert_eq!(db.number("SELECT count(*) FROM app.accounts").await, 5);
    assert_eq!(db.number("SELECT count(*) FROM clerk.rejected_rows").await, 0);
    let versions = "SELECT string_agg(xmin::text, ',' ORDER BY clerk_id) FROM app.accounts";
    let before = db.text(versions).await;
    app.once().await.assert_exit(Exit::Ok);
    assert_eq!(db.text(versions).await, before, "an unchanged sync writes nothing");
}
