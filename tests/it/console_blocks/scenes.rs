//! What is there before the commands of each block.

use clerk_sim::{Options, Sim};
use serde_json::json;

use super::scene::Scene;
use crate::{
    migrations::revert_from,
    support::{
        changes, monitored::MonitoredDaemon, organizations::ALL, process::NEVER, receiver::SECRET, roles::Role,
        summary::Exit, wait::eventually,
    },
};

/// Returns the ids of the users at Clerk, in their order.
fn ids(scene: &Scene) -> Vec<String> {
    let mut ids = scene.fixture.sim.user_ids();
    ids.sort();
    ids
}

/// A user changes the name and the metadata.
fn change(scene: &Scene, id: &str) {
    let changed = scene.fixture.sim.update(id, |user| {
        user["first_name"] = json!("Ada");
        user["public_metadata"] = json!({"plan": "pro"});
    });
    assert!(changed);
}

/// A user has this address, which is verified.
fn set_address(scene: &Scene, id: &str, address: &str) {
    changes::set_address(&scene.fixture, id, address);
}

/// Nothing is mirrored yet.
pub async fn first_sync() -> Scene {
    Scene::new(10_000).await
}

/// A user has changed, then another one was deleted.
pub async fn two_changes() -> Scene {
    let scene = Scene::mirrored(100).await;
    let ids = ids(&scene);
    change(&scene, &ids[3]);
    scene.once(Exit::Ok).await;
    scene.fixture.sim.delete(&ids[5]);
    scene.once(Exit::Ok).await;
    scene
}

/// The database mirrors the instance of seed 1, and the key is of another one.
pub async fn another_instance() -> Scene {
    let scene = Scene::mirrored(100).await;
    let options = Options {
        users: 100,
        seed: 2,
        secret_key: scene.fixture.sim.secret_key().to_owned(),
        ..Options::default()
    };
    let other = Sim::start(options).await.unwrap();
    scene.with("CLERK_API_URL", &other.url()).keep(other)
}

/// A table of users as an application with Prisma has it.
const USER: &str = r#"
    CREATE TYPE "Role" AS ENUM ('USER', 'ADMIN');
    CREATE TABLE "User" (
        id text PRIMARY KEY, "clerkId" text UNIQUE, email text NOT NULL UNIQUE, name text NOT NULL, image text, bio text,
        role "Role" NOT NULL, "createdAt" timestamp(3) NOT NULL DEFAULT now(), "updatedAt" timestamp(3) NOT NULL DEFAULT now());"#;

/// Its mapping.
const MAPPING: &str = r#"
    [[tables]]
    name = "User"
    key  = "clerkId"
    link = "email"
    [tables.set]
    email = "u.primary_email"
    name  = "u.full_name"
    [tables.insert]
    id   = "clerk.cuid()"
    role = "'USER'"
"#;

/// Rows of users whose address is known.
const ROWS: &str = r#"
    INSERT INTO "User" (id, "clerkId", email, name, role)
        SELECT 'row' || row_number() OVER (ORDER BY id), id, primary_email, full_name, 'USER' FROM clerk.users"#;

/// Each user has a name and an address of his own.
fn complete(scene: &Scene) {
    for (at, id) in ids(scene).iter().enumerate() {
        set_address(scene, id, &format!("user{at}@example.com"));
        scene.fixture.sim.update(id, |user| {
            user["first_name"] = json!("Ada");
            user["last_name"] = json!(format!("No {at}"));
        });
    }
}

