//! Tables as applications have them, each with a random history of users: after each sync the table
//! is what Clerk's users make of it.

use fastrand::Rng;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    app_table::AppTable,
    changes::{now, set_address},
    process::Process,
    summary::Exit,
    wait::eventually,
};

/// Only the test asks for syncs. Small instances lose a large part of their users in a history.
const SETTINGS: &str = "
    [schedule]
    full = ''
    incremental = ''
    [deletes]
    min_count = 100000";

/// Clerk's users as the test sees them, without the mirror. `seen` and `seen_addresses` have
/// those of all steps so far.
const AT_CLERK: &str = "
    CREATE TEMP TABLE at_clerk (
        id text, email text, phone text, first text, last text, handle text, image text, role text, banned boolean);
    CREATE TEMP TABLE seen (id text PRIMARY KEY);
    CREATE TEMP TABLE seen_addresses (email text PRIMARY KEY)";

/// A table of an application, its mapping, and what it has to contain.
struct Shape {
    schema: &'static str,
    mapping: &'static str,
    /// The rows that the table has to have, as SQL over the tables of [`AT_CLERK`].
    expected: &'static str,
    /// The rows that the table has, with the same columns.
    actual: &'static str,
    /// The users whose rows the table refuses.
    rejected: &'static str,
}

/// No user's row is refused.
const NO_USER: &str = "SELECT id FROM at_clerk WHERE false";

const CLERK_ID_AS_KEY: Shape = Shape {
    schema: r"CREATE TABLE users (id text PRIMARY KEY, email text UNIQUE NOT NULL, username text)",
    mapping: r#"
        [[tables]]
        name = "users"
        key = "id"
        where = "u.primary_email IS NOT NULL"
        [tables.set]
        email = "u.primary_email"
        username = "u.username""#,
    expected: "SELECT id, email, handle FROM at_clerk WHERE email IS NOT NULL",
    actual: "SELECT id, email, username FROM users",
    rejected: NO_USER,
};