/// The application's table has a row for each user.
pub async fn a_table_in_use() -> Scene {
    let scene = Scene::new(100).await;
    complete(&scene);
    scene.once(Exit::Ok).await;
    let sql = USER.replace(r#""clerkId" text"#, r#""clerkId" text NOT NULL"#);
    scene.fixture.db.execute(&format!("{sql} {ROWS}")).await;
    scene
}

/// The application's table has rows of most users, one without a key, and one of an unknown user. There is
/// no mirror.
pub async fn a_table_to_adopt() -> Scene {
    let scene = Scene::new(100).await;
    complete(&scene);
    scene.fixture.db.execute(USER).await;
    for (at, id) in ids(&scene)[..98].iter().enumerate() {
        let key = if at == 5 { "NULL".to_owned() } else { format!("'{id}'") };
        let address = if at == 7 {
            "old@example.com".to_owned()
        } else {
            format!("user{at}@example.com")
        };
        let sql = format!(
            r#"INSERT INTO "User" (id, "clerkId", email, name, role) VALUES ('row{at}', {key}, '{address}', 'Ada', 'USER')"#
        );
        scene.fixture.db.execute(&sql).await;
    }
    let sql = r#"INSERT INTO "User" (id, "clerkId", email, name, role)
                 VALUES ('row98', 'user_2R1sUqLk5m2dQ0zPj9d3tWvYxAb', 'gone@example.com', 'Gone', 'ADMIN')"#;
    scene.fixture.db.execute(sql).await;
    scene
}

/// The same after the first sync with the mapping that `init` proposes.
pub async fn an_adopted_table() -> Scene {
    let scene = a_table_to_adopt().await.initialized().await;
    scene.once(Exit::Ok).await;
    scene
}

/// The same when removals are wanted, and held.
pub async fn an_adopted_table_with_held_rows() -> Scene {
    held(an_adopted_table().await).await
}

/// The same, also for a user without an address.
pub async fn an_adopted_table_with_an_excluded_user() -> Scene {
    let scene = an_adopted_table().await;
    let changed = scene.fixture.sim.update(&ids(&scene)[9], |user| {
        user["primary_email_address_id"] = json!(null);
        user["email_addresses"] = json!([]);
    });
    assert!(changed);
    held(scene).await
}

/// Lets the mapping remove rows.
async fn held(scene: Scene) -> Scene {
    let config = std::fs::read_to_string(scene.folder.path().join("config.toml")).unwrap();
    scene.configure(&config.replace("delete = \"keep\"", "delete = \"delete\""));
    scene.once(Exit::Held).await;
    scene
}

/// A user of the mirror is new, one has changed and one is gone.
pub async fn differences() -> Scene {
    let scene = Scene::mirrored(10_000).await;
    let ids = ids(&scene);
    let mut new = scene.fixture.sim.document(&ids[0]).unwrap();
    new["id"] = json!("user_3GTZ01SibJ4PHYd5anYO4h0MBPW");
    new["created_at"] = json!(new["created_at"].as_i64().unwrap() + 1);
    scene.fixture.sim.insert(new);
    change(&scene, &ids[3]);
    scene.fixture.sim.delete(&ids[5]);
    scene
}

/// The table has a row with an old name, one without a key, and one of an unknown user.
pub async fn differences_of_a_table() -> Scene {
    let scene = Scene::new(100).await;
    complete(&scene);
    scene.once(Exit::Ok).await;
    let ids = ids(&scene);
    let sql = format!(
        r#"{USER} {ROWS};
        UPDATE "User" SET name = 'Grace' WHERE "clerkId" = '{}';
        UPDATE "User" SET "clerkId" = NULL WHERE "clerkId" = '{}';
        INSERT INTO "User" (id, "clerkId", email, name, role)
            VALUES ('row0', 'user_2R1sUqLk5m2dQ0zPj9d3tWvYxAb', 'gone@example.com', 'Gone', 'USER')"#,
        ids[3], ids[5]
    );
    scene.fixture.db.execute(&sql).await;
    scene.configure(MAPPING);
    scene
}

/// The endpoint answers 500. Eight attempts at another event have failed already.
pub async fn an_endpoint_in_trouble() -> Scene {
    let scene = Scene::mirrored(100).await;
    let ids = ids(&scene);
    // The events have these numbers.
    for (id, number) in ids[10..15].iter().zip([977, 1040, 1041, 1042, 1043]) {
        let sql = format!("SELECT setval('clerk.events_id_seq', {number}, false)");
        scene.fixture.db.execute(&sql).await;
        change(&scene, id);
        scene.once(Exit::Ok).await;
    }
    let endpoint = "[[endpoints]]\nname = \"app\"\nurl = \"http://127.0.0.1:3000/api/webhooks/clerk\"\n";
    scene.configure(endpoint);
    let sql = "INSERT INTO clerk.endpoints (name, url_digest, types, position, last_attempt_at, last_status, last_error, delivered_at)
             SELECT 'app', '', '{user.created,user.updated,user.deleted}', 1042, now() - interval '4 s', 500, 'it answered 500', now() - interval '41 s';
         INSERT INTO clerk.deliveries (endpoint, resource, object_id, event_id, attempts, next_attempt_at, waiting_since, dead_at, last_error)
             SELECT 'app', 'users', object_id, id, 2, now() + interval '1 min', now() - interval '41 s', NULL, 'it answered 500'
             FROM clerk.events WHERE id IN (1040, 1042)
             UNION ALL
             SELECT 'app', 'users', object_id, id, 8, NULL, now() - interval '2 h', now() - interval '2 h', 'it answered 400'
             FROM clerk.events WHERE id = 977";
    scene.fixture.db.execute(sql).await;
    scene.with("CLERK_WEBHOOK_SIGNING_SECRET", SECRET)
}

/// More users are gone than may be deleted.
pub async fn held_deletions() -> Scene {
    let scene = Scene::mirrored(1_000).await;
    for id in &ids(&scene)[..600] {
        scene.fixture.sim.delete(id);
    }
    scene.once(Exit::Held).await;
    scene
}

/// Two daemons run. The command's role lacks a right.
pub async fn a_missing_right() -> Scene {
    let scene = Scene::mirrored(10_000).await;
    let fixture = &scene.fixture;
    let role = Role::new(fixture).await;
    let name = &role.name;
    let sql = format!(
        "GRANT USAGE ON SCHEMA clerk TO {name};
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA clerk TO {name};
         GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA clerk TO {name};
         REVOKE DELETE ON clerk.users FROM {name}"
    );
    fixture.db.execute(&sql).await;
    let patient = ("CLERK2PG_LEASE__TTL", "15s");
    let leader = MonitoredDaemon::start(fixture, &[ALL, NEVER, patient]).await;
    leader.wait_until_ready("in sync").await;
    let standby = fixture.start_daemon(&[ALL, NEVER, patient]);
    let stands_by = "SELECT count(*) FROM clerk.standbys";
    eventually("a daemon stands by", async || fixture.db.number(stands_by).await > 0).await;
    let owner = fixture.db.text("SELECT 'as ' || current_user || ':'").await.unwrap();
    scene
        .with_role(role)
        .with_daemons(leader, standby)
        .showing(owner, "as admin:")
}

/// The application has changed rows of its table, one user has no name, and one row is of an unknown
/// user.
pub async fn a_rejected_row() -> Scene {
    let scene = Scene::new(100).await;
    complete(&scene);
    scene.once(Exit::Ok).await;
    let ids = ids(&scene);
    let sql = format!(
        r#"{USER} {ROWS};
        INSERT INTO "User" (id, "clerkId", email, name, role)
            VALUES ('row0', 'user_2R1sUqLk5m2dQ0zPj9d3tWvYxAb', 'gone@example.com', 'Gone', 'USER')"#
    );
    scene.fixture.db.execute(&sql).await;
    scene.configure(MAPPING);
    scene.once(Exit::Held).await;
    let sql = format!(
        r#"UPDATE "User" SET name = 'Grace' WHERE "clerkId" IN ('{}', '{}', '{}')"#,
        ids[7], ids[8], ids[9]
    );
    scene.fixture.db.execute(&sql).await;
    scene.fixture.sim.update(&ids[3], |user| {
        user["first_name"] = json!(null);
        user["last_name"] = json!(null);
    });
    scene.once(Exit::Held).await;
    scene
}

/// The last migration is not applied.
pub async fn older_schema() -> Scene {
    let scene = Scene::mirrored(100).await;
    revert_from(&scene.fixture.db, "20261129000002").await;
    scene
}

/// The database has a migration of a later version.
pub async fn newer_schema() -> Scene {
    let scene = Scene::mirrored(100).await;
    let sql = "INSERT INTO clerk.__diesel_schema_migrations (version) VALUES ('20270315000001')";
    scene.fixture.db.execute(sql).await;
    scene
}