const CUID_KEY: Shape = Shape {
    schema: r#"
        CREATE TABLE "User" (
            id text PRIMARY KEY, "clerkId" text NOT NULL, email text, name text NOT NULL,
            "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, "updatedAt" timestamp(3) NOT NULL);
        CREATE UNIQUE INDEX "User_clerkId_key" ON "User" ("clerkId")"#,
    mapping: r#"
        [[tables]]
        name = "User"
        key = "clerkId"
        [tables.set]
        email = "u.primary_email"
        name = "coalesce(u.full_name, u.username, split_part(u.primary_email, '@', 1), '')"
        [tables.insert]
        id = "clerk.cuid()"
        [tables.touch]
        updatedAt = "now()""#,
    expected: "
        SELECT id, email, true, CASE
            WHEN first IS NOT NULL AND last IS NOT NULL THEN first || ' ' || last
            WHEN first IS NOT NULL THEN first
            WHEN last IS NOT NULL THEN last
            WHEN handle IS NOT NULL THEN handle
            WHEN email IS NOT NULL THEN left(email, position('@' IN email) - 1)
            ELSE '' END
        FROM at_clerk",
    actual: r#"SELECT "clerkId", email, id ~ '^[a-z][a-z0-9]{23}$', name FROM "User""#,
    rejected: NO_USER,
};

const UUID_KEY: Shape = Shape {
    schema: r#"
        CREATE TYPE user_role AS ENUM ('user', 'admin');
        CREATE TABLE users (
            id uuid PRIMARY KEY DEFAULT gen_random_uuid(), clerk_id text NOT NULL UNIQUE, email text NOT NULL UNIQUE,
            image_url text, role user_role NOT NULL DEFAULT 'user', "deletedAt" timestamptz)"#,
    mapping: r#"
        [[tables]]
        name = "users"
        key = "clerk_id"
        delete = "update"
        [tables.set]
        email = "coalesce(u.primary_email, u.id)"
        deletedAt = "NULL"
        [tables.keep]
        image_url = "u.image_url"
        [tables.deleted]
        deletedAt = "now()"
        email = "'gone-' || u.id"
        image_url = "NULL""#,
    expected: "
        SELECT id, coalesce(email, id), image, 'user', false FROM at_clerk
        UNION ALL
        SELECT id, 'gone-' || id, NULL, 'user', true FROM seen WHERE id NOT IN (SELECT id FROM at_clerk)",
    actual: r#"SELECT clerk_id, email, image_url, role::text, "deletedAt" IS NOT NULL FROM users"#,
    rejected: NO_USER,
};

const IDENTITY_KEY: Shape = Shape {
    schema: r"
        CREATE TABLE members (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id text NOT NULL UNIQUE,
            first_name varchar(128) NOT NULL, last_name varchar(128) NOT NULL, org_id text)",
    mapping: r#"
        [[tables]]
        name = "members"
        key = "user_id"
        [tables.set]
        first_name = "left(coalesce(u.first_name, ''), 128)"
        last_name = "coalesce(u.last_name, '-')""#,
    // A last name of more than 128 characters does not fit, and the mapping does not cut it off.
    expected: "
        SELECT id, CASE WHEN first IS NULL THEN '' ELSE substring(first FROM 1 FOR 128) END,
            CASE WHEN last IS NULL THEN '-' ELSE last END, NULL
        FROM at_clerk WHERE last IS NULL OR length(last) <= 128",
    actual: "SELECT user_id, first_name, last_name, org_id FROM members",
    rejected: "SELECT id FROM at_clerk WHERE length(last) > 128",
};

const INVITED_FIRST: Shape = Shape {
    schema: r#"
        CREATE TABLE people (
            id serial PRIMARY KEY, "clerkId" text UNIQUE, email text UNIQUE NOT NULL, invited_by text);
        INSERT INTO people (email, invited_by)
            SELECT 'user' || n || '@x.test', 'boss' FROM generate_series(3, 300, 3) AS n"#,
    mapping: r#"
        [[tables]]
        name = "people"
        key = "clerkId"
        where = "u.primary_email IS NOT NULL"
        link = "email"
        [tables.set]
        email = "u.primary_email""#,
    // An invitation stays until somebody has its address, and then becomes the row of that user.
    expected: "
        SELECT id, email FROM at_clerk WHERE email IS NOT NULL
        UNION ALL
        SELECT NULL, address FROM generate_series(3, 300, 3) AS n, concat('user', n, '@x.test') AS address
        WHERE address NOT IN (SELECT email FROM seen_addresses)",
    actual: r#"SELECT "clerkId", email FROM people"#,
    rejected: NO_USER,
};

const PHONE_AND_ROLE: Shape = Shape {
    schema: r"
        CREATE TABLE customers (
            id uuid PRIMARY KEY DEFAULT gen_random_uuid(), clerk_id text NOT NULL UNIQUE, phone text NOT NULL UNIQUE,
            role text NOT NULL CHECK (role IN ('ADMIN', 'MEMBER')))",
    mapping: r#"
        [[tables]]
        name = "customers"
        key = "clerk_id"
        [tables.set]
        phone = "u.primary_phone"
        role = """CASE WHEN upper(u.public_metadata->>'role') IN ('ADMIN', 'MEMBER')
            THEN upper(u.public_metadata->>'role') ELSE 'MEMBER' END""""#,
    expected: "
        SELECT id, phone, CASE WHEN lower(role) = 'admin' THEN 'ADMIN' ELSE 'MEMBER' END
        FROM at_clerk WHERE phone IS NOT NULL",
    actual: "SELECT clerk_id, phone, role FROM customers",
    rejected: "SELECT id FROM at_clerk WHERE phone IS NULL",
};

const ACCOUNT_AND_PROFILE: Shape = Shape {
    schema: r"
        CREATE TABLE account (clerk_id text PRIMARY KEY, email text);
        CREATE TABLE profile (
            id serial PRIMARY KEY, account_id text NOT NULL UNIQUE REFERENCES account, display_name text NOT NULL)",
    mapping: r#"
        [[tables]]
        name = "account"
        key = "clerk_id"
        [tables.set]
        email = "u.primary_email"
        [[tables]]
        name = "profile"
        key = "account_id"
        [tables.set]
        display_name = "coalesce(u.username, 'anonymous')""#,
    expected: "SELECT id, email, CASE WHEN handle IS NULL THEN 'anonymous' ELSE handle END FROM at_clerk",
    actual: "SELECT clerk_id, email, display_name FROM account FULL JOIN profile ON account_id = clerk_id",
    rejected: NO_USER,
};

const STATUS: Shape = Shape {
    schema: r"
        CREATE TABLE app_users (
            id serial PRIMARY KEY, external_user_id text NOT NULL UNIQUE, email text,
            status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'banned', 'deleted')))",
    mapping: r#"
        [[tables]]
        name = "app_users"
        key = "external_user_id"
        delete = "update"
        [tables.set]
        email = "u.primary_email"
        status = "CASE WHEN u.banned THEN 'banned' ELSE 'active' END"
        [tables.deleted]
        email = "NULL"
        status = "'deleted'""#,
    expected: "
        SELECT id, email, CASE WHEN banned THEN 'banned' ELSE 'active' END FROM at_clerk
        UNION ALL
        SELECT id, NULL, 'deleted' FROM seen WHERE id NOT IN (SELECT id FROM at_clerk)",
    actual: "SELECT external_user_id, email, status FROM app_users",
    rejected: NO_USER,
};

/// A random history of users at Clerk.
struct History {
    app: AppTable,
    shape: Shape,
    dice: Rng,
    seed: u64,
    /// The number of users, addresses and phone numbers so far: each is used once.
    count: usize,
    /// The users of the last step that are still at Clerk.
    settled: Vec<String>,
}

impl History {
    async fn new(shape: Shape, seed: u64) -> Self {
        let mapping = format!("{SETTINGS}\n{}", shape.mapping);
        let app = AppTable::new(1, shape.schema, &mapping).await;
        app.fixture.db.execute(AT_CLERK).await;
        let mut history = Self {
            app,
            shape,
            dice: Rng::with_seed(seed),
            seed,
            count: 0,
            settled: Vec::new(),
        };
        let first = history.app.fixture.sim.user_ids();
        for _ in 0..12 {
            history.create(None);
        }
        assert!(history.app.fixture.sim.delete(&first[0]));
        history
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Value)) {
        assert!(self.app.fixture.sim.update(id, change), "{id}, seed {}", self.seed);
    }

    fn document(&self, id: &str) -> Value {
        self.app.fixture.sim.document(id).unwrap()
    }

    /// Creates a user with this address, or with one of its own.
    fn create(&mut self, address: Option<String>) {
        self.count += 1;
        let sim = &self.app.fixture.sim;
        let id = format!("user_{:016x}{}", self.seed, self.count);
        let mut user = sim.document(&sim.user_ids()[0]).unwrap();
        user["id"] = id.clone().into();
        user["created_at"] = now().into();
        user["updated_at"] = now().into();
        user["banned"] = false.into();
        sim.insert(user);
        set_address(
            &self.app.fixture,
            &id,
            &address.unwrap_or(format!("user{}@x.test", self.count)),
        );
        self.set_phone(&id);
        self.describe(&id);
    }

    /// Gives a user a phone number of its own, or none.
    fn set_phone(&mut self, id: &str) {
        self.count += 1;
        let (number, has_one) = (format!("+1555{:07}", self.count), self.dice.u32(0..5) > 0);
        self.change(id, |user| {
            let of_number = format!("idn_phone{number}");
            user["phone_numbers"] = json!([{
                "id": of_number, "object": "phone_number", "phone_number": number, "reserved": false,
                "verification": {"status": "verified", "strategy": "admin"}, "linked_to": [],
            }]);
            user["primary_phone_number_id"] = of_number.into();
            if !has_one {
                user["phone_numbers"] = json!([]);
                user["primary_phone_number_id"] = Value::Null;
            }
        });
    }

    /// Changes a user's names, image and role.
    fn describe(&mut self, id: &str) {
        let dice = &mut self.dice;
        let names = [
            json!("Ada"),
            json!("O'Neil \"x\" \\"),
            json!("é".repeat(200)),
            Value::Null,
        ];
        let mut any = |values: &[Value]| dice.choice(values).cloned().unwrap();
        let (first, last) = (any(&names), any(&names));
        let handle = any(&[json!(format!("handle_{id}")), Value::Null]);
        let role = any(&[json!("admin"), json!("Member"), json!("owner"), json!(7), Value::Null]);
        let image = any(&[json!("https://img.test/a"), json!("https://img.test/b")]);
        self.change(id, |user| {
            user["first_name"] = first;
            user["last_name"] = last;
            user["username"] = handle;
            user["image_url"] = image;
            user["public_metadata"] = json!({ "role": role });
        });
    }

    fn exchange_addresses(&self, one: &str, other: &str) {
        let (left, right) = (self.document(one), self.document(other));
        for (id, from) in [(one, right), (other, left)] {
            self.change(id, |user| {
                for key in ["email_addresses", "primary_email_address_id"] {
                    user[key] = from[key].clone();
                }
            });
        }
    }

    /// Deletes a user. Another one may take over the address.
    fn delete(&mut self, id: &str) {
        let address = self.address(id);
        assert!(self.app.fixture.sim.delete(id));
        self.settled.retain(|other| other != id);
        if address.is_some() && self.dice.bool() {
            self.create(address);
        }
    }

    fn address(&self, id: &str) -> Option<String> {
        let user = self.document(id);
        user["email_addresses"][0]["email_address"].as_str().map(str::to_owned)
    }

    /// Changes something at Clerk.
    fn happen(&mut self) {
        let id = self.dice.choice(&self.settled).cloned();
        match (self.dice.u32(0..100), id) {
            (0..25, _) | (_, None) => self.create(None),
            (25..45, Some(id)) => self.describe(&id),
            (45..52, Some(id)) => self.change(&id, |user| user["banned"] = (user["banned"] != true).into()),
            (52..60, Some(id)) => self.set_phone(&id),
            (60..65, Some(id)) => self.change(&id, |user| {
                user["email_addresses"] = json!([]);
                user["primary_email_address_id"] = Value::Null;
            }),
            (65..68, Some(id)) => {
                self.count += 1;
                set_address(&self.app.fixture, &id, &format!("fresh{}@x.test", self.count));
            }
            (68..85, Some(id)) => {
                let other = self.dice.choice(&self.settled).cloned().unwrap();
                self.exchange_addresses(&id, &other);
            }
            (85.., Some(id)) if self.settled.len() > 4 => self.delete(&id),
            (85.., Some(_)) => self.create(None),
        }
    }

    /// Writes down Clerk's users where the invariant reads them.
    async fn note_users(&mut self) {
        let db = &self.app.fixture.db;
        db.execute("TRUNCATE at_clerk").await;
        self.settled = self.app.fixture.sim.user_ids();
        for id in &self.settled {
            let user = self.document(id);
            let text = |value: &Value| value.as_str().map(str::to_owned);
            db.client
                .execute(
                    "INSERT INTO at_clerk VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                    &[
                        id,
                        &text(&user["email_addresses"][0]["email_address"]),
                        &text(&user["phone_numbers"][0]["phone_number"]),
                        &text(&user["first_name"]),
                        &text(&user["last_name"]),
                        &text(&user["username"]),
                        &text(&user["image_url"]),
                        &text(&user["public_metadata"]["role"]),
                        &(user["banned"] == true),
                    ],
                )
                .await
                .unwrap();
        }
        db.execute(
            "INSERT INTO seen SELECT id FROM at_clerk ON CONFLICT DO NOTHING;
             INSERT INTO seen_addresses SELECT email FROM at_clerk WHERE email IS NOT NULL ON CONFLICT DO NOTHING",
        )
        .await;
    }

    /// Returns how the table differs from what it has to be; `None` if it does not.
    async fn difference(&self) -> Option<String> {
        let Shape {
            expected,
            actual,
            rejected,
            ..
        } = &self.shape;
        // The table keeps the last row that fitted of a user whose row it refuses now.
        let sql = format!(
            "WITH rejected (id) AS ({rejected}),
             expected AS (SELECT 'row' AS what, e::text AS value FROM ({expected}) AS e
                 UNION ALL SELECT 'rejected', id FROM rejected),
             actual AS (SELECT 'row' AS what, a::text AS value FROM ({actual}) AS a (id)
                     WHERE a.id IS NULL OR a.id NOT IN (SELECT id FROM rejected)
                 UNION ALL SELECT 'rejected', object_id FROM clerk.rejected_rows)
             SELECT string_agg(sign || what || ' ' || value, E'\\n' ORDER BY value) FROM (
                 SELECT '-' AS sign, * FROM (TABLE expected EXCEPT ALL TABLE actual) AS m
                 UNION ALL SELECT '+', * FROM (TABLE actual EXCEPT ALL TABLE expected) AS n) AS d"
        );
        self.app.fixture.db.text(&sql).await
    }

    async fn full_sync(&mut self) {
        self.note_users().await;
        self.age().await;
        self.app.once().await.assert_exit(Exit::Ok);
        let difference = self.difference().await;
        assert_eq!(difference, None, "seed {}, after a full sync", self.seed);
    }

    async fn incremental_sync(&mut self) {
        self.note_users().await;
        self.age().await;
        let mut difference = None;
        let settles = eventually("the table is what it should be", async || {
            self.app.fixture.db.execute("NOTIFY clerk2pg, 'sync'").await;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            difference = self.difference().await;
            difference.is_none()
        });
        let settled = tokio::time::timeout(std::time::Duration::from_secs(30), settles).await;
        assert!(
            settled.is_ok(),
            "seed {}, after incremental syncs: {difference:#?}",
            self.seed
        );
    }

    /// Makes all rows old enough for Clerk's answers to count.
    async fn age(&self) {
        if self.app.fixture.runs("ended_at IS NOT NULL").await > 0 {
            self.app.fixture.age_rows().await;
            self.app.age_departures().await;
        }
    }

    fn changes(&mut self) {
        for _ in 0..self.dice.u32(3..12) {
            self.happen();
        }
    }

    async fn daemon(&self) -> Process {
        let ended = self.app.fixture.runs("ended_at IS NOT NULL").await;
        let config = self.app.config();
        let command = self.app.fixture.command(&["--config", config.to_str().unwrap()]);
        let daemon = Process::spawn(command);
        eventually("the daemon's first sync", async || {
            self.app.fixture.runs("ended_at IS NOT NULL").await > ended
        })
        .await;
        daemon
    }

    /// The versions of all rows of the application's tables: equal if nothing was written.
    async fn versions(&self) -> Vec<Option<String>> {
        let db = &self.app.fixture.db;
        let tables = "SELECT string_agg(oid::regclass::text, ' ' ORDER BY oid) FROM pg_class
            WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname !~ '^__'";
        let mut versions = Vec::new();
        for table in db.text(tables).await.unwrap().split(' ') {
            let sql = format!("SELECT string_agg(xmin || ' ' || ctid, ',' ORDER BY ctid) FROM {table}");
            versions.push(db.text(&sql).await);
        }
        versions
    }
}

/// Runs a history through full syncs, and through a daemon's incremental syncs.
async fn run(shape: Shape, seed: u64) -> AppTable {
    let mut history = History::new(shape, seed).await;
    history.full_sync().await;
    for _ in 0..3 {
        history.changes();
        history.full_sync().await;
    }
    let daemon = history.daemon().await;
    for _ in 0..5 {
        history.changes();
        history.incremental_sync().await;
    }
    let ran = daemon.stop(Signal::TERM).await;
    assert_eq!(ran.code, Some(0), "seed {seed}: {ran:#?}");
    history.changes();
    history.full_sync().await;
    let before = history.versions().await;
    history.full_sync().await;
    assert_eq!(
        history.versions().await,
        before,
        "seed {seed}: an unchanged full sync writes nothing"
    );
    history.app
}

#[tokio::test(flavor = "multi_thread")]
async fn clerks_id_as_key_and_a_unique_address() {
    run(CLERK_ID_AS_KEY, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cuid_as_key_and_a_name_that_is_never_missing() {
    run(CUID_KEY, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uuid_as_key_and_rows_that_are_scrubbed() {
    run(UUID_KEY, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_as_key_and_names_of_limited_length() {
    run(IDENTITY_KEY, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_who_are_invited_before_they_have_a_user() {
    let app = run(INVITED_FIRST, 5).await;
    let linked = r#"SELECT count(*) FROM people WHERE "clerkId" IS NOT NULL AND invited_by = 'boss'"#;
    assert!(
        app.fixture.db.number(linked).await > 0,
        "no invitation became a user's row"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_number_that_is_never_missing_and_a_role() {
    run(PHONE_AND_ROLE, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_and_its_profile() {
    run(ACCOUNT_AND_PROFILE, 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn serial_as_key_and_a_status() {
    run(STATUS, 8).await;
}
